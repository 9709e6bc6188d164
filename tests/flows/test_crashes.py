"""A crash before every file of a run that its own process writes is moved into its place, all in one process.

`test_resume.py` kills real processes, whose steps are Prefect's tasks; the tests of the store and of fits cut
what these write.
"""

import contextlib

import prefect
import pytest

import mars_core.files

pytestmark = pytest.mark.timeout(600)


class Crash(BaseException):
    """What no handler in the code expects."""


@pytest.fixture(scope="module")
def runs(prefect_server, experiment, tiny_decoder):
    """A run that nothing disturbed, one that crashed at every file, and the files at which it did."""
    from flows.refine import refine

    changes = {"rounds": 1, "model": {"backbone": str(tiny_decoder)}}
    undisturbed, crashed = experiment(**changes), experiment(**changes)
    undisturbed.start()
    cut, sync = [], mars_core.files.sync

    def crash_once(path):
        if path.name.endswith(".partial") and path not in cut:
            cut.append(path)
            raise Crash(path)
        sync(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(crashed.folder)
        patch.setattr(mars_core.files, "sync", crash_once)
        # Dozens of starts, without Prefect: the run folder alone says what is done. All is sent to MLflow.
        patch.setattr(prefect.Task, "__call__", lambda task, *args, **kwargs: task.fn(*args, **kwargs))
        patch.setattr("tasks.run.prefect_api.has_flow_run", lambda: True)
        is_finished = False
        while not is_finished:
            before = len(cut)
            with contextlib.suppress(Crash):
                refine.fn(str(crashed.file))
                is_finished = True
            assert is_finished or len(cut) == before + 1
    return undisturbed.run(), crashed.run(), {path.name[1:].removesuffix(".partial") for path in cut}, crashed


def test_the_crashed_run_has_every_table_of_the_undisturbed_one_row_for_row(runs):
    undisturbed, crashed, cut, _ = runs
    assert {uri.split("/")[-1] for uri in undisturbed.tables()} <= cut
    crashed.check_tables_equal(undisturbed)


@pytest.mark.parametrize("t", [0, 1])
def test_the_crashed_run_has_the_same_weights_to_the_bit(runs, t):
    undisturbed, crashed, *_ = runs
    assert crashed.weights(t) == undisturbed.weights(t)


def test_mlflow_has_one_run_of_each_round_however_often_the_run_crashed(runs):
    assert runs[3].runs_in_mlflow() == {("run", "FINISHED"): 1, ("round", "FINISHED"): 2}
