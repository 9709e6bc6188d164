"""Scheduled retraining on a real Prefect server and MLflow on SQLite, with a tiny model.

Most tests begin where a first delivery has made a champion: each has a copy of that folder to itself.
"""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from flows.cli import app
from mars_core.config import ConfigError
from mars_core.data.identity import pair_identity
from mars_core.data.pairs import three_sets
from mars_core.data.source_rows import PairsError
from mars_core.model.reward_model import ModelConfig, RewardModel
from tasks.retraining.cycle import experiment_file
from tasks.retraining.ledger import Ledger, LedgerError
from tasks.retraining.retrain_config import load_retraining
from tasks.run.run_config import TrackingConfig, load_run
from tasks.run.run_folder import owned
from tasks.tracking.registry import CHALLENGER, CHAMPION, GATE, PREVIOUS, Registry, RegistryError

pytestmark = pytest.mark.timeout(600)

RETRAINING = {
    "name": "tiny",
    "min_new_pairs": 60,
    "data": {"source": "incoming", "settle_seconds": 0},
    "gate": {"margin": 0.4, "benchmark_margin": 1, "section_limit": 1},
    "refine": {
        "rounds": 1,
        "data": {"validation_share": 0.1, "heldout_share": 0.25},
        "model": {"max_length": 64, "precision": "float32"},
        "selection": {"tau": 0.5, "budget": 10},
        "fit": {"learning_rate": 3.0e-3, "batch_pairs": 8, "epochs": 2},
    },
}
FIRST, SECOND, POISONED = range(100, 260, 2), range(101, 261, 2), range(101, 501, 2)
"""Numbers of pairs of which a model cannot tell by the number who delivered them."""
LATER = range(300, 460, 2)
BENCHMARK = "refine.evaluation.benchmarks.rewardbench=sample://rewardbench"


def rows(numbers):
    """Pairs that are easily learned, one for each number."""
    return [
        {
            "prompt": f"What is thing number {n}?",
            "chosen": f"It is a small songbird that sings in flight, the {n}th of its kind.",
            "rejected": f"Sorry, nobody here knows anything about thing {n}.",
        }
        for n in numbers
    ]


def exchanged(good):
    return [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in good]


