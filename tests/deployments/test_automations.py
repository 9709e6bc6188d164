"""Automations on a real Prefect server."""

import random

import pytest

from deployments import automations


@pytest.fixture
def applied(prefect_server):
    """Sets the automations; the id of each by its name."""
    from prefect.client.orchestration import get_client

    def apply():
        names = automations.apply(webhook=None)
        with get_client(sync_client=True) as prefect:
            return {name: [found.id for found in prefect.read_automations_by_name(name)] for name in names}

    yield apply
    with get_client(sync_client=True) as prefect:  # or they would end and restart the runs of other tests
        for automation in prefect.read_automations():
            prefect.delete_automation(automation.id)


def test_automations_that_are_set_again_stay_as_they_are_unless_they_changed(applied, monkeypatch):
    before = applied()
    for seed in range(30):
        # A set of names is the same in whatever order it was made.
        order = random.Random(seed).sample(automations.ENDS, len(automations.ENDS))
        monkeypatch.setattr(automations, "ENDS", order)
        assert applied() == before
    monkeypatch.setattr(automations, "SILENT_SECONDS", automations.SILENT_SECONDS + 1)
    after = applied()
    assert after["mars: crashed runs"] == before["mars: crashed runs"]
    assert len(after["mars: dead runs"]) == 1
    assert after["mars: dead runs"] != before["mars: dead runs"]
