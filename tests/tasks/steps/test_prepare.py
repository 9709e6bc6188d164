"""Bad data are told before any weights are loaded: the embedder of these runs does not exist."""

import json

import pandas as pd
import pytest

from mars_core.errors import MarsError
from mars_core.evaluation.evaluation_config import EvaluationConfig
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.run.sources import source_digest
from tasks.steps.prepare import prepare

pytestmark = pytest.mark.usefixtures("without_prefect")

GOOD = [
    {"id": str(n), "prompt": f"What is {n} + {n}?", "chosen": f"It is {2 * n}.", "rejected": "I do not know."}
    for n in range(6)
]
EQUAL = {"id": "equal", "prompt": "What is a lark?", "chosen": "A songbird.", "rejected": "A songbird."}
LEFT_OUT_OF_TRAIN = "train row whose prompt is in the held-out set"


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def start(tmp_path, tiny_decoder):
    """Prepares a run of train.jsonl (4 pairs), validation.jsonl and heldout.jsonl (1 each): its sets."""
    files = {name: tmp_path / f"{name}.jsonl" for name in ("train", "validation", "heldout")}
    for file, rows in zip(files.values(), (GOOD[:4], GOOD[4:5], GOOD[5:]), strict=True):
        write(file, rows)

    def start(data=None, **changes):
        config = RunConfig.model_validate(
            {
                "name": "tiny",
                "folder": str(tmp_path / "runs"),
                "data": {name: str(file) for name, file in files.items()} | (data or {}),
                "model": {"backbone": str(tiny_decoder)},
                "semantics": {"embedder": "/no/such/embedder"},
                "selection": {"budget": 4},
            }
            | changes
        )
        with open_run(config) as run:
            return prepare(run)

    return start


def test_three_sets_are_written_as_artifacts(start, tmp_path):
    sets = start()
    assert {name: part.rows for name, part in sets.items()} == {"train": 4, "validation": 1, "heldout": 1}
    assert all((tmp_path / "runs/tiny" / part.uri).exists() for part in sets.values())


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([*GOOD[:4], EQUAL], r"train\.jsonl: row 5: .*chosen"),
        ([{"prompt": "Why?", "chosen": "So."}], r"train\.jsonl: no format reads the columns chosen, prompt"),
        ([GOOD[0], GOOD[1] | {"rejected": " "}], r"train\.jsonl: row 2: .*rejected"),
        ([GOOD[0], GOOD[1] | {"id": "0"}], r"train\.jsonl: row 2: duplicate id: '0'"),
        ([], r"train\.jsonl: no rows"),
    ],
    ids=["equal", "column", "empty", "duplicate", "nothing"],
)
def test_bad_pairs_are_told_and_the_repaired_file_is_prepared_at_the_next_start(rows, told, start, tmp_path):
    write(tmp_path / "train.jsonl", rows)
    with pytest.raises(MarsError, match=told):
        start()
    write(tmp_path / "train.jsonl", GOOD[:3])
    assert start()["train"].rows == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"selection": {"budget": 5000}}, r"selection\.budget=5000 exceeds what 4 pairs can take"),
        ({"evaluation": {"benchmarks": {"rewardbench": "absent.jsonl"}}}, r"absent\.jsonl does not exist"),
        ({"data": {"train": "absent.jsonl"}}, r"absent\.jsonl: no such file"),
        ({"data": {"where": {"split": "base"}}}, "no column 'split', which data.where names"),
        ({"data": {"subset": 5}}, r"data\.subset=5, but there are only 4"),
    ],
    ids=["budget", "benchmark", "file", "where", "subset"],
)
def test_a_configuration_that_does_not_fit_the_data_is_told(changes, told, start):
    with pytest.raises(MarsError, match=told):
        start(**changes)


def test_dropped_rows_are_counted_by_reason_also_when_the_step_is_found(start, tmp_path):
    write(tmp_path / "train.jsonl", [*GOOD[:4], EQUAL, GOOD[5] | {"id": "held out"}])
    made, found = (start({"invalid": "drop"}) for _ in range(2))
    assert made == found
    assert made["train"].rows == 4
    left_out = json.loads((tmp_path / "runs/tiny/left_out.json").read_text())
    assert left_out[LEFT_OUT_OF_TRAIN] == 1
    assert sum(left_out.values()) == 2


