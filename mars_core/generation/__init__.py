"""Generated texts: paraphrases and rewrites from an exchangeable backend, every answer kept in a store.

A backend is a module of this package with a function `open_backend(config)`; its module name in
`GenerationConfig.backend` is all that makes it known.
"""

import importlib
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from mars_core.config import Address, Configuration, Operational
from mars_core.generation.generator import GenerationCounts, Generator
from mars_core.generation.interface import (
    CUT_OFF,
    Answer,
    Backend,
    GenerationError,
    Message,
    Request,
    Role,
)
from mars_core.generation.store import GenerationStore

__all__ = [
    "CUT_OFF",
    "Answer",
    "Backend",
    "GenerationConfig",
    "GenerationCounts",
    "GenerationError",
    "GenerationStore",
    "Generator",
    "LaunchConfig",
    "Message",
    "Request",
    "Role",
    "Sampling",
    "open_backend",
]


class Sampling(Configuration):
    """How a model draws its tokens; every field is sent, for servers apply hidden defaults otherwise."""

    temperature: float = Field(default=0.8, gt=0)
    """Flatness of the token distribution; above 0, because samples of one text must differ."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability mass that tokens are drawn from."""
    max_tokens: int = Field(default=512, gt=0)
    """Length limit of one text in tokens; a text that reaches it is cut off and not used."""


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
    """A vLLM server of the run's own: started when the first text is needed, gone before the fit."""

    command: str = ".venv-vllm/bin/python -m vllm.entrypoints.openai.api_server"
    """What starts the server, in an environment of its own; gets --model, --host and --port as well."""
    arguments: str = ""
    """Further arguments of it, such as `--max-model-len 4096 --tensor-parallel-size 2`. By default vLLM takes
    most of a GPU, and ends where that is not free: on the run's own GPU, where the reward model and the
    embedder stay and grow with their batches, leave them room by `--gpu-memory-utilization 0.7`."""
    start_seconds: float = Field(default=1800.0, gt=0)
    """How long it may take until it answers: it may have to fetch the model first."""


class GenerationConfig(Configuration):
    """Who writes paraphrases and rewrites, and how."""

    backend: Literal["rules", "vllm", "transformers"] = "rules"
    """What writes the texts: `rules` needs no model, `vllm` asks OpenAI-compatible servers, `transformers`
    loads the model into this process."""
    model: str | None = None
    """Name of the served model with `vllm`; folder or hub/name@revision with `transformers`."""
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
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of every request to a server, as `{chat_template_kwargs: {enable_thinking: false}}`;
    null takes one away."""
    prefix: str = "paraphrase: "
    """What a seq2seq paraphraser expects before its text."""
    beams: int = Field(default=5, ge=1)
    """Beams of a seq2seq paraphraser for the first draw of a text; further draws are sampled."""
    base_url: Annotated[Address | Annotated[tuple[Address, ...], Field(min_length=1)], Operational()] = (
        "http://127.0.0.1:8000/v1"
    )
    """Address of the server, up to and including its version, or a list of addresses of equal servers."""
    launch: Annotated[LaunchConfig | None, Operational()] = None
    """Start the server for this run, in place of `base_url`; `{}` is the one that `make vllm` installs."""
    api_key_env: Annotated[str, Operational()] = "VLLM_API_KEY"
    """Environment variable that holds the servers' key; it may be unset."""
    concurrency: Annotated[int, Operational(), Field(ge=1)] = 128
    """Most requests in flight at once at each address; how many there are follows from the throughput."""
    timeout_seconds: Annotated[float, Operational(), Field(gt=0)] = 600.0
    """How long a server may take to answer one request."""
    patience_seconds: Annotated[float, Operational(), Field(ge=0)] = 90.0
    """How long all servers may refuse connections before generation stops with an error; one that the run
    launched has ended when it does, which stops it at once."""
    max_failed_share: Annotated[float, Operational(), Field(ge=0, le=1)] = 0.05
    """Share of failed requests, of all including stored ones, above which generation stops with an error."""
    batch_tokens: Annotated[int, Operational(), Field(ge=1)] = 16384
    """Tokens, asked and to be written, that a model in this process works on at once."""
    device: Annotated[str, Operational()] = "auto"
    """Where a model in this process runs: auto, cpu, cuda, cuda:1, …"""
    offline: Annotated[bool, Operational()] = False
    """Take every text from the store; one that is missing is an error."""
    store: Annotated[str, Operational()] = "generations"
    """Folder of the store of requests and answers, shared by rounds, runs and seeds."""

    @model_validator(mode="after")
    def _fits_the_backend(self) -> "GenerationConfig":
        if self.backend != "rules" and not self.model:
            raise ValueError(
                f"generation.model is not set: backend {self.backend} needs a model, "
                "as in generation.model=Qwen/Qwen3-8B"
            )
        if self.launch and self.backend != "vllm":
            raise ValueError(
                f"generation.launch starts a server for backend vllm, and the backend is {self.backend}"
            )
        return self

    @property
    def generator(self) -> str:
        """What the column `generator` of a synthetic pair says, and the report."""
        return "rules" if self.backend == "rules" else f"{self.backend}:{self.model}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """The servers' addresses, one or several."""
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    def sampling(self, role: Role) -> Sampling:
        """The sampling that a request of this role is sent with."""
        sampling: Sampling = getattr(self, role)
        return sampling


def open_backend(config: GenerationConfig) -> Backend:
    """Make the configured backend; its module, and the client library it needs, is imported only here."""
    module = importlib.import_module(f"{__name__}.backends.{config.backend}")
    backend: Backend = module.open_backend(config)
    return backend
