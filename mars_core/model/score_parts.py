"""Scores of rows as they come: some at a time, and on disk in parts, so that a start that was killed goes on.

A folder holds `scores/part-00000.parquet` and so on, and `JOURNAL`, which lists the parts that are whole
with the digest of each and the rows of the file that it was made of. What a part holds is not scored again as
long as its file is unchanged; a file that changed is scored anew, and one that is new is added.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from mars_core.data.scorable import RowToScore, ToScore
from mars_core.errors import MarsError, ModelError
from mars_core.files import sha256_of, write_whole
from mars_core.model.reward_model import WINDOW, RewardModel, Windows

SCORES, JOURNAL = "scores", "parts.json"
PLACE = {"id": pa.string(), "file": pa.string(), "row": pa.int64()}
SINGLE = ("reward", "variance")
PAIRED = ("reward_chosen", "reward_rejected", "margin", "variance_chosen", "variance_rejected")
NUMBERS = (*SINGLE, *PAIRED)
"""Columns of a table of scores; a row has those of a single response or those of a pair, the others are null.
Variances are there if the objective gives them."""


class ScoresError(MarsError, ValueError):
    """The folder cannot take these scores; the message says why and what to do."""


class Scored(NamedTuple):
    """The scores of some rows."""

    rows: list[RowToScore]
    """The rows, those without scores among them."""
    table: pa.Table
    """Columns id, file, row and those of `NUMBERS`; a row for each pair and each single response."""
    prompts_cut: int
    """Texts that lost the beginning of their prompt to the limit of tokens."""
    responses_cut: int
    """Texts that lost the end of their response to it."""


def score_rows(
    model: RewardModel,
    rows: Iterator[RowToScore],
    file: str,
    on_scored: Callable[[int], None] | None = None,
) -> Iterator[Scored]:
    """Score the rows of a file, some at a time; memory does not grow with their number.

    Args:
        model: the reward model.
        rows: as of `mars_core.data.scorable.rows_to_score`.
        file: the name in the column `file`.
        on_scored: called with the number of texts that are done since its last call.

    Raises:
        ModelError: a reward is NaN or infinite; names the rows.
    """
    waiting: list[list[RowToScore]] = []

    def windows() -> Windows:
        some, texts = list[RowToScore](), 0
        for row in rows:
            some.append(row)
            texts += sum(len(item.responses) for item in row.items)
            if texts >= WINDOW:
                waiting.append(some)
                yield _texts(some)
                some, texts = [], 0
        if some:
            waiting.append(some)
            yield _texts(some)

    for window in model.score_windows(windows(), on_scored, remember=False):
        some = waiting.pop(0)
        numbers = _numbers(model, [item for row in some for item in row.items], window.readouts)
        columns = {
            "id": [item.id for row in some for item in row.items],
            "file": [file] * sum(len(row.items) for row in some),
            "row": [row.number for row in some for _ in row.items],
        }
        table = pa.table(
            {name: pa.array(columns[name], kind) for name, kind in PLACE.items()}
            | {name: pa.array(values, pa.float32(), from_pandas=True) for name, values in numbers.items()}
        )
        yield Scored(some, table, window.prompts_cut, window.responses_cut)


def lines_of(table: pa.Table) -> Iterator[str]:
    """The rows of a table of scores as JSON, without what is null."""
    for row in table.to_pylist():
        yield json.dumps({name: value for name, value in row.items() if value is not None})


def _texts(rows: Sequence[RowToScore]) -> tuple[list[str], list[str]]:
    items = [item for row in rows for item in row.items]
    prompts = [item.prompt for item in items for _ in item.responses]
    return prompts, [response for item in items for response in item.responses]


def _numbers(
    model: RewardModel, items: Sequence[ToScore], readouts: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """The numbers of items by the columns of `NUMBERS`, nan where an item has none.

    Raises:
        ModelError: one of them is NaN or infinite.
    """
    sizes = np.array([len(item.responses) for item in items], dtype=np.intp)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)[: len(items)]
    rewards, variances = model.rewards(readouts), model.uncertainties(readouts)
    paired, single = sizes == 2, sizes == 1
    chosen, rejected = first[paired], first[paired] + 1
    found = {
        "reward": (single, rewards[first[single]]),
        "reward_chosen": (paired, rewards[chosen]),
        "reward_rejected": (paired, rewards[rejected]),
        "margin": (paired, model.margins(readouts[chosen], readouts[rejected])),
    }
    if variances is not None:
        found |= {
            "variance": (single, variances[first[single]]),
            "variance_chosen": (paired, variances[chosen]),
            "variance_rejected": (paired, variances[rejected]),
        }
    for rows, values in found.values():
        broken = np.flatnonzero(rows)[~np.isfinite(values)]
        if len(broken):
            names = ", ".join(items[place].id for place in broken[:5])
            raise ModelError(
                f"the rewards of {len(broken)} of {len(items)} rows are NaN or infinite: {names}"
            )
    columns = {}
    for name in NUMBERS:
        if name in found:
            rows, values = found[name]
            columns[name] = np.full(len(items), np.nan, np.float32)
            columns[name][rows] = values
    return columns


class Part(BaseModel):
    """A part that is whole, and what it was made of."""

    name: str
    sha256: str
    file: str
    state: str
    """What changes with the file: its size and time, or its etag."""
    rows: int
    """Rows of the file, from the end of the part before; those without scores count."""
    scores: int
    prompts_cut: int
    responses_cut: int
    left_out: dict[str, int]
    """Rows without scores, by reason."""
    is_last: bool = False
    """Whether the file ends with it."""


class Parts:
    """The parts of a folder; one process writes them."""

    def __init__(self, folder: Path, made_by: Mapping[str, Any]) -> None:
        """Open a folder, or begin one.

        Args:
            folder: where the parts are.
            made_by: the model and the settings that decide what the scores are.

        Raises:
            ScoresError: it holds scores by another model or other settings, or something else.
        """
        self.folder, self.made_by = folder, dict(made_by)
        self.parts: list[Part] = []
        journal = folder / JOURNAL
        if journal.exists():
            try:
                held = json.loads(journal.read_text())
                self.parts = [Part.model_validate(part) for part in held["parts"]]
            except (ValueError, KeyError, TypeError, ValidationError) as error:
                raise ScoresError(f"{journal} cannot be read ({error}): name another folder") from error
            other = [name for name, value in self.made_by.items() if held["made_by"].get(name) != value]
            if other:
                raise ScoresError(
                    f"{folder} holds scores with another {', '.join(other)}: name another one, or remove it"
                )
        elif folder.exists() and any(file.name != ".lock" for file in folder.iterdir()):
            raise ScoresError(f"{folder} holds something else than scores: name another folder")
        folder.mkdir(parents=True, exist_ok=True)

    def done(self, file: str, state: str) -> int:
        """How many rows of a file are scored already; parts that do not hold for it any more are removed."""
        of_file = [part for part in self.parts if part.file == file]
        kept: list[Part] = []
        for part in of_file:
            if part.state != state or not self._is_whole(part):
                break
            kept.append(part)
        dropped = of_file[len(kept) :]
        if dropped:
            self.parts = [part for part in self.parts if part not in dropped]
            self._write_journal()
            for part in dropped:
                self._path(part.name).unlink(missing_ok=True)
        return sum(part.rows for part in kept)

    @property
    def left_out(self) -> Counter[str]:
        """How many rows have no scores, by reason."""
        return sum((Counter(part.left_out) for part in self.parts), Counter())

    def is_ended(self, file: str) -> bool:
        """Whether a file was scored to its end, once `done` has looked at its parts."""
        return any(part.is_last for part in self.parts if part.file == file)

    def end(self, file: str) -> None:
        """Note that a file was scored to its end."""
        of_file = [part for part in self.parts if part.file == file]
        if of_file and not of_file[-1].is_last:
            of_file[-1].is_last = True
            self._write_journal()

    def keep(self, scored: Sequence[Scored], file: str, state: str) -> None:
        """Write a part, whole or not at all."""
        table = pa.concat_tables([some.table for some in scored])
        numbers = [int(part.name.partition("-")[2].partition(".")[0]) for part in self.parts]
        name = f"part-{max(numbers, default=-1) + 1:05d}.parquet"
        write_whole(self._path(name), partial(pyarrow.parquet.write_table, table))
        left_out = Counter(
            row.problem.partition(":")[0] for some in scored for row in some.rows if row.problem
        )
        self.parts.append(
            Part(
                name=name,
                sha256=sha256_of(self._path(name)),
                file=file,
                state=state,
                rows=sum(len(some.rows) for some in scored),
                scores=len(table),
                prompts_cut=sum(some.prompts_cut for some in scored),
                responses_cut=sum(some.responses_cut for some in scored),
                left_out=dict(left_out),
            )
        )
        self._write_journal()

    def numbers(self, column: str) -> Iterator[NDArray[np.float32]]:
        """The values of a column, without nulls, part by part."""
        for part in self.parts:
            table = pyarrow.parquet.read_table(self._path(part.name))
            if column in table.column_names:
                yield table[column].drop_null().to_numpy()

    def _path(self, part: str) -> Path:
        return self.folder / SCORES / part

    def _is_whole(self, part: Part) -> bool:
        path = self._path(part.name)
        return path.is_file() and sha256_of(path) == part.sha256

    def _write_journal(self) -> None:
        journal = {"made_by": self.made_by, "parts": [part.model_dump() for part in self.parts]}
        write_whole(self.folder / JOURNAL, lambda path: path.write_text(json.dumps(journal, indent=1) + "\n"))
