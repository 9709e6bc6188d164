"""Who is champion is the ledger's to know: no cycle begins beside another, and a person may choose one."""

import json
import re
import shutil

import pandas as pd
import pytest

from flows.retrain import promote_by_hand, roll_back
from mars_core.data.identity import pair_identity
from mars_core.errors import ModelError
from tasks.retraining.cycle import next_cycle
from tasks.retraining.ledger import Ledger, LedgerError
from tasks.retraining.retrain_config import load_retraining
from tasks.run.run_config import TrackingConfig
from tasks.run.run_folder import owned
from tasks.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    CYCLE,
    GATE,
    PREVIOUS,
    REPLACED,
    Champion,
    Registry,
    RegistryError,
)

pytestmark = pytest.mark.usefixtures("without_prefect")


@pytest.fixture(scope="module")
def store(tmp_path_factory, mlflow_store):
    """Address of a database whose tables are there."""
    return f"sqlite:///{shutil.copy(mlflow_store, tmp_path_factory.mktemp('mlflow'))}"


class Retraining:
    """A retraining whose two cycles were promoted, with one delivery each; versions 1 and 2 are theirs."""

    def __init__(self, folder, name, store):
        self.file = folder / "retrain.yaml"
        refine = {"rounds": 1, "tracking": {"uri": store}}
        self.values = {"name": name, "folder": str(folder), "min_new_pairs": 1, "refine": refine}
        self.configure()
        self.registry = Registry(TrackingConfig(uri=store), name)
        with owned(self.config.root) as identity:
            pass
        client = self.registry.client
        client.create_registered_model(name)
        for number in (1, 2):
            client.create_model_version(name, "file:///nowhere", tags={CYCLE: f"{number} of {identity}"})
        self.registry.tag("2", {REPLACED: "1"})
        self.registry.point(CHAMPION, "2")
        self.registry.point(PREVIOUS, "1")
        self.write(champion=self.registry.champion())

    def configure(self, **refine):
        self.values["refine"] |= refine
        self.file.write_text(json.dumps(self.values))
        self.config = load_retraining(self.file)

    @property
    def ledger(self):
        return Ledger.of(self.config.root)

    def write(self, champion=None, states=("promoted", "promoted"), suspected=()):
        """The ledger as it is after two cycles; one of an earlier version names no champion."""
        delivered = {"state": "trusted", "rows": 9, "pairs": 9, "duplicates": 0, "bad": 0, "seen": "then"}
        values = {
            "deliveries": {digest: delivered | {"file": digest} for digest in ("aa", "bb", *suspected)},
            "suspects": [[digest] for digest in suspected],
            "cycles": [
                {"number": number, "state": state, "deliveries": [digest], "champion": None}
                for number, state, digest in zip((1, 2), states, ("aa", "bb"), strict=True)
            ],
        }
        if champion:
            values["champion"] = champion.model_dump()
        (self.config.root / "ledger.json").write_text(json.dumps(values))

    def begin(self):
        return next_cycle.fn(self.config, self.ledger, self.registry)

    def states(self):
        return {digest: found.state for digest, found in self.ledger.deliveries.items()}


@pytest.fixture
def retraining(request, store, tmp_path):
    return Retraining(tmp_path, re.sub(r"\W", "-", request.node.name), store)


def test_with_its_champion_in_place_a_retraining_waits_for_pairs(retraining):
    assert retraining.begin() is None


@pytest.mark.parametrize("known", [True, False], ids=["known", "ledger of an earlier version"])
@pytest.mark.parametrize("there", [None, "3"], ids=["alias deleted", "another version"])
def test_no_cycle_begins_where_the_registry_has_another_champion_than_the_ledger(retraining, known, there):
    if not known:
        retraining.write()
    retraining.registry.client.create_model_version(retraining.registry.model, "file:///nowhere")
    retraining.registry.point(CHAMPION, there)
    with pytest.raises(LedgerError, match=r"champion in MLflow at sqlite:.*\n?.*--promote VERSION"):
        retraining.begin()
    assert len(retraining.ledger.cycles) == 2


@pytest.mark.parametrize("changed", ["made", "registry"])
def test_a_version_of_the_same_number_in_another_registry_is_another_champion(retraining, changed):
    there = retraining.registry.champion()
    retraining.write(champion=there.model_copy(update={changed: getattr(there, changed) - 1}))
    with pytest.raises(LedgerError, match="version 2, another model, is champion"):
        retraining.begin()


