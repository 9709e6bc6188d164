"""Texts from a model in this process: a seq2seq paraphraser by beam search, or a causal chat model.

A seq2seq model, such as the paper's T5 paraphraser, reads a prefix and the text to paraphrase. It takes no
instructions, so it rewrites nothing. Its first draw of a text is the best `n` of a beam search; as another
search would find the same, further draws are sampled. A chat model reads the same messages as a served one.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from pydantic import Field

from mars_core.config import Configuration, Operational
from mars_core.files import digest, sha256_of
from mars_core.generation import GenerationConfig
from mars_core.generation.backends.backend import Backend
from mars_core.generation.instructions import chat_tokens, ends_at
from mars_core.generation.interface import Answer, GenerationError, Message, Request
from mars_core.model.batching import token_batches
from mars_core.model.checkpoints import content_of_checkpoint, locate


class TransformersBackend(Backend):
    """Loads `config.model` when the first text is asked for: safetensors only, and no code.

    Raises:
        ModelError: there is no such model.
    """

    capabilities = frozenset({"chat", "seq2seq"})
    needs_model = True

    class Config(Configuration):
        """How the model runs, and what a seq2seq paraphraser expects."""

        prefix: str = "paraphrase: "
        """Prefix that a seq2seq paraphraser expects before the text."""
        beams: int = Field(default=5, ge=1)
        """Beams of a seq2seq paraphraser for the first draw of a text; further draws are sampled."""
        batch_tokens: Annotated[int, Operational(), Field(ge=1)] = 16384
        """Most tokens of one batch, those to write included."""
        device: Annotated[str, Operational()] = "auto"
        """Where the model runs: auto, cpu, cuda, cuda:1, …"""

    config: GenerationConfig

    def __init__(self, config: GenerationConfig) -> None:
        super().__init__(config)
        self.options: Any = config.options
        self.location = locate(str(config.model))

    def key(self, request: Request) -> str:
        """See `Backend.key`; a model in a folder counts by its content."""
        return digest(
            self.name,
            self._content,
            request.role,
            request.text,
            request.n,
            request.draw,
            self.options.prefix,
            self.options.beams,
            self.config.instructions.messages(request),
            self.config.sampling(request.role).model_dump(exclude={"max_growth"}),
            self.config.max_tokens(request),
        )

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `Backend.answers`; requests of similar length share a batch, the longest first.

        Raises:
            GenerationError: the model cannot be loaded, cannot do what is asked, or a batch does not fit
                into memory.
        """
        answered = 0
        while answered < len(requests):
            known = range(answered, len(requests))
            answered = len(requests)
            yield from self._answers(requests, known)

    def _answers(self, requests: Sequence[Request], indices: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        ids = {index: self._ids(requests[index]) for index in indices}
        for index, read in ids.items():
            settings = self._settings(requests[index])
            tokens = len(read)
            if tokens > self._longest - (0 if self._seq2seq else settings["max_new_tokens"]):
                error = f"too long: {tokens} tokens; {self.name} takes {self._longest}, its output included"
                refusal = Answer(self.key(requests[index]), (), (), tokens, 0, 0.0, error, refused=True)
                yield index, refusal
            else:
                alike[tuple(settings.items())].append(index)
        for items, same in alike.items():
            settings = dict(items)
            rows = max(settings["num_beams"], settings["num_return_sequences"])
            costs = [rows * (len(ids[index]) + settings["max_new_tokens"]) for index in same]
            for batch in token_batches(costs, self.options.batch_tokens):
                chosen = [same[place] for place in batch]
                yield from self._batch(
                    chosen, [requests[index] for index in chosen], [ids[index] for index in chosen], settings
                )

    def close(self) -> None:
        """See `Backend.close`."""
        self.__dict__.pop("_model", None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _batch(
        self,
        indices: Sequence[int],
        requests: Sequence[Request],
        ids: Sequence[Sequence[int]],
        settings: dict[str, Any],
    ) -> Iterator[tuple[int, Answer]]:
        started = time.monotonic()
        inputs = self._tokenizer.pad({"input_ids": list(ids)}, return_tensors="pt").to(self._model.device)
        keys = [self.key(request) for request in requests]
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(int(digest(*keys)[:8], 16))
            try:
                written = self._model.generate(**inputs, **settings).cpu().numpy()
            except torch.OutOfMemoryError as error:
                raise GenerationError(
                    f"{self.name}: {error}; lower generation.options.batch_tokens"
                ) from None
        written = written[:, 1 if self._seq2seq else inputs["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        ends: NDArray[np.bool_] = np.isin(written, self._model.generation_config.eos_token_id)
        n = settings["num_return_sequences"]
        for place, (index, request) in enumerate(zip(indices, requests, strict=True)):
            own = slice(place * n, (place + 1) * n)
            ended = [bool(row.any()) for row in ends[own]]
            of_request = [text.encode("utf-8", "replace").decode() for text in texts[own]]
            if mark := ends_at(self._asked(request)):
                ended = [whole or mark in text for whole, text in zip(ended, of_request, strict=True)]
                of_request = [text.partition(mark)[0] for text in of_request]
            lengths = np.where(ends[own].any(axis=1), ends[own].argmax(axis=1) + 1, written.shape[1])
            yield (
                index,
                Answer(
                    key=keys[place],
                    texts=tuple(of_request),
                    finish_reasons=tuple("stop" if whole else "length" for whole in ended),
                    prompt_tokens=len(ids[place]),
                    completion_tokens=int(lengths.sum()),
                    seconds=time.monotonic() - started,
                    messages=self._asked(request),
                    sampling=dict(settings),
                ),
            )

    def _asked(self, request: Request) -> tuple[Message, ...]:
        if self._seq2seq:
            return ({"role": "user", "content": self.options.prefix + request.source},)
        return self.config.instructions.messages(request)

    def _ids(self, request: Request) -> list[int]:
        """Token ids of the model's input."""
        if self._seq2seq and not request.role.startswith("paraphrase"):
            raise GenerationError(
                f"{self.name} only paraphrases, it takes no instructions: set rewriting.enabled=false, or "
                "generation.model to a chat model"
            )
        if self._seq2seq:
            return list(self._tokenizer(self._asked(request)[0]["content"]).input_ids)
        if not self._tokenizer.chat_template:
            raise GenerationError(
                f"the model {self.config.model} has no chat template, like most base models: use an "
                "instruction-tuned one"
            )
        return chat_tokens(self._tokenizer, self._asked(request))

    def _settings(self, request: Request) -> dict[str, Any]:
        """Arguments of `generate`: all of those for which a checkpoint may set defaults."""
        sampling = self.config.sampling(request.role)
        beams = self.options.beams if self._seq2seq and request.draw == 0 else 1
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return {
            "num_return_sequences": request.n,
            "max_new_tokens": self.config.max_tokens(request),
            "num_beams": max(beams, request.n) if beams > 1 else 1,
            "do_sample": beams == 1,
            "repetition_penalty": 1.0,
            **(drawn if beams == 1 else {}),
        }

    @cached_property
    def _seq2seq(self) -> bool:
        return bool(self._loaded(transformers.AutoConfig).is_encoder_decoder)

    @cached_property
    def _longest(self) -> int:
        """Most tokens the model can read; for a chat model, output included."""
        longest = int(self._tokenizer.model_max_length)
        return min(
            longest, getattr(self._loaded(transformers.AutoConfig), "max_position_embeddings", longest)
        )

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = self._loaded(transformers.AutoTokenizer)
        tokenizer.padding_side = "right" if self._seq2seq else "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        kind = transformers.AutoModelForSeq2SeqLM if self._seq2seq else transformers.AutoModelForCausalLM
        model = self._loaded(kind, use_safetensors=True, dtype="auto").eval()
        device = self.options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model.generation_config.pad_token_id = self._tokenizer.pad_token_id
        return model.to(device)

    def _loaded(self, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(
                self.location.path, revision=self.location.revision, trust_remote_code=False, **options
            )
        except (OSError, ValueError) as error:
            raise GenerationError(
                f"{self.config.model} cannot be loaded to generate texts: {error}"
            ) from None

    @cached_property
    def _content(self) -> str:
        """Digest of the files of a model in a folder; a hub model is fixed by its revision."""
        model = str(self.config.model)
        if model.startswith("package://"):
            return content_of_checkpoint(model)
        return self.location.revision or sha256_of(Path(self.location.path))
