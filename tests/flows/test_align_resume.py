"""`kill -9` of `mars align` in the middle of a step, and of a command that judges; then the same again.

Here in training; with MARS_BAD_DAYS=1 (`make bad-days`) in every kind of step, and in judging.
"""

import json
import os
import shutil
from dataclasses import replace

import pytest
import yaml

pytestmark = pytest.mark.timeout(600)

PROMPTS, SAMPLES, STEPS = 4, 4, 12
BAD_DAYS = bool(os.environ.get("MARS_BAD_DAYS"))
KINDS = ["sampling", "scoring", "training", "evaluation", "comparison"] if BAD_DAYS else ["training"]
JUDGE = '''
import time
from pathlib import Path

from mars_core.files import digest
from mars_core.generation import Answer, Backend


class Hesitant(Backend):
    """Prefers what it is shown first; thinks for ever about its sixth answer, unless it is told to go on."""

    def key(self, request):
        return digest(request.prompt)

    def answers(self, requests):
        for index, request in enumerate(requests):
            while index == 5 and not Path("go on").exists():
                time.sleep(0.1)
            yield index, Answer(self.key(request), ("Verdict: A",), ("stop",), 9, 9, 0.0)
'''


def kills(made):
    """Kind of step → what is seen when it has begun, and an artifact that it cannot finish to write."""

    def bought(number):
        return lambda: len(made.asked()) >= number

    return {
        "sampling": (bought(1), "round-0/responses.parquet"),
        "scoring": ((made.root / ".scores").exists, "round-0/response_rewards.parquet"),
        "training": (lambda: reached(made.root) >= 2, ".steps/round-1-training.json"),
        "evaluation": (bought(PROMPTS + 1), "round-1/responses.parquet"),
        "comparison": (
            (made.root / ".steps/round-1-rewards.json").exists,
            "round-1/policy_by_prompt.parquet",
        ),
    }


def reached(root):
    """The step of the last snapshot that is whole."""
    states = root.glob(".training/*/checkpoint-*/trainer_state.json")
    return max((int(state.parent.name.removeprefix("checkpoint-")) for state in states), default=0)


@pytest.fixture(scope="module")
def runs(start, held_up, prefect_server, tmp_path_factory, alignment, tiny_policy):
    """An alignment that nothing disturbed, and one whose command was killed in the middle of steps.

    The third value says for each kill what lived on after it; the fourth, the last snapshot that there was.
    """
    from prefect.settings import get_current_settings

    killed = alignment(
        PROMPTS,
        SAMPLES,
        policy=str(tiny_policy),
        # of one request, so that what a start samples does not depend on what it finds in the store
        generation={
            "backend": "transformers",
            "options": {"batch_tokens": 1},
            "respond": {"max_tokens": 8},
        },
        training={"steps": STEPS, "batch": 4, "learning_rate": 1e-2, "snapshot_minutes": 0},
    )
    killed.start("training.snapshot_minutes=10")
    # The killed one runs in the same place, for a sampled response depends on its policy's folder.
    undisturbed = replace(killed, folder=tmp_path_factory.mktemp("undisturbed"))
    for name in ("runs", "generations"):
        shutil.move(killed.folder / name, undisturbed.folder)
    left, snapshot = {}, 0
    server = {"PREFECT_API_URL": get_current_settings().api.url}
    for kind in KINDS:
        seen, artifact = kills(killed)[kind]
        with held_up(killed.root / artifact):
            command = start(killed.folder, "killed", "align", "align.yaml", **server)
            command.wait_until(seen)
            left[kind] = command.kill()
        assert not (killed.root / artifact).exists()
        snapshot = max(snapshot, reached(killed.root))
    start(killed.folder, "killed", "align", "align.yaml", **server).ends()
    return undisturbed, killed, left, snapshot


@pytest.mark.parametrize("kind", KINDS)
def test_no_process_lives_on_after_kill_9_of_an_alignment_in(runs, kind):
    assert runs[2][kind] == []


def test_a_resumed_alignment_has_every_table_of_the_undisturbed_one_row_for_row(runs):
    undisturbed, killed, *_ = runs
    assert "round-1/policy_by_prompt.parquet" in undisturbed.run().tables()
    killed.run().check_tables_equal(undisturbed.run())


def test_training_goes_on_from_its_last_snapshot(runs):
    _, killed, _, snapshot = runs
    record = json.loads((killed.root / ".steps/round-1-training.json").read_text())
    assert record["metrics"]["training/resumed_at"] == snapshot >= 2
    curve = [json.loads(line)["step"] for line in (killed.root / "round-1/training.jsonl").open()]
    assert curve == list(range(1, STEPS + 1))


def test_no_response_is_sampled_twice(runs):
    undisturbed, killed, *_ = runs
    assert killed.asked() == undisturbed.asked()
    assert len(set(killed.asked())) == len(killed.asked()) == 2 * PROMPTS


@pytest.mark.skipif(not BAD_DAYS, reason="two starts of a command; part of make bad-days")
def test_a_judge_whose_command_is_killed_is_asked_for_the_missing_verdicts_alone(start, tmp_path):
    (tmp_path / "hesitant.py").write_text(JUDGE)
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump({"backend": "hesitant:Hesitant"}))
    rows = [{"prompt": f"Question {n}?", "response": "Yes.", "baseline": "No."} for n in range(6)]
    (tmp_path / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["winrate", "responses.jsonl", "--judge", "judge.yaml", "--output", "out"]
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}

    def verdicts():
        lines = [line for file in tmp_path.glob("generations/*.jsonl") for line in file.open()]
        return [json.loads(line)["key"] for line in lines]

    command = start(tmp_path, "judging", *arguments, **path)
    command.wait_until(lambda: len(verdicts()) == 5)
    assert command.kill() == []
    (tmp_path / "go on").touch()
    start(tmp_path, "judging", *arguments, **path).ends()
    assert len(set(verdicts())) == len(verdicts()) == 2 * len(rows)
    assert len((tmp_path / "out/judgements.jsonl").read_text().splitlines()) == 2 * len(rows)
