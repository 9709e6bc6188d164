"""Prefect's automations: detect dead runs, restart crashed ones, announce a refused gate.

A run sends a heartbeat every 30 seconds, the shortest interval that Prefect allows. A run that is silent for
90 seconds is dead; Prefect checks every few seconds, so it takes two minutes at most. A restarted run finds
its finished steps in its folder.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture

SILENT_SECONDS = 90
RETRIES = 2
"""How often a crashed run is restarted."""
WEBHOOK = "GATE_WEBHOOK"
"""Environment variable with the webhook that announces a refused gate."""
BLOCK = "mars-gate-webhook"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Skipped", "Nothing new", "Promoted", "Refused")
"""Names of the states in which a run ends, the retrain flow's own among them."""
RUNS: dict[str, Any] = {"prefect.resource.id": "prefect.flow-run.*"}
DEPLOYED: dict[str, Any] = {"prefect.resource.role": "deployment"}


def dead_runs() -> Automation:
    """A run whose heartbeat stopped ends as Crashed."""
    return Automation(
        name="mars: dead runs",
        description=f"A run that is silent for {SILENT_SECONDS} s has crashed.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=RUNS,
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{name}" for name in ENDS)},
            threshold=1,
            within=timedelta(seconds=SILENT_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=f"No heartbeat for {SILENT_SECONDS} s: the run's process or its machine is gone.",
            )
        ],
    )


def crashed_runs() -> Automation:
    """A crashed run of a deployment is restarted; one that was started by hand or by another run is not."""
    return Automation(
        name="mars: crashed runs",
        description=f"A crashed run is started again, {RETRIES} times at most; it goes on where it was.",
        trigger=EventTrigger(
            posture=Posture.Reactive,
            match=RUNS | {"prefect.run-count": [str(count) for count in range(1, RETRIES + 1)]},
            match_related=DEPLOYED,
            for_each={"prefect.resource.id"},
            expect={"prefect.flow-run.Crashed"},
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED,
                name="AwaitingRetry",
                message="The run crashed and is started again; it goes on where it was.",
                force=True,
            )
        ],
    )


def refused_gates(webhook: str) -> Automation:
    """A refused gate is announced to a webhook."""
    block = CustomWebhookNotificationBlock(
        name=BLOCK,
        url="{{webhook}}",
        json_data={"text": "{{subject}}\n{{body}}"},
        secrets={"webhook": webhook},  # stored encrypted, because it may hold a token
    )
    return Automation(
        name="mars: refused gates",
        description="A candidate that the gate refused is announced.",
        trigger=EventTrigger(
            posture=Posture.Reactive,
            match={"prefect.resource.id": "mars.retraining.*"},
            expect={"mars.gate.refused"},
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block.save(BLOCK, overwrite=True),
                subject="MARS: the gate refused a candidate of {{ event.resource.name }}",
                body="{{ event.payload.reason }}",
            )
        ],
    )


def apply(webhook: str | None) -> list[str]:
    """Set the automations and return their names; without a webhook, no refused gate is announced.

    One that is there already is left alone: made anew, it would not know which runs it has heard of, and one
    that fell silent just before would never be found dead.
    """
    wanted = [dead_runs(), crashed_runs()] + ([refused_gates(webhook)] if webhook else [])
    for automation in wanted:
        if not _is_there(automation):
            _remove(automation.name)
            automation.create()
    if not webhook:
        _remove("mars: refused gates")
        with suppress(ValueError):  # there is none
            CustomWebhookNotificationBlock.delete(BLOCK)
    return [automation.name for automation in wanted]


def _is_there(automation: Automation) -> bool:
    with get_client(sync_client=True) as prefect:
        found = prefect.read_automations_by_name(automation.name)
    # As Python's objects: of a set, JSON shows an order that differs between two equal ones.
    content = [each.model_dump(exclude={"id", "owner_resource"}) for each in (automation, *found)]
    return len(found) == 1 and content[0] == content[1]


def _remove(name: str) -> None:
    with get_client(sync_client=True) as prefect:
        for automation in prefect.read_automations_by_name(name):
            prefect.delete_automation(automation.id)
