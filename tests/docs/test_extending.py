"""docs/extending.md, followed from outside the package: its module, its configuration, a run with both."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from datasets import Dataset

from mars_core.alignment.policy_trainer import TrainingSpec, train
from mars_core.config import ConfigError, to_yaml, validated
from mars_core.data.reading import read
from mars_core.data.samples import preferences
from mars_core.errors import ModelError
from mars_core.evaluation.evaluation_config import read_benchmarks
from mars_core.evaluation.measure import measure_benchmark
from mars_core.fit.specification import FitSpec
from mars_core.fit.train import fit
from mars_core.generation import GenerationStore, Generator, Request
from mars_core.method.guards import GuardsConfig, screen
from mars_core.method.selection import allocate
from mars_core.method.strategies.strategy import Signals
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards
from mars_core.model.scoring import Cut, ScoreSpec, score
from mars_core.objectives.objective import ObjectiveConfig
from tasks.run.compute_rewards import write_texts
from tasks.run.run_config import RunConfig

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
FLOAT32 = ModelConfig(precision="float32", max_length=64)
TEXTS = ("prompt", "chosen", "rejected")
PAIRS = [{"pair_id": row["id"], **{name: row[name] for name in TEXTS}} for row in preferences()[:24]]
SUMS = [
    {
        "id": str(n),
        "subset": subset,
        "prompt": f"What is {n} {sign} {n}?",
        "chosen": right,
        "rejected": "Why?",
    }
    for n in range(1, 7)
    for subset, sign, right in (("addition", "+", str(2 * n)), ("division", "/", "1"))
]


def blocks(language):
    """The fenced blocks of the page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def merged(*parts):
    """Nested values, the later ones over the earlier ones."""
    values = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(values.get(key), dict)
            values[key] = merged(values[key], value) if both else value
    return values


def experiment(**changes):
    """The values of all YAML blocks of the page, with some changes."""
    return merged({"name": "ours"}, *map(yaml.safe_load, blocks("yaml")), changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds the module of the page, and is on the path of this process and of its children."""
    place = tmp_path_factory.mktemp("ours")
    (place / "my_mars.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    (place / "arithmetic.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        patch.setenv("PYTHONPATH", f"{place}:{REPOSITORY}")
        yield place
    sys.modules.pop("my_mars", None)


@pytest.fixture
def config(folder, monkeypatch):
    """The page's experiment, in a working folder that has the page's files."""
    monkeypatch.chdir(folder)
    return validated(RunConfig, experiment(), "docs/extending.md")


@pytest.fixture(scope="module")
def fitted(folder, headless):
    """A fit of the tiny decoder by the page's objective: its specification, and its curve."""
    values = validated(RunConfig, experiment(), "docs/extending.md").fit.model_dump()
    pd.DataFrame(PAIRS).to_parquet(folder / "pairs.parquet")
    spec = FitSpec(
        model=str(headless),
        pairs=[folder / "pairs.parquet"],
        output=folder / "model",
        log=folder / "training.jsonl",
        seed=3,
        reward_model=FLOAT32,
        fit=values | {"batch_pairs": 8, "learning_rate": 1e-2, "epochs": 4},
    )
    curve = []
    fit(spec, curve.append)
    return spec, curve


# Configuration


def test_the_alignment_method_of_the_page_trains_a_policy(folder, tiny_chat_model, tmp_path):
    values = yaml.safe_load(next(block for block in blocks("text") if "Ipo" in block))["training"]
    rows = [
        {
            "prompt_id": row["pair_id"],
            "prompt": row["prompt"],
            "response": row[side],
            "is_cut_off": False,
            "reward": reward,
        }
        for row in PAIRS[:4]
        for side, reward in (("chosen", 1.0), ("rejected", 0.0))
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "responses.parquet")
    spec = TrainingSpec(
        policy=str(tiny_chat_model),
        responses=tmp_path / "responses.parquet",
        models=(),
        reward_model=FLOAT32,
        training=values | {"steps": 2, "batch": 2},
        seed=0,
        until=2,
        snapshots=tmp_path / "snapshots",
        output=tmp_path / "policy",
        log=tmp_path / "training.jsonl",
    )
    losses = []
    train(spec, lambda logs: losses.append(logs["loss"]))
    assert losses[0] == pytest.approx((1 / (2 * 0.2)) ** 2)  # equal policies have log ratios of 0
    assert (spec.output / "model.safetensors").exists()


def test_the_format_of_the_page_reads_its_pairs(folder):
    rows = [{"title": "A?", "answers": [{"text": t, "votes": v} for t, v in votes]} for votes in (
        [("low", 1), ("high", 9), ("middle", 4)], [("low", 0), ("high", 1)])]  # fmt: skip
    (folder / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = yaml.safe_load(next(block for block in blocks("text") if "Votes" in block))
    config = validated(RunConfig, experiment(**values), "docs/extending.md").data
    found = read(str(folder / config.train), config.open())
    assert [(row["chosen"], row["rejected"]) for row in found.table] == [("high", "low")]
    assert found.left_out == {"too few votes": 1}


def test_the_five_blocks_of_yaml_are_one_configuration(config):
    sections = [config.selection, config.fit.objective, config.generation, config.compute]
    found = [type(section.open()).__name__ for section in sections]
    found += [type(one).__name__ for one in config.evaluation.suite.values()]
    assert found == ["FarApart", "Gaussian", "Openings", "Logged", "Arithmetic"]
    assert (config.selection.distance_weight, config.fit.objective.least_variance) == (2.0, 0.2)
    assert config.generation.options.openings == ("Put simply,", "In short,")
    assert validated(RunConfig, yaml.safe_load(to_yaml(config)), "its own YAML") == config


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        ("selection", {"distance_wait": 1}, "selection.distance_weight"),
        ("fit", {"objective": {"least_varience": 1}}, "fit.objective.least_variance"),
        ("generation", {"options": {"opening": []}}, "generation.options.openings"),
        ("compute", {"logg": "a"}, "compute.log"),
    ],
    ids=["selection", "objective", "generation", "compute"],
)
def test_a_misspelt_key_of_ones_own_names_the_nearest(config, section, values, key):
    with pytest.raises(ConfigError, match=re.escape(f"no such key; the nearest is {key}")):
        validated(RunConfig, experiment(**{section: values}), "ours.yaml")


