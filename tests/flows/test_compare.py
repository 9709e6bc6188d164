"""A comparison of two arms and two seeds that crashes after its first cell, and is started again."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from datasets import Dataset
from mlflow import MlflowClient
from typer.testing import CliRunner

from flows.cli import app
from mars_core.comparison import load_comparison
from mars_core.config import ConfigError
from mars_core.method.semantics import Embedder
from mars_core.model.reward_model import pair_rewards
from tasks.comparing.cells import cells_of, drop_models_between, experiment_file, finished
from tasks.run.preflight import check
from tasks.run.round_models import load_reward_model
from tasks.run.run_config import load_run
from tasks.run.run_folder import RunFolder, RunFolderError, existing_run

ARMS = {
    "no-augmentation": {"augmentation.scheme": "repeat", "selection.tau": 0},
    "hardest": {"selection.strategy": "hardest", "rewriting.enabled": False},
}

FIRST = "hardest-seed0"


class Crash(BaseException):
    """What no handler in the code expects."""


@pytest.fixture(scope="module")
def compared(prefect_server, experiment):
    """The comparison's configuration, and what the first start that came to its end and the next one made."""
    from flows.compare import compare

    def crash(message, *values):
        if "is finished" in message:
            raise Crash

    made = experiment(rounds=2, fit={"trainable": "head", "epochs": 2})
    values = yaml.safe_load(made.file.read_text())
    del values["name"]
    file = made.folder / "compare.yaml"
    config = {
        "name": "tiny",
        "seeds": 2,
        "baselines": ["no-augmentation"],
        "arms": ARMS,
        "experiment": values,
    }
    file.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        with patch.context() as crashing:
            crashing.setattr("flows.compare.tell", crash)
            with pytest.raises(Crash):
                compare(str(file))
        assert [path.stem for path in made.folder.glob("runs/tiny/cells/*.json")] == [FIRST]
        finished = steps(made.folder, FIRST)
        first = compare(str(file))
        assert steps(made.folder, FIRST) == finished != {}
        before = steps(made.folder)
        again = compare(str(file))
        assert steps(made.folder) == before
        yield made.folder, load_comparison(file), first, again


