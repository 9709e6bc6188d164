"""The registered model on a real MLflow with SQLite: who is champion, and that a failure changes nothing."""

import re
import shutil

import pandas as pd
import pytest

from mars_core.model.reward_model import ModelConfig, RewardModel
from tasks.run.run_config import RunConfig, TrackingConfig
from tasks.run.run_folder import open_run
from tasks.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    GATE,
    PREVIOUS,
    REPLACED,
    Registry,
    RegistryError,
    fetch_champion,
    previous_champion,
    promote,
    refuse,
    register_candidate,
    restore,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory, mlflow_store):
    """Address of a database whose tables are there."""
    return f"sqlite:///{shutil.copy(mlflow_store, tmp_path_factory.mktemp('mlflow'))}"


@pytest.fixture
def registry(request, store):
    """A registered model of its own with versions 1 to 3, none of which is anything yet."""
    made = Registry(TrackingConfig(uri=store), re.sub(r"\W", "-", request.node.name))
    made.client.create_registered_model(made.model)
    for _ in range(3):
        made.client.create_model_version(made.model, "file:///nowhere")
    return made


@pytest.fixture
def promoted(registry, in_flow):
    """The same after version 1 and then version 2 was promoted."""

    def promote_two():
        for version, before in (("1", None), ("2", "1")):
            registry.point(CHALLENGER, version)
            promote(registry, version, before)

    in_flow(promote_two)
    return registry


def test_a_model_that_is_not_registered_has_no_aliases(store):
    assert Registry(TrackingConfig(uri=store), "nobody").aliases() == {}


def test_promotion_moves_champion_and_keeps_the_old_one_as_previous(promoted):
    assert promoted.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    assert promoted.tags("2") == {GATE: "promoted", REPLACED: "1"}


def test_promotion_again_changes_nothing(promoted, in_flow):
    in_flow(lambda: promote(promoted, "2", "1"))
    assert promoted.aliases() == {CHAMPION: "2", PREVIOUS: "1"}


def test_promotion_that_was_killed_after_one_alias_is_ended_by_the_next_call(promoted, in_flow):
    promoted.point(CHALLENGER, "3")
    promoted.point(PREVIOUS, "2")
    in_flow(lambda: promote(promoted, "3", "2"))
    assert promoted.aliases() == {CHAMPION: "3", PREVIOUS: "2"}


@pytest.mark.parametrize("failing", [(CHAMPION, "3"), (CHALLENGER, None), GATE], ids=str)
def test_a_failure_in_the_middle_of_a_promotion_restores_every_alias(promoted, in_flow, monkeypatch, failing):
    promoted.point(CHALLENGER, "3")
    before = promoted.aliases()
    point, tag = Registry.point, Registry.tag

    def broken_point(self, alias, version):
        if (alias, version) == failing:
            raise ConnectionError("MLflow is gone")
        point(self, alias, version)

    def broken_tag(self, version, tags):
        if failing == GATE:
            raise ConnectionError("MLflow is gone")
        tag(self, version, tags)

    monkeypatch.setattr(Registry, "point", broken_point)
    monkeypatch.setattr(Registry, "tag", broken_tag)
    with pytest.raises(ConnectionError):
        in_flow(lambda: promote(promoted, "3", "2"))
    assert promoted.aliases() == before == {CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "3"}


def test_a_candidate_is_not_promoted_over_a_champion_that_it_was_not_compared_with(promoted, in_flow):
    with pytest.raises(RegistryError, match=r"version 2 of .* is champion now, .* compared with version 1"):
        in_flow(lambda: promote(promoted, "3", "1"))
    assert promoted.aliases() == {CHAMPION: "2", PREVIOUS: "1"}


def test_a_refused_candidate_stays_challenger_and_says_so(promoted):
    promoted.point(CHALLENGER, "3")
    refuse(promoted, "3")
    assert promoted.aliases() == {CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "3"}
    assert promoted.tags("3")[GATE] == "refused"


