"""Generated texts: paraphrases and rewrites from an exchangeable backend, every answer kept in a store.

A backend is a module of this package with a function `open_backend(config)`; its module name in
`GenerationConfig.backend` is all that makes it known.
"""

import importlib
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from mars_core.configurable import Address, Configuration, Operational
from mars_core.generation.generator import GenerationCounts, Generator
from mars_core.generation.interface import Answer, Backend, GenerationError, Message, Request, Role
from mars_core.generation.store import GenerationStore

__all__ = [
    "Answer",
    "Backend",
    "GenerationConfig",
    "GenerationCounts",
    "GenerationError",
    "GenerationStore",
    "Generator",
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


class GenerationConfig(Configuration):
    """Who writes paraphrases and rewrites, and how."""

    backend: Literal["rules", "vllm"] = "rules"
    """What writes the texts: `rules` needs no model, `vllm` asks an OpenAI-compatible server."""
    model: str | None = None
    """Name of the served model; required with `vllm`."""
    paraphrase: ParaphraseSampling = ParaphraseSampling()
    """Sampling of paraphrases."""
    rewrite_rejected: RejectedRewriteSampling = RejectedRewriteSampling()
    """Sampling of rewrites of the rejected response."""
    rewrite_chosen: Sampling = Sampling()
    """Sampling of rewrites of the chosen response."""
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of every request, such as `{chat_template_kwargs: {enable_thinking: false}}`."""
    base_url: Address = "http://127.0.0.1:8000/v1"
    """Address of the server, up to and including its version."""
    api_key_env: Annotated[str, Operational()] = "VLLM_API_KEY"
    """Environment variable that holds the server's key; it may be unset."""
    concurrency: Annotated[int, Operational(), Field(ge=1)] = 64
    """Requests in flight at once."""
    timeout_seconds: Annotated[float, Operational(), Field(gt=0)] = 600.0
    """How long one request may take before it counts as failed."""
    max_failed_share: Annotated[float, Operational(), Field(ge=0, le=1)] = 0.05
    """Share of failed requests above which generation stops with an error."""
    store: Annotated[str, Operational()] = "generations"
    """Folder of the store of requests and answers, shared by rounds, runs and seeds."""

    @model_validator(mode="after")
    def _model_is_named(self) -> "GenerationConfig":
        if self.backend == "vllm" and not self.model:
            raise ValueError(
                "generation.model is not set: backend vllm needs the name of the served model, "
                "as in generation.model=Qwen/Qwen3-8B"
            )
        return self

    def sampling(self, role: Role) -> Sampling:
        """The sampling that a request of this role is sent with."""
        if role == "rewrite_rejected":
            return self.rewrite_rejected
        return self.rewrite_chosen if role == "rewrite_chosen" else self.paraphrase


def open_backend(config: GenerationConfig) -> Backend:
    """Make the configured backend; its module, and the client library it needs, is imported only here."""
    module = importlib.import_module(f"{__name__}.{config.backend}")
    backend: Backend = module.open_backend(config)
    return backend
