"""A reward model r(x, y): load, save, score. Readouts, rewards and margins are float32.

`mars_core.model.checkpoints` explains how a model is named, `mars_core.model.loading` what is read from it.
"""

import copy
import functools
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from numpy.typing import NDArray
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence

from mars_core.config import Later, Operational
from mars_core.errors import ModelError
from mars_core.model.batching import TokenBudget, padded
from mars_core.model.cpu.onednn_linear import can_multiply, with_onednn_linear
from mars_core.model.cpu.unpadded_encoder import can_run_unpadded, computed_tokens, one_row, run_unpadded
from mars_core.model.feature_store import Features, FeatureStore, features_of
from mars_core.model.heads import head_of, last_layer, scores_every_token
from mars_core.model.loading import (
    CheckpointConfig,
    blank,
    load_checkpoint,
    load_own_weights,
    load_tokenizer,
    objective_of,
    save_objective,
)
from mars_core.model.next_tokens import NextTokens, check_vocabulary
from mars_core.model.prefix_sharing import Packed, can_share_prefixes, pack, rows_by_prompt
from mars_core.model.rendering import Renderer, Rendering, RenderingChoice, tokens_name
from mars_core.model.shared_weights import with_shared_weights
from mars_core.model.vector_store import VectorStore
from mars_core.objectives.objective import OF_ALL_TOKENS, Objective, ObjectiveConfig, Reads, TextOutputs
from mars_core.tables import Rows, batches_of

logger = logging.getLogger(__name__)

Windows = Iterable[tuple[Sequence[str], Sequence[str]]]
"""Aligned prompts and responses, some at a time."""
WINDOW = 4096
"""Texts that are rendered and sorted by length together, and the most that are held at once."""

KEEP_SECONDS = 1.0
"""How often readouts are written that are kept: a write takes some milliseconds, as a small batch does."""

OF_THE_CHECKPOINT = {
    "_name_or_path", "architectures", "dtype", "id2label", "label2id", "num_labels", "problem_type",
    "torch_dtype", "transformers_version",
}  # fmt: skip
"""Settings of a network that do not change its features."""


class ModelConfig(CheckpointConfig):
    """The reward model's backbone and how texts go through it."""

    rendering: Annotated[RenderingChoice, Later()] = "auto"
    """How a dialogue becomes one text: auto is the tokenizer's chat template, and a plain transcript without
    one; pair is for encoders that were trained on sentence pairs, here prompt and response."""
    max_length: int = Field(512, ge=8)
    """Most tokens of a rendered prompt and response."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the backbone; auto is bfloat16 where the hardware has it. The head always uses float32."""
    device: Annotated[str, Operational()] = "auto"
    """Where the model runs: auto, cpu, cuda, cuda:1, …"""
    batch_tokens: Annotated[int, Operational()] = Field(4096, ge=1)
    """Padded tokens of one forward pass when scoring."""


def device_of(config: ModelConfig) -> str:
    """Where the model runs, as torch names it."""
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def renderer_of(reference: str, config: ModelConfig) -> Renderer:
    """How texts of a checkpoint are rendered, without its network, whose own limit of tokens may be lower.

    Raises:
        ModelError: it has no tokenizer that can be read.
        RenderingError: as of `Renderer`.
    """
    return Renderer(load_tokenizer(reference), config.max_length, config.rendering)


def check_objective(reference: str, config: ModelConfig, objective: ObjectiveConfig) -> None:
    """Check that a checkpoint gives what an objective reads, without loading weights.

    Raises:
        ModelError: the objective reads the outputs of every token, and the checkpoint is an encoder; or its
            language model is not there or has another vocabulary.
    """
    opened = objective.open()
    if "token_outputs" in opened.reads | opened.losses_read and not scores_every_token(blank(reference)):
        raise ModelError(_of_an_encoder(reference, opened))
    if opened.language_model is not None:
        check_vocabulary(opened.language_model, load_tokenizer(reference))


def _of_an_encoder(reference: str, objective: Objective) -> str:
    return (
        f"{reference} is an encoder, whose head reads a text as a whole; the objective {objective.name} "
        "reads rewards at every token: start from a decoder"
    )