def test_a_module_that_is_not_on_the_path_is_named(config):
    wrong = experiment(selection={"strategy": "no_such_module:FarApart"})
    with pytest.raises(ConfigError, match=r"no_such_module cannot be imported .* on the Python path"):
        validated(RunConfig, wrong, "ours.yaml")


def test_a_module_counts_by_its_file_or_by_its_version(folder, config, monkeypatch):
    def identities():
        counted = config.selection, config.fit.objective, config.generation, config.evaluation
        return [version for one in counted for version in one.identity().values()]

    file = folder / "my_mars.py"
    before = identities()
    assert len(before) == 4
    assert len(set(before)) == 1
    text = file.read_text()
    try:
        file.write_text(text + "# changed\n")
        assert set(identities()).isdisjoint(before)
        monkeypatch.setattr(type(config.selection.open()), "version", "2")
        assert config.selection.identity() == {"strategy version": "2"}
    finally:
        file.write_text(text)


# Each class by itself


def test_the_strategy_prefers_low_margins_and_large_distances(config):
    signals = Signals(margins=np.array([0.0, 0.0, 2.0, 2.0]), distances=np.array([0.9, 0.1, 0.9, 0.1]))
    allocation = allocate(list("abcd"), signals, config.selection, capacity=40)
    assert allocation.budget.sum() == 40
    a, b, c, d = allocation.probability
    assert a > b > d
    assert a > c > d
    assert a / b == pytest.approx(np.exp(2.0 * 0.8))
    assert config.selection.open().reads == {"margins", "distances"}


def test_the_objective_is_fitted_and_loaded_again(fitted):
    spec, curve = fitted
    assert curve[-1]["loss"] < curve[0]["loss"]
    model = RewardModel.load(str(spec.output), FLOAT32, spec.fit.objective)
    table = pair_rewards(model, Dataset.from_list(PAIRS)).table
    chosen, rejected = (
        torch.tensor(np.stack(table[f"readout_{side}"])).double() for side in ("chosen", "rejected")
    )
    variance = (chosen[:, 1].exp() + rejected[:, 1].exp() + 2 * 0.2).sqrt()
    probability = torch.distributions.Normal(0.0, 1.0).cdf((chosen[:, 0] - rejected[:, 0]) / variance)
    np.testing.assert_allclose(table["margin"], probability.logit(), atol=1e-4)
    np.testing.assert_allclose(table["variance_chosen"], chosen[:, 1].exp() + 0.2, rtol=1e-5)
    assert table["margin"].abs().max() > 0.01


