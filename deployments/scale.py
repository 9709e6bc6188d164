"""What a run leaves and asks for at 10⁷ to 10⁹ pairs: arithmetic on rows that are written and measured here.

python -m deployments.scale

Nothing is computed by a model: tables and vectors of a few thousand made-up pairs are written as a run writes
them, and their bytes multiplied. The numbers of requests and calls follow from the configuration.
"""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from mars_core.model.vector_store import VectorStore
from mars_core.tables import write
from tasks.compute.compute import ComputeConfig

SAMPLE = 4_000
SIZES = (10**7, 10**8, 10**9)
CHARACTERS = 400
"""Of a prompt, and of each response."""
BUDGET_SHARE = 0.1
"""Synthetic pairs for each original."""
TEXTS_OF_PAIR = 3
"""A paraphrase of the prompt and of each response."""
WIDTH = 384
"""Of a sentence embedding."""
PART_SECONDS = 10.6
"""How long an actor takes for a part: 4,096 pairs of 512 tokens and a model of 10⁹ parameters, by arithmetic
for a GPU that reaches 0.4 × 990 TFLOP/s, as in docs/scaling.md."""
STEPS = 11
"""Steps of a round, each a task of Prefect."""
CALLS_OF_TASK = 8
UPDATE_SECONDS = 3.0
"""Between two updates of a progress bar in Prefect, which follow time and not rows."""
METRICS = 300
"""Numbers of a round, which go to MLflow in batches of 1,000."""


def main() -> None:
    """Print a table."""
    rows_of_part = ComputeConfig.model_validate({"backend": "ray"}).model_dump()["rows_of_part"]
    with tempfile.TemporaryDirectory(prefix="mars-scale-") as folder:
        bytes_each = dict(_measured(Path(folder)))
    lines = [["pairs", *(f"{size:.0e}".replace("e+0", "e") for size in SIZES)]]
    for name, each in bytes_each.items():
        lines.append([name, *(_bytes(each * size) for size in SIZES)])
    lines.append(["all of one round", *(_bytes(sum(bytes_each.values()) * size) for size in SIZES)])
    parts = [-(-size // rows_of_part) for size in SIZES]
    lines.append(["parts of the margins", *(f"{n:,}" for n in parts)])
    lines.append(
        ["requests to a generator", *(f"{size * BUDGET_SHARE * TEXTS_OF_PAIR:,.0f}" for size in SIZES)]
    )
    for gpus in (8, 64):
        hours = [n * PART_SECONDS / gpus / 3600 for n in parts]
        lines.append([f"hours of the margins, {gpus} GPUs", *(f"{h:,.1f}" for h in hours)])
        calls = [STEPS * CALLS_OF_TASK + h * 3600 / UPDATE_SECONDS for h in hours]
        lines.append([f"calls to Prefect meanwhile, {gpus} GPUs", *(f"{n:,.0f}" for n in calls)])
    lines.append(["calls to MLflow a round", *(f"{-(-METRICS // 1_000) + 10}" for _ in SIZES)])
    for name, *values in lines:
        print(f"{name:40}" + "".join(f"{value:>16}" for value in values))


def _measured(folder: Path) -> Iterator[tuple[str, float]]:
    """Bytes of an original in each artifact, by name."""
    chance = random.Random(0)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=5)).decode() for _ in range(4_000)]

    def text() -> str:
        return " ".join(chance.choices(words, k=CHARACTERS // 6))

    ids = [f"{chance.getrandbits(64):016x}" for _ in range(SAMPLE)]
    pairs = pd.DataFrame(
        {"pair_id": ids, **{name: [text() for _ in ids] for name in ("prompt", "chosen", "rejected")}}
    )
    numbers = np.random.default_rng(0).normal(size=(SAMPLE, 3)).astype(np.float32)
    margins = pd.DataFrame(numbers, columns=["reward_chosen", "reward_rejected", "margin"])
    margins.insert(0, "pair_id", ids)
    for name, table, share in (
        ("originals", pairs, 1.0),
        ("margins", margins, 1.0),
        ("synthetic pairs", pairs, BUDGET_SHARE),
    ):
        file = folder / f"{name}.parquet"
        write(file, table)
        yield name, share * file.stat().st_size / SAMPLE
    store = VectorStore(folder / "vectors.sqlite", b"embedder of a digest of 32 bytes")
    vectors = np.random.default_rng(0).normal(size=(2 * SAMPLE, WIDTH + 1)).astype(np.float32)
    store.add([chance.randbytes(16) for _ in vectors], vectors)
    yield "embeddings of the responses", store.file.stat().st_size / SAMPLE


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


if __name__ == "__main__":
    main()
