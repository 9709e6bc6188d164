"""What `mars serve` refuses before a server starts, and who may ask one; test_serving.py starts one."""

import asyncio

import pytest

from mars_core.errors import ModelError
from mars_core.objectives.bradley_terry import BradleyTerry
from tasks.processes.addresses import free_port
from tasks.using.key_middleware import KEY, AsksForKey
from tasks.using.serve import Parity, ServeConfig, ServeError, served


@pytest.fixture
def refusal(tiny_decoder, monkeypatch, tmp_path):
    """The message with which a model is not served; vLLM itself is any command, which is never started."""
    monkeypatch.setenv(KEY, "a key")

    def refused(error, **model):
        settings = {"backbone": str(tiny_decoder), **model}
        values = {"model": settings, "port": free_port(), "launch": {"command": "python"}}
        with (
            pytest.raises(error) as raised,
            served(ServeConfig.model_validate(values), tmp_path / "vllm.log"),
        ):
            pass
        return str(raised.value)

    return refused


def test_an_objective_that_vllm_cannot_serve_is_refused_by_name(refusal, monkeypatch):
    monkeypatch.setattr(BradleyTerry, "reward", lambda _, readout: readout.squeeze(-1).tanh())
    assert "the objective bradley_terry is more than a linear function" in refusal(ModelError)


def test_a_backbone_without_a_trained_head_is_refused(refusal, headless):
    assert "has no trained head" in refusal(ModelError, backbone=str(headless))


@pytest.mark.parametrize(
    ("precision", "worst", "rms", "signs", "holds"),
    [
        ("float32", 0.9e-4, 0.5e-4, 1.0, True),
        ("float32", 1.1e-4, 0.5e-4, 1.0, False),
        ("float32", 0.5e-4, 0.5e-4, 0.998, False),
        ("bfloat16", 0.2, 0.049, 0.9, True),
        ("bfloat16", 0.2, 0.051, 1.0, False),
    ],
)
def test_a_server_is_as_good_as_its_precision_allows(precision, worst, rms, signs, holds):
    spread = 2.0
    assert Parity(precision, spread, worst * spread, rms * spread, signs, 64).holds is holds


@pytest.mark.parametrize(
    ("path", "given", "status"),
    [
        ("/classify", None, 401),
        ("/classify", b"Bearer another", 401),
        ("/classify", b"Bearer a key", 200),
        ("/metrics", None, 401),
        ("/health", None, 200),
    ],
    ids=["none", "another", "the-key", "metrics", "health"],
)
def test_nothing_but_the_health_is_answered_without_the_key(monkeypatch, path, given, status):
    monkeypatch.setenv(KEY, "a key")
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    headers = [(b"authorization", given)] if given else []
    asyncio.run(AsksForKey(app)({"type": "http", "path": path, "headers": headers}, None, send))
    assert sent[0]["status"] == status


def test_a_served_model_needs_a_key(tiny_decoder, monkeypatch, tmp_path):
    monkeypatch.delenv(KEY, raising=False)
    config = ServeConfig.model_validate({"model": {"backbone": str(tiny_decoder)}})
    with pytest.raises(ServeError, match="VLLM_API_KEY is not set"), served(config, tmp_path / "vllm.log"):
        pass