def test_a_checkpoint_alone_does_not_name_the_objective(fitted):
    spec, _ = fitted
    with pytest.raises(ModelError, match=r"my_mars:Gaussian, which is not known .* \(objective\.name\)"):
        RewardModel.load(str(spec.output), FLOAT32)
    with pytest.raises(ModelError, match=r"my_mars:Gaussian, but bradley_terry is configured"):
        RewardModel.load(str(spec.output), FLOAT32, ObjectiveConfig())


def test_the_benchmark_is_scored(config, fitted, tmp_path):
    spec, _ = fitted
    [(key, one)] = config.evaluation.suite.items()
    rows, warnings = read_benchmarks(config.evaluation)
    assert (key, len(rows[key]), warnings) == ("Arithmetic", 12, [])
    texts = write_texts(one.texts(rows[key]), tmp_path / "texts.parquet", paired=one.pairwise)
    assert len(one.texts(rows[key]).rows) == 24
    score(
        ScoreSpec(
            model=str(spec.output), reward_model=FLOAT32, objective=spec.fit.objective, texts={key: texts},
            output=tmp_path / "scores",
        )
    )  # fmt: skip
    with np.load(tmp_path / "scores" / f"{key}.npz") as scored:
        measured = measure_benchmark(key, one, rows[key], dict(scored), Cut(0, 0, []))
        right = scored["rewards"][:12] > scored["rewards"][12:]
    sections = {name: measured.metrics[f"Arithmetic/section/{name}"] for name in ("addition", "division")}
    assert sections == pytest.approx({"addition": right[::2].mean(), "division": right[1::2].mean()})
    assert measured.metrics["Arithmetic/total"] == pytest.approx(right.mean())
    assert {"margin", "reward_chosen", "correct"} < set(measured.table)


def test_scores_of_the_benchmark_have_intervals(config):
    [one] = config.evaluation.suite.values()
    rows = one.read("arithmetic.jsonl")
    scores = one.score(one.results(rows, [1.0] * 9 + [-1.0] * 3 + [0.0] * 12))
    assert scores["total"] == pytest.approx(0.75)
    assert 0.4 < scores["total_low"] < 0.75 < scores["total_high"] <= 1
    assert scores["section/addition_low"] < scores["section/addition"] == pytest.approx(5 / 6)


def test_a_row_without_a_text_is_refused(config, folder):
    (folder / "empty.jsonl").write_text(json.dumps(SUMS[0] | {"chosen": " "}) + "\n")
    [one] = config.evaluation.suite.values()
    with pytest.raises(ValueError, match="id 1 of addition has an empty chosen"):
        one.read("empty.jsonl")


def test_the_backend_writes_paraphrases_that_pass_the_guards(config, tmp_path):
    requests = [Request("paraphrase_chosen", *(row[name] for name in TEXTS), n=3) for row in PAIRS]
    with GenerationStore(tmp_path / "generations") as store:
        generator = Generator(config.generation.open(), store)
        answers = generator.generate(requests)
        assert generator.generate(requests) == answers
        assert (generator.counts.sent, generator.counts.cached) == (len(PAIRS), len(PAIRS))
    judged = [
        reason
        for request, answer in zip(requests, answers, strict=True)
        for _, reason in screen(request, answer, GuardsConfig())
    ]
    assert len(judged) == 3 * len(PAIRS)
    assert judged.count(None) > len(judged) / 2
    assert all(len(set(answer.texts)) > 1 for answer in answers)


def test_another_draw_and_other_options_are_other_requests(config):
    backend = config.generation.open()
    request = Request("paraphrase_chosen", *(PAIRS[0][name] for name in TEXTS), n=2)
    again = Request(request.role, request.prompt, request.chosen, request.rejected, n=2, draw=1)
    other = validated(
        RunConfig, experiment(generation={"options": {"openings": ["Well,"]}}), ""
    ).generation.open()
    assert len({backend.key(request), backend.key(again), other.key(request)}) == 3


