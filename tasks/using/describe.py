"""What the cards of a run's model and synthetic pairs say, gathered from its folder.

A licence is told where the hub's page of a source, or a package, says it; else it is not stated.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from huggingface_hub import HfApi

from mars_core.config import public, redact
from mars_core.model.loading import objective_of
from mars_core.model.packaged import PACKAGES
from mars_core.model.plain_checkpoint import linear_reward
from mars_core.model.reward_model import ModelConfig, renderer_of
from mars_core.objectives.objective import ObjectiveConfig
from mars_core.report.cards import NOT_STATED, PAPER, Data, Model, SyntheticPairs, model_card
from mars_core.report.round_tables import values_of, with_ends
from mars_core.report.text_sections import quote
from mars_core.report.wording import interval
from mars_core.tables import Table
from tasks.run.round_metrics import best_round, read_metrics
from tasks.run.run_folder import RunFolder, RunFolderError

EXAMPLES = 3
LOCAL = ("compute", "tracking", "shared_steps", "folder")
"""Sections of a configuration that name places of the machine it ran on, and shape no result."""
LicenceOf = Callable[[str, Literal["dataset", "model"]], str]
"""The licence of a source or a model, by the name that a configuration has for it."""


def best_model(run: RunFolder) -> tuple[int, Path]:
    """The round with the best validation accuracy, and its model.

    Raises:
        RunFolderError: no round is finished, or the model was removed.
    """
    rounds = read_metrics(run)
    if not rounds:
        raise RunFolderError(f"{run.root}: no round is finished yet; mars refine continues the run")
    best = best_round(rounds)
    model = run.path(run.of_round(best).model)
    if not model.is_dir():
        raise RunFolderError(f"{model} is not there any more; it is the model of the best round")
    return best, model


def about_checkpoint(
    name: str, checkpoint: str, config: ModelConfig, objective: ObjectiveConfig | None, licence: str | None
) -> Model:
    """What a checkpoint says of itself, without its network.

    Raises:
        ModelError: it cannot be read.
    """
    opened = objective_of(checkpoint, config, objective).open()
    opened.modules = torch.nn.ModuleDict(opened.build(1))  # untrained: only their form is asked for
    renderer = renderer_of(checkpoint, config)
    return Model(
        name=name,
        rendering=renderer.description,
        max_length=renderer.max_length,
        objective=opened.name,
        chat_template="template" in renderer.description,
        is_plain=linear_reward(opened) is not None,
        licence=licence,
    )


def run_card(run: RunFolder, t: int, licence_of: LicenceOf, licence: str | None = None) -> str:
    """The card of the model of one of a run's rounds.

    Raises:
        ModelError: the model cannot be read.
    """
    checkpoint = str(run.path(run.of_round(t).model))
    about = about_checkpoint(run.config.name, checkpoint, run.config.model, run.config.fit.objective, licence)
    return model_card(about_run(run, t, about, licence_of))


def about_run(run: RunFolder, best: int, about: Model, licence_of: LicenceOf) -> Model:
    """What a run knows of its model, besides what the checkpoint says.

    Raises:
        RunFolderError: the round is not finished.
    """
    config, metrics = run.config, read_metrics(run)[best]
    evaluation = config.evaluation
    scores = {
        "validation/accuracy": "accuracy on validation pairs, by which the round was chosen",
        "heldout/accuracy": "accuracy on held-out pairs",
        "robustness/robust_accuracy": "share of changed pairs ranked right before and after the change",
        **{
            f"{key}/{one.headline}": _rows_of(one.title, evaluation.sources[key])
            for key, one in evaluation.suite.items()
        },
    }
    rows = [
        [name, interval(*values_of(metrics, *with_ends(name))), meaning]
        for name, meaning in scores.items()
        if name in metrics
    ]
    written = metrics.get("train/synthetic", 0)
    values = about.__dict__ | {
        "name": config.name,
        "backbone": _name(config.model.backbone),
        "data": sources(run, licence_of),
        "backbone_licence": licence_of(config.model.backbone, "model"),
        "synthetic": f"Round {best} also trained on {written:,.0f} synthetic pairs, written by "
        f"{_generator(run, licence_of)}."
        if written
        else "",
        "method": method(run, best),
        "metrics": rows,
        "notes": _heldout_notes(metrics),
        "configuration": configuration(run),
    }
    return Model(**values)


def about_pairs(run: RunFolder, tables: Sequence[Table], licence_of: LicenceOf) -> SyntheticPairs:
    """What a run knows of its synthetic pairs."""
    rounds = read_metrics(run)[1:]
    keys = dict.fromkeys(key for metrics in rounds for key in metrics if "/dropped/" in key)
    dropped = {key: sum(metrics.get(key, 0) for metrics in rounds) for key in keys}
    written = sum(metrics.get("augmentation/texts", 0) for metrics in rounds)
    total = sum(dropped.values())
    return SyntheticPairs(
        name=run.config.name,
        pairs=sum(map(len, tables)),
        generator=_generator(run, licence_of),
        data=sources(run, licence_of)[:1],
        method=method(run, len(rounds)),
        spending=[
            [key.replace("/dropped/", ", dropped: "), f"{count:,.0f}"] for key, count in dropped.items()
        ],
        dropped=f"{written:,.0f} new texts are in the pairs; guards dropped {total:,.0f} others, "
        f"{total / max(total + written, 1):.0%} of all."
        if written
        else "How many texts were dropped was not recorded.",
        examples=[
            {name: quote(row[name]) for name in ("prompt", "chosen", "rejected")}
            for row in islice(_rows(tables), EXAMPLES)
        ],
        configuration=configuration(run),
    )


def synthetic_tables(run: RunFolder) -> list[Table]:
    """The tables of synthetic pairs of a run's rounds.

    Raises:
        RunFolderError: there are none yet.
    """
    files = [file for t in run.rounds() if (file := run.path(run.of_round(t).synthetic)).exists()]
    if not files:
        raise RunFolderError(f"{run.root}: no round has synthetic pairs yet")
    return [Table(file) for file in files]


def sources(run: RunFolder, licence_of: LicenceOf) -> list[Data]:
    """The sources of a run's pairs; the name of a local one is told without the folders it lies in."""
    data, rounds = run.config.data, read_metrics(run)
    used = {
        "training": (data.train, "train/originals"),
        "validation": (data.validation or data.train, "validation/n"),
        "held out": (data.heldout or data.train, "heldout/n"),
    }
    return [
        Data(what, _name(source), f"{rounds[0][count]:,.0f}", licence_of(source, "dataset"))
        for what, (source, count) in used.items()
        if rounds and rounds[0].get(count)
    ]


