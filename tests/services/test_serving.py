"""`mars serve` on a real vLLM: SmolLM2 with a head that counts as trained, in float32."""

import json
import os
import shlex

import httpx
import pytest

from mars_core.model.reward_model import ModelConfig, RewardModel
from tasks.processes.addresses import free_port
from tasks.using.serve import KEY, ServeConfig, served

pytestmark = [pytest.mark.services, pytest.mark.timeout(1500)]

PAIRS, MAX_LENGTH = 16, 128
KEY_OF_THE_TEST = "a-key-of-this-test"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of the model; its head is drawn, and no reward is near zero."""
    folder = tmp_path_factory.mktemp("smollm2")
    config = ModelConfig(precision="float32", max_length=MAX_LENGTH)
    RewardModel.load("package://smollm2-135m-instruct", config, seed=1).save(folder)
    return folder


@pytest.fixture(scope="module")
def server(vllm, checkpoint, tmp_path_factory):
    model = {"backbone": str(checkpoint), "precision": "float32", "max_length": MAX_LENGTH}
    values = {"model": model, "port": free_port(), "sample": PAIRS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, KEY_OF_THE_TEST)
        log = tmp_path_factory.mktemp("serve") / "vllm.log"
        with served(ServeConfig.model_validate(values), log) as running:
            yield running


def test_the_server_gives_the_models_rewards(server):
    assert server.parity.holds
    assert server.parity.pairs == PAIRS
    assert server.parity.worst <= 1e-4 * server.parity.spread
    assert server.parity.signs == 1


def test_the_line_that_is_printed_gives_the_reward_of_its_text_and_needs_the_key(server, checkpoint):
    url, *options = shlex.split(server.curl)[1:]
    body = json.loads(options[options.index("-d") + 1])
    answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {KEY_OF_THE_TEST}"}, timeout=60)
    prompt, response = (message["content"] for message in body["messages"])
    config = ModelConfig(precision="float32", max_length=MAX_LENGTH)
    [reward] = RewardModel.load(str(checkpoint), config).score([prompt], [response])
    [found] = answer.json()["data"][0]["probs"]
    assert found == pytest.approx(reward, abs=1e-4 * server.parity.spread)
    assert httpx.post(url, json=body, timeout=60).status_code == 401
    assert KEY_OF_THE_TEST not in server.curl
    assert os.environ[KEY] == KEY_OF_THE_TEST
