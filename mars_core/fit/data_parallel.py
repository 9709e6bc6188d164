"""One effective batch over several processes: each computes some of its pairs, and the gradients are summed.

Every process holds all weights, or with FSDP a shard of them; `accelerate` reads which from the environment
that `accelerate launch` or torchrun sets.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType

from mars_core.fit.gradient import Computed, PairBatch

Gradient = Callable[[PairBatch, int], Computed]


def is_sharded(processes: Any) -> bool:
    """Whether the weights are divided over the processes."""
    return bool(processes.distributed_type == DistributedType.FSDP)


def most_passes(processes: Any) -> Callable[[int], int] | None:
    """If the weights are sharded, a function that turns a process's number of passes into the maximum."""
    if not is_sharded(processes):
        return None
    return lambda passes: int(processes.gather(torch.tensor([passes], device=processes.device)).max())


class DataParallel:
    """Computes a gradient as one process would, with the pairs divided over all of them."""

    def __init__(self, gradient: Gradient, weights: Sequence[torch.nn.Parameter], processes: Any) -> None:
        """Divide the work of `gradient`, which accumulates in the `grad` of `weights`."""
        self.gradient, self.weights, self.processes = gradient, weights, processes

    def __call__(self, batch: PairBatch, seed: int) -> Computed:
        """Add the gradient of the whole batch, on every process; all get the same `Computed`."""
        count, rank = self.processes.num_processes, self.processes.process_index
        if count == 1:
            return self.gradient(batch, seed)
        n = len(batch.prompts)
        mine = np.argsort(-batch.characters, kind="stable")[rank::count]
        idle = len(mine) == 0
        # A process without pairs computes one of weight 0, because it must take part in collective calls.
        # FSDP averages the processes' gradients, but their sum is needed.
        factor = count if is_sharded(self.processes) else 1
        part = batch.part(np.zeros(1, dtype=np.intp), 0) if idle else batch.part(mine, factor)
        computed = self.gradient(part, seed + rank)
        if not is_sharded(self.processes):
            self._sum_gradients()
        sums = torch.zeros(2 * n + 4, dtype=torch.float64, device=self.processes.device)
        if not idle:
            of_pairs = np.stack([computed.margins, computed.losses])
            sums[: 2 * n].view(2, n)[:, mine] = torch.from_numpy(of_pairs).to(sums)
            counts = (computed.tokens, computed.padded_tokens, computed.prompts_cut, computed.responses_cut)
            sums[2 * n :] = torch.tensor(counts).to(sums)
        torch.distributed.all_reduce(sums)
        margins, losses = sums[: 2 * n].view(2, n).float().cpu().numpy()
        totals = (int(count) for count in sums[2 * n :].tolist())
        return Computed(margins, losses, computed.penalty, *totals)

    def _sum_gradients(self) -> None:
        """Sum the gradients of all processes; a missing gradient counts as zero."""
        reached = torch.tensor([weight.grad is not None for weight in self.weights], dtype=torch.int32)
        reached = reached.to(self.processes.device)
        torch.distributed.all_reduce(reached, torch.distributed.ReduceOp.MAX)
        for weight, anywhere in zip(self.weights, reached.tolist(), strict=True):
            if anywhere:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                torch.distributed.all_reduce(weight.grad)
