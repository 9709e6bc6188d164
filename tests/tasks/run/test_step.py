"""Under a real Prefect server, a step runs once, and again only when what shapes its result has changed."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.events.clients import NullEventsClient
from prefect.events.worker import EventsWorker
from prefect.runtime import flow_run

from mars_core.errors import MarsError
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.run.step import Checkpoint, Made, step, step_key, tell


@pytest.fixture(scope="module", autouse=True)
def _recorded(prefect_server):
    """The server hears of task runs by events, which other tests do without."""
    EventsWorker.set_client_override(None)
    yield
    EventsWorker.set_client_override(NullEventsClient)


def configuration(folder, **changes):
    return RunConfig.model_validate({"name": "tiny", "folder": str(folder)} | changes)


def task_runs(flow_run_id, count):
    """(name, state) of a flow run's tasks by start; the server hears of them with a delay."""
    with get_client(sync_client=True) as client:
        for _ in range(100):
            found = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
            )
            if len(found) == count and all(run.state and run.state.is_final() for run in found):
                break
            time.sleep(0.2)
    return [(run.name, run.state.name) for run in sorted(found, key=lambda run: run.start_time)]


def doubling(version=1):
    """A step that doubles the numbers of a JSON artifact, and the list of what it was called with."""
    calls = []

    @step("double", version=version, reads=("selection", "generation"))
    def double(run, round, numbers):
        """Double some numbers."""
        values = run.json(numbers)
        calls.append(values)
        return Made(run.write_json(f"round-{round}/doubled.json", [2 * value for value in values]))

    return double, calls


@pytest.fixture
def start(tmp_path, in_flow):
    """One start of a run that has only the step `double`: what the step gave, and the flow run's id."""

    def start(double, numbers=(1, 2), round=1, **changes):
        with open_run(configuration(tmp_path, **changes)) as run:

            def story():
                doubled = double(run, round, run.write_json("numbers.json", list(numbers)))
                return run.json(doubled), flow_run.id

            return in_flow(story)

    return start


def test_a_step_computes_once_and_is_shown_as_cached_when_it_is_found(start):
    double, calls = doubling()
    first, first_run = start(double)
    second, second_run = start(double)
    assert first == second == [2, 4]
    assert len(calls) == 1
    assert task_runs(first_run, 1) == [("round 1 · double", "Completed")]
    assert task_runs(second_run, 1) == [("round 1 · double", "Cached")]


def test_a_step_of_no_round_is_named_plainly_and_may_have_several_outputs(tmp_path, in_flow):
    @step("prepare", version=1)
    def prepare(run, round, sizes):
        return Made({name: run.write_json(f"{name}.json", size) for name, size in sizes.items()})

    def story():
        sizes = {"train": 3, "heldout": 1}
        return prepare(run, None, sizes), prepare(run, None, sizes), flow_run.id

    with open_run(configuration(tmp_path)) as run:
        made, found, flow_run_id = in_flow(story)
        assert run.json(found["train"]) == 3
    assert made == found
    assert task_runs(flow_run_id, 2) == [("prepare", "Completed"), ("prepare", "Cached")]


def test_each_round_has_its_own_artifact(start):
    double, calls = doubling()
    start(double, round=1)
    start(double, round=2)
    start(double, round=1)
    assert len(calls) == 2


def test_another_content_of_an_input_is_computed(start):
    double, calls = doubling()
    assert [start(double, numbers)[0] for numbers in ((1, 2), (1, 3))] == [[2, 4], [2, 6]]
    assert calls == [[1, 2], [1, 3]]


def test_another_version_of_a_step_computes_again(start):
    start(doubling(version=1)[0])
    double, calls = doubling(version=2)
    start(double)
    assert len(calls) == 1


def test_operational_keys_and_sections_that_a_step_does_not_read_leave_it_alone(start):
    double, calls = doubling()
    start(double)
    start(
        double,
        rounds=9,
        generation={"max_failed_share": 0.5, "store": "elsewhere"},
        model={"device": "cpu"},
    )
    assert len(calls) == 1


def test_a_damaged_artifact_is_made_anew(start, tmp_path):
    double, calls = doubling()
    start(double)
    (tmp_path / "tiny/round-1/doubled.json").write_text("[]")
    assert start(double)[0] == [2, 4]
    assert len(calls) == 2


def test_a_step_that_failed_tells_its_error_and_runs_again(tmp_path, in_flow):
    answers = [MarsError("row 3 has no text"), None]

    @step("fail", version=1)
    def fail_once(run, round):
        error = answers.pop(0)
        if error:
            raise error
        return Made(run.write_json("done.json", True))

    with open_run(configuration(tmp_path)) as run:
        with pytest.raises(MarsError, match="row 3 has no text"):
            in_flow(lambda: fail_once(run, 1))
        in_flow(lambda: fail_once(run, 1))
    assert answers == []


def key(folder, inputs=MappingProxyType({}), reads=("selection", "generation", "seed"), **changes):
    with open_run(configuration(folder, **changes)) as run:
        return step_key("double", 1, 1, run, reads, dict(inputs))


