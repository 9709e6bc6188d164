"""The valid pairs of a source on disk, written part by part, so that a start that was killed goes on.

A folder holds the parts that are whole and `JOURNAL`, which says how far they reach. Beside the columns of
`mars_core.data.reading` each pair has three numbers by which sets are divided without its texts: the keys of
its prompt and of its texts, and where it was read.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mars_core.data.formats.format import Format
from mars_core.data.reading import COLUMNS, NUMBERS, SCHEMA, Place, Sieve, chunks, key_of
from mars_core.data.remote import content_at, is_remote
from mars_core.data.source_rows import READERS, PairsError
from mars_core.files import digest, remove, sync, write_whole
from mars_core.tables import Table, TableError, Writer

JOURNAL = "journal.json"
PART_ROWS = 131_072
"""A part ends with the rows read together that reach this number."""
KEYS = ("prompt_key", "texts_key", "place")
_SCHEMA = pa.schema([*SCHEMA, pa.field(KEYS[0], pa.uint64()), pa.field(KEYS[1], pa.uint64()),
                     pa.field(KEYS[2], pa.int64())])  # fmt: skip


class Pool:
    """The valid pairs of a source."""

    def __init__(self, source: str, folder: Path) -> None:
        """Of a source, in a folder of its own."""
        self.source, self.folder = source, folder
        self.left_out: dict[str, int] = {}
        """How many rows or comparisons were left out, by reason."""
        self.remarks: list[str] = []
        """How the source was read."""
        self.numbers: list[str] = []
        """Those of `NUMBERS` that some pair has."""
        self._tables: list[Table] = []
        self._digests: list[str] = []
        """Of the parts."""
        self._state = ""
        """What the files of the source were like when reading began."""

    def read(
        self,
        reads: Format | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        invalid: Literal["error", "drop"] = "error",
        refusal: Callable[[str], str | None] | None = None,
        on_rows: Callable[[int], None] | None = None,
    ) -> None:
        """Read the source, from where the parts in the folder end.

        Args:
            reads, where, invalid, refusal: as of `mars_core.data.reading.read`.
            on_rows: called with the number of pairs that are new since its last call.

        Raises:
            PairsError: as `mars_core.data.reading.read`, or the source changes meanwhile.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._state = _state(self.source)
        sieve = Sieve(self.source, refusal)
        place = self._resume(sieve)
        writer: Writer | None = None
        reached: Place | None = None
        for chunk in chunks(self.source, sieve, reads, where=where, after=place):
            if chunk.pairs:
                writer = writer or Writer(self._part(len(self._tables)))
                writer.write(_batch(chunk.pairs))
                if on_rows:
                    on_rows(len(chunk.pairs))
            reached = chunk.place or reached
            if writer and chunk.place and writer.rows >= PART_ROWS:
                self._keep(writer, sieve, chunk.place)
                writer = None
        if writer and reached:
            self._keep(writer, sieve, reached)
        sieve.conclude(len(self), where, invalid)
        self.left_out = dict(sieve.left_out + sieve.invalid)
        self.remarks = sieve.said()

    def __len__(self) -> int:
        """The number of pairs."""
        return sum(map(len, self._tables))

    def batches(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """The pairs in order, some at a time; by default the columns of `schema`."""
        for table in self._tables:
            for batch in table.batches(*(columns or (*COLUMNS, *self.numbers))):
                yield batch if columns else _with_weights(batch)

    def keys(self, column: str) -> NDArray[np.uint64]:
        """One of the numbers `KEYS` of every pair, [n]."""
        return np.concatenate([table.numbers(column) for table in self._tables])

    @property
    def schema(self) -> pa.Schema:
        """`COLUMNS`, and those of `NUMBERS` that some pair has."""
        return pa.schema([SCHEMA.field(name) for name in (*COLUMNS, *self.numbers)])

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def _keep(self, writer: Writer, sieve: Sieve, place: Place) -> None:
        """Complete a part, and note how far the parts reach."""
        writer.close()
        sync(writer.path)
        if _state(self.source) != self._state:
            raise PairsError(f"{self.source} changed while it was read: start again once it is complete")
        table = Table(writer.path)
        self._tables.append(table)
        self._digests.append(writer.digest)
        asked = [name for name in NUMBERS if any(b[0].null_count < len(b) for b in table.batches(name))]
        self.numbers = [name for name in NUMBERS if name in (*asked, *self.numbers)]
        journal = {
            "source": self._state,
            "parts": self._digests,
            "place": place,
            "numbers": self.numbers,
            **sieve.state(),
        }
        write_whole(self.folder / JOURNAL, lambda path: path.write_text(json.dumps(journal)))

    def _resume(self, sieve: Sieve) -> Place | None:
        """Open the parts that are whole; where they end, if there are any.

        Of a source that has changed since, or of parts that are not as they were written, nothing is kept.
        """
        known = self._known()
        if known is None:
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            return None
        self._digests, self.numbers = known["parts"], known["numbers"]
        self._tables = [Table(self._part(number)) for number in range(len(self._digests))]
        remove(self._part(len(self._tables)))
        sieve.restore(known)
        for batch in self.batches("pair_id", "place"):
            ids, places = batch["pair_id"].to_pylist(), batch["place"].to_pylist()
            sieve.first.add(dict(zip(map(key_of, ids), places, strict=True)))
        return Place(*known["place"])

    def _known(self) -> dict[str, Any] | None:
        """What the journal says, if that is of this source and these parts."""
        try:
            known: dict[str, Any] = json.loads((self.folder / JOURNAL).read_text())
            parts = [Table(self._part(number)).digest() for number in range(len(known["parts"]))]
        except (OSError, ValueError, KeyError, TypeError, TableError):
            return None
        return known if known["source"] == self._state and known["parts"] == parts else None


def _state(source: str) -> str:
    """What changes with the files of a source: their places, sizes and times, or etags."""
    if is_remote(source):
        return content_at(source, tuple(READERS))
    path = Path(source).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
    states = [(str(file), file.stat()) for file in files if file.is_file()]
    return digest([(name, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns) for name, of in states])


def prompt_key(prompt: str) -> int:
    """A hash of 64 bits; the same for prompts that differ in case or spacing only."""
    normalised = " ".join(prompt.lower().split())
    return int.from_bytes(hashlib.sha256(normalised.encode()).digest()[:8])


def texts_key(prompt: str, chosen: str, rejected: str) -> int:
    """A hash of 64 bits, of which the last says which of the two responses is the chosen one."""
    first, second = sorted((chosen, rejected))
    return key_of("\0".join((prompt, first, second))) & ~1 | (first == chosen)


def _batch(pairs: list[dict[str, Any]]) -> pa.RecordBatch:
    for pair in pairs:
        pair["prompt_key"] = prompt_key(pair["prompt"])
        pair["texts_key"] = texts_key(pair["prompt"], pair["chosen"], pair["rejected"])
    return pa.RecordBatch.from_pylist(pairs, schema=_SCHEMA)


def _with_weights(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch in which a pair without a weight has that of 1."""
    if "weight" not in batch.schema.names:
        return batch
    place = batch.schema.get_field_index("weight")
    return batch.set_column(place, "weight", pc.fill_null(batch["weight"], pa.scalar(1.0, pa.float32())))
