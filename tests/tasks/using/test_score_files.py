import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from mars_core.data.samples import preferences
from mars_core.data.source_rows import PairsError
from mars_core.errors import ModelError
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.model.score_parts import ScoresError
from mars_core.objectives.bradley_terry import BradleyTerry
from tasks.using import score_files as scoring
from tasks.using.score_files import ScoreConfig, score_files

PAIRS = [{name: pair[name] for name in ("id", "prompt", "chosen", "rejected")} for pair in preferences()[:40]]
SINGLE = [{"id": row["id"], "prompt": row["prompt"], "response": row["chosen"]} for row in PAIRS]


@pytest.fixture
def config(tiny_decoder, tmp_path):
    """A configuration that scores files by the tiny decoder."""

    def configured(*files, output=tmp_path / "scores", **more):
        settings = {"backbone": str(tiny_decoder), "precision": "float32", "max_length": 64}
        where = {"output": str(output)} if output else {}
        return ScoreConfig.model_validate({"model": settings, "files": list(files), **where, **more})

    return configured


@pytest.fixture(scope="module")
def model(tiny_decoder):
    return RewardModel.load(str(tiny_decoder), ModelConfig(precision="float32", max_length=64))


@pytest.fixture
def small_parts(monkeypatch):
    """A part ends with each window, and a window with eight texts."""
    monkeypatch.setattr("mars_core.model.score_parts.WINDOW", 8)
    monkeypatch.setattr(scoring, "PART_ROWS", 1)


def table(folder):
    return pd.read_parquet(folder / "scores").sort_values(["file", "row"], ignore_index=True)


def rewards(model, rows, column):
    return model.score([row["prompt"] for row in rows], [row[column] for row in rows])


def test_pairs_and_single_responses_get_the_models_rewards_beside_their_ids(config, write, model, tmp_path):
    pairs, single = write(PAIRS, "pairs.jsonl"), write(SINGLE, "single.parquet")
    summary = score_files(config(pairs, single))
    scores = table(tmp_path / "scores")
    of_pairs, of_single = scores[scores["file"] == pairs], scores[scores["file"] == single]
    assert list(of_pairs["id"]) == list(of_single["id"]) == [row["id"] for row in PAIRS]
    expected = rewards(model, PAIRS, "chosen")
    np.testing.assert_allclose(of_pairs["reward_chosen"], expected, atol=1e-6)
    np.testing.assert_allclose(of_single["reward"], expected, atol=1e-6)
    np.testing.assert_allclose(of_pairs["margin"], expected - rewards(model, PAIRS, "rejected"), atol=1e-6)
    assert of_single["margin"].isna().all()
    assert summary["scores"] == 80
    assert summary["margin"]["mean"] == pytest.approx(of_pairs["margin"].mean(), abs=1e-6)
    assert summary["margin"]["deviation"] == pytest.approx(of_pairs["margin"].std(ddof=0), rel=1e-5)
    assert (tmp_path / "scores/distribution.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_folder_scores_are_json_lines(config, write, model):
    printed = []
    score_files(config(write(SINGLE), output=None), printed.append)
    lines = [json.loads(line) for line in printed]
    assert [line["id"] for line in lines] == [row["id"] for row in SINGLE]
    assert set(lines[0]) == {"id", "file", "row", "reward"}
    np.testing.assert_allclose(
        [line["reward"] for line in lines], rewards(model, SINGLE, "response"), atol=1e-6
    )


def test_standard_input_is_read_as_it_comes(config, monkeypatch):
    lines = "".join(json.dumps(row) + "\n" for row in PAIRS[:3])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    printed = []
    score_files(config("-", output=None), printed.append)
    assert ["margin" in json.loads(line) for line in printed] == [True] * 3


def test_an_objective_that_knows_how_sure_it_is_says_so(config, write, monkeypatch, tmp_path):
    monkeypatch.setattr(BradleyTerry, "uncertainty", lambda _, readout: torch.full((len(readout),), 0.25))
    score_files(config(write(PAIRS)))
    assert set(table(tmp_path / "scores")["variance_chosen"]) == {0.25}


KILLED = """
import os, signal, sys
from mars_core.model import score_parts
from mars_core.config import validated
from tasks.using import score_files as scoring

score_parts.WINDOW, scoring.PART_ROWS = 8, 1
write_journal, kept = score_parts.Parts._write_journal, []

def die_before_the_third(parts):
    kept.append(0)
    if len(kept) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    write_journal(parts)

score_parts.Parts._write_journal = die_before_the_third
scoring.score_files(scoring.ScoreConfig.model_validate_json(sys.argv[1]))
"""


def test_scoring_that_was_killed_goes_on_after_the_last_whole_part(
    config, write, tmp_path, small_parts, monkeypatch
):
    settings = config(write(PAIRS))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, settings.model_dump_json(exclude={"objective", "data"})],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    seen = []
    score = RewardModel.score_windows

    def count(model, windows, *args, **options):
        def watched():
            for prompts, responses in windows:
                seen.extend(responses)
                yield prompts, responses

        return score(model, watched(), *args, **options)

    monkeypatch.setattr(RewardModel, "score_windows", count)
    assert score_files(settings)["scores"] == len(PAIRS)
    assert len(seen) == 2 * len(PAIRS) - 16
    assert list(table(tmp_path / "scores")["row"]) == list(range(1, len(PAIRS) + 1))
    seen.clear()
    score_files(settings)
    assert seen == []