def test_the_key_holds_the_scientific_keys_that_the_step_reads(tmp_path):
    changes = [
        {"selection": {"tau": 0.1}},
        {"seed": 1},
        {"generation": {"paraphrase_chosen": {"top_p": 0.5}}},
        {"generation": {"backend": "vllm", "model": "m", "options": {"extra_body": {"min_p": 0.1}}}},
    ]
    keys = {key(tmp_path, name=f"run-{n}", **change) for n, change in enumerate([{}, *changes])}
    assert len(keys) == 1 + len(changes)
    assert key(tmp_path, name="other", rewriting={"enabled": False}) in keys


def test_a_single_key_that_came_later_is_in_the_key_once_it_is_set(tmp_path):
    weight = "fit.synthetic_weight"
    before, unset = key(tmp_path, reads=("seed",)), key(tmp_path, reads=("seed", weight))
    put = key(tmp_path, name="other", reads=("seed", weight), fit={"synthetic_weight": 0.5})
    assert before == unset != put


def test_a_local_checkpoint_counts_by_its_files_and_not_by_its_path_alone(tmp_path):
    weights = tmp_path / "backbone/model.safetensors"
    weights.parent.mkdir()
    keys = []
    for content in ("old", "old", "new"):
        weights.write_text(content)
        keys.append(key(tmp_path / "runs", {"start": Checkpoint(str(weights.parent))}))
    assert keys[0] == keys[1] != keys[2]


def test_a_value_that_happens_to_name_a_folder_counts_as_it_stands(tmp_path, monkeypatch):
    """`generation.options.extra_body={stop: ["."]}`, or a chat template that is too long for a file's
    name."""
    template = {"chat_template": "{{ messages }}" * 100}
    options = {"extra_body": {"stop": [".", ""], "chat_template_kwargs": template}}
    generation = {"backend": "vllm", "model": "m", "options": options}
    keys = []
    for content in ("before", "after"):
        (tmp_path / "file").write_text(content)
        monkeypatch.chdir(tmp_path)
        keys.append(key(tmp_path / "runs", {"text": "."}, name=content, generation=generation))
    assert keys[0] == keys[1]


def test_every_input_is_in_the_key_but_what_the_step_merely_works_with(tmp_path, in_flow):
    calls = []

    @step("add", version=1, works_with=("tool",))
    def add(run, round, one, other, tool):
        calls.append((one, other))
        return Made(run.write_json("sum.json", one + other), {"sum": float(one + other)})

    with open_run(configuration(tmp_path)) as run:
        in_flow(lambda: add(run, 1, 2, other=3, tool="hammer"))
        in_flow(lambda: add(run, 1, one=2, other=3, tool="saw"))
        assert calls == [(2, 3)]
        in_flow(lambda: add(run, 1, 2, other=4, tool="saw"))
        assert calls == [(2, 3), (2, 4)]


def test_metrics_of_a_step_are_gathered_whether_it_ran_or_was_found(tmp_path, in_flow):
    @step("measure", version=1)
    def measure(run, round):
        return Made(run.write_json("measured.json", 1), {"accuracy": 0.5})

    for _ in range(2):
        with open_run(configuration(tmp_path)) as run:
            in_flow(lambda run=run: measure(run, 1))
            assert run.metrics_of(1) == {"accuracy": 0.5}


def test_what_is_told_outside_a_run_goes_to_the_logger_of_the_project(caplog):
    with caplog.at_level("INFO", logger="mars"):
        tell("%d pairs", 3)
    assert caplog.messages == ["3 pairs"]


def test_a_local_model_counts_by_its_weights_and_not_by_its_name(tmp_path):
    (tmp_path / "embedder").mkdir()
    weights = tmp_path / "embedder" / "model.safetensors"
    config = configuration(tmp_path, semantics={"embedder": str(tmp_path / "embedder")})

    def key():
        with open_run(config) as run:
            return step_key("distances", 1, 1, run, ("semantics",), {})

    weights.write_bytes(b"first")
    before = key()
    assert key() == before
    weights.write_bytes(b"second")
    assert key() != before


def test_the_unnamed_artifact_of_several_is_the_result_and_the_others_go_with_it(tmp_path, in_flow):
    @step("fit", version=1)
    def fit(run, round):
        curve = run.write_json("curve.json", [2])
        return Made(run.write_json("model.json", 1), {"loss": 0.5}, also={"curve": curve})

    with open_run(configuration(tmp_path)) as run:
        made, found = in_flow(lambda: (fit(run, 0), fit(run, 0)))
        assert made == found
        assert run.json(made) == 1
        run.path("curve.json").unlink()
        in_flow(lambda: fit(run, 0))
        assert run.json(run.outputs("round-0-fit")["curve"]) == [2]


def test_of_two_runs_that_need_a_shared_step_at_once_one_does_it_and_the_other_takes_it_over(
    tmp_path, prefect_server
):
    made = []

    @step("slow", version=1)
    def slow(run, round):
        made.append(run.config.name)
        time.sleep(1)
        return Made(run.write_json("slow.json", 7))

    def start(name):
        @flow(name="tiny", persist_result=False)
        def tiny():
            return run.json(slow(run, 0))

        with open_run(configuration(tmp_path, name=name, shared_steps=str(tmp_path / "shared"))) as run:
            return tiny()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(start, ("one", "two"))) == [7, 7]
    assert len(made) == 1
