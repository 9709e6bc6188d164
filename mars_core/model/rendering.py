"""Prompt and response → token ids. The one place: fitting, margins and evaluation all call it.

A tokenizer with a chat template renders the dialogue by it; any other gets the plain form

    Human: {prompt}

    Assistant: {response}

between the special tokens that it puts around one text (a decoder that puts none gets its
end-of-sequence token). An encoder that was trained on sentence pairs gets the prompt and the response as
such a pair. A text over the limit loses the *beginning of its prompt*, so that the response being judged
stays whole; only a response that alone is over the limit is cut, at its end.

A chat template that writes today's date would give a text another reward every day. The date is therefore
pinned, in the template itself, so that a checkpoint that is saved renders alike wherever it is loaded.
"""

import datetime
import functools
import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import transformers

from mars_core.data import dialogue
from mars_core.errors import MarsError

TEXTS_AT_ONCE = 1024
"""Texts that are tokenised together; a tokenizer's own result is many times the size of the ids."""


VERSION = 1
"""Counted up whenever this module renders a text to other tokens than before."""


DATE = datetime.date(2024, 7, 26)
"""What a chat template that asks for today's date gets: the date that Llama 3's falls back to."""

RenderingChoice = Literal["auto", "pair"]
"""How a dialogue becomes one text: by the chat template, or in the plain form without one; or a sentence
pair."""
RENDERING = "rendering"
"""Where tokenizer_config.json keeps the choice `pair`, so that a saved checkpoint is rendered as it was
fitted."""

PROBE = "Sandpipers."
"""An answer that no prompt and no template holds."""

