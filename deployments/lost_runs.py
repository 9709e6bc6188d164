"""End the runs that died while Prefect's server was down; a worker does this first.

    python -m deployments.lost_runs

The automation for dead runs counts heartbeats while the server is up. If a run died with the whole machine,
or during an upgrade of the services, the server does not notice: the run would stay *Running* for ever, and
occupy the slot of its deployment. Ended as Crashed, it is restarted like any other crashed run.
"""

import time
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.states import Crashed

from deployments.automations import SILENT_SECONDS

HEARTBEAT_SECONDS = 35.0
"""A little more than the interval of heartbeats, so that live runs report to a server that is back."""
REMEMBERED = timedelta(days=6)
"""Prefect keeps heartbeats for a week."""
RUNNING = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))


def end_lost_runs() -> list[str]:
    """End every running run that is silent and stays silent; returns their names."""
    with get_client(sync_client=True) as prefect:
        silent = _silent(prefect)
        if not silent:
            return []
        time.sleep(HEARTBEAT_SECONDS)
        lost = [run for run in _silent(prefect) if run.id in {found.id for found in silent}]
        ended: State = Crashed(message="The run's process ended while Prefect was away.")
        for run in lost:
            prefect.set_flow_run_state(run.id, ended, force=True)
        return [run.name for run in lost]


def _silent(prefect: SyncPrefectClient) -> list[FlowRun]:
    """Running runs that have sent heartbeats, but not for too long."""
    now = datetime.now(UTC)
    too_long_ago = now - timedelta(seconds=SILENT_SECONDS)
    return [
        run
        for run in prefect.read_flow_runs(flow_run_filter=RUNNING)
        if (beat := _last_heartbeat(prefect, run, now)) and beat < too_long_ago
    ]


def _last_heartbeat(prefect: SyncPrefectClient, run: FlowRun, now: datetime) -> datetime | None:
    heartbeats = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
        occurred=EventOccurredFilter(since=now - REMEMBERED, until=now),
    )
    newest = prefect.read_events(filter=heartbeats, limit=1).events
    return newest[0].occurred if newest else None


if __name__ == "__main__":
    for name in end_lost_runs():
        print(f"{name} was lost, and ended as Crashed.")
