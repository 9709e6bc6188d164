"""Who writes the texts, and how: the section `generation` of a configuration."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from mars_core.config import ByContent, Configuration, Operational
from mars_core.extensions import PluginSection
from mars_core.generation.backends.backend import BACKENDS, Backend, Capability
from mars_core.generation.instructions import Prompts
from mars_core.generation.interface import Request, Role

BYTES_PER_TOKEN = 3
"""Least bytes a token has in most languages and vocabularies, so that a length in tokens is not
underestimated."""
SPARE_TOKENS = 32
"""What a text may be longer than its source however short that is."""
STEP_TOKENS = 16
"""Limits are multiples of it, so that texts of like length can share a batch."""


class Sampling(Configuration):
    """How a model draws its tokens; every field is sent, for servers apply hidden defaults otherwise."""

    temperature: float = Field(default=0.8, gt=0)
    """Flatness of the token distribution; above 0, because samples of one text must differ."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability mass that tokens are drawn from."""
    max_tokens: int = Field(default=512, gt=0)
    """Length limit of one text in tokens. Of a rewrite that reaches it the whole sentences are used; any
    other text is dropped."""
    max_growth: float = Field(default=2.0, gt=0)
    """Limit by the source's length: so many times its tokens, at three bytes each, and 32 more."""


class ParaphraseSampling(Sampling):
    """Paraphrases stay near the likely words."""

    top_p: float = Field(default=0.95, gt=0, le=1)
    """Share of the probability mass that tokens are drawn from."""


class RejectedRewriteSampling(Sampling):
    """Rewrites of the rejected response may wander farther."""

    temperature: float = Field(default=0.9, gt=0)
    """Flatness of the token distribution; above 0, because samples of one text must differ."""


class ResponseSampling(Sampling):
    """Responses are as various as the model has them."""

    temperature: float = Field(default=1.0, gt=0)
    """Flatness of the token distribution; above 0, because samples of one text must differ."""


class LaunchConfig(Configuration):
    """Servers of the run's own: started when the first text is needed, gone before the fit.

    By default it is one, on this machine. With `replicas` they are on the nodes of a Ray cluster.
    """

    command: str = ".venv-vllm/bin/python -m vllm.entrypoints.openai.api_server"
    """What starts the server, in an environment of its own: a relative path is looked for in the working
    folder, then beside the environment that runs this. It gets --model, --host and --port as well, and where
    there is no NVIDIA GPU what vLLM needs on a CPU."""
    arguments: str = ""
    """Further arguments of it, such as `--max-model-len 4096 --tensor-parallel-size 2`. By default vLLM takes
    most of a GPU, and ends where that is not free: on the run's own GPU, where the reward model and the
    embedder stay and grow with their batches, leave them room by `--gpu-memory-utilization 0.7`."""
    start_seconds: float = Field(default=1800.0, gt=0)
    """How long it may take until it answers: it may have to fetch the model first."""
    replicas: int | None = Field(default=None, ge=1)
    """Servers on the nodes of the Ray cluster that RAY_ADDRESS names, or else that of this machine. One that
    ends is replaced while the others go on. Each listens on its node's address."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs of a replica, as many as `--tensor-parallel-size` in `arguments` says; by default 1 where the
    cluster has some, else 0."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs of a replica; by default 1 beside a GPU, else all of the smallest node."""


