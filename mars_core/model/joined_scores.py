"""A specification that was scored in parts: their results put together.

    parts = [({"train": (0, 4096)}, Path("first")), ({"train": (4096, 5000)}, Path("second"))]
    join(spec, parts, Path("scores"))

A part is the same specification with some of the rows (`ScoreSpec.rows`). What comes out has the files of
`mars_core.model.scoring`, as if all rows had been scored together. Tables and features of one part at a time
are in memory.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mars_core.model.moments import Moments
from mars_core.model.scoring import Cut, ScoreSpec
from mars_core.tables import Table, Writer

PartResults: TypeAlias = tuple[Mapping[str, tuple[int, int]], Path]
"""The rows of a part by name, and the folder of its results."""


def join(spec: ScoreSpec, parts: Sequence[PartResults], folder: Path) -> None:
    """Write the results of a specification from those of parts.

    Args:
        spec: with all rows.
        parts: in the order of the rows, each of which is in one part.
        folder: is made.
    """
    folder.mkdir()
    cut = {}
    for name in [*spec.pairs, *spec.texts]:
        own = [(rows[name][0], place) for rows, place in parts if name in rows]
        places = [place for _, place in own]
        cut[name] = _cut_of(name, own)
        if name in spec.texts:
            _put_numbers(folder / f"{name}.npz", places)
        else:
            _put_table(folder / f"{name}.parquet", places)
            _put_moments(folder / f"{name}_moments.npz", places)
            if spec.features:
                _put_features(folder / f"{name}_features.npy", places)
    (folder / "cut.json").write_text(json.dumps(cut))


def _cut_of(name: str, parts: list[tuple[int, Path]]) -> Cut:
    """What the texts of a name lost, of parts with the numbers of their first rows."""
    prompts, responses, same = 0, 0, list[int]()
    for first, place in parts:
        of_part = json.loads((place / "cut.json").read_text())[name]
        prompts, responses = prompts + of_part[0], responses + of_part[1]
        same += [first + row for row in of_part[2]]
    return Cut(prompts, responses, same)


def _put_table(file: Path, parts: list[Path]) -> None:
    with Writer(file) as writer:
        for part in parts:
            for batch in Table(part / file.name).batches():
                writer.write(batch)


def _put_numbers(file: Path, parts: list[Path]) -> None:
    """Rewards and margins of texts; the rewards of paired ones are first those of all chosen responses."""
    numbers: dict[str, list[Any]] = {"rewards": [], "margins": []}
    for part in parts:
        with np.load(part / file.name) as of_part:
            halves = 2 if "margins" in of_part else 1
            numbers["rewards"].append(of_part["rewards"].reshape(halves, -1))
            if halves == 2:
                numbers["margins"].append(of_part["margins"])
    together = {"rewards": np.concatenate(numbers["rewards"], axis=1).reshape(-1)}
    if numbers["margins"]:
        together["margins"] = np.concatenate(numbers["margins"])
    np.savez(file, allow_pickle=False, **together)


def _put_moments(file: Path, parts: list[Path]) -> None:
    moments = Moments()
    for part in parts:
        if (part / file.name).exists():
            moments.merge(Moments.load(part / file.name))
    if moments.n:
        moments.save(file)


def _put_features(file: Path, parts: list[Path]) -> None:
    """Features of pairs, of which one part at a time is in memory."""
    of_parts = [np.load(part / file.name, mmap_mode="r") for part in parts]
    shape = sum(map(len, of_parts)), of_parts[0].shape[1]
    target = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    np.concatenate(of_parts, out=target)
    target.flush()
