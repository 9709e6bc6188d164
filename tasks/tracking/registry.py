"""The registered model in MLflow: its versions, and the aliases that say which of them is in use.

`champion` is in use, `challenger` the candidate at the gate or the last one refused there, `previous` what
`champion` was before. A version's number says little: another registry, or this one restored from a backup,
counts anew, so a champion is known by the times at which it and its registered model were made. Aliases are
moved in a transaction: if a step fails, all are put back. If the process is killed in between, the same call
again ends what was begun.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.transactions import Transaction, get_transaction, transaction
from pydantic import BaseModel, ConfigDict

from mars_core.config import redact
from mars_core.errors import MarsError
from mars_core.files import write_whole
from tasks.run.run_config import TrackingConfig
from tasks.run.run_folder import RunFolder
from tasks.tracking.logged_models import log_model, registered_checkpoint
from tasks.tracking.mlflow_store import fluent, reached, told, tracking_uri
from tasks.tracking.run_tracking import send_run

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
GATE = "mars.gate"
"""Tag of a version: promoted, promoted by hand, refused or withdrawn."""
REPLACED = "mars.replaced"
"""Tag of a version: the one that was champion before it."""
DESCRIPTION_LENGTH = 5000
"""Most characters of a version's description."""
CYCLE = "mars.cycle"
"""Tag of a version: the cycle of retraining that made it, by its ledger's label."""


class RegistryError(MarsError, RuntimeError):
    """The registered model is not as it has to be; the message says what it is and what to do."""


class Champion(BaseModel):
    """The version in use, told from one of the same number elsewhere."""

    model_config = ConfigDict(frozen=True)

    version: str
    made: int
    """When the version was made, in milliseconds since 1970, by the registry's clock."""
    registry: int
    """When the registered model was made, likewise."""


