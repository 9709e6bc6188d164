"""A specification in parts: of each a folder of results and, beside it, a record with its digest.

A part that is there and whole is not computed again, whoever wrote it.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mars_core.config import scientific
from mars_core.files import digest, remove, sha256_of
from mars_core.method.semantics import Embedder, EmbedSpec
from mars_core.model.checkpoints import content_of_checkpoint
from mars_core.model.feature_store import FeatureStore
from mars_core.model.joined_scores import join
from mars_core.model.reward_model import RewardModel
from mars_core.model.scoring import ScoreSpec, model_of, pairs_of, texts_of
from mars_core.tables import Table
from tasks.cluster.nodes import sources


class Rows(NamedTuple):
    """Rows of a specification from `first` up to `end`, counted over all of its names, one after another."""

    first: int
    end: int

    def halves(self) -> "tuple[Rows, Rows]":
        """Two parts of at least one row each."""
        middle = (self.first + self.end) // 2
        return Rows(self.first, middle), Rows(middle, self.end)


class Work(ABC):
    """A specification in parts; of each a folder of results and, beside it, a record with its digest."""

    def __init__(self, spec: ScoreSpec | EmbedSpec, counts: Mapping[str, int], places: Path) -> None:
        """Divide `spec`, which has `counts` rows by name; the parts have a folder in `places`."""
        self.spec, self.counts = spec, counts
        self.total = sum(counts.values())
        self.folder = places / digest(sources(), type(spec).__name__, *self.content())[:32]

    @abstractmethod
    def content(self) -> list[Any]:
        """What a result depends on besides the specification's scientific keys."""

    @abstractmethod
    def of_rows(self, rows: Rows, place: Path, batch_share: float) -> ScoreSpec | EmbedSpec:
        """The specification of a part, whose results go into `place`, with smaller batches."""

    @abstractmethod
    def units(self, rows: Rows) -> int:
        """How much a part counts in a progress bar."""

    def is_done(self, rows: Rows) -> bool:
        """Whether all that a part computes is known without it."""
        return False

    @abstractmethod
    def row_names(self, rows: Rows) -> str:
        """What the rows of a part are called."""

    def take_in(self) -> None:
        """Add the vectors of all parts to the store that they are for, and remove the parts."""
        for _, place in self.there():
            self.keep(place / "vectors.sqlite")
        remove(self.folder)

    @abstractmethod
    def keep(self, vectors: Path) -> None:
        """Add the vectors of a part to the store."""

    def by_name(self, rows: Rows) -> dict[str, tuple[int, int]]:
        """The rows of each name that are in a part; empty names belong to the first part."""
        found, start = {}, 0
        for name, count in self.counts.items():
            first, end = max(rows.first - start, 0), min(rows.end - start, count)
            if first < end or (not count and not rows.first):
                found[name] = (first, end) if count else (0, 0)
            start += count
        return found

    def there(self) -> list[tuple[Rows, Path]]:
        """The parts that are there and whole, in order; none of them has a row of another."""
        found = []
        for record in self.folder.glob("*.json"):
            about = json.loads(record.read_text())
            place = self.folder / about["folder"]
            if place.is_dir() and sha256_of(place) == about["sha256"]:
                found.append((Rows(about["first"], about["end"]), place))
        end, kept = 0, []
        for rows, place in sorted(found, key=lambda part: (part[0].first, -part[0].end)):
            if rows.first >= end:
                kept.append((rows, place))
                end = rows.end
        return kept

    def divided(self, size: int) -> tuple[list[Rows], list[Rows]]:
        """The parts that are there, or whose results are known, and those that are missing."""
        found = [rows for rows, _ in self.there()]
        missing, start = list[Rows](), 0
        for rows in [*found, Rows(self.total, self.total)]:
            missing += [Rows(at, min(at + size, rows.first)) for at in range(start, rows.first, size)]
            start = rows.end
        known = list(filter(self.is_done, missing))
        return found + known, [rows for rows in missing if rows not in known]


