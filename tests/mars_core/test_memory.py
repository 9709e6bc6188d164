"""Memory does not grow with the texts of pairs; tests/benchmarks/memory.py has the steps at full size."""

import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from mars_core import tables
from mars_core.data import pairs, pool, reading
from mars_core.data.pairs import DataConfig
from mars_core.evaluation import contamination
from mars_core.evaluation.contamination import Measured, Texts, blocks_of_pairs, contaminated_rows
from mars_core.report.text_sections import hardest
from mars_core.tables import Table, write

SIZES = (400, 1_600)
BYTES = 100
"""What a pair may take; its texts have five times as many."""


def batches(size):
    """Pairs with texts and margins."""
    for start in range(0, size, 100):
        numbers = np.arange(start, start + 100)
        texts = [" ".join(map(str, np.random.default_rng(n).integers(10_000, size=40))) for n in numbers]
        yield pa.record_batch(
            {
                "pair_id": [f"{n:016x}" for n in numbers],
                "prompt": [f"{n} {text[:100]}?" for n, text in zip(numbers, texts, strict=True)],
                "chosen": texts,
                "rejected": [text[::-1] for text in texts],
                "margin": np.sin(numbers).astype(np.float32),
            }
        )


def prepare(folder, size):
    """Reads a source, and divides it."""
    with (folder / "rows.jsonl").open("w") as lines:
        for batch in batches(size):
            lines.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())
    return lambda: pairs.three_sets(DataConfig(train=str(folder / "rows.jsonl")), 0, folder / "sets")


def contaminate(folder, size):
    """Looks for a benchmark's texts in a table."""
    write(folder / "train.parquet", batches(size))
    unseen = Measured(Texts(["a"], ["Name a lark that sings."], ["Only the skylark."]).blocks())
    return lambda: contaminated_rows({"set": unseen}, blocks_of_pairs(Table(folder / "train.parquet")))


def find_hardest(folder, size):
    """Finds the originals that a report shows."""
    write(folder / "train.parquet", batches(size))
    table = Table(folder / "train.parquet")
    return lambda: hardest(
        (batch.to_pandas() for batch in table.batches("pair_id", "margin")),
        (batch[0].to_pylist() for batch in table.batches("pair_id")),
    )


@pytest.fixture
def peak(monkeypatch):
    """The most bytes that Python, numpy and Arrow hold during a call that takes few rows at a time."""
    for module, name, few in (
        (tables, "GROUP_ROWS", 200), (tables, "BATCH_ROWS", 100), (pool, "PART_ROWS", 200),
        (reading, "ROWS_AT_ONCE", 100), (contamination, "BLOCK", 100),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, few)

    def measure(call):
        before = pa.default_memory_pool()
        counted = pa.proxy_memory_pool(before)
        pa.set_memory_pool(counted)
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1] + counted.max_memory()
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)

    return measure


@pytest.mark.parametrize("step", [prepare, contaminate, find_hardest], ids=lambda step: step.__name__)
def test_memory_grows_by_less_than_the_texts_of_a_pair(step, peak, tmp_path):
    peaks = []
    for size in SIZES:
        folder = tmp_path / str(size)
        folder.mkdir()
        peaks.append(peak(step(folder, size)))
    assert peaks[1] - peaks[0] < BYTES * (SIZES[1] - SIZES[0])
