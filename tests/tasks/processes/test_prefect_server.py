"""Prefect's server of a command answers those who have its password, and no page of a stranger's."""

import shutil

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.processes.prefect_server import prefect_api


@pytest.fixture(scope="module")
def api(tmp_path_factory, prefect_server):
    """A server of its own, whatever server other tests have."""
    with pytest.MonkeyPatch.context() as patch, temporary_settings(restore_defaults={PREFECT_API_URL}):
        patch.chdir(tmp_path_factory.mktemp("prefect"))
        shutil.copy(prefect_server, "prefect.db")
        with prefect_api() as started:
            yield started


def test_nobody_is_answered_without_the_password_of_this_start(api):
    asked = f"{api.url}/flow_runs/filter"
    assert httpx.post(asked, json={}).status_code == 401
    assert httpx.post(asked, json={}, auth=("mars", "guess")).status_code == 401
    user, _, password = api.credentials.partition(":")
    assert httpx.post(asked, json={}, auth=(user, password)).status_code == 200
    assert len(password) > 30


def test_flows_have_the_password(api):
    with get_client(sync_client=True) as client:
        assert client.read_flows() == []


@pytest.mark.parametrize(("origin", "allowed"), [("page", True), ("https://elsewhere.example", False)])
def test_no_other_web_page_may_ask(api, origin, allowed):
    origin = api.page if origin == "page" else origin
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{api.url}/flow_runs/filter", headers=preflight)
    assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