class Scoring(Work):
    """The parts of a `ScoreSpec`; with a store of features their purpose is to fill it."""

    spec: ScoreSpec

    def __init__(
        self, spec: ScoreSpec, counts: Mapping[str, int], places: Path, store: FeatureStore | None = None
    ) -> None:
        self.store = store
        super().__init__(spec, counts, places)

    def content(self) -> list[Any]:
        """See `Work.content`."""
        spec = self.spec
        tables = {name: Table(file).digest() for name, file in spec.pairs.items()}
        tables |= {name: Table(texts.file).digest() for name, texts in spec.texts.items()}
        paired = [name for name, texts in spec.texts.items() if texts.paired]
        objective = scientific(spec.objective, content_of_checkpoint) if spec.objective else None
        how = [scientific(spec.reward_model), objective, spec.moments, spec.features, bool(self.store)]
        return [content_of_checkpoint(spec.model), how, list(tables.items()), paired]

    def of_rows(self, rows: Rows, place: Path, batch_share: float) -> ScoreSpec:
        """See `Work.of_rows`."""
        tokens = max(1, int(self.spec.reward_model.batch_tokens * batch_share))
        changed = {
            "rows": self.by_name(rows),
            "output": place / "scores",
            "vectors": place / "vectors.sqlite" if self.store else None,
            "readouts": None,
            "reward_model": self.spec.reward_model.model_copy(update={"batch_tokens": tokens}),
        }
        return self.spec.model_copy(update=changed)

    def units(self, rows: Rows) -> int:
        """See `Work.units`."""
        texts = self.spec.texts
        return sum(
            (end - first) * (1 if name in texts and not texts[name].paired else 2)
            for name, (first, end) in self.by_name(rows).items()
        )

    def is_done(self, rows: Rows) -> bool:
        """See `Work.is_done`."""
        store = self.store
        return store is not None and all(
            store.has(*self._texts(name, some))
            for name, some in self.by_name(rows).items()
            if self.counts[name]
        )

    def row_names(self, rows: Rows) -> str:
        """See `Work.row_names`."""
        [(name, (first, end))] = (
            (name, own) for name, own in self.by_name(rows).items() if self.counts[name]
        )
        if name in self.spec.pairs:
            [batch] = pairs_of(self.spec.pairs[name], (first, end))
            return f"pair {batch['pair_id'][0].as_py()} of {name}"
        return f"row {first} of {name}"

    def _texts(self, name: str, rows: tuple[int, int]) -> tuple[list[str], list[str]]:
        if name in self.spec.texts:
            return texts_of(self.spec.texts[name], rows)
        prompts, responses = list[str](), list[str]()
        for batch in pairs_of(self.spec.pairs[name], rows):
            prompts += batch["prompt"].to_pylist() * 2
            responses += batch["chosen"].to_pylist() + batch["rejected"].to_pylist()
        return prompts, responses

    def keep(self, vectors: Path) -> None:
        """See `Work.keep`."""
        assert self.store
        self.store.take_in(vectors)

    def put_together(self, folder: Path) -> None:
        """Write the results of all parts as those of one specification."""
        join(self.spec, [(self.by_name(rows), place / "scores") for rows, place in self.there()], folder)


class Embedding(Work):
    """The parts of an `EmbedSpec`."""

    spec: EmbedSpec

    def __init__(self, spec: EmbedSpec) -> None:
        places = spec.vectors.with_name(f"{spec.vectors.stem}.parts")
        super().__init__(spec, {"pairs": len(Table(spec.pairs))}, places)
        self.embedder = Embedder(spec.semantics, spec.vectors)

    def content(self) -> list[Any]:
        """See `Work.content`."""
        return [content_of_checkpoint(self.spec.semantics.embedder), Table(self.spec.pairs).digest()]

    def of_rows(self, rows: Rows, place: Path, batch_share: float) -> EmbedSpec:
        """See `Work.of_rows`."""
        texts = max(1, int(self.spec.semantics.batch_texts * batch_share))
        changed = {
            "rows": tuple(rows),
            "vectors": place / "vectors.sqlite",
            "semantics": self.spec.semantics.model_copy(update={"batch_texts": texts}),
        }
        return self.spec.model_copy(update=changed)

    def units(self, rows: Rows) -> int:
        """See `Work.units`."""
        return rows.end - rows.first

    def is_done(self, rows: Rows) -> bool:
        """See `Work.is_done`."""
        batches = Table(self.spec.pairs).between(*rows, "chosen", "rejected")
        return all(
            self.embedder.has([text for side in ("chosen", "rejected") for text in batch[side].to_pylist()])
            for batch in batches
        )

    def row_names(self, rows: Rows) -> str:
        """See `Work.row_names`."""
        [batch] = Table(self.spec.pairs).between(*rows, "pair_id")
        return f"pair {batch['pair_id'][0].as_py()}"

    def keep(self, vectors: Path) -> None:
        """See `Work.keep`."""
        self.embedder.take_in(vectors)


def with_whole_paths(spec: ScoreSpec) -> ScoreSpec:
    """A specification whose files an actor finds, which has another working folder."""
    changed: dict[str, Any] = {"output": spec.output.absolute()}
    if Path(spec.model).expanduser().is_dir():
        changed["model"] = str(Path(spec.model).expanduser().absolute())
    changed["pairs"] = {name: file.absolute() for name, file in spec.pairs.items()}
    changed["texts"] = {
        name: texts.model_copy(update={"file": texts.file.absolute()}) for name, texts in spec.texts.items()
    }
    return spec.model_copy(update=changed)


def with_vectors(spec: ScoreSpec) -> RewardModel | None:
    """The model of a specification that keeps features in a store, which this process alone writes."""
    if not spec.vectors:
        return None
    model = model_of(spec)
    model.keep_features(spec.vectors)
    return model if model.store else None
