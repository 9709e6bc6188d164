"""Prompt and response → token ids. The one place: fitting, margins and evaluation all call it.

A tokenizer with a chat template renders the dialogue by it; any other gets the plain form

    Human: {prompt}

    Assistant: {response}

between the special tokens that it puts around one text (a decoder that puts none gets its
end-of-sequence token). A text over the limit loses the *beginning of its prompt*, so that the response
being judged stays whole; only a response that alone is over the limit is cut, at its end.
"""

import functools
import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import transformers

from mars_core.data import dialogue
from mars_core.errors import MarsError

TEXTS_AT_ONCE = 1024
"""Texts that are tokenised together; a tokenizer's own result is many times the size of the ids."""


VERSION = 1
"""Counted up whenever this module renders a text to other tokens than before."""


class RenderingError(MarsError, ValueError):
    """The tokenizer cannot render this dialogue."""


@dataclass
class Rendering:
    """Token ids of some texts, how many of each are its prompt's, and which texts the limit cut."""

    ids: list[list[int]]
    prompt_tokens: list[int]
    prompt_cut: list[bool]
    response_cut: list[bool]

    def only(self, texts: Sequence[int]) -> "Rendering":
        """The rendering of some of the texts."""
        return Rendering(
            [self.ids[text] for text in texts],
            [self.prompt_tokens[text] for text in texts],
            [self.prompt_cut[text] for text in texts],
            [self.response_cut[text] for text in texts],
        )

    @property
    def prompts_cut(self) -> int:
        """Texts that lost the beginning of their prompt."""
        return sum(self.prompt_cut)

    @property
    def responses_cut(self) -> int:
        """Texts that lost the end of their response."""
        return sum(self.response_cut)


class Renderer:
    """Renders (prompt, response) for one tokenizer, at most `max_length` tokens each."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        """Learn which special tokens the tokenizer puts before and after a text.

        Raises:
            RenderingError: the tokenizer does not tell which characters a token stands for.
        """
        if not tokenizer.is_fast:
            raise RenderingError(f"{type(tokenizer).__name__} gives no offsets; a fast tokenizer is needed")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._template = bool(getattr(tokenizer, "chat_template", None))
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        self._before: list[int] = full[:start]
        self._after: list[int] = full[start + len(bare) :]
        if self._template:
            self._after = []
        elif not self._after and tokenizer.eos_token_id is not None:
            self._after = [tokenizer.eos_token_id]

    def render(self, prompts: Sequence[str], responses: Sequence[str]) -> Rendering:
        """Render aligned prompts and responses; each distinct pair is tokenised once.

        Raises:
            RenderingError: the chat template refuses a dialogue.
        """
        pairs = list(zip(prompts, responses, strict=True))
        distinct = list(dict.fromkeys(pairs))
        halves: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        for start in range(0, len(distinct), TEXTS_AT_ONCE):
            some = distinct[start : start + TEXTS_AT_ONCE]
            halves.update(zip(some, self._tokenise([self._text(*pair) for pair in some]), strict=True))

        ids, prompt_tokens = [], []
        prompt_cut, response_cut = [], []
        for prompt_ids, response_ids in map(halves.__getitem__, pairs):
            before = self._before
            if self._template:  # a template writes its own beginning-of-sequence token, or none
                before = before if prompt_ids[: len(before)] == before else []
                prompt_ids = prompt_ids[len(before) :]
            room = self.max_length - len(before) - len(self._after)
            room_for_prompt = max(0, room - len(response_ids))
            response_cut.append(len(response_ids) > room)
            prompt_cut.append(len(prompt_ids) > room_for_prompt)
            kept = prompt_ids[max(0, len(prompt_ids) - room_for_prompt) :]
            ids.append([*before, *kept, *response_ids[:room], *self._after])
            prompt_tokens.append(len(before) + len(kept))
        return Rendering(ids, prompt_tokens, prompt_cut, response_cut)

    @functools.cached_property
    def identity(self) -> bytes:
        """A short name of all that decides which tokens a text becomes, but a date that a template asks."""
        tokenizer = self.tokenizer
        decisive = (
            VERSION, transformers.__version__, self.max_length, self._before, self._after,
            tokenizer.chat_template, tokenizer.special_tokens_map, tokenizer.backend_tokenizer.to_str(),
        )  # fmt: skip
        return hashlib.blake2b(repr(decisive).encode(), digest_size=16).digest()

    def _text(self, prompt: str, response: str) -> tuple[str, int]:
        """The whole text, and where in it the prompt ends."""
        turns = [turn._replace(content=turn.content.strip()) for turn in dialogue.turns(prompt)]
        response = response.strip()  # some benchmarks pad the rejected responses only
        if not self._template:
            asked = "".join(f"{dialogue.SPEAKERS[turn.role]}: {turn.content}\n\n" for turn in turns)
            asked += f"{dialogue.SPEAKERS['assistant']}:"
            return f"{asked} {response}", len(asked)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        answered = [*messages, {"role": "assistant", "content": response}]
        try:
            asked = self.tokenizer.apply_chat_template(messages, tokenize=False)
            whole = self.tokenizer.apply_chat_template(answered, tokenize=False)
        except Exception as error:  # templates raise whatever their author chose
            raise RenderingError(f"the chat template refuses {prompt[:80]!r}: {error}") from error
        if not whole.startswith(asked):
            raise RenderingError(f"the chat template changes the prompt once it is answered: {prompt[:80]!r}")
        return whole, len(asked)

    def _tokenise(self, texts: Sequence[tuple[str, int]]) -> list[tuple[list[int], list[int]]]:
        """Token ids of each text up to and from where its prompt ends.

        A text is tokenised as a whole: some tokenizers begin every text with a space of their own, so
        that a response by itself would get other tokens than behind its prompt.
        """
        encoded = self.tokenizer([text for text, _ in texts], add_special_tokens=False, verbose=False)
        halves = []
        for row, ((text, end), ids) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
            # A tokenizer may drop characters (accents, spaces): look for the first that is in a token.
            found = (encoded.char_to_token(row, at) for at in range(end, len(text)))
            first = next((token for token in found if token is not None), len(ids))
            halves.append((ids[:first], ids[first:]))
        return halves


def text_name(prompt: str, response: str) -> bytes:
    """A short name of a prompt and a response, as they are."""
    return hashlib.blake2b(f"{len(prompt)}:{prompt}{response}".encode(), digest_size=16).digest()


def tokens_name(ids: Sequence[int]) -> bytes:
    """A short name of a sequence of tokens."""
    return hashlib.blake2b(array("l", ids), digest_size=16).digest()
