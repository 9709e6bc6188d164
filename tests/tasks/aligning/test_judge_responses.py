"""`mars winrate --judge`, with a judge of one's own in a module."""

import json

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app

JUDGE = '''
from pathlib import Path

from mars_core.files import digest
from mars_core.generation import Answer, Backend


class Brevity(Backend):
    """Prefers the shorter response; says in a file how often it was asked."""

    def key(self, request):
        return digest(request.prompt)

    def answers(self, requests):
        for index, request in enumerate(requests):
            first, second = request.prompt.split("<response ")[1:]
            text = "Verdict: " + ("A" if len(first.split("</")[0]) < len(second.split("</")[0]) else "B")
            with Path("asked").open("a") as asked:
                asked.write("x")
            yield index, Answer(self.key(request), (text,), ("stop",), 90, 9, 0.0)
'''


@pytest.fixture
def winrate(tmp_path, monkeypatch):
    """Runs the command in a folder with a judge; its status and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "judge_by_length.py").write_text(JUDGE)
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump({"backend": "judge_by_length:Brevity"}))

    def run(*arguments):
        done = CliRunner().invoke(app, ["winrate", *map(str, arguments)])
        return done.exit_code, done.output

    return run


@pytest.fixture
def responses(write):
    """Responses of two models, of which ours are the shorter ones to three prompts of four."""
    long = "This answer goes on and on, and says nothing."
    return write(
        [
            {"prompt": f"Question {n}?", "model": "ours", "baseline_model": "theirs"}
            | ({"response": "Yes.", "baseline": long} if n % 4 else {"response": long, "baseline": "Yes."})
            for n in range(12)
        ]
    )


def test_responses_are_judged_in_both_orders_and_rated(winrate, responses, tmp_path):
    status, said = winrate(responses, "--judge", "judge.yaml", "--output", "out")
    assert status == 0, said
    assert "ours against theirs" in said
    assert "75.0000" in said
    table = pd.read_json(tmp_path / "out/judgements.jsonl", lines=True)
    assert len(table) == 24
    assert set(table["judge"]) == {"judge_by_length:Brevity"}
    figures = json.loads((tmp_path / "out/winrate.json").read_text())
    assert (figures["pairs_in_both_orders"], figures["same_in_both_orders"]) == (12, 100)


def test_a_second_start_asks_nothing_and_further_responses_are_asked_for_alone(
    winrate, responses, write, tmp_path
):
    winrate(responses, "--judge", "judge.yaml", "--output", "out")
    winrate(responses, "--judge", "judge.yaml", "--output", "out")
    assert len((tmp_path / "asked").read_text()) == 24
    more = [{"prompt": "One more?", "response": "Yes.", "baseline": "No, not at all."}]
    winrate(write(more, "more.jsonl"), "--judge", "judge.yaml", "--output", "more")
    assert len((tmp_path / "asked").read_text()) == 26


def test_a_judge_without_a_folder_is_refused_before_it_is_asked(winrate, responses, tmp_path):
    status, said = winrate(responses, "--judge", "judge.yaml")
    assert status == 2
    assert "--output" in said
    assert not (tmp_path / "asked").exists()