_DATE_CALL = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


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

    def __init__(self, tokenizer: Any, max_length: int, rendering: RenderingChoice = "auto") -> None:
        """Learn which special tokens the tokenizer puts around a text.

        The tokenizer remembers what it is told here: that it renders pairs, and the date in its template.

        Args:
            tokenizer: a fast one.
            max_length: most tokens of a text.
            rendering: `auto` is what the tokenizer was saved with.

        Raises:
            RenderingError: the tokenizer does not tell which characters a token stands for, its template asks
                for the date in a way that cannot be pinned, or it knows no sentence pairs.
        """
        if not tokenizer.is_fast:
            raise RenderingError(f"{type(tokenizer).__name__} gives no offsets; a fast tokenizer is needed")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pairs = "pair" in (rendering, tokenizer.init_kwargs.get(RENDERING))
        self._template = not self.pairs and bool(tokenizer.chat_template)
        self._between: list[int] = []
        self._tried: set[tuple[str, ...]] = set()
        if self.pairs:
            self._before, self._between, self._after = _around_a_pair(tokenizer)
            tokenizer.init_kwargs[RENDERING] = "pair"
            return
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        self._before = full[:start]
        self._after = full[start + len(bare) :]
        if self._template:
            tokenizer.chat_template = _with_pinned_date(tokenizer.chat_template)
            self._after = []
        elif not self._after and tokenizer.eos_token_id is not None:
            self._after = [tokenizer.eos_token_id]

    @property
    def description(self) -> str:
        """How texts are rendered, as the end of a sentence."""
        if self.pairs:
            return "as sentence pairs of prompt and response"
        if not self._template:
            return "as plain transcripts (Human: … Assistant: …)"
        return "by the tokenizer's chat template"

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
            halves.update(zip(some, self._tokenise(some), strict=True))

        ids, prompt_tokens = [], []
        prompt_cut, response_cut = [], []
        for prompt_ids, response_ids in map(halves.__getitem__, pairs):
            before = self._before
            if self._template:  # a template writes its own beginning-of-sequence token, or none
                before = before if prompt_ids[: len(before)] == before else []
                prompt_ids = prompt_ids[len(before) :]
            room = self.max_length - len(before) - len(self._between) - len(self._after)
            room_for_prompt = max(0, room - len(response_ids))
            response_cut.append(len(response_ids) > room)
            prompt_cut.append(len(prompt_ids) > room_for_prompt)
            kept = prompt_ids[max(0, len(prompt_ids) - room_for_prompt) :]
            ids.append([*before, *kept, *self._between, *response_ids[:room], *self._after])
            prompt_tokens.append(len(before) + len(kept) + len(self._between))
        return Rendering(ids, prompt_tokens, prompt_cut, response_cut)

    def token_types(self, ids: Sequence[int]) -> list[int]:
        """Of the tokens of a sentence pair, 0 for the first sentence and 1 for the second.

        The first separator is the tokenizer's own: one that is written in a text is rendered as text.
        """
        first = next(i for i in range(len(ids)) if ids[i : i + len(self._between)] == self._between)
        first += len(self._between)
        return [0] * first + [1] * (len(ids) - first)

    def check(self, prompts: Iterable[str]) -> None:
        """Try the chat template on one prompt of every order of roles that it was not tried on before.

        Raises:
            RenderingError: it refuses one, or leaves out a turn.
        """
        for prompt in prompts if self._template else ():
            roles = tuple(turn.role for turn in dialogue.turns(prompt))
            if roles in self._tried:
                continue
            text, _ = self._text(prompt, PROBE)
            if PROBE not in text:
                raise RenderingError(f"the chat template leaves out the answer to {prompt[:80]!r}")
            self._tried.add(roles)

    def refusal(self, prompt: str, responses: Iterable[str]) -> str | None:
        """Why one of the responses to a prompt cannot be rendered, if so; unlike `check` it renders each."""
        if self._template:
            try:
                for response in responses:
                    self._text(prompt, response)
            except RenderingError as error:
                return str(error)
        return None

    @functools.cached_property
    def identity(self) -> bytes:
        """A short name of all that decides which tokens a text becomes."""
        tokenizer = self.tokenizer
        decisive = (
            VERSION, transformers.__version__, self.max_length, self._before, self._after,
            tokenizer.chat_template, tokenizer.special_tokens_map, tokenizer.backend_tokenizer.to_str(),
            *(["pair", self._between] if self.pairs else []),
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
        whole = self._by_template([*messages, {"role": "assistant", "content": response}], prompt)
        left_out = _left_out(turns, whole)
        if left_out:
            raise RenderingError(f"the chat template leaves out the {left_out} turn of {prompt[:80]!r}")
        # Some templates end a dialogue that waits for its answer as if it were over.
        for waiting in (False, True):
            asked = self._by_template(messages, prompt, add_generation_prompt=waiting)
            if whole.startswith(asked):
                return whole, len(asked)
        same = os.path.commonprefix([asked, whole])  # noqa: RUF071 -- characters are what is meant
        if _left_out(turns, same):
            raise RenderingError(f"the chat template changes the prompt once it is answered: {prompt[:80]!r}")
        return whole, len(same)

    def _by_template(self, messages: list[dict[str, str]], prompt: str, **options: Any) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        except Exception as error:  # templates raise whatever their author chose
            raise RenderingError(f"the chat template refuses {prompt[:80]!r}: {error}") from error
        return text

    def _tokenise_apart(self, texts: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Token ids of prompts and responses; special tokens that are written in them are text."""
        asked = []
        for prompt, _ in texts:
            turns = dialogue.turns(prompt)
            asked.append(turns[0].content if len(turns) == 1 and turns[0].role == "user" else prompt)
        sides = (asked, [response for _, response in texts])
        prompts, responses = (
            self.tokenizer(
                [text.strip() for text in side],
                add_special_tokens=False,
                split_special_tokens=True,
                verbose=False,
            )["input_ids"]
            for side in sides
        )
        return list(zip(prompts, responses, strict=True))

    def _tokenise(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Token ids of each text up to and from where its prompt ends.

        A text is tokenised as a whole: some tokenizers begin every text with a space of their own, so
        that a response by itself would get other tokens than behind its prompt.
        """
        if self.pairs:
            return self._tokenise_apart(pairs)
        texts = [self._text(*pair) for pair in pairs]
        encoded = self.tokenizer([text for text, _ in texts], add_special_tokens=False, verbose=False)
        halves = []
        for row, ((text, end), ids) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
            # A tokenizer may drop characters (accents, spaces): look for the first that is in a token.
            found = (encoded.char_to_token(row, at) for at in range(end, len(text)))
            first = next((token for token in found if token is not None), len(ids))
            halves.append((ids[:first], ids[first:]))
        return halves


def _left_out(turns: Sequence[dialogue.Turn], text: str) -> str | None:
    """The role of a turn that a text lacks; spaces do not count, and former answers lose their reasoning."""
    letters = "".join(text.split())
    return next(
        (
            turn.role
            for turn in turns
            if turn.role != "assistant" and "".join(turn.content.split()) not in letters
        ),
        None,
    )


def _with_pinned_date(template: Any) -> Any:
    """A chat template, or several by name, with the pinned date in the place of each question for today's."""
    if isinstance(template, dict):
        return {name: _with_pinned_date(text) for name, text in template.items()}
    pinned = _DATE_CALL.sub(lambda call: json.dumps(DATE.strftime(call[2])), template)
    if "strftime_now(" in pinned:
        raise RenderingError(
            "the chat template asks for today's date in a format that is not written in the call of "
            "strftime_now, so that rewards would change from day to day: write the date into the template"
        )
    return pinned


def _around_a_pair(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The special tokens before, between and after the two texts of a pair."""
    encoded = tokenizer("a", "a")
    ids, sides = encoded["input_ids"], encoded.sequence_ids(0)
    starts, ends = ([i for i, side in enumerate(sides) if side == text] for text in (0, 1))
    between = ids[starts[-1] + 1 : ends[0]]
    if not between:
        raise RenderingError(
            f"{type(tokenizer).__name__} puts nothing between the texts of a pair: model.rendering=pair is "
            "for encoders that were trained on sentence pairs"
        )
    return ids[: starts[0]], between, ids[ends[-1] + 1 :]


def text_name(prompt: str, response: str) -> bytes:
    """A short name of a prompt and a response, as they are."""
    return hashlib.blake2b(f"{len(prompt)}:{prompt}{response}".encode(), digest_size=16).digest()


def tokens_name(ids: Sequence[int]) -> bytes:
    """A short name of a sequence of tokens."""
    return hashlib.blake2b(array("l", ids), digest_size=16).digest()