class Scored(NamedTuple):
    """The result of scoring some texts."""

    readouts: NDArray[np.float32]
    """[texts, q] the readout of each text."""
    features: NDArray[np.float32]
    """[texts, d] the inputs of the head's last layer, if asked for; else [texts, 0]."""
    prompts_cut: int
    """Texts that lost the beginning of their prompt to the limit of tokens."""
    responses_cut: int
    """Texts that lost the end of their response to it."""
    sequences: NDArray[np.intp]
    """[texts] the same number for texts that are the same tokens."""


class RewardModel:
    """A transformer with a head, its tokenizer, its objective, and where and how it runs."""

    def __init__(
        self, network: Any, tokenizer: Any, config: ModelConfig, objective: Objective | None = None
    ) -> None:
        """Wrap a loaded network without changing it; usually `load` is called instead.

        The objective is Bradley–Terry by default; its own modules are built.
        """
        self.device = torch.device(device_of(config))
        self.network = with_shared_weights(network.to(self.device))
        self.tokenizer = tokenizer
        self.objective = objective or ObjectiveConfig().open()
        self.objective.modules.to(self.device)
        self.renderer = Renderer(
            tokenizer, min(config.max_length, _positions(network, tokenizer)), config.rendering
        )
        self.config = config
        self.bfloat16 = _uses_bfloat16(config.precision, self.device)
        self.head = head_of(self.network)
        self.head.forward = MethodType(_in_float32, self.head)
        self.unpadded = not self.loss_reads_tokens and can_run_unpadded(
            self.network, self.renderer.max_length
        )
        """Whether the texts of a forward pass are computed without padding."""
        self.whole_layers = self.whole_tokens
        """Whether layers may only be called as modules, because checkpointing hooks into them."""
        self.whole_network = self.whole_tokens
        """Whether the network may only be called as a module, because FSDP or the objective hooks into it."""
        self.drawn: list[str] = []
        """Modules that the checkpoint lacked and that were newly initialised, the head's among them."""
        if self.unpadded:
            run_unpadded(self.network)
        self.store: FeatureStore | None = None
        """Where features are looked up before they are computed, if there is a store."""
        self.known: VectorStore | None = None
        """Where readouts are looked up before they are computed, if they are kept."""

    @classmethod
    def load(
        cls,
        reference: str,
        config: ModelConfig,
        objective: ObjectiveConfig | None = None,
        *,
        seed: int = 0,
        dropout: float | None = None,
    ) -> "RewardModel":
        """Load a checkpoint; a backbone without a head gets the objective's head, initialised with `seed`.

        Low-rank adapters are merged into the checkpoint that they name. `dropout` replaces every dropout
        rate of the checkpoint. The default of `objective` is the one that the checkpoint names, else
        Bradley–Terry.

        Raises:
            ModelError: there is no checkpoint, no safetensors, or weights are missing; its trained head has
                other outputs than the objective, or was trained with another or an unknown objective; or the
                objective reads the outputs of every token, and it is an encoder.
        """
        opened = objective_of(reference, config, objective).open()
        loaded = load_checkpoint(reference, opened.outputs, config, seed=seed, dropout=dropout)
        width = last_layer(head_of(loaded.network)).in_features
        if "token_outputs" in opened.reads | opened.losses_read and not scores_every_token(loaded.network):
            raise ModelError(_of_an_encoder(reference, opened))
        opened.modules = torch.nn.ModuleDict(opened.build(width))
        load_own_weights(reference, config, opened)
        model = cls(loaded.network, loaded.tokenizer, config, opened)
        model.drawn = loaded.drawn
        return model

    def train(self, mode: bool = True) -> None:
        """Switch dropout on or off."""
        self.network.train(mode)
        self.objective.modules.train(mode)

    def keep_features(self, file: Path) -> None:
        """Keep features in `file`, for all models that differ from this one only in the head's last layer.

        Under an objective that reads something of all tokens nothing is kept.

        Rewards may then use features that another model has computed in other batches: in bfloat16 they
        differ from this model's own as much as two ways of batching do.
        """
        if self.whole_tokens:
            return
        trained = {id(weight) for weight in self.scalar_layer.parameters()}
        body = {name: weight for name, weight in self.network.named_parameters() if id(weight) not in trained}
        network = _digest_of_body(self.network.config, body, self.bfloat16)
        if self.has_token_types:  # the same tokens have other features than as one sentence
            network = hashlib.blake2b(network, person=b"token types", digest_size=16).digest()
        self.store = FeatureStore(file, network, self.renderer)

    def keep_readouts(self, file: Path) -> None:
        """Keep the readouts of texts in `file`, so that scoring which is interrupted goes on where it was.

        They are written every `KEEP_SECONDS` and at the end, an interrupted one included; only a kill loses
        the last ones. Readouts of an earlier start come from other batches: they differ from this one's as
        much as two ways of batching do.
        """
        weights = {**dict(self.network.named_parameters()), **dict(self.objective.modules.named_parameters())}
        scored_by = _digest_of_body(self.network.config, weights, self.bfloat16)
        whole = hashlib.blake2b(scored_by, person=b"readouts", digest_size=16)
        whole.update(repr((self.objective.name, self.objective.config, self.has_token_types)).encode())
        file.parent.mkdir(parents=True, exist_ok=True)
        self.known = VectorStore(file, whole.digest())

    def save(self, folder: Path) -> None:
        """Write the objective and a checkpoint (safetensors and tokenizer) that plain `transformers`
        loads."""
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_objective(self.objective, folder)

    def forward(self, ids: Sequence[Sequence[int]]) -> TextOutputs:
        """One forward pass: what the objective reads of texts, with gradients if these are enabled."""
        return self._forward(ids, pooled="pooled" in self.reads)

    def rows(self, texts: Sequence[int], rendering: Rendering) -> tuple[list[list[int]], list[int]]:
        """Put texts of a rendering into the rows of a forward pass, and count each row's tokens.

        A decoder reads a prompt once for all of its responses (`mars_core.model.prefix_sharing`); otherwise
        each text has its own row.
        """
        if self.shares_prefixes:
            return rows_by_prompt(texts, rendering, 2 * self.renderer.max_length)
        return [[text] for text in texts], [len(rendering.ids[text]) for text in texts]

    def forward_rows(self, rows: Sequence[Sequence[int]], rendering: Rendering) -> TextOutputs:
        """As `forward`, for the texts of `rows`, one row after the other."""
        if self.shares_prefixes:
            return self._packed_forward(pack(rows, rendering, self.tokenizer.pad_token_id))
        texts = [text for row in rows for text in row]
        found = self.forward([rendering.ids[text] for text in texts])
        if not self.whole_tokens:
            return found
        prompts = torch.tensor([rendering.prompt_tokens[text] for text in texts], device=self.device)
        return replace(found, prompt_tokens=prompts)

    def _forward(self, ids: Sequence[Sequence[int]], *, pooled: bool) -> TextOutputs:
        """As `forward`, with the inputs of the head's last layer if asked for."""
        inputs = one_row(self.network, ids) if self.unpadded else padded(ids, self.tokenizer.pad_token_id)
        if self.has_token_types:
            types = [torch.tensor(self.renderer.token_types(text)) for text in ids]
            row = torch.cat(types)[None] if self.unpadded else pad_sequence(types, batch_first=True)
            inputs["token_type_ids"] = row
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        reads = self.reads
        features, states, scores = list[torch.Tensor](), list[torch.Tensor](), list[torch.Tensor]()
        with ExitStack() as hooks:
            if pooled:
                seen = self.scalar_layer.register_forward_pre_hook(lambda _, given: features.append(given[0]))
                hooks.callback(seen.remove)
            if "states" in reads:
                body = self._without_adapters.base_model
                seen = body.register_forward_hook(lambda *call: states.append(call[2].last_hidden_state))
                hooks.callback(seen.remove)
            if "token_outputs" in reads:
                seen = self.head.register_forward_hook(lambda *call: scores.append(call[2]))
                hooks.callback(seen.remove)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
                outputs = self.network(**inputs).logits.float()
        lengths = torch.tensor([len(text) for text in ids], device=self.device)
        if (
            features and features[0].dim() == 3
        ):  # a decoder's head scores every token, of which the last one counts
            features[0] = features[0][torch.arange(len(ids)), lengths - 1]
        for of_tokens in (states, scores):
            if of_tokens:
                own = torch.arange(of_tokens[0].shape[1], device=self.device) < lengths[:, None]
                of_tokens[0] = of_tokens[0].float() * own[..., None]
        return TextOutputs(
            outputs,
            pooled=features[0].float() if features else None,
            states=states[0] if states else None,
            tokens=lengths if self.whole_tokens else None,
            token_outputs=scores[0] if scores else None,
            log_probabilities=self._next_tokens(ids) if "log_probabilities" in reads else None,
        )

    @property
    def _without_adapters(self) -> Any:
        """The network as a class of transformers, without peft's wrapper around it."""
        return getattr(self.network, "get_base_model", lambda: self.network)()

    @property
    def shares_prefixes(self) -> bool:
        """Whether the texts of one prompt are computed in one row."""
        return not (self.whole_network or self.whole_tokens) and can_share_prefixes(self._without_adapters)

    @property
    def has_token_types(self) -> bool:
        """Whether the network is told which sentence of a pair a token is of."""
        kinds = getattr(self.network.config, "type_vocab_size", None) or 0
        return self.renderer.pairs and kinds > 1 and "token_type_ids" in self.tokenizer.model_input_names

    @property
    def reads(self) -> frozenset[Reads]:
        """What is computed of a text besides the head's outputs: what the loss reads too, while dropout is
        on."""
        return self.objective.reads | (self.objective.losses_read if self.network.training else frozenset())

    @property
    def whole_tokens(self) -> bool:
        """Whether something of all tokens is computed."""
        return bool(self.reads & OF_ALL_TOKENS)

    @property
    def loss_reads_tokens(self) -> bool:
        """Whether a loss is computed from something of all tokens."""
        return bool((self.objective.reads | self.objective.losses_read) & OF_ALL_TOKENS)

    @functools.cached_property
    def _next_tokens(self) -> NextTokens:
        """The objective's language model, loaded for the first text."""
        reference = self.objective.language_model
        if reference is None:
            raise ModelError(f"the objective {self.objective.name} names no language model to read")
        return NextTokens(reference, self.tokenizer, self.device)

    def computed_tokens(self, lengths: Sequence[int]) -> int:
        """How many tokens a forward pass over rows of these lengths computes, padding included."""
        return computed_tokens(sum(lengths)) if self.unpadded else len(lengths) * max(lengths)

    def call_whole_layers(self, *, sharded: bool = False) -> None:
        """Compute padded batches from now on, as gradient checkpointing needs, which hooks into calls of
        layers, and FSDP, which hooks into calls of the network."""
        self.unpadded, self.whole_layers = False, True
        self.whole_network |= sharded

    @property
    def scalar_layer(self) -> torch.nn.Linear:
        """The last layer of the head, d → k: outputs = features · weight + bias (where it has a bias)."""
        return last_layer(self.head)

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], on_scored: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Rewards of aligned prompts and responses, [n] float32, by `score_windows`."""
        return self.rewards(self.readouts(prompts, responses, on_scored))

    def readouts(
        self, prompts: Sequence[str], responses: Sequence[str], on_scored: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Readouts of aligned prompts and responses, [n, q] float32, by `score_windows`."""
        if len(prompts) != len(responses):
            raise ValueError(f"there are {len(prompts)} prompts for {len(responses)} responses")
        windows = (
            (prompts[start : start + WINDOW], responses[start : start + WINDOW])
            for start in range(0, len(prompts), WINDOW)
        )
        scored = [window.readouts for window in self.score_windows(windows, on_scored)]
        return np.concatenate(scored) if scored else np.empty((0, self.objective.outputs), np.float32)

    @torch.inference_mode()
    def rewards(self, readouts: NDArray[np.float32]) -> NDArray[np.float32]:
        """r(x, y), [n], from readouts [n, q]."""
        found: NDArray[np.float32] = self.objective.reward(self._on_device(readouts)).cpu().numpy()
        return found

    @torch.inference_mode()
    def margins(self, chosen: NDArray[np.float32], rejected: NDArray[np.float32]) -> NDArray[np.float32]:
        """logit P(chosen ≻ rejected), [n], from readouts [n, q]."""
        logits = self.objective.logit(self._on_device(chosen), self._on_device(rejected))
        found: NDArray[np.float32] = logits.cpu().numpy()
        return found

    @torch.inference_mode()
    def uncertainties(self, readouts: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The rewards' variances, [n], from readouts [n, q], if the objective knows them."""
        found = self.objective.uncertainty(self._on_device(readouts))
        return None if found is None else found.cpu().numpy()

    @torch.inference_mode()
    def disagreements(
        self, chosen: NDArray[np.float32], rejected: NDArray[np.float32]
    ) -> NDArray[np.float32] | None:
        """The margins' standard deviations over members, [n], from readouts [n, q], if there are several."""
        found = self.objective.disagreement(self._on_device(chosen), self._on_device(rejected))
        return None if found is None else found.cpu().numpy()

    def _on_device(self, numbers: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(numbers).to(self.device)

    @torch.inference_mode()
    def score_windows(
        self,
        windows: Windows,
        on_scored: Callable[[int], None] | None = None,
        *,
        keep_features: bool = False,
        remember: bool = True,
    ) -> Iterator[Scored]:
        """Readouts of texts that arrive in windows; one window is held at a time.

        Each distinct sequence of tokens is computed once for all windows, in a batch of texts of similar
        length. In a decoder the responses to one prompt share its prefix. If features are kept in a store,
        the readouts of a window are computed from them together, so that the readouts of one text in two
        windows may differ in the last bit.

        Args:
            windows: aligned prompts and responses.
            on_scored: called with the number of texts that have been scored since its last call.
            keep_features: also return the features, and compute the readouts from them; then a text is
                computed once in each of its windows.
            remember: whether readouts of former windows are kept; otherwise a text is computed once in each
                of its windows, and memory does not grow with the number of texts.

        Yields:
            The result of each window.

        Raises:
            ModelError: features are asked for, and the objective reads more than they hold.
            OutOfMemoryError: one text alone does not fit into memory.
        """
        self.train(False)
        budget = TokenBudget(self.config.batch_tokens)
        if keep_features and self.whole_tokens:
            raise ModelError(
                f"the objective {self.objective.name} reads all tokens of a text, so that its margins do "
                "not follow from the inputs of the last layer"
            )
        if self.store or keep_features:
            scored = self._by_features(windows, budget, on_scored or _tell_nobody)
        else:
            scored = self._by_readouts(windows, budget, on_scored or _tell_nobody, remember)
        n = prompts_cut = responses_cut = 0
        for window in scored:
            n += len(window.readouts)
            prompts_cut += window.prompts_cut
            responses_cut += window.responses_cut
            yield window if keep_features else window._replace(features=window.features[:, :0])
        cut = prompts_cut, responses_cut
        if any(cut):
            logger.warning(
                "Of %d texts, %d lost the beginning of their prompt and %d the end of their response to the "
                "limit of %d tokens.",
                n, *cut, self.renderer.max_length,
            )  # fmt: skip

    def _by_readouts(
        self, windows: Windows, budget: TokenBudget, on_scored: Callable[[int], None], remember: bool
    ) -> Iterator[Scored]:
        """Readouts of windows, without features; no sequence of tokens is computed twice in what is
        remembered."""
        scorer = self._scorer()
        known: dict[bytes, tuple[float, ...]] = {}
        for prompts, responses in windows:
            if not remember:
                known.clear()
            rendering = self.renderer.render(prompts, responses)
            digests = [tokens_name(ids) for ids in rendering.ids]
            copies = Counter(digests)
            if self.known:
                kept = self.known.find(list(copies.keys() - known.keys()))
                known |= {digest: tuple(readout.tolist()) for digest, readout in kept.items()}
            new = {digest: text for text, digest in enumerate(digests) if digest not in known}
            on_scored(sum(copies[digest] for digest in copies.keys() - new.keys()))
            with self._keeping() as keep:
                for batch, readouts, _ in scorer._batches(list(new.values()), rendering, budget):
                    computed = dict(zip((digests[text] for text in batch), readouts.tolist(), strict=True))
                    known |= {digest: tuple(readout) for digest, readout in computed.items()}
                    keep(computed)
                    on_scored(sum(copies[digests[text]] for text in batch))
            scored = np.array([known[digest] for digest in digests], dtype=np.float32)
            nothing = np.empty((len(scored), 0), np.float32)
            sequences = pd.factorize(np.array(digests, dtype=object))[0]
            yield Scored(scored, nothing, rendering.prompts_cut, rendering.responses_cut, sequences)

    @contextmanager
    def _keeping(self) -> Iterator[Callable[[dict[bytes, list[float]]], None]]:
        """Yield what keeps readouts by the names of their texts, if they are kept."""
        waiting: dict[bytes, list[float]] = {}
        written = time.monotonic()

        def write() -> None:
            if self.known and waiting:
                self.known.add(list(waiting), np.array(list(waiting.values()), np.float32))
            waiting.clear()

        def keep(readouts: dict[bytes, list[float]]) -> None:
            nonlocal written
            waiting.update(readouts)
            if time.monotonic() - written > KEEP_SECONDS:
                write()
                written = time.monotonic()

        try:
            yield keep
        finally:
            write()

    def _by_features(
        self, windows: Windows, budget: TokenBudget, on_scored: Callable[[int], None]
    ) -> Iterator[Scored]:
        """Features of windows, and the readouts computed from them.

        The head reads a whole window at once, so that no readout depends on what the store already held.
        """
        for prompts, responses in windows:
            found = self.features(prompts, responses, budget, on_scored)
            readouts = self.of_features(torch.from_numpy(found.distinct).to(self.device))
            yield Scored(
                self.objective.readout(readouts).cpu().numpy()[found.rows],
                found.distinct[found.rows],
                int(found.prompts_cut.sum()),
                int(found.responses_cut.sum()),
                found.rows,
            )

    def of_features(self, features: torch.Tensor) -> TextOutputs:
        """The head's outputs for features, [m, d]."""
        return TextOutputs(self.scalar_layer(features), features)

    @torch.inference_mode()
    def features(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        budget: TokenBudget,
        on_computed: Callable[[int], None] | None = None,
    ) -> Features:
        """The inputs of the scalar layer; each distinct sequence of tokens is computed once, unless stored.

        They are the pooled text for BERT and DeBERTa, the dense layer's output for RoBERTa, the last token's
        hidden state for a decoder: the features of the theory's linear reward model.

        Args:
            prompts: [n], at least one.
            responses: [n].
            budget: tokens of a forward pass.
            on_computed: called with the number of texts, of the n, that are done since its last call.
        """
        self.train(False)
        waiting = len(prompts)

        def compute(rendering: Rendering) -> NDArray[np.float32]:
            nonlocal waiting
            features = np.empty((len(rendering.ids), self.scalar_layer.in_features), np.float32)
            for batch, _, computed in self._scorer()._batches(range(len(features)), rendering, budget):
                features[batch] = computed.cpu().numpy()
                waiting -= len(batch)
                if on_computed:
                    on_computed(len(batch))
            return features

        if self.store:
            found = self.store.complete(prompts, responses, compute)
        else:
            found = features_of(self.renderer.render(prompts, responses), compute)
        if on_computed:
            on_computed(waiting)
        return found

    def _batches(
        self, texts: Sequence[int], rendering: Rendering, budget: TokenBudget
    ) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
        """Readouts and features of `texts` of the rendering, batch after batch."""
        rows, lengths = self.rows(texts, rendering)

        def forward(batch: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor]:
            some = [rows[row] for row in batch]
            ids = [rendering.ids[text] for row in some for text in row]
            try:
                if self.shares_prefixes:
                    found = self.forward_rows(some, rendering)
                    readouts = self.objective.readout(found)
                    if (
                        readouts.isfinite().all()
                    ):  # else a NaN in padding, which weights of 0 do not remove, would spread over its row
                        assert found.pooled is not None
                        return readouts, found.pooled
                return self._readouts_and_features(ids)
            except RuntimeError as error:
                if len(batch) > 1 or len(ids) == 1 or not should_reduce_batch_size(error):
                    raise
            clear_device_cache()
            return self._apart(ids, budget.tokens)

        for batch, (readouts, features) in budget.run(forward, lengths):
            yield [text for row in batch for text in rows[row]], readouts, features

    def _readouts_and_features(self, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The readouts, [m, q], and features, [m, d], of one forward pass."""
        found = self._forward(ids, pooled=True)
        assert found.pooled is not None
        return self.objective.readout(found), found.pooled

    def _apart(self, ids: Sequence[Sequence[int]], tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_readouts_and_features`, for the texts of one row that does not fit into memory."""

        def forward(batch: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor]:
            return self._readouts_and_features([ids[text] for text in batch])

        batches, results = zip(*TokenBudget(tokens).run(forward, list(map(len, ids))), strict=True)
        readouts, features = zip(*results, strict=True)
        in_order = torch.from_numpy(np.argsort(np.concatenate(batches))).to(self.device)
        return torch.cat(readouts)[in_order], torch.cat(features)[in_order]

    def _packed_forward(self, packed: Packed) -> TextOutputs:
        """One forward pass over texts in shared rows."""
        inputs = {name: tensor.to(self.device) for name, tensor in packed.inputs.items()}
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            body = self._without_adapters.base_model
            states = body(**inputs, use_cache=False).last_hidden_state
            row, end = packed.ends.to(self.device).T
            features = states[row, end].float()  # a decoder's head is its scalar layer
            outputs: torch.Tensor = self.head(features)
        return TextOutputs(outputs.float(), features)

    def _scorer(self) -> "RewardModel":
        """The network that scores: on a CPU, a copy with faster linear layers."""
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        if self.whole_layers or self.device.type != "cpu" or not can_multiply(dtype):
            return self
        scorer = copy.copy(self)
        scorer.network = with_onednn_linear(self.network, self.head, dtype)
        scorer.head = head_of(scorer.network)
        return scorer


class PairRewards(NamedTuple):
    """Scored preference pairs."""

    table: pd.DataFrame
    """Columns pair_id, reward_chosen, reward_rejected, margin (float32), in the order of the pairs; also
    readout_chosen and readout_rejected, lists, if a readout is more than the reward; also variance_chosen and
    variance_rejected if the objective gives variances, and disagreement if it has several members."""
    prompts_cut: int
    """Texts that lost the beginning of their prompt to the limit of tokens."""
    responses_cut: int
    """Texts that lost the end of their response to it."""
    same_tokens: list[int]
    """The pairs, by their place, whose two texts are the same tokens, by the limit or by the tokenizer."""


def readouts_of(table: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The readouts, [n, q] each, of the chosen and rejected responses in a table of `PairRewards`."""
    if "readout_chosen" in table:
        chosen, rejected = (np.stack(table[f"readout_{side}"].to_list()) for side in ("chosen", "rejected"))
        return chosen.astype(np.float32), rejected.astype(np.float32)
    chosen, rejected = (
        table[f"reward_{side}"].to_numpy(np.float32)[:, None] for side in ("chosen", "rejected")
    )
    return chosen, rejected


def pair_rewards(
    model: RewardModel,
    pairs: Rows,
    on_scored: Callable[[int], None] | None = None,
    on_features: Callable[[NDArray[np.float32], NDArray[np.float32]], None] | None = None,
) -> PairRewards:
    """Score preference pairs (docs/method.md, step 1): rewards, and the margin logit P(chosen ≻ rejected).

    Args:
        model: the current reward model.
        pairs: columns pair_id, prompt, chosen, rejected; as batches their texts need not fit into memory.
        on_scored: called with the number of texts, of the 2n, that are done since its last call.
        on_features: called with ψ = φ(x, y⁺) − φ(x, y⁻) [m, d] and Δ [m] of some pairs at a time, where φ are
            the inputs of the head's last layer.

    Returns:
        The table, and how many texts were truncated. Under Bradley–Terry the margin of responses that have
        the same tokens is exactly 0.

    Raises:
        ModelError: a reward is NaN or infinite; names the pairs.
        OutOfMemoryError: one text alone does not fit into memory.
    """
    ids = [np.empty(0, object)]

    def windows() -> Windows:
        for batch in batches_of(pairs):
            ids.append(batch["pair_id"].to_numpy(zero_copy_only=False).astype(object))
            for start in range(0, len(batch), WINDOW // 2):
                some = batch.slice(start, WINDOW // 2)
                prompts, chosen, rejected = (
                    some[name].to_pylist() for name in ("prompt", "chosen", "rejected")
                )
                yield prompts * 2, chosen + rejected

    halves, same = [], [np.empty(0, bool)]
    prompts_cut = responses_cut = 0
    for window in model.score_windows(windows(), on_scored, keep_features=bool(on_features)):
        halves.append(window.readouts.reshape(2, len(window.readouts) // 2, -1))
        prompts_cut += window.prompts_cut
        responses_cut += window.responses_cut
        same.append(np.equal(*np.split(window.sequences, 2)))
        if on_features:
            phi = window.features.reshape(2, len(window.features) // 2, -1)
            on_features(phi[0] - phi[1], model.margins(*halves[-1]))
    readouts = (
        np.concatenate(halves, axis=1) if halves else np.empty((2, 0, model.objective.outputs), np.float32)
    )
    chosen, rejected = map(model.rewards, readouts)
    margins = model.margins(*readouts)
    pair_ids = np.concatenate(ids)
    broken = pair_ids[~(np.isfinite(chosen) & np.isfinite(rejected) & np.isfinite(margins))]
    if len(broken):
        listed = ", ".join(broken[:5])
        raise ModelError(
            f"the rewards of {len(broken)} of {len(pair_ids)} pairs are NaN or infinite: {listed}"
        )
    table = pd.DataFrame(
        {"pair_id": pair_ids, "reward_chosen": chosen, "reward_rejected": rejected, "margin": margins}
    )
    is_more = readouts.shape[2] > 1 or not np.array_equal(readouts[..., 0], np.stack([chosen, rejected]))
    if is_more:
        for side, own in zip(("chosen", "rejected"), readouts, strict=True):
            table[f"readout_{side}"] = list(own)
    table = table.assign(**_doubts(model, *readouts))
    return PairRewards(table, prompts_cut, responses_cut, np.flatnonzero(np.concatenate(same)).tolist())


def _doubts(
    model: RewardModel, chosen: NDArray[np.float32], rejected: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """The columns of how sure the objective is of readouts [n, q], as far as it knows."""
    known = {
        "variance_chosen": model.uncertainties(chosen),
        "variance_rejected": model.uncertainties(rejected),
        "disagreement": model.disagreements(chosen, rejected),
    }
    return {name: numbers for name, numbers in known.items() if numbers is not None}


def _tell_nobody(more: int) -> None:
    """No progress bar."""


def _digest_of_body(settings: Any, weights: dict[str, torch.Tensor], bfloat16: bool) -> bytes:
    """A digest of all that features depend on: settings, weights and precision."""
    computed_by = {
        name: value
        for name, value in settings.to_dict().items()
        if name not in OF_THE_CHECKPOINT and "dropout" not in name and not name.endswith("pdrop")
    }
    whole = hashlib.blake2b(repr((bfloat16, sorted(computed_by.items()))).encode(), digest_size=16)
    for name, tensor in sorted(weights.items()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return whole.digest()


def _uses_bfloat16(precision: str, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        supported = bool(torch.cuda.is_bf16_supported(including_emulation=False))
    else:
        supported = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    if not supported:
        _tell_float32(device.type)
    return supported


@functools.cache
def _tell_float32(device: str) -> None:
    """Log once in each process that models run slower than they could."""
    logger.warning("This %s has no bfloat16; models compute in float32.", device)


def _positions(network: Any, tokenizer: Any) -> int:
    """Most tokens of one text; RoBERTa's positions start after the padding index."""
    settings = network.config.get_text_config()
    limits = [tokenizer.model_max_length, getattr(settings, "max_position_embeddings", None)]
    for name, table in network.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            limits.append(table.num_embeddings - table.padding_idx - 1)
    return min(int(limit) for limit in limits if limit)


def _in_float32(head: Any, features: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A head's `forward` outside autocast: bfloat16 has 8 bits, and margins are differences.

    It is a method, not a closure: the copy of the head that peft trains must compute with its own weights.
    """
    with torch.autocast(features.device.type, enabled=False):
        output: torch.Tensor = type(head).forward(head, features.float(), *args, **kwargs)
    return output
