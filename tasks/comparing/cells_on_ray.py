"""Cells of a comparison as tasks of a Ray cluster.

A cell is a whole run, so all that it computes, its fits and the server that it launches included, is on the
node where Ray has placed it. It uses neither Prefect nor MLflow there: the comparison's own process shows it
as a task, and sends its metrics when all cells are finished. A cell whose process or node dies has failed; it
is tried again as any other, and goes on after its last finished step.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from mars_core.comparison import CellOnRay
from tasks.cluster.nodes import ComputeError, check_nodes, check_room, connected, first_line

LOCK_SECONDS = 120.0
"""How long a cell waits for its folder, which a process on a dead node may hold for a while."""


class CellsOnRay:
    """Runs the cells in the folder `root` on the nodes of a cluster."""

    def __init__(self, root: Path, wanted: CellOnRay) -> None:
        """Connect to the cluster, and check its nodes.

        Raises:
            ComputeError: it does not answer, a node has another version or does not see the folder, or no
                node has what a cell takes.
        """
        self.root = root
        self._ray = connected("auto")
        check_room(self._ray, "a cell (the key ray)", wanted.cpus, wanted.gpus)
        check_nodes(self._ray, root)
        self._task = self._ray.remote(
            num_cpus=wanted.cpus, num_gpus=wanted.gpus, max_retries=0, scheduling_strategy="SPREAD"
        )(_run)

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Call `work`, which makes the cell `name`, on a node with room for it.

        Raises:
            ComputeError: its process ended, as when memory runs out or its node dies.
            Exception: what `work` raised.
        """
        task = self._task.options(name=name).remote(work, str(self.root / name), str(Path.cwd()))
        try:
            self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)  # of an error that the cell raised
            if isinstance(cause, Exception):
                raise cause from None
            raise ComputeError(f"the process of the cell ended: {first_line(error)}") from None


def _run(work: Callable[[], None], folder: str, place: str) -> None:
    """On a node: do a cell's work in the comparison's working folder `place`, and log it in the cell's
    `folder`."""
    try:
        os.chdir(place)
    except OSError as error:
        raise ComputeError(
            f"the comparison was started in {place}, where its cells work too, and this node cannot: {error}"
        ) from None
    Path(folder).mkdir(exist_ok=True)
    with FileLock(Path(folder, ".lock"), timeout=LOCK_SECONDS):
        pass
    log = logging.FileHandler(Path(folder, "cell.log"))
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(log)
    logging.getLogger("mars").setLevel(logging.INFO)
    try:
        work()
    finally:
        logging.getLogger().removeHandler(log)
        log.close()