def _generator(run: RunFolder, licence_of: LicenceOf) -> str:
    """What writes a run's synthetic pairs, with its licence."""
    generation = run.config.generation
    if not generation.by_language_model:
        return "the rewriting rules of MARS (licence: Apache-2.0)"
    return f"`{_name(str(generation.model))}` (licence: {licence_of(str(generation.model), 'model')})"


def _rows_of(benchmark: str, source: str) -> str:
    """What a metric of a benchmark is of."""
    if source.startswith("sample://"):
        return f"rows written for MARS in the layout of {benchmark}: not comparable with published scores"
    return f"{benchmark}, rows of `{_name(source)}`"


def _heldout_notes(metrics: Mapping[str, float]) -> list[str]:
    """What a reader of the accuracy on held-out pairs has to know."""
    notes = []
    if "heldout/longer_wins" in metrics:
        notes.append(f"Preferring the longer response gets {metrics['heldout/longer_wins']:.3f} held out.")
    exact, near, accuracy = (
        metrics.get(f"contamination/heldout/{name}", math.nan) for name in ("exact", "near", "accuracy")
    )
    if exact + near > 0 and not math.isnan(accuracy):
        notes.append(
            f"No held-out pair has a prompt of training, but {exact + near:,.0f} have a text that is in "
            f"training too, exactly or nearly; without them the accuracy is {accuracy:.3f}."
        )
    return notes


def method(run: RunFolder, rounds: int) -> str:
    """How the model or the pairs came about."""
    config = run.config
    made = (
        f"{rounds} round{'s' if rounds > 1 else ''} of self-refinement: margins of the originals by the "
        f"model so far, a budget of {config.selection.budget:,} by `{config.selection.strategy}`, "
        "paraphrases and rewrites of what it falls on, guards, a fit."
        if rounds
        else "A fit on the original pairs alone: no round of augmentation was better on validation."
    )
    return (
        f"{made} The seed was {config.seed}. The method is margin- and semantic-aware augmentation, {PAPER}."
    )


def configuration(run: RunFolder) -> dict[str, Any]:
    """The configuration without secrets, and without the places of the machine that it ran on."""
    values = {name: value for name, value in public(run.config).items() if name not in LOCAL}
    values.get("generation", {}).get("options", {}).pop("base_url", None)
    for key in ("store", "launch"):
        values.get("generation", {}).pop(key, None)
    return {name: _without_places(value) for name, value in values.items()}


def _without_places(value: Any) -> Any:
    """A value of a configuration, with the names of local files and folders instead of their paths."""
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    return _name(value) if isinstance(value, str) else value


def hub() -> HfApi:
    """The hub's client, with the token of the environment and no other."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=os.environ.get("HF_TOKEN") or False)


def licences(api: HfApi) -> LicenceOf:
    """Asks the hub; what it does not say, or does not know, is not stated."""

    def licence_of(name: str, kind: Literal["dataset", "model"]) -> str:
        if name.startswith("sample://"):
            return "Apache-2.0 (written for MARS)"
        scheme, _, package = name.partition("://")
        if scheme == "package":
            return PACKAGES[package].licence if package in PACKAGES else NOT_STATED
        place, _, pinned = name.partition("@")
        if Path(name).exists() or not pinned or place.startswith((".", "/", "~")):
            return NOT_STATED
        try:
            info = api.repo_info(
                "/".join(place.split("/")[:2]), repo_type=kind, revision=pinned.partition(":")[0], timeout=20
            )
        except Exception:  # noqa: BLE001 - the client raises many kinds, and a card can do without
            return NOT_STATED
        card = getattr(info, "card_data", None)
        stated = card.get("license") if card else None
        return str(stated) if stated else NOT_STATED

    return licence_of


def _name(source: str) -> str:
    """What a card calls a source or a checkpoint: of a local one the last part of its path."""
    local = Path(source).expanduser()
    return local.name if local.exists() or source.startswith((".", "/", "~")) else redact(source)


def _rows(tables: Sequence[Table]) -> Any:
    for table in tables:
        for batch in table.batches("prompt", "chosen", "rejected"):
            yield from pd.DataFrame(batch.to_pylist()).to_dict("records")
