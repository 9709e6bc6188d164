"""Progress of long work: a bar in a terminal, log lines elsewhere, and an artifact in Prefect.

Work that ends before the artifact's first update has none: a call to the API would take longer than the work.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tasks.run.prefect_api import tolerate_outage
from tasks.run.step import tell

ARTIFACT_SECONDS = 3.0
LINE_SECONDS = 15.0


@contextmanager
def progress(
    what: str, total: int | None, unit: str, tokens: Callable[[], int] | None = None
) -> Iterator[Callable[[int], None]]:
    """Show the progress of `total` units of work; call the yielded function with the number of further units.

    The rate and, where the total is known, the time left are shown too. With `tokens`, which returns the
    number of tokens since the start, so is their rate.
    """
    started = time.monotonic()
    done = 0
    speed = _Speed(unit, tokens)
    artifact: UUID | None = None
    last_artifact = last_line = started
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(file=sys.stderr), disable=not _has_the_terminal(), transient=True,
    )  # fmt: skip
    with bar:
        row = bar.add_task(what, total=total, rate="")

        def advance(more: int) -> None:
            nonlocal done, artifact, last_artifact, last_line
            done += more
            now = time.monotonic()
            rate, left = speed.said(done, total)
            bar.update(row, completed=done, total=None if total is None else max(total, done), rate=rate)
            if total is not None and now - last_artifact > ARTIFACT_SECONDS:
                last_artifact = now
                artifact = _shown(artifact, what, min(100.0, 100 * done / max(total, 1)))
            if bar.disable and now - last_line > LINE_SECONDS:
                last_line = now
                of_total = "" if total is None or done > total else f" of {total:,}"
                so_far = f"{done:,}{of_total} {unit}"
                tell("%s: %s.", what, ", ".join(filter(None, (so_far, rate, left))))

        yield advance
    if artifact:
        _shown(artifact, what, 100.0)
    if done:
        seconds = time.monotonic() - started
        rate = _rate(done / max(seconds, 1e-9), unit)
        tell("%s: %s %s in %.1f s (%s).", what, f"{done:,}", unit, seconds, rate)


class _Speed:
    """How fast units of work, and tokens, come.

    What came before the first tokens is in no rate: it was in a store, or waited for a server's start.
    """

    def __init__(self, unit: str, tokens: Callable[[], int] | None) -> None:
        self.unit, self.tokens = unit, tokens
        self.began = None if tokens else (time.monotonic(), 0, 0)
        """When rates begin, and how many units and tokens there were by then."""

    def said(self, done: int, total: int | None) -> tuple[str, str]:
        """The rate, and the time left; empty as long as they are unknown."""
        now, tokens = time.monotonic(), self.tokens() if self.tokens else 0
        if self.began is None:
            self.began = (now, done, tokens) if tokens else None
            return "", ""
        began, before, tokens_before = self.began
        seconds, further = max(now - began, 1e-9), done - before
        if not further:
            return "", ""
        rate = _rate(further / seconds, self.unit)
        if self.tokens:
            rate += f", {(tokens - tokens_before) / seconds:,.0f} tokens/s"
        if total is None or done > total:  # answers may lead to further requests
            return rate, ""
        return rate, f"{timedelta(seconds=round((total - done) * seconds / further))} left"


def _rate(a_second: float, unit: str) -> str:
    """So many a second, or a minute where it is less than one."""
    return f"{a_second:.1f} {unit}/s" if a_second >= 1 else f"{60 * a_second:.1f} {unit} a minute"


def _has_the_terminal() -> bool:
    """Whether a bar may be drawn: cells that run at once would overwrite each other's."""
    return sys.stderr.isatty() and threading.current_thread() is threading.main_thread()


def _shown(artifact: UUID | None, what: str, percent: float) -> UUID | None:
    """Update the artifact, or make one if there is none yet."""
    if TaskRunContext.get() is None:
        return None
    with tolerate_outage():
        if artifact:
            update_progress_artifact(artifact, progress=percent)
        else:
            created: UUID = create_progress_artifact(percent, description=what)  # type: ignore[assignment]
            return created
    return artifact
