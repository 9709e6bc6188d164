"""The state of an unfinished fit on disk: trainable weights, the moments of AdamW, and the metrics so far.

It is one safetensors file, without pickles. It is written under a temporary name and then renamed, so that
the last snapshot survives any interruption. It names its fit, and no other fit reads it.
"""

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mars_core.files import write_whole

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

logger = logging.getLogger(__name__)

MOMENTS = ("exp_avg", "exp_avg_sq")


class Snapshot:
    """The file where a fit keeps weights and the optimizer's moments of them."""

    def __init__(
        self,
        file: Path,
        digest: str,
        weights: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer | None,
        processes: Any,
    ) -> None:
        """Keep `weights` in `file` for the fit that `digest` names."""
        self.file, self.digest, self.processes = file, digest, processes
        self.weights, self.optimizer = weights, optimizer
        self.saved = time.monotonic()

    def write(self, figures: Mapping[str, Any]) -> None:
        """Save the current state with metrics; every process calls this, and the first one writes.

        Raises:
            OSError, SafetensorError: it cannot be written, for example on a full disk; the previous snapshot
                stays.
        """
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in self._state():
            whole = _whole(tensor)
            if self.processes.is_main_process:  # shards are gathered one by one, and kept off the GPU
                tensors[name] = whole.cpu() if _is_sharded(tensor) else whole
        if self.processes.is_main_process:
            about = {"digest": self.digest, "figures": json.dumps(figures)}
            write_whole(self.file, lambda beside: save_file(tensors, beside, about))

    def _state(self) -> Iterator[tuple[str, torch.Tensor]]:
        states = self.optimizer.state if self.optimizer else {}
        for name, weight in self.weights.items():
            yield f"weight/{name}", weight
            state = states.get(weight)  # none for a weight that no gradient has reached
            yield from ((f"{moment}/{name}", state[moment]) for moment in MOMENTS if state)

    def is_due(self, minutes: float) -> bool:
        """Whether `refresh` was called `minutes` ago or more."""
        return time.monotonic() - self.saved >= 60 * minutes

    def refresh(self, progress: Any) -> None:
        """Save the current state and the fields of `progress`.

        A full disk is only logged: the fit continues, and the previous snapshot stays.
        """
        try:
            self.write(dataclasses.asdict(progress))
        except (OSError, SafetensorError) as error:
            logger.warning("%s cannot be written, the previous snapshot stays: %s", self.file, error)
        self.saved = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """Restore the saved state; returns the metrics saved with it.

        Returns:
            None, with everything left as it was, if there is no complete file of this fit.
        """
        try:
            saved: Any = safe_open(self.file, "pt")
        except (OSError, SafetensorError):
            return None
        with saved:
            about = saved.metadata()
            if about["digest"] != self.digest:
                logger.warning("%s belongs to another fit and is not used", self.file)
                return None
            figures: dict[str, Any] = json.loads(about["figures"])
            for name, weight in self.weights.items():
                with torch.no_grad():
                    weight.copy_(_placed(saved.get_tensor(f"weight/{name}"), weight))
                if self.optimizer and f"{MOMENTS[0]}/{name}" in saved.keys():  # noqa: SIM118
                    step = torch.tensor(float(figures["step"]), device=weight.device)
                    self.optimizer.state[weight] = {"step": step} | {
                        moment: _placed(saved.get_tensor(f"{moment}/{name}"), weight) for moment in MOMENTS
                    }
        return figures

    def remove(self) -> None:
        """Remove the file; every process calls this, and it waits until all have finished with the file."""
        self.processes.wait_for_everyone()
        if self.processes.is_main_process:
            self.file.unlink(missing_ok=True)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor; if it is sharded, this is a collective call."""
    return (tensor.full_tensor() if _is_sharded(tensor) else tensor).detach().contiguous()


def _placed(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor moved to the device of another one, and sharded like it."""
    tensor = tensor.to(like.device)
    if not _is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements)


def _is_sharded(tensor: torch.Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is sharded; a sharded one's module is loaded, and importing it would take a second."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)
