"""Prompt and response → token ids. The one place: fitting, margins and evaluation all call it.

A tokenizer with a chat template renders the dialogue by it; any other gets the plain form

    Human: {prompt}

    Assistant: {response}

between the special tokens that it puts around one text (a decoder that puts none gets its
end-of-sequence token). A text over the limit loses the *beginning of its prompt*, so that the response
being judged stays whole; only a response that alone is over the limit is cut, at its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mars_core import dialogue
from mars_core.errors import MarsError


class RenderingError(MarsError, ValueError):
    """The tokenizer cannot render this dialogue."""


@dataclass
class Rendering:
    """Token ids of some texts, and how many of these lost tokens to the limit."""

    ids: list[list[int]]
    prompts_cut: int
    responses_cut: int


class Renderer:
    """Renders (prompt, response) for one tokenizer, at most `max_length` tokens each."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        """Learn which special tokens the tokenizer puts before and after a text."""
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
        """Render aligned prompts and responses; each distinct text is tokenised once."""
        texts = {pair: self._text(*pair) for pair in dict.fromkeys(zip(prompts, responses, strict=True))}
        ids = self._tokenise([text for pair in texts.values() for text in pair])
        prompts_cut = responses_cut = 0
        rendered = []
        for pair in zip(prompts, responses, strict=True):
            prompt_text, response_text = texts[pair]
            prompt_ids, response_ids = ids[prompt_text], ids[response_text]
            before = self._before
            if self._template:  # a template writes its own beginning-of-sequence token, or none
                before = before if prompt_ids[: len(before)] == before else []
                prompt_ids = prompt_ids[len(before) :]
            room = self.max_length - len(before) - len(self._after)
            responses_cut += len(response_ids) > room
            response_ids = response_ids[:room]
            room -= len(response_ids)
            prompts_cut += len(prompt_ids) > room
            prompt_ids = prompt_ids[len(prompt_ids) - room :] if len(prompt_ids) > room else prompt_ids
            rendered.append([*before, *prompt_ids, *response_ids, *self._after])
        return Rendering(rendered, prompts_cut, responses_cut)

    def _text(self, prompt: str, response: str) -> tuple[str, str]:
        """The two texts whose tokens, one after the other, are the rendering."""
        turns = dialogue.turns(prompt)
        if not self._template:
            spoken = "\n\n".join(f"{dialogue.SPEAKERS[turn.role]}: {turn.content}" for turn in turns)
            return f"{spoken}\n\nAssistant:", f" {response}"
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        answered = [*messages, {"role": "assistant", "content": response}]
        try:
            asked_text = self.tokenizer.apply_chat_template(messages, tokenize=False)
            whole_text = self.tokenizer.apply_chat_template(answered, tokenize=False)
        except Exception as error:  # templates raise whatever their author chose
            raise RenderingError(f"the chat template refuses {prompt[:80]!r}: {error}") from error
        if not whole_text.startswith(asked_text):
            raise RenderingError(f"the chat template changes the prompt once it is answered: {prompt[:80]!r}")
        return asked_text, whole_text[len(asked_text) :]

    def _tokenise(self, texts: Sequence[str]) -> dict[str, list[int]]:
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        encoded = self.tokenizer(distinct, add_special_tokens=False, verbose=False)["input_ids"]
        return dict(zip(distinct, encoded, strict=True))
