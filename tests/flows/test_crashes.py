"""A crash before every file of a run that its own process writes is moved into its place, all in one process.

`test_resume.py` kills real processes, and the tests of the store and of fits cut what these write.
"""

import contextlib
from collections import Counter

import pandas as pd
import pytest
from mlflow import MlflowClient

import mars_core.files

pytestmark = pytest.mark.timeout(600)


class Crash(BaseException):
    """What no handler in the code expects."""


@pytest.fixture(scope="module")
def runs(prefect_server, experiment, tiny_decoder):
    """A run that nothing disturbed, one that crashed at every file, and the files at which it did."""
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
        patch.setattr(mars_core.files, "sync", crash_once)
        is_finished = False
        while not is_finished:
            before = len(cut)
            with contextlib.suppress(Crash):
                crashed.start()
                is_finished = True
            assert is_finished or len(cut) == before + 1
    return undisturbed.run(), crashed.run(), {path.name[1:].removesuffix(".partial") for path in cut}, crashed


def test_the_crashed_run_has_every_table_of_the_undisturbed_one_row_for_row(runs):
    undisturbed, crashed, cut, _ = runs
    tables = sorted(str(path.relative_to(undisturbed.root)) for path in undisturbed.root.rglob("*.parquet"))
    assert tables == sorted(str(path.relative_to(crashed.root)) for path in crashed.root.rglob("*.parquet"))
    assert {uri.split("/")[-1] for uri in tables} <= cut
    for uri in tables:
        pd.testing.assert_frame_equal(crashed.table(uri), undisturbed.table(uri), check_exact=True, obj=uri)


@pytest.mark.parametrize("t", [0, 1])
def test_the_crashed_run_has_the_same_weights_to_the_bit(runs, t):
    weights = [(run.root / f"round-{t}/model/model.safetensors").read_bytes() for run in runs[:2]]
    assert weights[0] == weights[1]


def test_mlflow_has_one_run_of_each_round_however_often_the_run_crashed(runs):
    client = MlflowClient(f"sqlite:///{runs[3].folder}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("mars").experiment_id])
    assert Counter(run.data.tags["mars.kind"] for run in found) == {"run": 1, "round": 2}
    assert {run.info.status for run in found} == {"FINISHED"}
