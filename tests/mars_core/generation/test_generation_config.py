import subprocess
import sys

import pytest
from pydantic import ValidationError

from mars_core.config import scientific
from mars_core.generation import GenerationConfig


def test_the_backend_is_the_one_that_is_named():
    assert GenerationConfig().open().name == "rules"
    assert GenerationConfig(backend="vllm", model="m").open().name == "vllm:m"


def test_a_backend_without_its_model_is_an_error_that_says_what_to_set():
    for backend in ("vllm", "transformers"):
        with pytest.raises(ValidationError, match=r"generation\.model"):
            GenerationConfig(backend=backend)


def test_a_server_is_launched_for_vllm_alone():
    with pytest.raises(ValidationError, match=r"generation\.launch .* the backend rules asks none"):
        GenerationConfig.model_validate({"launch": {}})


def test_one_address_or_several_may_be_named():
    def asked_at(base_url):
        return GenerationConfig(backend="vllm", model="m", options={"base_url": base_url}).options.addresses

    several = ["http://a:8000/v1", "http://b:8000/v1"]
    assert asked_at(several[0]) == (several[0],)
    assert asked_at(several) == tuple(several)
    with pytest.raises(ValidationError):
        asked_at(())
    with pytest.raises(ValidationError, match="password"):
        asked_at(("http://user:secret@a:8000/v1",))
    with pytest.raises(ValidationError, match="several addresses are a list"):
        asked_at("http://a:8000/v1, http://b:8000/v1")


def test_each_role_has_the_sampling_of_the_paper_unless_told_otherwise():
    config = GenerationConfig.model_validate(
        {"rewrite_rejected": {"max_tokens": 99}, "paraphrase_chosen": {"temperature": 0.3}}
    )
    assert config.sampling("paraphrase_prompt").model_dump() == {
        "temperature": 0.8,
        "top_p": 0.95,
        "max_tokens": 512,
    }
    assert config.sampling("rewrite_rejected").model_dump() == {
        "temperature": 0.9,
        "top_p": 1.0,
        "max_tokens": 99,
    }
    assert config.sampling("rewrite_chosen").temperature == 0.8
    assert config.sampling("paraphrase_chosen").temperature == 0.3
    assert config.sampling("paraphrase_rejected").temperature == 0.8


@pytest.mark.parametrize(
    ("backend", "options"),
    [("rules", set()), ("vllm", {"extra_body"}), ("transformers", {"prefix", "beams"})],
    ids=["rules", "vllm", "transformers"],
)
def test_what_shapes_a_text_is_scientific_and_the_rest_operational(backend, options, tiny_chat_model):
    found = scientific(GenerationConfig(backend=backend, model=str(tiny_chat_model)))
    assert set(found) == {
        "backend",
        "model",
        "paraphrase_prompt",
        "paraphrase_chosen",
        "paraphrase_rejected",
        "rewrite_rejected",
        "rewrite_chosen",
        "respond",
        "options",
    }
    assert set(found["options"]) == options


def test_the_rules_need_neither_an_http_client_nor_torch():
    code = (
        "import sys; from mars_core.generation import GenerationConfig;"
        "GenerationConfig().open(); print({'httpx', 'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
