"""Fit the reward model, in a child process (docs/method.md, step 6)."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mars_core.experiment import ExperimentConfig
from mars_core.fit.specification import FitError, FitSpec, OnRay
from mars_core.model.reward_model import device_of
from tasks.processes.trainer import run_trainer
from tasks.run.progress import progress
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Checkpoint, Made, step, tell

TRAINER = "mars_core.fit.train"
RAY_TRAINER = "tasks.cluster.fit"


@step("fit", version=6, reads=("seed", "model", "fit"))
def fit_reward_model(
    run: RunFolder,
    round: int,
    start: ArtifactRef | Checkpoint,
    train: ArtifactRef,
    synthetic: Sequence[ArtifactRef],
    validation: ArtifactRef,
) -> Made[ArtifactRef]:
    """Train on originals ∪ synthetic pairs, from `start`: an earlier round's model, or a model reference.

    An interrupted fit resumes from its last snapshot. The output `curve` is the training curve.

    Raises:
        ChildError: the training process crashed, was killed, or took too long.
        FitError: the command of `fit.launch` is not found.
    """
    module, command = _trainer(run.config)
    if isinstance(run.config.fit.launch, OnRay):
        run.config.compute.open().release()
    paths = run.of_round(round)
    log = run.path(paths.fit_log)
    log.parent.mkdir(parents=True, exist_ok=True)
    spec = FitSpec(
        model=start.reference if isinstance(start, Checkpoint) else str(run.path(start)),
        pairs=[run.path(part) for part in (train, *synthetic)],
        validation=run.path(validation) if run.config.fit.patience else None,
        output=run.path(paths.model),
        log=run.path(paths.training),
        seed=run.config.seed,
        round=round,
        reward_model=run.config.model,
        fit=run.config.fit,
        vectors=run.vectors,
    )
    file = run.path(run.write(paths.fit, lambda path: path.write_text(spec.model_dump_json(indent=2))))
    total = run.config.fit.epochs * sum(part.rows or 0 for part in (train, *synthetic))
    with progress(f"round {round} · fit", total, "pairs") as advance:
        result = run_trainer(
            module,
            file,
            command,
            log=log,
            deadline_hours=run.config.fit.deadline_hours,
            counts="pairs_seen",
            advance=advance,
        )
    tell(
        "Fitted in %.0f steps on %s pairs: loss %.4f and accuracy %.3f over the last epoch.",
        result["steps"], f"{result['pairs']:,.0f}", result["loss"], result["accuracy"],
    )  # fmt: skip
    metrics = {f"fit/{name}": value for name, value in result.items()}
    return Made(run.adopt(paths.model), metrics, also={"curve": run.adopt(paths.training)})


def _trainer(config: ExperimentConfig) -> tuple[str, list[str]]:
    """The module that trains, and the command that runs it: by `fit.launch`, or a Python of its own on a GPU;
    none on a CPU, where it is forked."""
    launch = config.fit.launch
    if isinstance(launch, OnRay):
        return RAY_TRAINER, [sys.executable]
    if launch:
        return TRAINER, [_found(launch[0]), *launch[1:]]
    return TRAINER, [] if device_of(config.model) == "cpu" else [sys.executable]


def _found(command: str) -> str:
    # The commands of a virtual environment are beside its Python, and may not be on the PATH.
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    program = shutil.which(command, path=os.pathsep.join(places))
    if program is None:
        raise FitError(f"{command} of fit.launch is neither on the PATH nor beside {sys.executable}")
    return program
