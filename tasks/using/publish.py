"""A model, or a run's synthetic pairs, in a repository of the hub: staged, uploaded, read back.

The token comes from the environment alone (HF_TOKEN), the hub's address from HF_ENDPOINT. A repository is
private unless it is asked to be public, and one that holds something else is never written to: what is
published here carries the file `MARK`.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import numpy as np
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from numpy.typing import NDArray

from mars_core.data.samples import preferences
from mars_core.errors import MarsError, ModelError
from mars_core.files import sha256_of
from mars_core.model.loading import has_trained_head
from mars_core.model.plain_checkpoint import linear_reward, save_plain
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import ObjectiveConfig
from mars_core.report.cards import NOT_STATED, model_card, pairs_card
from mars_core.tables import write
from tasks.run.run_config import TrackingConfig
from tasks.run.run_folder import RunFolder, existing_run
from tasks.run.step import tell
from tasks.tracking.logged_models import fetched
from tasks.tracking.publications import note_publication
from tasks.using.describe import (
    LicenceOf,
    about_checkpoint,
    about_pairs,
    best_model,
    hub,
    run_card,
    synthetic_tables,
)

MARK, CARD = "mars.json", "README.md"
SAMPLE = 8
"""Pairs by which a model that was read back is known to score the same."""
SPARE_BYTES = 2**28
TOLERANCE = 1e-5
RepoType = Literal["model", "dataset"]


class PublishError(MarsError, RuntimeError):
    """It cannot be published; the message says why and what to do."""


class Staged(NamedTuple):
    """What would be uploaded, in a folder that exists during a `with` block."""

    folder: Path
    kind: RepoType
    config: ModelConfig
    objective: ObjectiveConfig | None
    """With which the model is read back."""
    rewards: NDArray[np.float32]
    """[2 · SAMPLE] of built-in pairs; of a data set none."""
    run: RunFolder | None

    @property
    def card(self) -> str:
        """The card as it stands in the folder."""
        return (self.folder / CARD).read_text(encoding="utf-8")

    @property
    def files(self) -> dict[str, int]:
        """File → bytes."""
        return {file.name: file.stat().st_size for file in sorted(self.folder.iterdir())}


class Published(NamedTuple):
    """Where it is now."""

    repository: str
    revision: str
    """The commit."""
    address: str


@contextmanager
def staged_model(
    reference: str,
    config: ModelConfig,
    objective: ObjectiveConfig | None = None,
    *,
    licence: str | None = None,
    tracking: TrackingConfig,
    licence_of: LicenceOf = lambda *_: NOT_STATED,
    place: Path | None = None,
) -> Iterator[Staged]:
    """A model with its card, whole and in safetensors, in a folder during a `with` block.

    Args:
        reference: a run's folder, of which the best round's model is taken, or a model as `locate` names it,
            or models:/NAME@ALIAS in MLflow.
        config: how texts go through the model; of a run its own.
        objective: what the model was trained by; of a run its own, else what its checkpoint names.
        licence: of the model, as the hub spells it.
        tracking: where MLflow is.
        licence_of: asks for the licences of sources.
        place: where the folder is made; by default where temporary files are.

    Raises:
        ModelError: it cannot be loaded, or is no reward model.
        RunFolderError: the run has no model yet.
        PublishError: the disk has no room for it.
    """
    run = existing_run(Path(reference)) if (Path(reference) / "config.yaml").exists() else None
    best = 0
    if run is not None:
        config, objective, tracking = run.config.model, run.config.fit.objective, run.config.tracking
        best, model_folder = best_model(run)
        reference = str(model_folder)
    with (
        fetched(tracking, reference) as checkpoint,
        TemporaryDirectory(prefix="mars-publish-", dir=place) as at,
    ):
        if not has_trained_head(checkpoint, config, objective):
            raise ModelError(f"{reference} has no trained head: it is no reward model yet")
        model = RewardModel.load(checkpoint, config, objective)
        needed = 4 * sum(weight.numel() for weight in model.network.parameters())
        _check_room(Path(at), 2 * needed)  # what is uploaded, and what is read back
        if run is not None:
            card = run_card(run, best, licence_of, licence)
        else:
            about = about_checkpoint(Path(reference).name, checkpoint, config, objective, licence)
            card = model_card(about)
        prompts, responses = _sample()
        rewards = model.score(prompts, responses)
        folder = Path(at) / "staged"
        if linear_reward(model.objective) is not None:
            save_plain(model, folder)
            objective = None
        else:
            model.save(folder)
        _write_mark(folder, "model")
        (folder / CARD).write_text(card, encoding="utf-8")
        yield Staged(folder, "model", config, objective, rewards, run)


@contextmanager
def staged_pairs(
    root: Path, licence: str | None, licence_of: LicenceOf = lambda *_: NOT_STATED
) -> Iterator[Staged]:
    """The synthetic pairs of all rounds of a run with their card, in a folder during a `with` block.

    Raises:
        RunFolderError: there is no run, or no round of it has synthetic pairs yet.
    """
    run = existing_run(root)
    tables = synthetic_tables(run)
    with TemporaryDirectory(prefix="mars-publish-") as at:
        _check_room(Path(at), 2 * sum(file.stat().st_size for table in tables for file in table.files))
        folder = Path(at) / "staged"
        folder.mkdir()
        rows = chain.from_iterable(table.batches() for table in tables)
        write(folder / "synthetic.parquet", rows, part_bytes=float("inf"))
        _write_mark(folder, "synthetic pairs")
        about = replace(about_pairs(run, tables, licence_of), licence=licence)
        (folder / CARD).write_text(pairs_card(about), encoding="utf-8")
        yield Staged(folder, "dataset", run.config.model, None, np.empty(0, np.float32), run)


def check_repository(name: str) -> None:
    """Raise PublishError where a name is not OWNER/NAME."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise PublishError(f"--to {name}: {error}") from None
    if "/" not in name:
        raise PublishError(f"--to {name}: name the owner too, as in OWNER/{name}")


