"""A trainer in a child process: its standard output has JSON lines of progress, the last with its result."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate.utils.memory import clear_device_cache

from tasks.processes.child_process import run_child, run_forked


def run_trainer(
    module: str,
    spec: Path,
    command: Sequence[str],
    *,
    log: Path,
    deadline_hours: float,
    counts: str,
    advance: Callable[[int], object],
) -> dict[str, float]:
    """Run a trainer to its end.

    Args:
        module: of the trainer.
        spec: file of its specification.
        command: what runs Python with the module; the fork server does where it is empty.
        log: gets what libraries print.
        deadline_hours: how long it may take.
        counts: key of a line's number that progress is measured by, which never falls.
        advance: called with what each line adds to that number.

    Returns:
        Its result.

    Raises:
        ChildError: it exited with an error, was killed, or took longer than the deadline.
    """
    result, seen = dict[str, float](), 0

    def on_line(line: str) -> None:
        nonlocal seen
        if not line.startswith("{"):  # a library's, such as NCCL's
            with log.open("a") as lines:
                lines.write(line)
            return
        reported = json.loads(line)
        if "result" in reported:
            result.update(reported["result"])
        else:
            advance(reported[counts] - seen)
            seen = reported[counts]

    deadline_seconds = 3600 * deadline_hours
    if command:
        clear_device_cache(garbage_collection=True)  # this process may still hold memory that scoring used
        run_child(
            [*command, "-m", module, str(spec)], log=log, on_line=on_line, deadline_seconds=deadline_seconds
        )
    else:
        run_forked(module, spec, log=log, on_line=on_line, deadline_seconds=deadline_seconds)
    return result
