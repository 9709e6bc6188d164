import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.run.prefect_api import tolerate_outage


def test_an_api_that_does_not_answer_is_asked_once_and_the_work_goes_on(monkeypatch):
    asked = []

    def refused(*args):
        asked.append(args)
        raise httpx.ConnectError("Connection refused")

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", refused)
    retries = PREFECT_CLIENT_MAX_RETRIES.value()
    elsewhere = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    with elsewhere, tolerate_outage(), get_client(sync_client=True) as client:
        client.read_flows()
        pytest.fail("an answer came from nowhere")
    assert len(asked) == 1
    assert PREFECT_CLIENT_MAX_RETRIES.value() == retries > 0
