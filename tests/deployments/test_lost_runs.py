"""Runs that died while Prefect was away, on a real Prefect server."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from deployments import lost_runs
from deployments.automations import SILENT_SECONDS

TOO_LONG = SILENT_SECONDS + 10


@pytest.fixture
def prefect(prefect_server, monkeypatch):
    """A client of the server, on which the runs that other tests have killed are over."""
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    monkeypatch.setattr(lost_runs, "HEARTBEAT_SECONDS", 0.0)
    with get_client(sync_client=True) as client:
        for killed in client.read_flow_runs(flow_run_filter=lost_runs.RUNNING):
            client.set_flow_run_state(killed.id, Crashed(), force=True)
        yield client


def running(prefect, name):
    """The id of a run that goes on for all that Prefect knows."""
    from prefect import flow
    from prefect.states import Running

    @flow(name="tiny")
    def tiny():
        pass

    return prefect.create_flow_run(tiny, name=name, state=Running()).id


def heartbeat(prefect, run_id, seconds_ago):
    from prefect.events import Event

    event = Event(
        event="prefect.flow-run.heartbeat",
        occurred=datetime.now(UTC) - timedelta(seconds=seconds_ago),
        resource={"prefect.resource.id": f"prefect.flow-run.{run_id}"},
    )
    prefect.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
    started, run = time.monotonic(), prefect.read_flow_run(run_id)
    while lost_runs._last_heartbeat(prefect, run, datetime.now(UTC)) != event.occurred:
        assert time.monotonic() - started < 60
        time.sleep(0.2)


def test_of_running_runs_those_that_fell_silent_end_as_crashed(prefect):
    lost, alive, unwatched = (running(prefect, name) for name in ("lost", "alive", "unwatched"))
    heartbeat(prefect, lost, TOO_LONG)
    heartbeat(prefect, alive, 1)
    assert lost_runs.end_lost_runs() == ["lost"]
    assert prefect.read_flow_run(lost).state_name == "Crashed"
    assert {prefect.read_flow_run(other).state_name for other in (alive, unwatched)} == {"Running"}
    assert lost_runs.end_lost_runs() == []


def test_a_run_that_is_heard_of_at_the_second_look_goes_on(prefect, monkeypatch):
    slow = running(prefect, "slow")
    heartbeat(prefect, slow, TOO_LONG)
    real_sleep = time.sleep

    def sleep(seconds):
        monkeypatch.setattr(time, "sleep", real_sleep)
        heartbeat(prefect, slow, 1)

    monkeypatch.setattr(time, "sleep", sleep)
    assert lost_runs.end_lost_runs() == []
    assert prefect.read_flow_run(slow).state_name == "Running"
