import subprocess
import sys

import pytest
from pydantic import ValidationError

from mars_core.config import scientific
from mars_core.generation import GenerationConfig, Request
from mars_core.generation.instructions import ROLES


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
        "max_growth": 2.0,
    }
    assert config.sampling("rewrite_rejected").model_dump() == {
        "temperature": 0.9,
        "top_p": 1.0,
        "max_tokens": 99,
        "max_growth": 2.0,
    }
    assert config.sampling("rewrite_chosen").temperature == 0.8
    assert config.sampling("paraphrase_chosen").temperature == 0.3
    assert config.sampling("paraphrase_rejected").temperature == 0.8


@pytest.mark.parametrize(
    ("backend", "options", "wording"),
    [
        ("rules", set(), {"backend version"}),
        ("vllm", {"extra_body"}, {"prompts"}),
        ("transformers", {"prefix", "beams"}, {"prompts"}),
    ],
    ids=["rules", "vllm", "transformers"],
)
def test_what_shapes_a_text_is_scientific_and_the_rest_operational(
    backend, options, wording, tiny_chat_model
):
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
        *wording,
    }
    assert set(found["options"]) == options


def limit(text, role="paraphrase_chosen", **sampling):
    config = GenerationConfig.model_validate({role: sampling})
    return config.max_tokens(Request(role, text, text, text, 1))


def test_a_text_may_grow_by_a_multiple_of_its_source_and_some_tokens():
    assert limit("x" * 300) == 240  # 2 · 300 / 3 + 32 = 232, up to a multiple of 16
    assert limit("x" * 300, max_growth=1.0) == 144
    assert limit("") == 32


def test_no_text_may_be_longer_than_the_limit_of_its_role():
    assert limit("x" * 3000) == 512
    assert limit("x" * 300, max_tokens=99) == 99


def test_the_length_of_a_source_is_that_of_its_bytes():
    assert limit("雲" * 100) == limit("x" * 300)


def test_a_response_may_be_as_long_as_its_role_allows_however_short_the_prompt():
    assert limit("Why?", role="respond") == 512


def test_a_prompt_is_limited_by_its_last_turn_alone():
    turn = "Human: Larks?\n\nAssistant: " + "Birds. " * 99 + "\n\nHuman: Why?"
    assert limit(turn, role="paraphrase_prompt") == limit("Why?", role="paraphrase_prompt")


@pytest.fixture
def worded(tmp_path):
    """The section with prompts of one's own, by the folder that they are in and what they say."""

    def made(folder, said):
        (tmp_path / folder).mkdir()
        for role in ROLES:
            (tmp_path / folder / f"{role}.txt").write_text(f"---\n{said}: ${role.partition('_')[2]}")
        return GenerationConfig(backend="vllm", model="m", prompts=str(tmp_path / folder))

    return made


def test_the_wording_of_the_prompts_counts_in_the_keys_of_steps_and_not_where_it_stands(worded):
    here, there, other = worded("here", "Again"), worded("there", "Again"), worded("other", "Once more")
    assert scientific(here) == scientific(there)
    assert scientific(here) != scientific(other)


def test_the_wording_of_the_prompts_counts_in_the_keys_of_requests(worded):
    request = Request("paraphrase_chosen", "p", "Larks sing.", "r", 1)
    configs = worded("here", "Again"), worded("there", "Again"), worded("other", "Once more")
    here, there, other = (config.open().key(request) for config in configs)
    assert here == there
    assert here != other


def test_the_rules_need_neither_an_http_client_nor_torch():
    code = (
        "import sys; from mars_core.generation import GenerationConfig;"
        "GenerationConfig().open(); print({'httpx', 'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
