"""Scores of files by one model, as `mars score` makes them: as JSON lines, or in a folder that grows.

Nothing here asks Prefect, so that the command needs no server and can stand in a pipe; the flow
`flows.score.score` puts the same function on a schedule.
"""

import json
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny

from mars_core.config import Configuration, redact, scientific
from mars_core.data.pairs import DataConfig
from mars_core.data.reading import NAMED_ROWS, counted
from mars_core.data.remote import content_at, is_remote
from mars_core.data.scorable import STANDARD_INPUT, RowToScore, files_to_score, rows_to_score
from mars_core.data.source_rows import READERS, PairsError
from mars_core.data.source_rows import Part as File
from mars_core.errors import ModelError
from mars_core.files import digest, write_whole
from mars_core.model.checkpoints import content_of_checkpoint
from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import ModelConfig, RewardModel, renderer_of
from mars_core.model.score_parts import Parts, Scored, ScoresError, lines_of, score_rows
from mars_core.objectives.objective import ObjectiveConfig
from mars_core.report.figures import score_distributions
from tasks.run.progress import progress
from tasks.run.run_config import TrackingConfig
from tasks.run.step import tell
from tasks.tracking.logged_models import fetched

PART_ROWS = 16_384
PART_SECONDS = 60.0
"""A part ends with the texts scored together that reach one of these: it is what a kill may cost."""
BINS = 60
SHOWN = ("reward", "reward_chosen", "reward_rejected", "margin")
ADVICE = "Repair what is named, or leave it out by --invalid drop."
SUMMARY, PICTURE = "summary.json", "distribution.png"


class ScoreConfig(Configuration):
    """Everything that `mars score` needs to know."""

    model: ModelConfig
    """The reward model, as `backbone`, and how texts go through it."""
    objective: SerializeAsAny[ObjectiveConfig] | None = None
    """What the model was trained by; by default what its checkpoint names. A class of one's own is named
    here."""
    files: list[str] = Field(min_length=1)
    """Files, folders, addresses or data sets of the hub; `-` is JSON lines from standard input."""
    data: SerializeAsAny[DataConfig] = Field(default_factory=DataConfig)
    """How they are read: `format`, `where` and `invalid`; the other keys count for nothing here."""
    output: str | None = None
    """Folder of the scores; without one they are written as JSON lines."""
    tracking: TrackingConfig = TrackingConfig()
    """Where MLflow is, for a registered model."""


def score_files(config: ScoreConfig, print_line: Callable[[str], Any] = print) -> dict[str, Any]:
    """Score all rows of the files.

    Args:
        config: the model, the files, and the folder; what the folder holds already is not scored again.
        print_line: gets the scores as JSON lines, where there is no folder.

    Returns:
        What summary.json holds.

    Raises:
        PairsError: a file is not there or has a wrong form, or a row is invalid; names the rows.
        ModelError: the model cannot be loaded, is no reward model, or a reward is NaN or infinite.
        ScoresError: the folder holds something else, or another process writes to it.
    """
    if config.output and STANDARD_INPUT in config.files:
        raise ScoresError("standard input can be read once only: name a file, or leave out --output")
    with fetched(config.tracking, config.model.backbone) as checkpoint:
        if not has_trained_head(checkpoint, config.model, config.objective):
            raise ModelError(
                f"{config.model.backbone} has no trained head, so that its scores would mean nothing"
            )
        reader = _Reader(config, checkpoint)
        if config.output is None:
            return _print_scores(config, checkpoint, reader, print_line)
        folder = Path(config.output)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                return _write_scores(config, checkpoint, reader, folder)
        except Timeout:
            raise ScoresError(f"{folder}: another process writes scores to it") from None


class _Reader:
    """Reads the rows of files, and what keeps some of them from being scored."""

    def __init__(self, config: ScoreConfig, checkpoint: str) -> None:
        self.config = config
        self.files = files_to_score(config.files)
        self.left_out = Counter[str]()
        self._format = config.data.open()
        self._renderer = renderer_of(checkpoint, config.model)

    def rows(self, file: File, start: int = 0) -> Iterator[RowToScore]:
        """The rows of a file from one of them on; what is invalid is named and counted.

        Raises:
            PairsError: a row is invalid, and none is expected.
        """
        for row in islice(self._all_rows(file), start, None):
            if row.problem and self.config.data.invalid == "error":
                raise PairsError(f"{file.name}: row {row.number}: {row.problem}\n{ADVICE}")
            if row.problem:
                if self.left_out.total() < NAMED_ROWS:
                    tell("Left out: %s: row %d: %s", file.name, row.number, row.problem)
                self.left_out[row.problem.partition(":")[0]] += 1
            yield row

    def examine(self, starts: dict[str, int]) -> int:
        """Count the texts to score, before one is: reading is cheap beside scoring.

        Args:
            starts: by file, the row that scoring begins with.

        Raises:
            PairsError: rows are invalid, and none is expected; names the first.
        """
        texts, invalid, named = 0, 0, list[str]()
        for file in self.files:
            for row in islice(self._all_rows(file), starts[file.name], None) if file.name in starts else ():
                texts += sum(len(item.responses) for item in row.items)
                invalid += bool(row.problem)
                if row.problem and len(named) < NAMED_ROWS:
                    named.append(f"{file.name}: row {row.number}: {row.problem}")
        if invalid and self.config.data.invalid == "error":
            more = [f"and {invalid - len(named)} more"] if invalid > len(named) else []
            listed = "\n  ".join([*named, *more])
            raise PairsError(f"{invalid:,} rows cannot be scored:\n  {listed}\n{ADVICE}")
        return texts

    def state(self, file: File) -> str:
        """What changes with a file: size and time of a local one; of an address, what is listed there."""
        path = Path(file.name)
        if path.is_file():
            about = path.stat()
            return digest(about.st_size, about.st_mtime_ns)
        addresses = filter(is_remote, self.config.files)
        return digest([content_at(address, tuple(READERS)) for address in addresses], file.name)

    def _all_rows(self, file: File) -> Iterator[RowToScore]:
        where, refusal = self.config.data.where, self._renderer.refusal
        return rows_to_score(file, self._format, where=where, refusal=refusal)


