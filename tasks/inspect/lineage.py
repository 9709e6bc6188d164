"""The lineage of a synthetic pair: its original, that pair's margin, and the requests that gave its texts."""

from pathlib import Path
from typing import Any

import pandas as pd

from mars_core.errors import MarsError
from mars_core.generation import GenerationStore
from mars_core.tables import Table
from tasks.run.round_paths import RoundPaths
from tasks.run.run_folder import RunFolder, RunFolderError, existing_run


class UnknownPairError(MarsError, KeyError):
    """No round of the run has a synthetic pair with this id."""

    def __str__(self) -> str:
        """The message, without the quotes that KeyError adds."""
        return str(self.args[0])


def lineage(root: Path, synthetic_id: str) -> dict[str, dict[str, Any]]:
    """Facts about a synthetic pair by title, from the pair back to its original.

    Raises:
        RunFolderError: `root` is no run, or its store of generations is missing.
        UnknownPairError: it has no such synthetic pair.
    """
    run = existing_run(root)
    for t in run.rounds():
        found = _rows(run.path(run.of_round(t).synthetic), "synthetic_id", synthetic_id)
        if len(found):
            return _facts(run, run.of_round(t), dict(found.iloc[0]))
    made = [
        f"{row['synthetic_id']} (round {t})"
        for t in run.rounds()
        for _, row in _rows(run.path(run.of_round(t).synthetic), "parent_id", synthetic_id).iterrows()
    ]
    if made:
        raise UnknownPairError(f"{synthetic_id} is an original; the pairs made of it are {', '.join(made)}")
    raise UnknownPairError(
        f"{root}: no synthetic pair {synthetic_id!r}; its ids are in round-*/synthetic.parquet"
    )


def _facts(run: RunFolder, paths: RoundPaths, pair: dict[str, Any]) -> dict[str, dict[str, Any]]:
    parent = pair["parent_id"]
    original = _rows(run.path("train.parquet"), "pair_id", parent).iloc[0].to_dict()
    allocation = _rows(run.path(paths.allocation), "pair_id", parent).iloc[0].to_dict()
    of_it = _rows(run.path(paths.synthetic), "parent_id", parent)
    stands_in = (of_it["generator"] == "repeat") & (run.config.augmentation.scheme != "repeat")
    made = int((~stands_in).sum())
    facts = {
        f"Synthetic pair {pair['synthetic_id']} ({paths.folder})": {
            name: pair[name]
            for name in ("prompt", "chosen", "rejected", "margin_before", "margin_after", "generator")
        },
        f"Original {parent}": {name: original[name] for name in ("source", "prompt", "chosen", "rejected")},
        "What bought it": {
            "margin": f"{allocation['margin']:.4f}",
            "probability": f"{allocation['probability']:.2e}",
            "budget": allocation["budget"],
            "pairs made of it": f"{made}{_moved(made - allocation['budget'], run)}",
        },
    }
    generations = Path(run.config.generation.store)
    if not generations.is_dir():
        raise RunFolderError(
            f"{generations.resolve()}: no store of generations here; call mars explain from the folder that "
            f"{run.config.name} was started in"
        )
    with GenerationStore(generations) as store:
        rewrites = _rows(run.path(paths.rewrites), "pair_id", parent)
        if len(rewrites):
            rewrite = rewrites.iloc[0].to_dict()
            facts["Rewriting"] = {
                name: rewrite[name] for name in ("rewritten", "distance_before", "distance_after", "attempts")
            } | _request(store, rewrite["request"])
        variants = _rows(run.path(paths.variants), "parent_id", parent)
        for part in ("prompt", "chosen", "rejected"):
            number = pair[f"{part}_variant"]
            used = variants[(variants["part"] == part) & (variants["variant"] == number)]
            for key in used["request"]:
                facts[f"Paraphrase of the {part} (variant {number})"] = _request(store, key)
    return facts


def _moved(more: int, run: RunFolder) -> str:
    """A note if an original has more or fewer pairs than its budget, where budgets count pairs."""
    if run.config.selection.budget_unit != "pairs" or more == 0:
        return ""
    return f" ({more} moved here from others)" if more > 0 else f" ({-more} moved to others or not made)"


def _request(store: GenerationStore, key: str) -> dict[str, Any]:
    if not key:
        return {}
    record = store.find(key) if key in store else {}
    facts = {"request": key} | {
        name: record[name] for name in ("created", "generator", "role", "sampling") if record.get(name)
    }
    asked = "\n".join(f"{message['role']}: {message['content']}" for message in record.get("messages", ()))
    answers = "\n".join(f"{number}. {text}" for number, text in enumerate(record.get("texts", ()), start=1))
    return facts | ({"asked": asked} if asked else {}) | ({"answers, raw": answers} if answers else {})


def _rows(file: Path, column: str, value: str) -> pd.DataFrame:
    """Rows of a table where a column has a value; none where the round never wrote the table."""
    if not file.exists():
        return pd.DataFrame()
    frame: pd.DataFrame = Table(file).where(column, [value]).to_pandas()
    return frame
