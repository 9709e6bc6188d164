"""The file of a delivery's accepted pairs, and the versions of this package that read and named them."""

from pathlib import Path

import pyarrow.parquet
from datasets import Dataset
from pydantic import BaseModel

from mars_core.data.identity import VERSION, pair_identity


class Accepted(BaseModel):
    """A file of accepted pairs."""

    file: Path
    reading: int
    """Version of `mars_core.data.reading` that its texts are of."""
    identity: int
    """Version of `mars_core.data.identity` that its ids are of."""

    def table(self) -> Dataset:
        """The pairs, known by today's ids."""
        table = pyarrow.parquet.read_table(self.file, memory_map=True)
        if self.identity < VERSION:
            place = table.column_names.index("pair_id")
            table = table.set_column(place, "pair_id", [self._made_ids()])
        return Dataset(table)

    def ids(self) -> list[str]:
        """Today's ids of the pairs."""
        if self.identity < VERSION:
            return self._made_ids()
        ids: list[str] = pyarrow.parquet.read_table(self.file, columns=["pair_id"])["pair_id"].to_pylist()
        return ids

    def _made_ids(self) -> list[str]:
        table = pyarrow.parquet.read_table(self.file, columns=["prompt", "chosen", "rejected"])
        texts = (table[name].to_pylist() for name in ("prompt", "chosen", "rejected"))
        return [pair_identity(*pair) for pair in zip(*texts, strict=True)]