def test_rollback_goes_back_step_by_step_until_there_is_nothing(promoted, in_flow):
    in_flow(lambda: promote(promoted, "3", "2"))
    for champion, previous, left in (("3", "2", {CHAMPION: "2", PREVIOUS: "1"}), ("2", "1", {CHAMPION: "1"})):
        assert previous_champion(promoted) == (champion, previous)
        in_flow(lambda pair=(champion, previous): restore(promoted, *pair))
        assert promoted.aliases() == left
        assert promoted.tags(champion)[GATE] == "withdrawn"
    with pytest.raises(RegistryError, match="no previous champion to go back to; its champion is version 1"):
        previous_champion(promoted)


def test_a_rollback_that_fails_is_marked_and_begins_anew(promoted, in_flow, monkeypatch):
    def gone(self, alias, version):
        raise ConnectionError("MLflow is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "point", gone)
        with pytest.raises(ConnectionError):
            in_flow(lambda: restore(promoted, "2", "1"))
    assert promoted.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    in_flow(lambda: restore(promoted, *previous_champion(promoted)))
    assert promoted.aliases() == {CHAMPION: "1"}
    assert promoted.tags("2")[GATE] == "withdrawn"


def test_rollback_that_was_killed_half_way_goes_back_once(promoted, in_flow):
    promoted.point(CHAMPION, "1")
    assert previous_champion(promoted) == ("1", "1")
    in_flow(lambda: restore(promoted, "1", "1"))
    assert promoted.aliases() == {CHAMPION: "1"}
    assert GATE not in promoted.tags("1") or promoted.tags("1")[GATE] == "promoted"


@pytest.fixture
def candidate(store, tmp_path, tiny_decoder):
    """A run whose round 0 has a model, and where that is to be registered."""
    config = RunConfig.model_validate(
        {"name": "tiny", "folder": str(tmp_path), "tracking": {"uri": store, "models": "none"}}
    )
    with open_run(config) as run:
        pairs = pd.DataFrame({"pair_id": ["a"]})
        sets = {
            name: run.write_table(f"{name}.parquet", pairs) for name in ("train", "validation", "heldout")
        }
        run.record("prepare", "", sets, 0)
        model = run.write("round-0/model", RewardModel.load(str(tiny_decoder), ModelConfig()).save)
        run.record("round-0-adopt", "", {"": model}, 0)
        metrics = run.write_json("round-0/metrics.json", {"validation/accuracy": 0.5})
        run.record("round-0-metrics", "", {"": metrics}, 0)
        run.write("report.md", lambda path: path.write_text("# Report"))
        run.write("figures/accuracy.png", lambda path: path.write_bytes(b"png"))
        yield Registry(config.tracking, "candidates"), run, model


def test_a_candidate_is_registered_once_as_challenger_and_comes_back_as_it_was(candidate, in_flow, tmp_path):
    registry, run, model = candidate
    version, again = in_flow(
        lambda: [register_candidate(registry, run, 1, 0, {"mars.cycle": "1"}) for _ in range(2)]
    )
    assert version == again
    assert registry.aliases() == {CHALLENGER: version}
    assert registry.tags(version)["mars.cycle"] == "1"
    assert len(registry.client.search_model_versions("name = 'candidates'")) == 1
    (tmp_path / "champion" / "version-0").mkdir(parents=True)
    place = in_flow(lambda: fetch_champion(registry, version, tmp_path / "champion"))
    assert [folder.name for folder in place.parent.iterdir()] == [place.name]
    assert place.name.startswith(f"version-{version}-")
    texts = (["What is a lark?"], ["A songbird."])
    scores = [RewardModel.load(str(path), ModelConfig()).score(*texts) for path in (run.path(model), place)]
    assert scores[0] == pytest.approx(scores[1])


def test_a_registered_version_carries_its_card(candidate, in_flow):
    registry, run, _ = candidate
    card = "---\ntags: [mars]\n---\n\n# tiny\n\nLimits.\n\n" + "x" * 6000
    version = in_flow(lambda: register_candidate(registry, run, 1, 0, {}, card))
    assert registry.client.get_model_version("candidates", version).description == "# tiny\n\nLimits."


def test_a_registry_that_does_not_answer_is_told_in_a_sentence():
    gone = Registry(TrackingConfig(uri="http://127.0.0.1:9"), "nobody")
    with pytest.raises(RegistryError, match=r"MLflow at http://127.0.0.1:9 does not answer; .* start again"):
        gone.aliases()
