"""A fit in processes on the nodes of a Ray cluster, which Ray Train starts.

    python -m tasks.cluster.fit SPECIFICATION

They are those of `mars_core.fit.train`, with the same specification, standard output and result. A process
that dies, alone or with its node, ends the others; all start again, as many as there is room for then, and go
on from the last snapshot of the fit. An error of the fit itself ends it at once.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from mars_core.errors import MarsError
from mars_core.files import remove
from mars_core.fit.specification import FitError, FitSpec, OnRay
from tasks.cluster.nodes import check_nodes, check_room, connected, first_line, resources, room

MAX_FAILURES = 3
"""Deaths of processes that a fit survives in one start."""
WAITING_SECONDS = 2 * 60 * 60
"""How long processes wait for each other, as while the first one writes."""
NEVER_SECONDS = 1e9
LOOK_SECONDS = 0.5


class _Lines:
    """An actor: it hands lines of the first process to the one that has started the fit."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Keep a line."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """The lines since the last call."""
        taken, self._lines = self._lines, []
        return taken


def main(spec_file: str) -> None:
    """Run one fit, see `mars_core.fit.train.main`.

    Raises:
        FitError: as of `mars_core.fit.train.fit`, or processes died too often.
        ComputeError: the cluster cannot be used, or has no room.
    """
    spec = FitSpec.model_validate_json(Path(spec_file).read_text())
    launch = spec.fit.launch
    assert isinstance(launch, OnRay)
    ray = connected("auto")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    cpus, gpus = resources(ray, launch.cpus, launch.gpus)
    check_room(ray, "a process of the fit (fit.launch)", cpus, gpus)
    check_nodes(ray, spec.output.parent)
    lines = ray.remote(num_cpus=0)(_Lines).remote()
    state = spec.output.with_name(f".{spec.output.name}.ray")
    trainer = TorchTrainer(
        _train,
        train_loop_config={
            "spec": str(Path(spec_file).absolute()),
            "folder": str(Path.cwd()),
            "lines": lines,
        },
        scaling_config=ScalingConfig(
            num_workers=(1, launch.workers or room(ray, cpus, gpus)),
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus, "GPU": gpus},
            elastic_resize_monitor_interval_s=NEVER_SECONDS,  # others would lose what is not in a snapshot
        ),
        run_config=RunConfig(
            name="fit", storage_path=str(state), failure_config=FailureConfig(max_failures=MAX_FAILURES)
        ),
        torch_config=TorchConfig(timeout_s=WAITING_SECONDS),
    )
    failed, output = list[str](), sys.stdout

    def take() -> None:
        for line in ray.get(lines.take.remote()):
            if line.startswith("{"):
                print(line, file=output, flush=True)
            else:
                failed.append(line)

    with redirect_stdout(sys.stderr), _repeated(take):  # Ray prints, too
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise FitError(f"processes died more than {MAX_FAILURES} times: {first_line(error)}") from None
        finally:
            remove(state)
    if failed:
        raise FitError(failed[0])


def _train(about: dict[str, Any]) -> None:
    """What each process does."""
    import ray.train

    from mars_core.fit.train import fit
    from mars_core.fit.training_curve import CurveFile

    with suppress(OSError):  # it is for relative paths
        os.chdir(about["folder"])
    spec = FitSpec.model_validate_json(Path(about["spec"]).read_text())
    is_first = ray.train.get_context().get_world_rank() == 0
    tell: Callable[[str], Any] = about["lines"].add.remote
    curve = CurveFile(spec.log) if is_first else None

    def report(figures: dict[str, float]) -> None:
        assert curve  # the first process alone reports
        curve.add(figures)
        tell(json.dumps(figures))

    try:
        result = fit(spec, report)
        said = json.dumps({"result": result})
    except MarsError as error:  # another try would meet it again
        said = str(error)
    if is_first:
        ray.get(tell(said))


@contextmanager
def _repeated(act: Callable[[], None]) -> Iterator[None]:
    """Act again and again in a thread during a `with` block, and once at its end."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(LOOK_SECONDS):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        act()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except MarsError as error:
        sys.exit(str(error))