def _print_scores(
    config: ScoreConfig, checkpoint: str, reader: _Reader, print_line: Callable[[str], Any]
) -> dict[str, Any]:
    """Print scores as they come; rows from a pipe are not known before."""
    is_pipe = STANDARD_INPUT in config.files
    texts = None if is_pipe else reader.examine({file.name: 0 for file in reader.files})
    model = RewardModel.load(checkpoint, config.model, config.objective)
    scores = 0
    with progress("scoring", texts, "texts") as advance:
        for file in reader.files:
            for scored in score_rows(model, reader.rows(file), file.name, advance):
                for line in lines_of(scored.table):
                    print_line(line)
                sys.stdout.flush()
                scores += len(scored.table)
    if reader.left_out:
        tell("Left out: %s.", counted(reader.left_out), level=logging.WARNING)
    return {"scores": scores, "left_out": dict(reader.left_out)}


def _write_scores(config: ScoreConfig, checkpoint: str, reader: _Reader, folder: Path) -> dict[str, Any]:
    """Add what a folder lacks."""
    parts = Parts(folder, _made_by(config, checkpoint))
    states = {file.name: reader.state(file) for file in reader.files}
    starts = {name: parts.done(name, state) for name, state in states.items()}
    if any(starts.values()):
        tell("%s rows are scored already.", f"{sum(starts.values()):,}")
    starts = {name: start for name, start in starts.items() if not parts.is_ended(name)}
    texts = reader.examine(starts)
    if starts:
        model = RewardModel.load(checkpoint, config.model, config.objective)
        with progress("scoring", texts, "texts") as advance:
            for file in (file for file in reader.files if file.name in starts):
                rows = reader.rows(file, starts[file.name])
                for some in _in_parts(score_rows(model, rows, file.name, advance)):
                    parts.keep(some, file.name, states[file.name])
                parts.end(file.name)
    if parts.left_out:
        tell("Left out: %s.", counted(parts.left_out), level=logging.WARNING)
    return _conclude(config, parts)


def _made_by(config: ScoreConfig, checkpoint: str) -> dict[str, Any]:
    """What decides the scores of a row."""
    model, data = config.model.model_copy(update={"backbone": ""}), config.data
    made_by = {
        "model": content_of_checkpoint(checkpoint),
        "model settings": scientific(model),
        "objective": config.objective.model_dump(mode="json") if config.objective else None,
        "data.format or data.where": scientific(data.model_copy(update={"invalid": "drop"})),
    }
    found: dict[str, Any] = json.loads(json.dumps(made_by))
    return found


def _in_parts(windows: Iterable[Scored]) -> Iterator[list[Scored]]:
    """Windows that are written together."""
    waiting, began = list[Scored](), time.monotonic()
    for scored in windows:
        waiting.append(scored)
        rows = sum(len(some.rows) for some in waiting)
        if rows >= PART_ROWS or time.monotonic() - began > PART_SECONDS:
            yield waiting
            waiting, began = [], time.monotonic()
    if waiting:
        yield waiting


def _conclude(config: ScoreConfig, parts: Parts) -> dict[str, Any]:
    """Write summary.json and the picture of all scores of a folder; both read a part at a time."""
    histograms = {name: found for name in SHOWN if (found := _Histogram.of(parts, name)) is not None}
    summary = {
        "model": redact(config.model.backbone),
        "files": sorted({part.file for part in parts.parts}),
        "scores": sum(part.scores for part in parts.parts),
        "left_out": dict(parts.left_out),
        "prompts_cut": sum(part.prompts_cut for part in parts.parts),
        "responses_cut": sum(part.responses_cut for part in parts.parts),
        **{name: histogram.summary for name, histogram in histograms.items()},
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_whole(parts.folder / SUMMARY, lambda path: path.write_text(text, encoding="utf-8"))
    if histograms:
        figure = score_distributions({name: (one.edges, one.counts) for name, one in histograms.items()})
        write_whole(parts.folder / PICTURE, partial(figure.savefig, dpi=150, format="png"))
    return summary


class _Histogram(NamedTuple):
    """A histogram of a column."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    summary: dict[str, float]

    @classmethod
    def of(cls, parts: Parts, column: str) -> "_Histogram | None":
        n, mean, squares, low, high, above = 0, 0.0, 0.0, math.inf, -math.inf, 0
        for values in parts.numbers(column):
            if len(values):
                wide = values.astype(np.float64)
                shift = wide.mean() - mean
                squares += ((wide - wide.mean()) ** 2).sum() + shift**2 * n * len(wide) / (n + len(wide))
                mean += shift * len(wide) / (n + len(wide))
                n, above = n + len(wide), above + int((wide > 0).sum())
                low, high = min(low, float(wide.min())), max(high, float(wide.max()))
        if n == 0:
            return None
        edges = np.histogram_bin_edges(np.array([low, high]), bins=BINS)
        counts = np.zeros(BINS, np.int64)
        for values in parts.numbers(column):
            counts += np.histogram(values, bins=edges)[0]
        about = {"n": n, "mean": mean, "deviation": math.sqrt(squares / n), "lowest": low, "highest": high}
        return cls(edges, counts, about | ({"above_0": above / n} if column == "margin" else {}))