def test_a_file_that_changed_is_prepared_anew(start, tmp_path):
    first, same = start(), start()
    write(tmp_path / "train.jsonl", GOOD[:3])
    changed = start()
    assert first == same
    assert changed["train"].rows == 3
    assert changed["heldout"] == first["heldout"]


@pytest.fixture
def benchmark(tmp_path):
    """A RewardBench file with one row, and the configuration that names it."""
    row = {"id": "1", "subset": "hep-go", "prompt": "Add.", "chosen": "a + b", "rejected": "a - b"}
    write(tmp_path / "bench.jsonl", [row])
    return tmp_path / "bench.jsonl", row, {"benchmarks": {"rewardbench": str(tmp_path / "bench.jsonl")}}


@pytest.fixture
def told(monkeypatch):
    """What is said of a benchmark."""
    said = []
    monkeypatch.setattr("tasks.steps.prepare.tell", lambda message, *values: said.append(message % values))
    return lambda: [line for line in said if "RewardBench" in line]


def test_the_rows_of_both_benchmarks_are_artifacts_of_the_run(start, tmp_path):
    sources = {"rewardbench": "sample://rewardbench", "rewardbench2": "sample://rewardbench2"}
    sets = start(evaluation={"benchmarks": sources})
    assert list(sets) == ["train", "validation", "heldout", *sources]
    for name, source in sources.items():
        rows = pd.read_parquet(tmp_path / f"runs/tiny/{name}_rows.parquet")
        assert (
            sets[name].rows == len(rows) == len(EvaluationConfig(benchmarks=sources).suite[name].read(source))
        )


def test_a_benchmark_is_read_and_its_wrong_counts_are_told_once(start, benchmark, told, monkeypatch):
    _, _, evaluation = benchmark
    first = start(evaluation=evaluation)
    assert len(told()) == 23
    assert "RewardBench subset hep-go has 1 rows, the official split has 164" in told()

    def never(_):
        raise AssertionError("the source was read again")

    monkeypatch.setattr("tasks.steps.prepare.read_benchmarks", never)
    assert start(evaluation=evaluation) == first
    assert len(told()) == 23


def test_a_benchmark_whose_file_changed_is_read_anew_and_the_pairs_are_not(start, benchmark, tmp_path):
    file, row, evaluation = benchmark
    first = start(evaluation=evaluation)
    write(file, [row, row | {"id": "2"}])
    prepared = (tmp_path / "runs/tiny/.steps/prepare.json").stat().st_mtime_ns
    assert start(evaluation=evaluation)["rewardbench"].rows == 2
    assert first["rewardbench"].rows == 1
    assert (tmp_path / "runs/tiny/.steps/prepare.json").stat().st_mtime_ns == prepared


def test_strictness_refuses_wrong_counts_also_at_a_later_start(start, benchmark):
    _, _, evaluation = benchmark
    start(evaluation=evaluation)
    with pytest.raises(MarsError, match="hep-go has 1 rows, the official split has 164"):
        start(evaluation=evaluation | {"strict": True})


def test_the_digest_of_a_file_follows_its_content_and_not_its_folder(tmp_path):
    digests = []
    for folder, text in (("a", "one"), ("b", "one"), ("b", "two")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "pairs.jsonl").write_text(text)
        digests.append(source_digest(str(tmp_path / folder / "pairs.jsonl")))
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_of_a_folder_follows_its_files(tmp_path):
    digests = [source_digest(str(tmp_path))]
    for name, text in (("a.jsonl", "x"), ("b.jsonl", "x"), ("b.jsonl", "y")):
        (tmp_path / name).write_text(text)
        digests.append(source_digest(str(tmp_path)))
    (tmp_path / "b.jsonl").unlink()
    assert len(set(digests)) == 4
    assert source_digest(str(tmp_path)) == digests[1]


def test_built_in_data_and_hub_data_are_known_by_what_they_are():
    assert source_digest("sample://preferences") == source_digest("sample://preferences")
    built_in = ("sample://preferences", "sample://rewardbench", "sample://rewardbench2")
    assert len(set(map(source_digest, built_in))) == 3
    assert source_digest("Anthropic/hh-rlhf@main") == "Anthropic/hh-rlhf@main"