def test_a_ledger_of_an_earlier_version_knows_the_champion_that_its_own_cycle_made(retraining):
    retraining.write()
    assert retraining.begin() is None


def test_a_person_makes_a_refused_first_candidate_champion_and_its_deliveries_trusted(retraining):
    retraining.write(states=("promoted", "refused"))
    for alias, version in ((CHAMPION, None), (PREVIOUS, None), (CHALLENGER, "2")):
        retraining.registry.point(alias, version)
    said = promote_by_hand.fn(str(retraining.file), "2")
    assert said.endswith("is champion, and the 1 deliveries new in it are trusted.")
    assert retraining.registry.aliases() == {CHAMPION: "2"}
    assert retraining.registry.tags("2")[GATE] == "promoted by hand"
    assert [cycle.state for cycle in retraining.ledger.cycles] == ["promoted", "promoted"]
    assert retraining.begin() is None


def test_the_champion_before_a_persons_choice_becomes_the_previous_one(retraining):
    retraining.registry.client.create_model_version(retraining.registry.model, "file:///nowhere")
    for _ in range(2):
        promote_by_hand.fn(str(retraining.file), "3")
        assert retraining.registry.aliases() == {CHAMPION: "3", PREVIOUS: "2"}
        assert retraining.registry.tags("3")[REPLACED] == "2"
    assert retraining.begin() is None


def test_a_version_that_is_not_there_is_told(retraining):
    with pytest.raises(RegistryError, match="has no version '7'"):
        promote_by_hand.fn(str(retraining.file), "7")


def test_a_rollback_works_while_a_cycle_runs(retraining):
    with owned(retraining.config.root):
        said = roll_back.fn(str(retraining.file))
    assert "version 2 is withdrawn, and the 1 deliveries new in it are set aside" in said
    assert retraining.registry.aliases() == {CHAMPION: "1"}
    assert [cycle.state for cycle in retraining.ledger.cycles] == ["promoted", "withdrawn"]
    assert retraining.begin() is None


def test_what_a_rollback_writes_is_not_undone_by_the_retraining_that_runs(retraining):
    running, rollback = retraining.ledger, retraining.ledger
    before = Champion(version="1", made=1, registry=1)
    rollback.close(rollback.cycles[1], "withdrawn", "refused", "rolled back", before)
    running.keep("cc", running.deliveries["aa"].model_copy(update={"state": "waiting"}))
    assert retraining.states() == {"aa": "trusted", "bb": "refused", "cc": "waiting"}
    assert (running.cycles[1].state, running.champion) == ("withdrawn", before)


@pytest.mark.parametrize("away", ["files of the champion", "backbone"])
def test_no_suspected_delivery_is_released_because_a_server_or_a_model_is_away(retraining, away, in_flow):
    if away == "backbone":
        retraining.configure(model={"backbone": "./nowhere"})
        retraining.registry.point(CHAMPION, None)
        retraining.write(states=("refused", "refused"), suspected=["cc"])
    else:
        retraining.write(champion=retraining.registry.champion(), suspected=["cc"])
    for delivery in ("aa", "bb", "cc"):
        rows = [[f"What is {delivery}{row}?", f"The number {row}.", "No idea."] for row in range(60)]
        table = pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])
        table = table.assign(pair_id=[pair_identity(*texts) for texts in rows], source="a person")
        file = retraining.ledger.accepted(delivery)
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(file)
    with pytest.raises((RegistryError, ModelError), match="nowhere"):
        retraining.begin()
    assert retraining.ledger.suspects == [["cc"]]


def test_a_ledger_that_cannot_be_read_is_told_with_what_it_was_before(retraining):
    retraining.ledger.recognise(None)
    file = retraining.config.root / "ledger.json"
    file.write_text(file.read_text()[:-30])
    with pytest.raises(LedgerError, match=r"ledger\.json cannot be read: .* in .*ledger\.before\.json: look"):
        retraining.begin()
    shutil.copy(file.with_name("ledger.before.json"), file)
    assert retraining.ledger.champion is not None
    assert file.with_name("ledger.before.json").stat().st_mode & 0o077 == 0
