"""Fitting against TRL's RewardTrainer: the same weights, texts, order of pairs, batches and learning rates.

Objectives are measured against Bradley–Terry. Each side runs in a process of its own and is timed from the
end of its first optimizer step to the end of its last, so that loading and warming up count for neither.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from material import BACKBONE, DECODER, checkpoint, preference_pairs
from measuring import alternately, apart, peak_memory

from mars_core.fit.specification import FitConfig, FitSpec
from mars_core.fit.train import _effective_batches, fit
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import OBJECTIVES, ObjectiveConfig

PAIRS = 192
BATCH = 16
LEARNING_RATE = 1e-4
SEED = 0
ROUNDS = 2
TRIAL_PAIRS = 3 * BATCH
DECODER_PAIRS = 3 * BATCH
"""A decoder of 135 million weights takes minutes for so many."""
DECODER_TRIAL_PAIRS = 2 * BATCH
OBJECTIVE_PAIRS = 3 * BATCH
OF_ALL_TOKENS = ("trajectory_consistency",)
"""Objectives that only a decoder can have."""


def _settings(sizes: tuple[int, ...], precisions: tuple[bool, ...]) -> dict[str, tuple[int, bool]]:
    """Pairs that the rival computes at once, and whether in bfloat16."""
    return {
        f"batch {size}, {'bf16' if bfloat16 else 'fp32'}": (size, bfloat16)
        for size in sizes
        for bfloat16 in precisions
    }


SETTINGS = _settings((4, 8, 16), (False, True))
Figures = dict[str, Any]
Rival = Callable[[Path, Path, int, int, bool], Figures]
"""Fits from a checkpoint on a file's first so many pairs, so many of them at once, in bf16 or not."""


def trl(data: Path | None) -> Figures:
    """One epoch in batches of 16 pairs: AdamW, linear decay, no dropout, no gradient checkpointing."""
    with checkpoint() as start:
        return against(fitted_by_trl, start, preference_pairs(data, PAIRS))


def trl_decoder(data: Path | None) -> Figures:
    """The same of all weights of SmolLM2-135M-Instruct; TRL in bf16 only where the processor has it."""
    has_bfloat16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    settings = _settings((2, 4), (False, True) if has_bfloat16 else (False,))
    with checkpoint(DECODER) as start:
        pairs = preference_pairs(data, DECODER_PAIRS)
        return against(fitted_by_trl, start, pairs, settings, DECODER_TRIAL_PAIRS)