def steps(folder, cell="*"):
    """Every step record of cells, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob(f"runs/tiny/{cell}/.steps/*.json")}


def test_every_arm_is_run_under_every_seed(compared):
    _, _, report, _ = compared
    assert sorted(zip(report.results["arm"], report.results["seed"], strict=True)) == [
        ("hardest", 0), ("hardest", 1), ("no-augmentation", 0), ("no-augmentation", 1),
    ]  # fmt: skip
    assert report.failed == {}


def test_the_figures_of_the_table_follow_from_the_rewards_of_the_cells(compared):
    folder, _, report, _ = compared
    for row in report.results.to_dict("records"):
        cell = folder / f"runs/tiny/{row['arm']}-seed{row['seed']}"
        rewards = pd.read_parquet(cell / "round-2/heldout_rewards.parquet")
        assert row["heldout/accuracy"] == pytest.approx((rewards["margin"] > 0).mean())


def test_arms_take_equally_many_steps_on_equally_many_pairs(compared):
    folder, _, _, _ = compared
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment_id = client.get_experiment_by_name("mars").experiment_id
    (parent,) = client.search_runs([experiment_id], "tags.`mars.kind` = 'comparison'")
    children = client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.data.tags["mars.arm"] for run in children} == set(ARMS)
    assert len(children) == 4
    # Twice 60 originals, and twice these with the 40 pairs of a round, for two epochs in batches of 8
    assert {run.data.params["pairs_seen"] for run in children} == {"520"}
    assert {run.data.params["optimizer_steps"] for run in children} == {"68"}


def test_arms_of_one_seed_have_the_same_margins_and_their_own_allocations(compared):
    one, other = (
        pd.read_parquet(compared[0] / f"runs/tiny/{arm}-seed0/round-1/allocation.parquet") for arm in ARMS
    )
    assert one["margin"].equals(other["margin"])
    assert not one["budget"].equals(other["budget"])


def test_mlflow_has_the_last_round_of_each_cell_as_its_result(compared):
    folder, _, report, _ = compared
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment_id = client.get_experiment_by_name("mars").experiment_id
    for row in report.results.to_dict("records"):
        cell = f"tags.`mars.arm` = '{row['arm']}' AND params.seed = '{row['seed']}'"
        (run,) = client.search_runs([experiment_id], f"{cell} AND tags.`mars.kind` = 'run'")
        assert run.data.metrics["result/round"] == 2
        assert run.data.metrics["result/heldout/accuracy"] == pytest.approx(row["heldout/accuracy"])


def test_a_cell_is_finished_only_for_the_benchmark_the_models_and_the_steps_that_it_ran_with(
    compared, monkeypatch
):
    from tasks.comparing import cells as comparison
    from tasks.run import step as steps

    _, config, _, _ = compared
    cell = cells_of(config)[0]
    with monkeypatch.context() as patch:
        patch.chdir(compared[0])
        assert comparison.finished(config.root, cell)
        patch.setitem(steps.VERSIONS, "fit", steps.VERSIONS["fit"] + 1)
        assert not comparison.finished(config.root, cell)
    for changed in ("benchmark_contents", "content_of_checkpoint"):
        with monkeypatch.context() as patch:
            patch.chdir(compared[0])
            patch.setattr(comparison, changed, lambda value: "changed")
            assert not comparison.finished(config.root, cell)


def test_the_fit_that_a_cell_took_over_has_its_curve(compared):
    folder, _, _, _ = compared
    for arm in ARMS:
        assert (folder / f"runs/tiny/{arm}-seed0/round-0/training.jsonl").read_text()


def test_what_the_cells_of_a_seed_share_is_done_once(compared):
    folder, _, _, _ = compared
    curves = [folder / f"runs/tiny/{arm}-seed0/round-0/training.jsonl" for arm in ARMS]
    assert curves[0].samefile(curves[1])
    other = folder / "runs/tiny/hardest-seed1/round-0/training.jsonl"
    assert other.read_bytes() != curves[0].read_bytes()


def test_of_a_finished_seed_the_models_of_the_first_and_the_last_round_are_kept(compared):
    folder, _, _, _ = compared
    for cell in ("hardest-seed0", "hardest-seed1", "no-augmentation-seed1"):
        models = {path.parent.name for path in folder.glob(f"runs/tiny/{cell}/round-*/model")}
        assert models == {"round-0", "round-2"}


@pytest.mark.parametrize("command", [["show"], ["export", "--format", "trl"]], ids=lambda command: command[0])
def test_a_cell_can_be_looked_at_without_the_models_in_between(compared, command):
    folder, _, _, _ = compared
    result = CliRunner().invoke(app, [command[0], str(folder / "runs/tiny/hardest-seed1"), *command[1:]])
    assert result.exit_code == 0, result.output


def test_where_mlflow_is_to_have_the_models_of_all_rounds_they_are_kept(compared, monkeypatch):
    folder, config, _, _ = compared
    monkeypatch.chdir(folder)
    cell = next(cell for cell in cells_of(config) if cell.name == FIRST)
    run = existing_run(config.root / FIRST)
    model = run.path("round-1/model")
    model.mkdir()
    tracking = run.config.tracking.model_copy(update={"models": "all"})
    told = run.config.model_copy(update={"tracking": tracking})
    with monkeypatch.context() as patch:
        patch.setattr("tasks.comparing.cells.existing_run", lambda root: RunFolder(root, told))
        drop_models_between(config.root, [cell])
        assert model.exists()
    drop_models_between(config.root, [cell])
    assert not model.exists()


def test_nothing_is_rewritten_for_an_arm_that_takes_the_originals_as_they_are(compared):
    _, _, report, _ = compared
    by_arm = report.results.groupby("arm")
    assert (by_arm["rewriting/close_pairs"].sum() == 0).all()
    assert (by_arm["semantics/close_share"].sum() > 0).all()


def test_texts_are_computed_once_for_all_that_use_them(compared, monkeypatch):
    folder, config, _, _ = compared
    monkeypatch.chdir(folder)
    run = existing_run(config.root / "hardest-seed1")
    model = load_reward_model(run, run.outputs("round-2-fit")[""])
    monkeypatch.setattr(model, "_batches", lambda *_: pytest.fail("a text is computed again"))
    sets = run.outputs("prepare")
    for name in ("train", "heldout"):  # computed by a fit, and to measure it
        pair_rewards(model, Dataset(run.open(sets[name]).read()))
    embedder = Embedder(run.config.semantics, run.vectors)
    monkeypatch.setattr(embedder, "_computed", lambda _: pytest.fail("a text is embedded again"))
    embedder.embed(list(run.open(sets["train"]).texts("chosen")))


def test_a_second_start_gives_the_same_numbers(compared):
    folder, _, first, again = compared
    pd.testing.assert_frame_equal(first.results, again.results)
    page = (folder / "runs/tiny/results.md").read_text()
    assert "no claim: 2 seeds, 10 are needed" in page
    assert "    mars compare " in page
    written = json.loads((folder / "runs/tiny/results.json").read_text())
    assert len(written["cells"]) == 4


def test_cells_at_once_end_when_they_are_asked_to(compared, start):
    from prefect.settings import get_current_settings

    folder, _, _, _ = compared
    arguments = ["compare", str(folder / "compare.yaml"), "name=asked", "parallel=2"]
    command = start(folder, "asked", *arguments, PREFECT_API_URL=get_current_settings().api.url)
    command.wait_until((folder / f"runs/asked/{FIRST}/config.yaml").exists)
    command.process.terminate()
    assert command.process.wait(20) == 128 + signal.SIGINT
    assert "mars: interrupted; the same command continues." in command.log.read_text()
    assert not list(folder.glob("runs/asked/cells/*.json"))


def test_a_cell_that_fails_is_reported_and_loses_no_other(compared, monkeypatch):
    from flows import compare as module

    folder, config, _, _ = compared
    refine = module.refine

    def fails_for_one(file):
        if "hardest-seed7" in file:
            raise OSError("no space left on device")
        return refine(file)

    monkeypatch.setattr(module, "refine", fails_for_one)
    report = module.compare(str(folder / "compare.yaml"), ("seeds=[0, 7]", "attempts=1"))
    assert report.failed == {"hardest-seed7": "OSError: no space left on device"}
    assert set(zip(report.results["arm"], report.results["seed"], strict=True)) == {
        ("hardest", 0), ("no-augmentation", 0), ("no-augmentation", 7),
    }  # fmt: skip
    assert Path(config.root, "results.md").read_text().count("hardest-seed7: OSError") == 1


def test_a_run_and_a_comparison_never_share_a_folder(compared, monkeypatch):
    from flows import compare as flow

    folder, config, _, _ = compared
    monkeypatch.chdir(folder)
    run = cells_of(config)[0].experiment.model_copy(update={"name": "tiny", "folder": config.folder})
    with pytest.raises(RunFolderError, match="is the folder of a comparison: give this run another name"):
        check(run)
    taken = Path(load_comparison(folder / "compare.yaml", ["name=taken"]).root)
    taken.mkdir(parents=True)
    (taken / "config.yaml").touch()
    with pytest.raises(RunFolderError, match="is the folder of a run: give this comparison another name"):
        flow.compare(str(folder / "compare.yaml"), ("name=taken",))


def test_a_cell_that_fails_once_is_tried_again(compared, monkeypatch):
    from flows import compare as module

    folder, _, _, _ = compared
    refine, failures = module.refine, [OSError("the disk was away")]

    def fails_once(file):
        if "hardest-seed7" in file and failures:
            raise failures.pop()
        return refine(file)

    monkeypatch.setattr(module, "refine", fails_once)
    report = module.compare(str(folder / "compare.yaml"), ("seeds=[0, 7]", "attempts=2"))
    assert not failures
    assert report.failed == {}
    assert len(report.results) == 4


def test_each_arm_is_compared_under_the_setting_that_it_chose_on_validation_pairs(compared, monkeypatch):
    from flows import compare as module

    folder, config, _, _ = compared
    monkeypatch.chdir(folder)
    best = {"hardest-setting1-seed9": 1.0, "no-augmentation-setting0-seed9": 1.0}

    def copied(file):
        """A finished run of the same arm, with the accuracy that is wanted on validation pairs."""
        experiment = load_run(file)
        root, arm = experiment.run_folder, experiment.tracking.tags["mars.arm"]
        shutil.copytree(config.root / f"{arm}-seed0", root)
        shutil.copy(file, root / "config.yaml")
        figures = json.loads((root / "round-2/metrics.json").read_text())
        figures["validation/accuracy"] = best.get(root.name, 0.5)
        (root / "round-2/metrics.json").unlink()
        (root / "round-2/metrics.json").write_text(json.dumps(figures))

    monkeypatch.setattr(module, "refine", copied)
    rates = [1.0e-3, 3.0e-2]
    tune = f"tune={{grid: {{fit.learning_rate: {rates}}}, seeds: [9]}}"
    report = module.compare("compare.yaml", ("seeds=[0]", tune))
    assert report.tuning.chosen == {"hardest": 1, "no-augmentation": 0}
    for arm, number in report.tuning.chosen.items():
        run = load_run(config.root / f"{arm}-setting{number}-seed0/config.yaml")
        assert (run.fit.learning_rate, run.seed) == (rates[number], 0)
    assert "| `fit.learning_rate=0.03` | **1.000** | .500 |" in (config.root / "results.md").read_text()
    assert not list(config.root.glob("*-seed9/round-2/model"))


def test_the_reward_models_of_arms_align_one_policy_alike_and_gold_compares_what_comes_of_it(
    compared, monkeypatch, tiny_policy, tiny_decoder
):
    from flows.compare import compare

    folder, config, _, _ = compared
    monkeypatch.chdir(folder)
    align = {
        "policy": str(tiny_policy),
        "prompts": {"source": "sample://preferences", "number": 3},
        "samples": 4,
        "rewards": {"gold": str(tiny_decoder)},
        "generation": {"backend": "transformers", "respond": {"max_tokens": 8}},
        "training": {"method": "dpo", "steps": 2, "batch": 2},
    }
    with pytest.raises(ConfigError, match=r"set rewards\.gold"):
        compare("compare.yaml", (f"align={json.dumps(align | {'rewards': {}})}",))
    keys = f"align={json.dumps(align)}"
    estimated = CliRunner().invoke(app, ["compare", "compare.yaml", keys, "--dry-run"])
    assert "2 optimizer steps of dpo" in estimated.output
    report = compare("compare.yaml", ("seeds=[0]", keys))
    assert report.failed == {}
    for row in report.results.to_dict("records"):
        run = config.root / f"{row['arm']}-seed{row['seed']}-aligned"
        best = pd.read_parquet(run / "round-0/best_of_n.parquet")
        chosen = [gold[np.argmax(own)] for gold, own in zip(best["gold"], best["rewards"], strict=True)]
        assert row["align/gold_of_best"] == pytest.approx(np.mean(chosen))
        policy = pd.read_parquet(run / "round-1/policy_by_prompt.parquet")
        assert row["align/policy/gold"] == pytest.approx((policy["gold"] - policy["gold_before"]).mean())
        assert row["align/policy/win_rate"] == pytest.approx(policy["win_rate"].mean())
    sampled = [config.root / f"{arm}-seed0-aligned/round-0/responses.parquet" for arm in ARMS]
    assert sampled[0].samefile(sampled[1])
    assert "## Paired differences: best of n: gold" in (config.root / "results.md").read_text()


def test_a_cell_is_kept_by_the_data_that_it_began_with(compared, monkeypatch):
    from flows import compare as flow

    folder, config, _, _ = compared
    monkeypatch.chdir(folder)
    cell = next(cell for cell in cells_of(config) if cell.name == FIRST)
    kept = json.loads((config.root / f"cells/{FIRST}.json").read_text())["key"]
    with monkeypatch.context() as patch:

        def delivered_meanwhile(file):
            patch.setattr("tasks.comparing.cells.contents", lambda config: "delivered")

        patch.setattr(flow, "refine", delivered_meanwhile)
        flow.run_cell.fn(config.root, cell, None, None)
    assert json.loads((config.root / f"cells/{FIRST}.json").read_text())["key"] == kept


def test_looking_at_a_cell_before_a_start_leaves_its_configuration_alone(compared, monkeypatch):
    folder, config, _, _ = compared
    monkeypatch.chdir(folder)
    written = (config.root / FIRST / "config.yaml").read_text()
    assert "mars.arm" in written
    check(next(cell.experiment for cell in cells_of(config) if cell.name == FIRST))
    assert (config.root / FIRST / "config.yaml").read_text() == written


def test_a_cells_own_tags_stand_beside_those_of_the_comparison(compared, tmp_path):
    cell = cells_of(compared[1])[0]
    tracking = cell.experiment.tracking.model_copy(update={"tags": {"team": "larks"}})
    tagged = replace(cell, experiment=cell.experiment.model_copy(update={"tracking": tracking}))
    tags = load_run(experiment_file(tmp_path, tagged, None)).tracking.tags
    assert tags == {"team": "larks", "mars.arm": cell.arm, "mars.seed": str(cell.seed)}


def test_a_cell_whose_folder_was_removed_is_not_finished(compared, monkeypatch):
    folder, _, _, _ = compared
    monkeypatch.chdir(folder)
    config = load_comparison(folder / "compare.yaml", ["seeds=[7]"])
    cell = cells_of(config)[-1]
    assert finished(config.root, cell)
    shutil.rmtree(config.root / cell.name)
    assert not finished(config.root, cell)
