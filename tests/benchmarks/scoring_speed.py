"""Scoring of preference pairs against the authors' loop, TRL's batches and the machine's own limits.

Every side renders its texts inside the measured time and starts from the same checkpoint.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from material import BACKBONE, DECODER, checkpoint, preference_pairs, sentences, word_tokenizer
from measuring import alternately, apart, peak_memory

from mars_core.model.batching import padded, token_batches
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards

PAIRS = 400
DECODER_PAIRS = 96
"""A decoder of 135 million weights takes minutes for so many."""
ROUNDS = 3
SIZES = (1_000, 4_000, 16_000)
Figures = dict[str, Any]


def authors_loop(start: Path, pairs: Dataset) -> Figures:
    """`pair_rewards` against batches of 8 pairs, chosen and rejected in two passes, unsorted, in fp32."""
    runs = alternately(
        {
            "ours": partial(_scored, start, pairs),
            "authors": partial(_looped, start, pairs, 8, together=False, bfloat16=False),
        },
        ROUNDS,
    )
    exact = _scored(start, pairs, precision="float32")
    ours, authors = map(_fastest, runs.values())
    return {
        "ratio": authors["seconds"] / ours["seconds"],
        "wanted": "≥ 3",
        "pairs": len(pairs),
        "pairs_per_second": len(pairs) / ours["seconds"],
        "pairs_per_second_authors": len(pairs) / authors["seconds"],
        "padding": 1 - ours["tokens"] / ours["computed"],
        "padding_authors": 1 - authors["tokens"] / authors["computed"],
        "precision": ours["precision"],
        "sign_agreement": float(np.mean((ours["margins"] > 0) == (authors["margins"] > 0))),
        "margin_difference": float(np.abs(ours["margins"] - authors["margins"]).max()),
        "margin_deviation": float(authors["margins"].std()),
        "margin_difference_fp32": float(np.abs(exact["margins"] - authors["margins"]).max()),
        "best_of": ROUNDS,
    }


def trl_batching(start: Path, pairs: Dataset) -> Figures:
    """`pair_rewards` against TRL's batches: chosen and rejected together, unsorted; its best setting."""
    few = pairs.select(range(0, len(pairs), max(1, len(pairs) // 64)))
    settings = {
        f"batch {size}, {'bf16' if bfloat16 else 'fp32'}": partial(
            _looped, start, size=size, together=True, bfloat16=bfloat16
        )
        for size in (8, 16)
        for bfloat16 in (False, True)
    }
    tried = alternately({name: partial(loop, few) for name, loop in settings.items()}, 1)
    best = min(tried, key=lambda name: tried[name][0]["seconds"])
    runs = alternately({"ours": partial(_scored, start, pairs), best: partial(settings[best], pairs)}, ROUNDS)
    ours, theirs = map(_fastest, runs.values())
    return {
        "ratio": theirs["seconds"] / ours["seconds"],
        "pairs": len(pairs),
        "pairs_per_second": len(pairs) / ours["seconds"],
        "pairs_per_second_trl": len(pairs) / theirs["seconds"],
        "padding": 1 - ours["tokens"] / ours["computed"],
        "padding_trl": 1 - theirs["tokens"] / theirs["computed"],
        "trl": best,
        "best_of": ROUNDS,
    }


def peak(start: Path, pairs: Dataset) -> Figures:
    """Useful FLOP/s of scoring over the machine's matrix-product rate in the same precision."""
    model = RewardModel.load(str(start), ModelConfig())
    texts = model.renderer.render(list(pairs["prompt"]) * 2, [*pairs["chosen"], *pairs["rejected"]]).ids
    lengths = [len(text) for text in {tuple(text) for text in texts}]
    flops = _useful_flops(model.network, lengths)
    skipped = _skipped_flops(model.network, lengths) if model.unpadded else 0.0
    dtype = torch.bfloat16 if model.bfloat16 else torch.float32
    size = 8192 if model.device.type == "cuda" else 2048
    runs = alternately(
        {
            "matrix product": partial(_product_seconds, size, dtype, model.device),
            "scoring": lambda: _scored(start, pairs)["seconds"],
        },
        ROUNDS,
    )
    rate, possible = flops / min(runs["scoring"]), 2 * size**3 / min(runs["matrix product"])
    return {
        "ratio": rate / possible,
        "wanted": "≥ 0.5",
        "ratio of what is computed": (flops - skipped) / flops * rate / possible,
        "gflops_per_second": rate / 1e9,
        "matrix_product_gflops_per_second": possible / 1e9,
        "precision": "bf16" if model.bfloat16 else "fp32: this machine has no bf16",
        "counted": "2 × parameters without embeddings, pooler and head × real tokens, and attention",
        "best_of": ROUNDS,
    }


def linear(data: Path | None) -> Figures:
    """Seconds a text for 1k, 4k and 16k distinct texts; short ones, so that 16k take a minute or two."""
    rounds = 2
    with checkpoint() as start:
        runs = alternately(
            {str(size): partial(apart, _recombined, start, data, size) for size in SIZES}, rounds
        )
    seconds = np.array([min(run["seconds"] for run in runs[str(size)]) for size in SIZES])
    memory = [min(run["peak_mib"] for run in runs[str(size)]) for size in SIZES]
    each = seconds / SIZES
    line = np.dot(seconds, SIZES) / np.dot(SIZES, SIZES)
    return {
        "ratio": each[0] / each[-1],
        "wanted": "near 1",
        "texts": SIZES,
        "texts_per_second": (1 / each).tolist(),
        "deviation": float(np.abs(each / line - 1).max()),
        "deviation_wanted": "≤ 0.15",
        "peak_mib": memory,
        "memory_growth_mib": memory[-1] - memory[0],
        "best_of": rounds,
    }


def prefix_sharing(_: Path | None) -> Figures:
    """A random Llama, long prompts of 4 responses each: `score` against each text by itself in batches."""
    prompts = np.repeat(sentences(np.full(48, 384), words=1_000, seed=0), 4).tolist()
    responses = sentences(np.random.default_rng(1).integers(16, 96, size=len(prompts)), words=1_000, seed=2)
    settings = transformers.LlamaConfig(
        vocab_size=1_004, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=1_024, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.LlamaForSequenceClassification(settings)
    model = RewardModel(
        network,
        word_tokenizer(1_000, 1_024, encoder=False),
        ModelConfig(max_length=1_024, precision="float32"),
    )

    def shared() -> Figures:
        with _counted(network) as computed:
            started = time.perf_counter()
            scores = model.score(prompts, responses)
            return {"seconds": time.perf_counter() - started, "computed": sum(computed), "scores": scores}

    @torch.inference_mode()
    def each_by_itself() -> Figures:
        with _counted(network) as computed:
            started = time.perf_counter()
            ids = model.renderer.render(prompts, responses).ids
            scores = np.empty(len(ids), dtype=np.float32)
            for batch in token_batches([len(text) for text in ids], model.config.batch_tokens):
                scores[batch] = model.forward([ids[i] for i in batch]).outputs.squeeze(-1).cpu().numpy()
            return {"seconds": time.perf_counter() - started, "computed": sum(computed), "scores": scores}

    runs = alternately({"ours": shared, "each by itself": each_by_itself}, ROUNDS)
    ours, plain = map(_fastest, runs.values())
    return {
        "ratio": plain["seconds"] / ours["seconds"],
        "texts": len(prompts),
        "tokens": ours["computed"],
        "tokens_unshared": plain["computed"],
        "score_difference": float(np.abs(ours["scores"] - plain["scores"]).max()),
        "best_of": ROUNDS,
    }


def _scored(start: Path, pairs: Dataset, precision: str = "auto") -> Figures:
    """This project's way; the model is loaded anew, so that no earlier run has rendered its texts."""
    model = RewardModel.load(str(start), ModelConfig(precision=precision))
    with _counted(model.network) as computed:
        started = time.perf_counter()
        margins = pair_rewards(model, pairs).table["margin"].to_numpy()
        seconds = time.perf_counter() - started
    texts = model.renderer.render(list(pairs["prompt"]) * 2, [*pairs["chosen"], *pairs["rejected"]]).ids
    return {
        "seconds": seconds,
        "margins": margins,
        "tokens": sum(map(len, {tuple(text) for text in texts})),
        "computed": sum(computed),
        "precision": "bf16" if model.bfloat16 else "fp32",
    }


@torch.no_grad()
def _looped(start: Path, pairs: Dataset, size: int, *, together: bool, bfloat16: bool) -> Figures:
    """A plain loop over batches of `size` pairs as they come, padded to the longest of a forward pass."""
    model = RewardModel.load(str(start), ModelConfig())
    renderer, device = model.renderer, model.device
    del model
    network = transformers.AutoModelForSequenceClassification.from_pretrained(start, dtype=torch.float32)
    network = network.to(device).eval()
    margins, tokens, pad = [], 0, renderer.tokenizer.pad_token_id
    with _counted(network) as computed, torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        started = time.perf_counter()
        for batch in pairs.iter(size):
            n = len(batch["prompt"])
            ids = renderer.render(batch["prompt"] * 2, batch["chosen"] + batch["rejected"]).ids
            passes = [ids] if together else [ids[:n], ids[n:]]
            rewards = [
                network(**{name: tensor.to(device) for name, tensor in padded(texts, pad).items()}).logits
                for texts in passes
            ]
            chosen, rejected = torch.cat(rewards).float().squeeze(-1).chunk(2)
            margins.append((chosen - rejected).cpu().numpy())
            tokens += sum(map(len, ids))
        seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "margins": np.concatenate(margins),
        "tokens": tokens,
        "computed": sum(computed),
    }


def _recombined(start: Path, data: Path | None, size: int) -> Figures:
    """Score `size` distinct texts: short prompts and responses of the data, joined at random."""
    pairs = preference_pairs(data, PAIRS)
    random = np.random.default_rng(0)
    prompts = [text for text in dict.fromkeys(pairs["prompt"]) if len(text) < 100]
    responses = [text for text in dict.fromkeys([*pairs["chosen"], *pairs["rejected"]]) if len(text) < 100]
    drawn = random.choice(len(prompts) * len(responses), size=64 + size, replace=False)
    model = RewardModel.load(str(start), ModelConfig())

    def score(some: np.ndarray) -> None:
        asked, answers = np.divmod(some, len(responses))
        model.score([prompts[i] for i in asked], [responses[i] for i in answers])

    score(drawn[:64])  # warms up
    started = time.perf_counter()
    score(drawn[64:])
    return {"seconds": time.perf_counter() - started, "peak_mib": peak_memory()}


def _useful_flops(network: Any, lengths: list[int]) -> float:
    """Additions and multiplications that these texts need in one forward pass, padding not counted."""
    left_out = ("embed", "pooler", "classifier", "score")
    weights = sum(w.numel() for name, w in network.named_parameters() if not any(x in name for x in left_out))
    settings, n = network.config, np.asarray(lengths, dtype=float)
    # QKᵀ and the weighted sum of V: 2 · n² · width each; a decoder looks back only, at half of it.
    seen = 2 if settings.model_type == "llama" else 4
    attention = seen * settings.num_hidden_layers * settings.hidden_size * (n**2).sum()
    return float(2 * weights * n.sum() + attention)


def _product_seconds(size: int, dtype: torch.dtype, device: torch.device) -> float:
    """Seconds of one product of two square matrices, the mean of 20 in a row."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    (a @ b).sum().item()
    started = time.perf_counter()
    for _ in range(20):
        product = a @ b
    product[0, 0].item()  # waits for a GPU
    return (time.perf_counter() - started) / 20


def _skipped_flops(network: Any, lengths: list[int]) -> float:
    """What an encoder's last layer does without: all but what the first token needs."""
    layer, n = network.base_model.encoder.layer[-1], np.asarray(lengths, dtype=float)
    weights = sum(w.numel() for w in layer.parameters())
    width, heads = network.config.hidden_size, network.config.num_attention_heads
    read = 4 * heads * width * n.sum()  # each head asks every token, and sums them
    return float(2 * weights * (n - 1).sum() + 4 * width * (n**2).sum() - read)


@contextmanager
def _counted(network: Any) -> Iterator[list[int]]:
    """Tokens, padding included, of every forward pass inside the `with` block."""
    computed: list[int] = []
    embeddings = network.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda module, inputs, output: computed.append(inputs[0].numel()))
    try:
        yield computed
    finally:
        hook.remove()


def _fastest(runs: list[Figures]) -> Figures:
    return min(runs, key=lambda run: run["seconds"])


def _with(
    backbone: str, pairs: int, compare: Callable[[Path, Dataset], Figures], data: Path | None
) -> Figures:
    with checkpoint(backbone) as start:
        return compare(start, preference_pairs(data, pairs))


BENCHMARKS = {
    "scoring/authors-loop": partial(_with, BACKBONE, PAIRS, authors_loop),
    "scoring/trl-batching": partial(_with, BACKBONE, PAIRS, trl_batching),
    "scoring/peak": partial(_with, BACKBONE, PAIRS, peak),
    "scoring/decoder": partial(_with, DECODER, DECODER_PAIRS, authors_loop),
    "scoring/linear": linear,
    "scoring/prefix-sharing": prefix_sharing,
}
