"""Budgets and probabilities of an allocation reach the pairs they are of."""

import shutil

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from mars_core.files import digest
from mars_core.generation import Answer, GenerationStore, Generator
from mars_core.model.reward_model import RewardModel, pair_rewards
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.steps.augment_hard_pairs import augment_hard_pairs
from tasks.steps.select_hard_pairs import select_hard_pairs

pytestmark = pytest.mark.usefixtures("without_prefect")

OPEN = {"min_similarity": -1, "max_word_overlap": 1, "language": False}


class Paraphraser:
    """Stands for a chat model, which cannot run here: a text with a new number, of some pairs nothing."""

    name, free = "scripted", False

    def __init__(self, mute="", echoed=""):
        self.mute = mute
        self.echoed = echoed

    def key(self, request):
        return digest(request.role, request.text, request.n, request.draw)

    def answers(self, requests):
        for index, request in enumerate(requests):
            n = 0 if request.prompt == self.mute else request.n
            texts = tuple(f"{request.text} {'so ' * (3 * request.draw + i)}{i}" for i in range(n))
            texts = n * (request.text,) if request.prompt == self.echoed else texts
            yield index, Answer(self.key(request), texts, ("stop",) * n, 0, 0, 0.0)


@pytest.fixture
def spent(tmp_path, tiny_decoder):
    """Spend budgets of three originals: the pairs, and the run."""

    def spend(budgets, q=(0.5, 0.4, 0.1), mute="", echoed="", numbers=None, **changes):
        values = {
            "name": digest(budgets, str(changes))[:8], "folder": str(tmp_path), "guards": OPEN,
            "model": {"max_length": 64, "precision": "float32"},
        } | changes  # fmt: skip
        with open_run(RunConfig.model_validate(values)) as run:
            ids = list("abc")
            train = run.write_table("train.parquet", pd.DataFrame(
                {"pair_id": ids, "prompt": [f"Ask {i}?" for i in ids], "chosen": [f"Yes {i}." for i in ids],
                 "rejected": [f"No {i}." for i in ids]} | (numbers or {})))  # fmt: skip
            allocation = run.write_table("a.parquet", pd.DataFrame(
                {"pair_id": ids, "margin": 0.0, "probability": q, "budget": budgets}))  # fmt: skip
            rewrites = run.write_table(
                "r.parquet",
                pd.DataFrame({name: [] for name in ("pair_id", "chosen", "rejected")}, dtype=str).assign(
                    tokens=0
                ),
            )
            model = run.write("model", RewardModel.load(str(tiny_decoder), run.config.model).save)
            with GenerationStore(tmp_path / f"store-{run.config.name}") as store:
                generator = Generator(Paraphraser(mute, echoed), store)
                made = augment_hard_pairs(run, 1, train, allocation, rewrites, model, generator=generator)
            augmented = Dataset(run.open(made["augmented"]).read())
            return augmented, RewardModel.load(str(tiny_decoder), run.config.model)

    return spend


def counts(pairs):
    return dict(pd.Series(pairs["parent_id"][:]).value_counts())


def test_every_original_gets_the_pairs_that_its_budget_says(spent):
    assert counts(spent([5, 0, 2])[0]) == {"a": 5, "c": 2}


def test_what_an_original_cannot_use_moves_by_q_and_keeps_the_cap(spent):
    assert counts(spent([6, 2, 2], mute="Ask a?", selection={"cap": 6})[0]) == {"b": 6, "c": 4}


def test_synthetic_pairs_have_the_margin_and_the_weight_of_their_original(spent):
    pairs, _ = spent([2, 1, 1], numbers={"margin": [1.5, None, 0.0], "weight": [2.0, 1.0, 0.5]}, name="asked")
    found = pairs.to_pandas().groupby("parent_id")[["margin", "weight"]].first()
    assert found["weight"].to_dict() == {"a": 2.0, "b": 1.0, "c": 0.5}
    assert found["margin"].dropna().to_dict() == {"a": 1.5, "c": 0.0}


