"""Children that need no secrets get none of the environment's."""

import pytest

from tasks.processes.child_environment import without_secrets


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_PASSWORD", "a"),
        ("PREFECT_API_AUTH_STRING", "mars:a"),
        ("AWS_SECRET_ACCESS_KEY", "a"),
        ("OPENAI_API_KEY", "a"),
        ("HF_TOKEN", "a"),
        ("GATE_WEBHOOK", "https://hooks.example/a"),
        ("STORE", "postgresql://mars:a@127.0.0.1/mars"),
    ],
)
def test_what_says_that_it_holds_a_secret_is_left_out(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert name not in without_secrets()
    assert without_secrets(but=[name])[name] == value


def test_everything_else_is_handed_on(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert {"PATH", "TOKENIZERS_PARALLELISM", "MLFLOW_TRACKING_URI"} <= without_secrets().keys()