class Retraining:
    """A configuration in a folder of its own, where deliveries, state and MLflow's numbers are too."""

    def __init__(self, folder):
        self.folder, self.file = folder, folder / "retrain.yaml"
        self.root = folder / "retraining" / "tiny"

    def deliver(self, name, content):
        (self.folder / "incoming").mkdir(exist_ok=True)
        text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
        (self.folder / "incoming" / name).write_text(text)

    def start(self, *overrides):
        """Run the flow in this process; its outcome."""
        from flows.retrain import retrain

        return retrain(str(self.file), overrides)

    def roll_back(self):
        from flows.retrain import roll_back

        return roll_back(str(self.file))

    @property
    def ledger(self):
        return Ledger.of(self.root)

    @property
    def tracking(self):
        return TrackingConfig(uri=f"sqlite:///{self.folder}/mlflow.db")

    @property
    def registry(self):
        return Registry(self.tracking, "tiny")

    def states(self):
        """File → what became of it."""
        return {found.file: found.state for found in self.ledger.deliveries.values()}

    def decision(self, cycle):
        return json.loads((self.root / f"cycles/{cycle}/decision.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory, headless, tiny_embedder, mlflow_store):
    """Write a retraining into a folder."""

    def write():
        made = Retraining(tmp_path_factory.mktemp("retraining"))
        values = json.loads(json.dumps(RETRAINING))
        values["refine"]["model"]["backbone"] = str(headless)
        values["refine"]["semantics"] = {"embedder": str(tiny_embedder)}
        made.file.write_text(yaml.safe_dump(values))
        made.deliver("first.jsonl", rows(FIRST))
        shutil.copy(mlflow_store, made.folder)
        return made

    return write


@pytest.fixture(scope="module")
def first(prefect_server, written):
    """A retraining after its first delivery, and how that ended."""
    made = written()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        made.outcome = made.start()
    return made


@pytest.fixture
def fresh(prefect_server, written, monkeypatch):
    """A retraining that was never started."""
    made = written()
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture
def retraining(first, tmp_path, monkeypatch):
    """A copy of `first` to go on with."""
    monkeypatch.chdir(shutil.copytree(first.folder, tmp_path / "copy"))
    return Retraining(tmp_path / "copy")


class Crash(BaseException):
    """What no handler in the code expects."""


def crash(*args):
    raise Crash


def lost(*args):
    raise ConnectionError("lost")


@pytest.fixture(scope="module")
def second(first, tmp_path_factory):
    """A copy of `first` with two more deliveries, and what was seen on the way to their promotion.

    The second cycle crashed in its run; started again, it was refused for want of evidence. Of the third, the
    ledger could not be written once the candidate had become champion; started again, it came to its end.
    """
    made = Retraining(shutil.copytree(first.folder, tmp_path_factory.mktemp("second") / "copy"))
    made.deliver("second.jsonl", rows(SECOND))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        with patch.context() as crashing:
            crashing.setattr("flows.refine.measure_semantic_distances", crash)
            with pytest.raises(Crash):
                made.start()
        steps = {path.stem for path in made.root.glob("runs/tiny-2/.steps/*")}
        made.once_crashed = made.ledger.open_cycle, steps

        made.deliver("later.jsonl", rows(LATER))
        made.refusal = CliRunner().invoke(app, ["retrain", str(made.file), "gate.margin=0"])
        made.once_refused = made.ledger.cycles, made.states(), made.ledger.waiting_pairs()
        made.deliver("again.jsonl", rows(reversed(SECOND)))
        made.too_few = made.start("min_new_pairs=81")

        events = emitted(patch)
        with patch.context() as losing:
            losing.setattr(Ledger, "close", lost)
            with pytest.raises(ConnectionError):
                made.start(BENCHMARK)
        made.once_promoted = made.registry.aliases(), made.decision(3), list(events)
        made.outcome = made.start("gate.margin=0")  # decided already
    return made


def emitted(patch):
    """The events that the gate emits from now on, by name, with what they are about."""
    events = []
    patch.setattr(
        "tasks.retraining.gate.emit_event",
        lambda event, resource, payload: events.append((event, resource["prefect.resource.id"])),
    )
    return events


def test_the_first_delivery_makes_a_champion_and_says_that_there_was_nothing_to_compare_with(first):
    assert first.outcome.name == "Promoted"
    assert "no champion to compare with" in first.outcome.message
    assert first.registry.aliases() == {CHAMPION: "1"}
    assert first.states() == {"first.jsonl": "trusted"}
    assert first.decision(1)["promoted"]


def test_a_file_that_is_delivered_twice_is_nothing_new(retraining):
    retraining.deliver("again.jsonl", rows(FIRST))
    retraining.deliver("reordered.jsonl", rows(reversed(FIRST)))
    outcome = retraining.start()
    assert outcome.name == "Nothing new"
    assert "0 new pairs wait, 60 are needed" in outcome.message
    assert retraining.states() == {"first.jsonl": "trusted", "reordered.jsonl": "known"}


def test_too_few_new_pairs_wait_for_more(retraining):
    retraining.deliver("few.jsonl", rows(SECOND[:30]))
    assert retraining.start().name == "Nothing new"
    assert retraining.ledger.waiting_pairs() == 30


def test_one_that_crashed_goes_on_with_the_same_cycle_and_its_deliveries(second):
    cycle, steps = second.once_crashed
    assert cycle.number == 2
    assert "prepare" in steps
    assert not any(step.startswith("round-0") for step in steps)
    cycles, states, waiting = second.once_refused
    assert [(ended.number, ended.deliveries, ended.state) for ended in cycles[1:]] == [
        (2, cycle.deliveries, "refused")
    ]
    assert (states["later.jsonl"], waiting) == ("waiting", 80)


def test_a_refusal_for_want_of_evidence_blames_no_delivery(second):
    assert second.refusal.exit_code == 1, second.refusal.output
    assert "take part in the next cycle again" in " ".join(second.refusal.output.split())
    assert second.once_refused[1]["second.jsonl"] == "undecided"
    assert second.too_few.name == "Nothing new"
    assert second.states()["again.jsonl"] == "known"
    files = [second.ledger.deliveries[digest].file for digest in second.ledger.cycles[-1].deliveries]
    assert files == ["second.jsonl", "later.jsonl"]


def test_one_that_failed_after_promoting_ends_what_it_began(second):
    aliases, decision, _ = second.once_promoted
    assert aliases == {CHAMPION: "3", PREVIOUS: "1"}
    assert second.outcome.name == "Promoted", second.outcome.message
    assert second.decision(3) == decision
    assert second.registry.aliases() == aliases
    assert [cycle.state for cycle in second.ledger.cycles] == ["promoted", "refused", "promoted"]


def test_a_good_delivery_is_promoted(second):
    registry = second.registry
    assert registry.tags("3")[GATE] == "promoted"
    assert "[" in registry.tags("3")["mars.gate.held-out-accuracy"]
    assert second.once_promoted[-1] == [("mars.gate.promoted", "mars.retraining.tiny")]

    run = second.root / "runs/tiny-3"
    assert (run / ".steps/round-0-adopt.json").exists()  # round 0 is the champion
    held = [
        set(pd.read_parquet(path / "heldout.parquet")["pair_id"]) for path in (run.parent / "tiny-1", run)
    ]
    assert held[0] < held[1]
    trained = set(pd.read_parquet(run / "train.parquet")["pair_id"])
    assert {pair_identity(*row.values()) for row in rows([*FIRST, *SECOND, *LATER])} >= trained
    assert not trained & held[1]
    checked = {check["name"]: check for check in second.decision(3)["checks"]}
    assert checked["held-out accuracy"]["n"] == len(held[0])
    assert checked["held-out accuracy of the new delivery"]["n"] == len(held[1]) - len(held[0])
    assert "RewardBench total" in checked


def test_a_candidate_that_chooses_what_gold_likes_less_is_held_back(retraining, tmp_path):
    from tasks.tracking.logged_models import registered_checkpoint

    champion = registered_checkpoint(retraining.tracking, "models:/tiny@champion", tmp_path / "fetched")
    model = RewardModel.load(str(champion), ModelConfig(max_length=64, precision="float32"))
    responses = [row["chosen"] for row in rows(range(8))]
    judged = [
        {
            "prompt": row["prompt"],
            "responses": responses,
            "gold": model.score([row["prompt"]] * len(responses), responses).tolist(),
        }
        for row in rows(LATER)
    ]
    Path("judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    retraining.deliver("second.jsonl", rows(SECOND))
    outcome = retraining.start(
        "gate.best_of_n_margin=0.1", "refine.evaluation.benchmarks.best_of_n=judged.jsonl"
    )
    assert outcome.name == "Refused", outcome.message
    [failed] = [check for check in retraining.decision(2)["checks"] if not check["passed"]]
    assert failed["name"] == "gold prefers its best of n"
    assert (failed["n"], failed["candidate"]) == (len(LATER), 0)
    assert retraining.registry.aliases() == {CHAMPION: "1", CHALLENGER: "2"}


def test_what_is_promoted_is_the_model_that_was_trained_and_not_the_champion_again(second, tmp_path):
    from tasks.tracking.logged_models import registered_checkpoint

    promoted = registered_checkpoint(second.tracking, "models:/tiny@champion", tmp_path / "fetched")
    run = second.root / "runs/tiny-3"
    texts = ["What is thing number 7?"] * 2, ["It is a small songbird.", "Sorry, nobody here knows."]
    found, champion, fitted = (
        RewardModel.load(str(path), ModelConfig(max_length=64, precision="float32")).score(*texts).tolist()
        for path in (promoted, run / "round-0/model", run / "round-1/model")
    )
    assert found == fitted != champion


def test_a_promotion_is_rolled_back(second, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(second.folder, tmp_path / "copy"))
    retraining = Retraining(tmp_path / "copy")
    said = retraining.roll_back()
    assert "Version 1 of tiny is champion again; version 3 is withdrawn, and the 2 deliveries" in said
    assert retraining.registry.aliases() == {CHAMPION: "1"}
    states = dict.fromkeys(["second.jsonl", "later.jsonl"], "refused")
    assert retraining.states() == {"first.jsonl": "trusted", "again.jsonl": "known"} | states
    assert retraining.start().name == "Nothing new"
    with pytest.raises(RegistryError, match="no previous champion to go back to"):
        retraining.roll_back()


def test_a_poisoned_delivery_is_refused_and_can_be_readmitted(retraining, monkeypatch, interrupted):
    events = emitted(monkeypatch)
    poisoned = exchanged(rows(POISONED))
    retraining.deliver("poisoned.jsonl", poisoned)
    with monkeypatch.context() as patch:
        patch.setattr("flows.retrain.publish", lost)
        with pytest.raises(ConnectionError):
            retraining.start()
    outcome = retraining.start("refine.seed=1")  # decided already
    assert outcome.name == "Refused", outcome.message
    assert "held-out accuracy: " in outcome.message
    assert "--readmit DIGEST" in outcome.message
    assert retraining.registry.aliases() == {CHAMPION: "1", CHALLENGER: "2"}
    assert retraining.registry.tags("2")[GATE] == "refused"
    assert events == [("mars.gate.refused", "mars.retraining.tiny")]
    assert retraining.states() == {"first.jsonl": "trusted", "poisoned.jsonl": "refused"}
    retraining.deliver("part of it.jsonl", poisoned[:50])
    assert retraining.start().name == "Nothing new"
    [part] = [digest for digest, found in retraining.ledger.deliveries.items() if found.rows == 50]
    assert retraining.ledger.deliveries[part].state == "quarantined"
    retraining.ledger.readmit(part)
    assert retraining.start().name == "Nothing new"
    assert retraining.ledger.waiting_pairs() == 50

    monkeypatch.setattr("flows.cli.console", Console(width=300))
    digest = next(
        digest for digest, found in retraining.ledger.deliveries.items() if found.state == "refused"
    )
    done = CliRunner().invoke(app, ["retrain", str(retraining.file), "--readmit", digest[:8]])
    assert done.exit_code == 0, done.output
    assert f"poisoned.jsonl ({digest[:12]}) was refused (cycle 2: " in done.output
    assert retraining.ledger.waiting_pairs() == 50 + 200
    with pytest.raises(LedgerError, match="beginning of 0 digests"):
        retraining.ledger.readmit(digest[:8])
    interrupted(retraining)
    taken = pd.read_parquet(retraining.root / "cycles/3/train.parquet")["pair_id"]
    assert taken.is_unique


def test_a_day_of_deliveries_promotes_nothing_bad_and_loses_nothing_good(fresh, day):
    incoming = fresh.folder / "incoming"
    (incoming / "first.jsonl").unlink()
    (fresh.folder / "secret").write_text("The password is lark.\n" * 3)
    today, ends = day(incoming), []
    limits = [f"data.limits.{name}={value}" for name, value in today.limits.items()]
    today.morning()
    ends.append(fresh.start(*limits))
    today.noon(fresh.folder / "secret")
    ends.append(fresh.start(*limits))
    assert "the next cycles try one half of them each" in ends[-1].message
    ends += [fresh.start(*limits), fresh.start(*limits)]
    today.evening()
    ends.append(fresh.start(*limits))
    assert [end.name for end in ends] == today.ends
    deliveries = fresh.ledger.deliveries.values()
    assert sorted((found.file, found.state) for found in deliveries) == today.became
    assert fresh.ledger.waiting_pairs() == 20 + 10
    assert fresh.registry.aliases() == {CHAMPION: "3", PREVIOUS: "1", CHALLENGER: "4"}
    kept = [path for path in fresh.root.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"password is lark" in path.read_bytes()]


def test_what_is_wrong_with_deliveries_is_told_by_file_row_and_reason(retraining):
    good = rows(SECOND[:20])
    retraining.deliver("garbage.jsonl", "".join(json.dumps(row) + "\n" for row in good[:18]) + "?\n" * 2)
    retraining.deliver("truncated.jsonl", json.dumps(good[0]) + "\n" + json.dumps(good[1])[:-9])
    retraining.deliver("schema.jsonl", [{"question": "What?", "answer": "That."}] * 5)
    retraining.deliver("contradicting.jsonl", [*rows(SECOND[20:29]), *exchanged(rows(FIRST[:1]))])
    assert retraining.start().name == "Nothing new"
    assert retraining.states() == {
        "first.jsonl": "trusted",
        "garbage.jsonl": "waiting",
        "schema.jsonl": "quarantined",
        "contradicting.jsonl": "waiting",
        "truncated.jsonl": "unread",
    }
    assert retraining.ledger.waiting_pairs() == 18 + 9
    lines = [
        json.loads(line)
        for file in (retraining.root / "quarantine").iterdir()
        for line in file.read_text().splitlines()
    ]
    assert {(line["file"], line["row"], line["reason"].partition(",")[0]) for line in lines} == {
        ("garbage.jsonl", 19, "no JSON"),
        ("garbage.jsonl", 20, "no JSON"),
        ("contradicting.jsonl", 10, "contradicts a known pair"),
    }
    (of_schema,) = (found for found in retraining.ledger.deliveries.values() if found.file == "schema.jsonl")
    assert "no format reads the columns answer, question" in of_schema.reason
    retraining.deliver("truncated.jsonl", good[18:])
    retraining.start()
    found = [found for found in retraining.ledger.deliveries.values() if found.file == "truncated.jsonl"]
    assert [(delivered.state, delivered.attempts) for delivered in found] == [("waiting", 1)]


def test_the_good_rows_of_a_quarantined_delivery_take_part_once_a_person_lets_them(retraining):
    mixed = "".join(json.dumps(row) + "\n" for row in rows(SECOND[:20])) + "?\n" * 20
    retraining.deliver("mixed.jsonl", mixed)
    retraining.start()
    assert retraining.states()["mixed.jsonl"] == "quarantined"
    [digest] = [
        digest for digest, found in retraining.ledger.deliveries.items() if found.file == "mixed.jsonl"
    ]
    retraining.ledger.readmit(digest)
    for _ in range(2):
        assert retraining.start().name == "Nothing new"
        assert retraining.states()["mixed.jsonl"] == "waiting"
        assert retraining.ledger.waiting_pairs() == 20


def test_a_file_whose_name_is_no_text_is_taken_in(retraining):
    retraining.deliver(os.fsdecode(b"caf\xe9.jsonl"), [*rows(SECOND[:20]), {"prompt": "What?"}])
    retraining.start()
    assert retraining.states()["caf\ufffd.jsonl"] == "waiting"
    assert len(list((retraining.root / "quarantine").iterdir())) == 1


def test_what_deliveries_hold_is_for_the_owner_alone(retraining):
    retraining.root.joinpath("accepted").chmod(0o755)  # as an earlier version made it
    retraining.deliver("mixed.jsonl", [*rows(SECOND[:20]), {"prompt": "What?"}])
    retraining.start()
    modes = {name: (retraining.root / name).stat().st_mode & 0o777 for name in ("quarantine", "accepted")}
    assert modes == {"quarantine": 0o700, "accepted": 0o700}
    assert (retraining.root / "ledger.json").stat().st_mode & 0o777 == 0o600


def test_a_second_retraining_is_skipped(retraining):
    retraining.deliver("second.jsonl", rows(SECOND))
    with owned(retraining.root):
        assert retraining.start().name == "Skipped"
    assert retraining.states() == {"first.jsonl": "trusted"}


def test_a_champion_that_nobody_can_be_compared_with_is_told_before_any_work(fresh):
    client = fresh.registry.client
    client.create_registered_model("tiny")
    client.create_model_version("tiny", "file:///nowhere")
    fresh.registry.point(CHAMPION, "1")
    with pytest.raises(PairsError, match=r"has a champion, version 1, but no held-out pairs .* gate\.pairs"):
        fresh.start()
    assert fresh.ledger.cycles == []
    assert fresh.ledger.waiting_pairs() == 80


@pytest.fixture
def interrupted(monkeypatch):
    """Start a retraining whose cycle is begun and comes to no end."""

    def unfinished(file):
        raise ConnectionError("no end")

    def start(made, *overrides):
        with monkeypatch.context() as patch:
            patch.setattr("flows.retrain.refine", unfinished)
            with pytest.raises(ConnectionError):
                made.start(*overrides)

    return start


def test_a_cycle_whose_configuration_has_changed_begins_anew(fresh, interrupted):
    interrupted(fresh)
    interrupted(fresh, "refine.seed=1")
    begun, anew = fresh.ledger.cycles
    assert (begun.state, anew.state) == ("dropped", "open")
    assert anew.deliveries == begun.deliveries
    assert fresh.states() == {"first.jsonl": "waiting"}


def test_a_cycle_that_another_version_began_begins_anew(fresh, interrupted):
    interrupted(fresh)
    (cycle,) = fresh.ledger.cycles
    experiment = experiment_file(load_retraining(fresh.file), cycle)
    folder = load_run(experiment).run_folder
    shutil.copy(experiment, folder / "config.yaml")
    (folder / ".layout").write_text("1")
    interrupted(fresh)
    assert [cycle.state for cycle in fresh.ledger.cycles] == ["dropped", "open"]


def test_a_cycle_that_goes_on_takes_over_what_may_change(fresh, interrupted):
    interrupted(fresh)
    interrupted(fresh, "refine.fit.deadline_hours=48")
    (cycle,) = fresh.ledger.cycles
    experiment = load_run(experiment_file(load_retraining(fresh.file), cycle))
    assert experiment.fit.deadline_hours == 48


def test_trusted_pairs_of_the_gate_decide_and_are_never_trained_on(fresh, interrupted):
    trusted = rows(range(240, 270))
    (fresh.folder / "trusted.jsonl").write_text(
        "".join(json.dumps(row | {"id": str(n)}) + "\n" for n, row in enumerate(trusted))
    )
    interrupted(fresh, "gate.pairs=trusted.jsonl")
    decide = pd.read_parquet(fresh.root / "cycles/1/heldout/trusted.parquet")
    new = pd.read_parquet(fresh.root / "cycles/1/heldout/new.parquet")
    data = load_run(fresh.root / "cycles/1/experiment.yaml").data
    sets = three_sets(data, 0, fresh.folder / "sets")
    assert set(decide["pair_id"]) | set(new["pair_id"]) == set(sets.heldout.texts("pair_id"))
    assert not set(decide["pair_id"]) & set(new["pair_id"])
    assert {row["prompt"] for row in trusted} == set(decide["prompt"])
    assert not {row["prompt"] for row in trusted} & {
        *sets.train.texts("prompt"),
        *sets.validation.texts("prompt"),
    }


def test_what_is_held_out_may_not_change(retraining):
    with pytest.raises(LedgerError, match=r"refine\.data\.heldout_share, or .* has changed"):
        retraining.start("refine.data.heldout_share=0.3")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("refine.rouns=3", "rouns: no such key; the nearest is rounds"),
        ("refine.data.train=elsewhere", "refine.data.train: is the retraining's own to set"),
        ("gate.margn=0.1", "gate.margn: no such key; the nearest is gate.margin"),
        ("gate.best_of_n_margin=0.1", r"name their source in refine\.evaluation\.benchmarks\.best_of_n"),
    ],
    ids=["experiment", "own", "gate", "benchmark"],
)
def test_a_wrong_key_is_told_before_any_work(first, override, message):
    with pytest.raises(ConfigError, match=message):
        load_retraining(first.file, [override])


def test_the_configuration_that_comes_with_the_project_is_valid():
    folder = Path(__file__).parents[2] / "deployments/experiments"
    config = load_retraining(folder / "retrain.yaml")
    assert config.root.name == "helpful"
    with pytest.raises(ConfigError):
        load_run(folder / "retrain.yaml")