def publish(staged: Staged, repository: str, *, public: bool = False) -> Published:
    """Upload what is staged, read it back, and keep its revision in MLflow.

    Args:
        staged: the files.
        repository: OWNER/NAME; made if it is not there, and updated if it was published from here before.
        public: whether a new one is public.

    Raises:
        PublishError: there is no token, or it may not write there; a repository of that name holds something
            else; the hub does not answer; what it gives back is not what was uploaded.
    """
    if not os.environ.get("HF_TOKEN"):
        raise PublishError("HF_TOKEN is not set: put a token that may write to the repository into it")
    check_repository(repository)
    api = hub()
    try:
        _make_repository(api, staged, repository, public)
        commit = api.upload_folder(
            repo_id=repository,
            repo_type=staged.kind,
            folder_path=staged.folder,
            commit_message=f"Published by MARS {version('mars')}",
        )
        revision = str(commit.oid)
        tell("Uploaded as %s@%s; reading it back.", repository, revision)
        _read_back(api, staged, repository, revision)
    except HfHubHTTPError as error:
        raise PublishError(_explained(error, repository)) from None
    except OSError as error:
        raise PublishError(f"{repository}: {error}") from error
    address = f"{api.endpoint}/{'datasets/' if staged.kind == 'dataset' else ''}{repository}"
    if staged.run is not None:
        note_publication(staged.run, staged.kind, f"{repository}@{revision}", staged.card)
    return Published(repository, revision, address)


def _make_repository(api: HfApi, staged: Staged, repository: str, public: bool) -> None:
    try:
        api.create_repo(repository, repo_type=staged.kind, private=not public)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        if not api.file_exists(repository, MARK, repo_type=staged.kind):
            raise PublishError(
                f"{repository} exists, and was not published from here: name another repository"
            ) from None
        tell("%s exists, and gets a new revision; who may see it stays as it is.", repository)


def _read_back(api: HfApi, staged: Staged, repository: str, revision: str) -> None:
    """Raise PublishError where the hub does not give back what was uploaded."""
    with TemporaryDirectory(prefix="read-back-", dir=staged.folder.parent) as at:
        back = Path(api.snapshot_download(repository, repo_type=staged.kind, revision=revision, local_dir=at))
        lost = [
            file.name
            for file in staged.folder.iterdir()
            if not (back / file.name).is_file() or sha256_of(back / file.name) != sha256_of(file)
        ]
        if lost:
            raise PublishError(f"{repository}@{revision} gives back other files than were sent: {lost}")
        if staged.kind == "dataset":
            return
        shutil.rmtree(back / ".cache", ignore_errors=True)
        config = staged.config.model_copy(update={"backbone": str(back), "head": None})
        again = RewardModel.load(str(back), config, staged.objective)
        difference = float(np.abs(again.score(*_sample()) - staged.rewards).max())
        if not difference <= TOLERANCE * max(1.0, float(np.ptp(staged.rewards))):
            raise PublishError(f"{repository}@{revision} scores otherwise, by up to {difference:.3g}")


def _sample() -> tuple[list[str], list[str]]:
    rows = preferences()[:SAMPLE]
    prompts = [row["prompt"] for row in rows]
    return prompts * 2, [row["chosen"] for row in rows] + [row["rejected"] for row in rows]


def _write_mark(folder: Path, what: str) -> None:
    mark = {"published_by": f"mars {version('mars')}", "what": what}
    (folder / MARK).write_text(json.dumps(mark, indent=2) + "\n")


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise PublishError(
            f"{needed / 2**30:.1f} GiB are needed in {folder.parent} for the files and to read them back, "
            f"and {free / 2**30:.1f} are free: set TMPDIR to a larger disk"
        )


def _explained(error: HfHubHTTPError, repository: str) -> str:
    status = error.response.status_code if error.response is not None else 0
    if status in (401, 403):
        return (
            f"the token of HF_TOKEN may not write to {repository} ({status}): it needs the right to write to "
            "repositories of this owner"
        )
    return f"{repository}: the hub answers {status}: {error.server_message or error}"