def against(
    rival: Rival,
    start: Path,
    pairs: Dataset,
    settings: dict[str, tuple[int, bool]] = SETTINGS,
    trial_pairs: int = TRIAL_PAIRS,
) -> Figures:
    """This project's fit against the best setting of another, found on the first few batches."""
    with tempfile.TemporaryDirectory(prefix="mars-bench-") as folder:
        file = Path(folder) / "pairs.parquet"
        pairs.to_parquet(str(file))
        trials = {
            name: partial(apart, rival, start, file, trial_pairs, *setting)
            for name, setting in settings.items()
        }
        tried = {name: run["pairs_per_second"] for name, (run,) in alternately(trials, 1).items()}
        best = max(tried, key=tried.__getitem__)
        runs = alternately(
            {
                "ours": partial(apart, fitted_by_us, start, file, Path(folder)),
                best: partial(apart, rival, start, file, len(pairs), *settings[best]),
            },
            ROUNDS,
        )
    ours, theirs = (max(side, key=lambda run: run["pairs_per_second"]) for side in runs.values())
    late = slice(-max(1, len(ours["losses"]) // 4), None)
    final, final_rival = (float(np.mean(run["losses"][late])) for run in (ours, theirs))
    apart_most = np.abs(np.subtract(ours["losses"], theirs["losses"])).max()
    return {
        "ratio": ours["pairs_per_second"] / theirs["pairs_per_second"],
        "wanted": "≥ 2.5",
        "pairs": len(pairs),
        "pairs_per_second": ours["pairs_per_second"],
        "pairs_per_second_rival": theirs["pairs_per_second"],
        "final_loss": final,
        "final_loss_rival": final_rival,
        "final_loss_difference": final / final_rival - 1,
        "largest_loss_difference": float(apart_most),
        "peak_mib": min(run["peak_mib"] for run in runs["ours"]),
        "peak_mib_rival": min(run["peak_mib"] for run in runs[best]),
        "padding": ours["padding"],
        "rival": best,
        "rival_tried": tried,
        "losses": ours["losses"],
        "losses_rival": theirs["losses"],
        "best_of": ROUNDS,
    }


def fitted_by_us(start: Path, file: Path, folder: Path) -> Figures:
    """`mars_core.fit.train.fit`."""
    ends: list[float] = []
    curve: list[dict[str, float]] = []

    def report(figures: dict[str, float]) -> None:
        ends.append(time.perf_counter())
        curve.append(figures)

    result = fit(_spec(start, file, folder), report)
    losses = [step["loss"] for step in curve]
    return {**timed(ends), "losses": losses, "padding": result["padding"]}


def objectives(data: Path | None) -> Figures:
    """Every objective against Bradley–Terry: of MiniLM, and where all tokens are read of SmolLM2.

    Seconds are those of the processor, so that other work on the machine counts for little.
    """
    encoder = [name for name in OBJECTIVES.names() if name not in OF_ALL_TOKENS]
    with tempfile.TemporaryDirectory(prefix="mars-bench-") as folder:
        file = Path(folder) / "pairs.parquet"
        pairs = preference_pairs(data, OBJECTIVE_PAIRS)
        similar = [f"{text} That is all." for text in pairs["chosen"][:]]
        pairs.add_column("paraphrase", similar).to_parquet(str(file))
        sides = {name: partial(apart, fitted_by, name, BACKBONE, file, Path(folder)) for name in encoder}
        of_decoder = ["bradley_terry", *OF_ALL_TOKENS]
        sides |= {
            f"{name}, decoder": partial(apart, fitted_by, name, DECODER, file, Path(folder))
            for name in of_decoder
        }
        runs = alternately(sides, 1)
    speed = {name: run["pairs_per_cpu_second"] for name, (run,) in runs.items()}
    relative = {
        name: pairs_per_second / speed["bradley_terry" + ", decoder" * name.endswith(", decoder")]
        for name, pairs_per_second in speed.items()
    }
    return {
        "ratio": min(relative.values()),
        "pairs": len(pairs),
        **{f"speed, {name}": value for name, value in relative.items() if not name.startswith("bradley")},
        "pairs_per_cpu_second": speed["bradley_terry"],
        "pairs_per_cpu_second, decoder": speed["bradley_terry, decoder"],
    }


def fitted_by(objective: str, backbone: str, file: Path, folder: Path) -> Figures:
    """One epoch by an objective with its default keys."""
    keys = {"language_model": DECODER} if objective in OF_ALL_TOKENS else {}
    spec = _spec(Path(backbone), file, folder)
    section = ObjectiveConfig(name=objective, **keys)
    spec = spec.model_copy(
        update={"model": backbone, "fit": spec.fit.model_copy(update={"objective": section})}
    )
    ends: list[float] = []
    result = fit(spec, lambda _: ends.append(time.process_time()))
    steps = len(ends) - 1
    return {"pairs_per_cpu_second": BATCH * steps / (ends[-1] - ends[0]), "loss": result["loss"]}


def _spec(start: Path, file: Path, folder: Path) -> FitSpec:
    return FitSpec(
        model=str(start),
        pairs=[file],
        output=folder / "fitted",
        log=folder / "log.jsonl",
        seed=SEED,
        reward_model=ModelConfig(),
        fit=FitConfig(learning_rate=LEARNING_RATE, batch_pairs=BATCH, dropout=0.0),
    )


def token_ids(start: Path, file: Path, pairs: int) -> tuple[Any, Dataset]:
    """Tokenizer and ids of the first pairs in this project's order, rendered in this project's way."""
    renderer = RewardModel.load(str(start), ModelConfig()).renderer
    rows = Dataset.from_parquet(str(file))
    batches = _effective_batches(len(rows), _spec(start, file, file.parent), done=0)
    rows = rows.select(np.concatenate([batch for _, batch in batches])[:pairs])
    ids = {
        f"{side}_ids": renderer.render(list(rows["prompt"]), list(rows[side])).ids
        for side in ("chosen", "rejected")
    }
    return renderer.tokenizer, Dataset.from_dict(ids)


def fitted_by_trl(start: Path, file: Path, pairs: int, size: int, bfloat16: bool) -> Figures:
    """`trl.RewardTrainer`."""
    import transformers
    import trl

    ends: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    tokenizer, rows = token_ids(start, file, pairs)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(start, dtype=torch.float32)
    with tempfile.TemporaryDirectory(prefix="mars-bench-") as output:
        trainer = trl.RewardTrainer(
            network,
            trl.RewardConfig(
                output,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=BATCH // size,
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="linear",
                weight_decay=0.0,
                max_grad_norm=1.0,
                num_train_epochs=1,
                train_sampling_strategy="sequential",
                disable_dropout=True,
                gradient_checkpointing=False,
                bf16=bfloat16,
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=False,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=SEED,
            ),
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    return {**timed(ends), "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line]}


def timed(ends: list[float]) -> dict[str, float]:
    """Pairs a second from the end of the first optimizer step to that of the last; peak memory."""
    on_gpu = torch.cuda.is_available()
    return {
        "pairs_per_second": BATCH * (len(ends) - 1) / (ends[-1] - ends[0]),
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_memory(),
    }


BENCHMARKS = {"fitting/trl": trl, "fitting/trl-decoder": trl_decoder, "fitting/objectives": objectives}