def test_a_part_that_was_damaged_and_what_follows_it_are_scored_again(config, write, tmp_path, small_parts):
    settings = config(write(PAIRS))
    score_files(settings)
    before = table(tmp_path / "scores")
    (tmp_path / "scores/scores/part-00005.parquet").write_bytes(b"half")
    score_files(settings)
    pd.testing.assert_frame_equal(table(tmp_path / "scores"), before, atol=1e-6)


def test_a_file_that_is_new_in_a_folder_is_added_and_one_that_changed_is_scored_anew(
    config, write, tmp_path, monkeypatch
):
    first = write(PAIRS[:10], "in/b.jsonl")
    settings = config(str(tmp_path / "in"))
    score_files(settings)
    write(PAIRS[10:15], "in/a.jsonl")
    assert score_files(settings)["scores"] == 15
    write(PAIRS[:4], "in/b.jsonl")
    assert score_files(settings)["scores"] == 9
    assert (table(tmp_path / "scores")["file"] == first).sum() == 4


def test_scores_of_another_model_or_other_settings_do_not_mix(config, write, tiny_chat_decoder):
    file = write(PAIRS)
    score_files(config(file))
    other = {"backbone": str(tiny_chat_decoder), "precision": "float32", "max_length": 32}
    with pytest.raises(ScoresError, match="holds scores with another model, model settings"):
        score_files(config(file, model=other))


def test_a_folder_with_something_else_in_it_is_left_alone(config, write, tmp_path):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores/thesis.txt").touch()
    with pytest.raises(ScoresError, match="holds something else than scores"):
        score_files(config(write(PAIRS)))


BAD = [*SINGLE[:3], SINGLE[3] | {"response": " "}, *SINGLE[4:]]


def test_a_row_that_cannot_be_scored_is_refused_by_name_before_any_is_scored(config, write, tmp_path):
    with pytest.raises(
        PairsError, match=r"1 rows cannot be scored:\n  .*rows.jsonl: row 4: response is empty"
    ):
        score_files(config(write(BAD)))
    assert not list((tmp_path / "scores").glob("scores/*"))


def test_a_row_that_cannot_be_scored_is_left_out_named_and_counted_on_demand(config, write, caplog, tmp_path):
    with caplog.at_level("INFO", logger="mars"):
        summary = score_files(config(write(BAD), data={"invalid": "drop"}))
    assert summary["left_out"] == {"response is empty": 1}
    assert "rows.jsonl: row 4: response is empty" in caplog.text
    assert 4 not in set(table(tmp_path / "scores")["row"])


def test_a_dialogue_that_the_chat_template_refuses_is_such_a_row(config, write, tmp_path, tiny_chat_decoder):
    import transformers

    folder = tmp_path / "picky"
    RewardModel.load(str(tiny_chat_decoder), ModelConfig(precision="float32")).save(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'stone' in m.content %}{{ raise_exception('no stones') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    rows = [{"prompt": "Who?", "response": "I."}, {"prompt": "Who?", "response": "A stone."}]
    model = {"backbone": str(folder), "precision": "float32"}
    with pytest.raises(PairsError, match=r"row 2: the model cannot read it: .*no stones"):
        score_files(config(write(rows), model=model))


def test_a_model_without_a_trained_head_has_no_scores(config, write, headless):
    with pytest.raises(ModelError, match="has no trained head"):
        score_files(config(write(PAIRS), model={"backbone": str(headless)}))