def test_the_compute_backend_scores_and_logs(config, fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit_spec, _ = fitted
    spec = ScoreSpec(
        model=str(fit_spec.output),
        reward_model=FLOAT32,
        objective=fit_spec.fit.objective,
        pairs={"pairs": fit_spec.pairs[0]},
        output=tmp_path / "scores",
    )
    assert ScoreSpec.model_validate_json(spec.model_dump_json()) == spec
    done = []
    config.compute.open().run(spec, done.append)
    assert sum(done) == 2 * len(PAIRS)
    assert len(pd.read_parquet(tmp_path / "scores" / "pairs.parquet")) == len(PAIRS)
    [line] = (tmp_path / "scoring.jsonl").read_text().splitlines()
    assert json.loads(line)["texts"] == 2 * len(PAIRS)


# All of them


@pytest.fixture(scope="module")
def run(folder, fitted, prefect_server, mlflow_store):
    """The folder of a run with all five classes, from a model of one's own objective, and its report."""
    from flows.refine import refine

    spec, _ = fitted

    values = experiment(
        rounds=1,
        data={"train": "sample://preferences", "subset": 40, "validation_share": 0.05, "heldout_share": 0.08},
        model={"backbone": str(spec.output), "max_length": 64, "precision": "float32"},
        fit={"learning_rate": 3.0e-3, "batch_pairs": 8},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(mlflow_store, folder)
        (folder / "ours.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return folder / "runs" / "ours", refine("ours.yaml")


def test_a_run_shows_the_metrics_of_ones_own_benchmark(run):
    root, report = run
    metrics = json.loads((root / "round-1" / "metrics.json").read_text())
    assert 0 <= metrics["Arithmetic/section/addition"] <= 1
    assert report.rounds[1]["Arithmetic/total"] == metrics["Arithmetic/total"]
    page = (root / "report.md").read_text()
    assert "## Arithmetic" in page
    assert "division" in page
    assert len(pd.read_parquet(root / "round-1" / "Arithmetic.parquet")) == len(SUMS)


def test_a_run_is_made_by_ones_own_classes(run):
    root, _ = run
    assert (
        json.loads((root / "round-1" / "model" / "objective.json").read_text())["name"] == "my_mars:Gaussian"
    )
    augmented = pd.read_parquet(root / "round-1" / "augmented.parquet")
    assert set(augmented["generator"]) == {"my_mars:Openings"}
    assert augmented["chosen"].str.startswith(("Put simply,", "In short,")).any()
    allocation = pd.read_parquet(root / "round-1" / "allocation.parquet")
    distances = pd.read_parquet(root / "distances.parquet")["distance"]
    log_q = 2.0 * distances - 0.5 * allocation["margin"]
    assert np.log(allocation["probability"]).corr(log_q) == pytest.approx(1.0)
    scored = [json.loads(line) for line in (root.parents[1] / "scoring.jsonl").read_text().splitlines()]
    assert {Path(line["model"]).parent.name for line in scored} == {"round-0", "round-1"}


def test_a_checkpoint_is_evaluated_where_the_objective_is_named(run, folder, monkeypatch):
    from flows.evaluate import configuration, evaluate

    monkeypatch.chdir(folder)
    [command] = re.findall(r"mars evaluate (.*)", PAGE)
    model, *named = command.split()
    settings = ["model.max_length=64", "model.precision=float32"]
    benchmarks = "evaluation.benchmarks={my_mars:Arithmetic: arithmetic.jsonl}"
    summary = evaluate(configuration(model, [*named, *settings, benchmarks]))
    root, report = run
    assert summary["metrics"]["Arithmetic/brier"] == pytest.approx(report.rounds[1]["Arithmetic/brier"])
    assert Path(model).resolve() == root.resolve() / "round-1" / "model"


def test_a_changed_module_runs_its_steps_again_and_no_others(run, folder, monkeypatch):
    root, _ = run
    monkeypatch.chdir(folder)
    from flows.refine import refine

    def records():
        return {file.stem: json.loads(file.read_text())["key"] for file in (root / ".steps").glob("*.json")}

    import my_mars

    before = records()
    refine("ours.yaml")
    assert records() == before
    monkeypatch.setattr(my_mars.FarApart, "version", "2")
    refine("ours.yaml")
    changed = {step for step, key in records().items() if key != before[step]}
    assert {"round-1-selection"} <= changed
    assert changed.isdisjoint({"prepare", "distances", "benchmarks", "round-0-adopt", "round-0-evaluation"})
