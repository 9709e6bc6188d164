"""What a text generator is asked, and what it answers."""

from dataclasses import dataclass, field
from typing import Any, Literal

from mars_core.data.dialogue import last_user_turn, with_last_user_turn
from mars_core.errors import MarsError

Role = Literal[
    "paraphrase_prompt", "paraphrase_chosen", "paraphrase_rejected", "rewrite_rejected", "rewrite_chosen",
    "respond",
]  # fmt: skip
CUT_OFF = frozenset({"length", "abort", "error", "content_filter", "repetition"})
"""Finish reasons of a text that did not end by itself."""
DECLINED = "refusal"
"""Finish reason of a text by which a server says that its model declines."""
Message = dict[str, str]
"""One chat message: `role` (system or user) and `content`."""


class GenerationError(MarsError, RuntimeError):
    """Texts could not be generated; the message says why and what to do."""


class Enough(BaseException):
    """Thrown into `Backend.answers` by who wants no more: it ends, after what had arrived by then."""


@dataclass(frozen=True)
class Request:
    """`n` samples of one text, asked for at once.

    `prompt` is in its stored form (see `mars_core.data.dialogue`). Further samples of the same text are
    asked for with `draw` 1, 2, …, each a request of its own.
    """

    role: Role
    prompt: str
    chosen: str
    rejected: str
    n: int
    draw: int = 0

    @property
    def text(self) -> str:
        """The text that the role changes: prompt, chosen or rejected; or the prompt that it responds to."""
        part: str = getattr(self, self.role.partition("_")[2] or "prompt")
        return part

    @property
    def source(self) -> str:
        """What of `text` a generator sees as material: the last user turn of a prompt, else all of it."""
        return last_user_turn(self.prompt) if self.role == "paraphrase_prompt" else self.text

    def whole(self, generated: str) -> str:
        """`text` with its `source` replaced by a generated one: earlier turns of a prompt stay.

        Raises:
            ValueError: the generated text begins another turn of the dialogue.
        """
        if self.role != "paraphrase_prompt":
            return generated
        return with_last_user_turn(self.prompt, generated)


@dataclass(frozen=True)
class Answer:
    """The samples that a request got, raw as the model wrote them; with `error` set, why it got none.

    `texts` and `finish_reasons` hold one entry a sample: empty and cut-off ones are there too, for what
    is usable is not the generator's to judge. A sample of a prompt is its new last user turn alone (see
    `Request.whole`). `refused` marks an error that is the request's own fault, such as a text that is too
    long: sent again it would fail again. `messages` and `sampling` are what was sent; the store keeps them
    for `mars explain`, answers read from the store come without.
    """

    key: str
    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    error: str | None = None
    refused: bool = False
    retries: int = field(default=0, compare=False)
    messages: tuple[Message, ...] = field(default=(), compare=False, repr=False)
    sampling: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
