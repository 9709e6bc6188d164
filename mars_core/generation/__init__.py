"""Generated texts: paraphrases and rewrites from an exchangeable backend, every answer kept in a store."""

from mars_core.generation.backends.backend import Backend
from mars_core.generation.generation_config import GenerationConfig, LaunchConfig, Sampling
from mars_core.generation.generator import GenerationCounts, Generator
from mars_core.generation.interface import CUT_OFF, Answer, GenerationError, Message, Request, Role
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
]