class Registry(NamedTuple):
    """A registered model, and where it is."""

    config: TrackingConfig
    model: str

    @property
    def client(self) -> MlflowClient:
        """MLflow.

        Raises:
            RegistryError: it does not answer.
        """
        try:
            return reached(self.config)
        except Exception as error:
            raise RegistryError(
                f"MLflow at {self.address} {told(error)}; "
                "without it nobody knows which version is champion, so start again when it is back"
            ) from error

    @property
    def address(self) -> str:
        """Where it is, without credentials."""
        return redact(tracking_uri(self.config))

    def aliases(self) -> dict[str, str]:
        """Alias → version; empty where the model is not registered yet."""
        try:
            return {
                alias: str(version)
                for alias, version in self.client.get_registered_model(self.model).aliases.items()
            }
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}

    def champion(self) -> Champion | None:
        """The version in use, if there is one."""
        version = self.aliases().get(CHAMPION)
        return None if version is None else self.known(version)

    def known(self, version: str) -> Champion:
        """A version as a champion is known.

        Raises:
            RegistryError: there is no such version.
        """
        client = self.client
        try:
            made = client.get_model_version(self.model, version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise RegistryError(
                f"{self.model} has no version {version!r} in MLflow at {self.address}"
            ) from None
        registered = client.get_registered_model(self.model)
        return Champion(
            version=str(made.version), made=made.creation_timestamp, registry=registered.creation_timestamp
        )

    def tags(self, version: str) -> dict[str, str]:
        """Tags of a version."""
        return dict(self.client.get_model_version(self.model, version).tags)

    def tag(self, version: str, tags: dict[str, str]) -> None:
        """Set tags of a version."""
        client = self.client
        for name, value in tags.items():
            client.set_model_version_tag(self.model, version, name, value)

    def point(self, alias: str, version: str | None) -> None:
        """Let an alias point to a version, or to none."""
        if version is not None:
            self.client.set_registered_model_alias(self.model, alias, version)
        elif alias in self.aliases():
            self.client.delete_registered_model_alias(self.model, alias)


@task(
    name="fetch champion",
    task_run_name="fetch champion, version {version}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fetch_champion(registry: Registry, version: str, folder: Path) -> Path:
    """The checkpoint of a version in a folder, which keeps no other; fetched where it is not there.

    Raises:
        RegistryError: MLflow has no files of it.
    """
    made = registry.client.get_model_version(registry.model, version)
    place = folder / f"version-{version}-{made.creation_timestamp}"  # another registry counts from 1, too

    def fetch(path: Path) -> None:
        for outdated in folder.iterdir():
            shutil.rmtree(outdated)
        with TemporaryDirectory(dir=folder) as beside:
            reference = f"models:/{registry.model}/{version}"
            found = Path(registered_checkpoint(registry.config, reference, Path(beside)))
            if not any(found.iterdir()):  # a folder that is not mounted is an empty one to MLflow
                raise RegistryError(
                    f"{reference} has no files at {made.source}: is the store of artifacts there?"
                )
            found.rename(path)

    if not place.exists():
        write_whole(place, fetch)
    return place


@task(name="register", task_run_name="register candidate", cache_policy=NO_CACHE, persist_result=False)
def register_candidate(
    registry: Registry, run: RunFolder, rounds: int, best: int, tags: dict[str, str], card: str = ""
) -> str:
    """Make the model of a run's best round a version of the registered model, once, and the challenger.

    Its description is the beginning of the card; the whole card is among the run's artifacts.

    Returns:
        The version's number.
    """
    client = registry.client
    parent = send_run(client, run, rounds, ended=True)  # MLflow may have been away
    model_id = log_model(client, run, parent, best)
    if not client.search_registered_models(filter_string=f"name = '{registry.model}'"):
        client.create_registered_model(
            registry.model, description="Reward model, retrained by MARS; its champion passed the gate."
        )
    found = [
        version
        for version in client.search_model_versions(f"name = '{registry.model}'")
        if version.run_id == parent.info.run_id
    ]
    if not found:
        with fluent(client.tracking_uri):  # a local registry looks there for the model
            found = [
                client.create_model_version(
                    registry.model, f"models:/{model_id}", run_id=parent.info.run_id, model_id=model_id
                )
            ]
    number = str(found[0].version)
    if card:
        client.update_model_version(registry.model, number, _description(card))
        client.log_text(parent.info.run_id, card, "model_card.md")
    registry.tag(number, tags | {"prefect.url": str(flow_run.ui_url)})
    registry.point(CHALLENGER, number)
    return number


def _description(card: str) -> str:
    """As many paragraphs of a card as fit, without its metadata."""
    text = card.removeprefix("---\n").partition("\n---\n")[2].strip()
    return text if len(text) <= DESCRIPTION_LENGTH else text[:DESCRIPTION_LENGTH].rpartition("\n\n")[0]


@task(
    name="alias",
    task_run_name="alias {alias} to version {version}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def move_alias(registry: Registry, alias: str, version: str | None) -> None:
    """Let an alias point to a version, or to none; put back if the transaction that it is part of fails."""
    within = get_transaction()
    if within is not None:
        within.set("before", (registry, alias, registry.aliases().get(alias)))
    registry.point(alias, version)


@move_alias.on_rollback
def put_alias_back(within: Transaction) -> None:
    """Let an alias point to where it did before `move_alias`."""
    registry, alias, version = within.get("before")
    registry.point(alias, version)


def check_compared(registry: Registry, candidate: str, compared_with: str | None) -> str | None:
    """The champion, which has to be the version that the candidate was compared with, or the candidate.

    Raises:
        RegistryError: another version became champion meanwhile.
    """
    champion = registry.aliases().get(CHAMPION)
    if champion not in (compared_with, candidate):
        now, then = (f"version {one}" if one else "none" for one in (champion, compared_with))
        raise RegistryError(
            f"{now} of {registry.model} is champion now, while the candidate, version {candidate}, was "
            f"compared with {then}; start again to compare it anew"
        )
    return champion


def promote(registry: Registry, candidate: str, compared_with: str | None) -> None:
    """Let the candidate be champion, and the champion that it was compared with be previous.

    Raises:
        RegistryError: another version became champion meanwhile.
    """
    champion = check_compared(registry, candidate, compared_with)
    with transaction():
        if champion != candidate:  # else the process was killed after this
            move_alias(registry, PREVIOUS, champion)
            move_alias(registry, CHAMPION, candidate)
        move_alias(registry, CHALLENGER, None)
        registry.tag(candidate, {GATE: "promoted"} | ({REPLACED: compared_with} if compared_with else {}))


def refuse(registry: Registry, candidate: str) -> None:
    """Leave the champion where it is; the candidate stays challenger, marked as refused."""
    registry.tag(candidate, {GATE: "refused"})


def appoint(registry: Registry, version: str) -> None:
    """Let a person's choice be champion, and the champion until now be previous."""
    champion = registry.aliases().get(CHAMPION)
    replaced = champion if champion != version else None  # else the process was killed half-way
    registry.tag(version, {GATE: "promoted by hand"} | ({REPLACED: replaced} if replaced else {}))
    with transaction():
        if replaced:
            move_alias(registry, PREVIOUS, replaced)
        move_alias(registry, CHAMPION, version)
        if registry.aliases().get(CHALLENGER) == version:
            move_alias(registry, CHALLENGER, None)


def previous_champion(registry: Registry) -> tuple[str, str]:
    """The champion and the one before it; the same version where a rollback was killed half-way.

    Raises:
        RegistryError: there is no previous champion.
    """
    aliases = registry.aliases()
    if not {CHAMPION, PREVIOUS} <= aliases.keys():
        raise RegistryError(
            f"{registry.model} has no previous champion to go back to; "
            f"its champion is version {aliases.get(CHAMPION, '(none)')}"
        )
    return aliases[CHAMPION], aliases[PREVIOUS]


def restore(registry: Registry, champion: str, previous: str) -> None:
    """Let the previous champion be champion again; `previous` goes on to what that one had replaced."""
    if champion != previous:  # else the process was killed half-way
        registry.tag(champion, {GATE: "withdrawn"})
    with transaction():
        move_alias(registry, CHAMPION, previous)
        move_alias(registry, PREVIOUS, registry.tags(previous).get(REPLACED))