class GenerationConfig(PluginSection):
    """Who writes paraphrases and rewrites, and how; `options` are the backend's own keys."""

    options_field: ClassVar[str | None] = "options"
    renamed: ClassVar[Mapping[str, str]] = {
        key: f"generation.options.{key}"
        for key in (
            "base_url", "extra_body", "api_key_env", "concurrency", "timeout_seconds", "patience_seconds",
            "prefix", "beams", "batch_tokens", "device",
        )
    }  # fmt: skip

    backend: Annotated[str, BACKENDS] = "rules"
    """What writes the texts: `rules` needs no model, `vllm` asks OpenAI-compatible servers, `transformers`
    loads the model into this process. Or a class of your own, as module:attribute."""
    model: Annotated[str | None, ByContent()] = None
    """Name of the served model with `vllm`; folder, package://NAME or hub/name@revision with `transformers`,
    and where the run launches the server."""
    prompts: Annotated[str, Operational()] = "standard"
    """What the model is told: `standard`, `small` for models under a few billion parameters, or a folder of
    your own with a file for each role. Its wording, not its name, counts in the keys of steps."""
    paraphrase_prompt: ParaphraseSampling = ParaphraseSampling()
    """Sampling of paraphrases of the prompt."""
    paraphrase_chosen: ParaphraseSampling = ParaphraseSampling()
    """Sampling of paraphrases of the chosen response."""
    paraphrase_rejected: ParaphraseSampling = ParaphraseSampling()
    """Sampling of paraphrases of the rejected response."""
    rewrite_rejected: RejectedRewriteSampling = RejectedRewriteSampling()
    """Sampling of rewrites of the rejected response."""
    rewrite_chosen: Sampling = Sampling()
    """Sampling of rewrites of the chosen response."""
    respond: ResponseSampling = ResponseSampling()
    """Sampling of responses to a prompt, which the baseline West-of-N asks for."""
    launch: Annotated[LaunchConfig | None, Operational()] = None
    """Start the server for this run, wherever `options` say that it is; `{}` is the one that `make vllm`
    installs."""
    max_failed_share: Annotated[float, Operational(), Field(ge=0, le=1)] = 0.05
    """Share of failed requests, of all including stored ones, above which generation stops with an error."""
    offline: Annotated[bool, Operational()] = False
    """Take every text from the store; one that is missing is an error."""
    store: Annotated[str, Operational()] = "generations"
    """Folder of the store of requests and answers, shared by rounds, runs and seeds."""

    options: SerializeAsAny[Configuration] = Configuration()
    """The backend's own keys."""

    @field_validator("prompts")
    @classmethod
    def _can_be_used(cls, name: str) -> str:
        Prompts.read(name)
        return name

    @model_validator(mode="after")
    def _fits_the_backend(self) -> "GenerationConfig":
        if self.by_language_model and not self.model:
            raise ValueError(
                f"generation.model is not set: backend {self.backend} needs a model, "
                "as in generation.model=Qwen/Qwen3-8B"
            )
        if self.launch and "server" not in self.capabilities:
            raise ValueError(
                f"generation.launch starts a server, and the backend {self.backend} asks none: set "
                "generation.backend=vllm"
            )
        return self

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the backend can do."""
        return BACKENDS.find(self.backend).capabilities

    @property
    def by_language_model(self) -> bool:
        """Whether a language model writes the texts."""
        return BACKENDS.find(self.backend).needs_model

    @property
    def generator(self) -> str:
        """What the column `generator` of a synthetic pair says, and the report."""
        return f"{self.backend}:{self.model}" if self.by_language_model else self.backend

    def sampling(self, role: Role) -> Sampling:
        """The sampling that a request of this role is sent with."""
        sampling: Sampling = getattr(self, role)
        return sampling

    def max_tokens(self, request: Request) -> int:
        """The length limit of each sample of a request, in tokens."""
        sampling = self.sampling(request.role)
        if request.role == "respond":
            return sampling.max_tokens
        grown = sampling.max_growth * len(request.source.encode()) / BYTES_PER_TOKEN + SPARE_TOKENS
        return min(sampling.max_tokens, STEP_TOKENS * math.ceil(grown / STEP_TOKENS))

    @cached_property
    def instructions(self) -> Prompts:
        """The templates that `prompts` names."""
        return Prompts.read(self.prompts)

    @property
    def told(self) -> Prompts | None:
        """The templates, where a language model reads them."""
        return self.instructions if self.by_language_model else None

    def identity(self) -> dict[str, str]:
        """See `Configuration.identity`; the wording of the prompts counts wherever it stands."""
        return super().identity() | ({"prompts": self.told.digest} if self.told else {})

    def open(self) -> Backend:
        """The backend with its options."""
        backend: Backend = super().open()
        return backend