def test_a_pair_has_the_other_wording_of_its_chosen_response_where_the_objective_reads_it(spent):
    objective = {"fit": {"objective": {"name": "paraphrase_consistency"}}}
    pairs = spent([3, 1, 1], name="consistent", **objective)[0].to_pandas()
    variants = pairs.query("chosen_variant > 0")
    assert len(variants) > 0
    assert (variants["paraphrase"] == "Yes " + variants["parent_id"] + ".").all()
    first = variants.query("chosen_variant == 1").groupby("parent_id")["chosen"].first()
    themselves = pairs.query("chosen_variant == 0")
    found = themselves.set_index("parent_id")["paraphrase"]
    assert found["a"] == first["a"]
    assert "b" not in first  # no variant was bought
    assert pd.isna(found["b"])
    assert "paraphrase" not in spent([3, 1, 1], name="plain")[0].column_names


def test_some_of_the_dropped_paraphrases_are_written_with_the_reason(spent, tmp_path):
    spent([1, 1, 1], echoed="Ask b?", name="dropped")
    dropped = pd.read_parquet(tmp_path / "dropped/round-1/dropped_paraphrases.parquet")
    assert set(zip(dropped["pair_id"], dropped["text"], dropped["reason"], strict=True)) <= {
        ("b", "Yes b.", "copy"),
        ("b", "No b.", "copy"),
    }
    assert len(dropped) > 0


def test_of_a_pool_the_easiest_pairs_by_the_current_model_are_kept(spent):
    pool, model = spent([3, 0, 3])
    kept, _ = spent([1, 0, 1], augmentation={"pool": 3})
    margins = pair_rewards(model, pool.rename_column("synthetic_id", "pair_id")).table["margin"].to_numpy()
    rows = pd.DataFrame({"parent": pool["parent_id"][:], "id": pool["synthetic_id"][:], "margin": margins})
    assert set(kept["synthetic_id"]) == set(rows.loc[rows.groupby("parent")["margin"].idxmax(), "id"])


def test_boosting_remembers_the_round_before(tmp_path):
    values = {"name": "t", "folder": str(tmp_path), "selection": {"strategy": "boost", "budget": 4}}
    with open_run(RunConfig.model_validate(values)) as run:

        def scored(t, *margins):
            return run.write_table(f"m{t}.parquet", pd.DataFrame({"pair_id": list("abc"), "margin": margins}))

        def select(t, previous, *margins):
            made = {"margins": scored(t, *margins)}
            return select_hard_pairs(run, t, None, made, None, previous)

        first = select(1, None, -1.0, 1.0, 1.0)
        second = select(2, first, 1.0, 1.0, -1.0)
        a, b, _ = run.table(second)["probability"]
    assert a > b  # it was wrong once, the other never


@pytest.mark.parametrize(
    ("strategy", "objective", "column"),
    [
        ("disagreement", "ensemble", {"disagreement": [0.1, 0.1, 5.0]}),
        (
            "uncertainty",
            "ordinal",
            {"variance_chosen": [0.1, 0.1, 9.0], "variance_rejected": [0.1, 0.1, 0.1]},
        ),
        ("information", "bradley_terry", {"margin": [6.0, 6.0, 0.0]}),
    ],
)
def test_the_budget_goes_to_the_pair_that_the_strategy_prefers(tmp_path, strategy, objective, column):
    values = {
        "name": "t", "folder": str(tmp_path), "selection": {"strategy": strategy, "budget": 4},
        "fit": {"objective": {"name": objective}},
    }  # fmt: skip
    np.save(tmp_path / "ones.npy", np.ones((3, 1), np.float32))
    with open_run(RunConfig.model_validate(values)) as run:
        table = pd.DataFrame({"pair_id": list("abc"), "margin": 1.0} | column)
        scored = {
            "margins": run.write_table("m.parquet", table),
            "features": run.write("f.npy", lambda file: shutil.copy(tmp_path / "ones.npy", file)),
        }
        selected = run.table(select_hard_pairs(run, 1, None, scored, None, None))
    assert selected["budget"].idxmax() == 2
    assert selected["probability"][2] > 0.6
