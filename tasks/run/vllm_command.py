"""The command that starts a vLLM server on this machine: on a GPU with vLLM's defaults, else with CPU
settings.

The defaults of vLLM's build for CPUs do not suit most machines: it reserves a share of all memory that is
seldom free, computes in a number type that many processors lack, and leaves a core idle.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil
from transformers import AutoTokenizer

from mars_core.generation import GenerationConfig, GenerationError, LaunchConfig
from mars_core.model.checkpoints import locate
from tasks.cluster.nodes import check_room, connected, resources

GIB = 2**30
LEAST_MEMORY = 4 * GIB
"""Memory that a server of a small model needs on a CPU."""
CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux keeps a container's limits (cgroup v2)."""
MOST_CACHE = 16 * GIB
"""Most memory for keys and values: enough for thousands of requests of a model that a CPU can run."""
INSTEAD = (
    "set generation.backend=rules, which needs no model, or generation.options.base_url to a server elsewhere"
)


class ForCpu(NamedTuple):
    """The settings of vLLM's build for CPUs."""

    environment: dict[str, str]
    arguments: list[str]


@cache
def has_gpu() -> bool:
    """Whether this machine has a working NVIDIA GPU, by the same test as `make vllm`."""
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool], capture_output=True, check=False).returncode == 0


def for_cpu() -> ForCpu:
    """Settings for this machine: number type, share of memory, cache of keys and values, all cores.

    By default vLLM leaves a core to its front end, which has little to do here, and takes most of the memory.
    Only newer processors multiply bfloat16 matrices; others convert each of them, and are faster in float32.

    Raises:
        GenerationError: the processor is too old, or there is too little memory.
    """
    flags = _processor_flags()
    available = min(psutil.virtual_memory().available, _left_to_the_container())
    if platform.machine() == "x86_64" and "avx2" not in flags:
        raise GenerationError(f"this processor has no AVX2, which vLLM needs on a CPU: {INSTEAD}")
    if available < LEAST_MEMORY:
        raise GenerationError(
            f"{available / GIB:.1f} GiB of memory are free, and a vLLM server on the CPU needs "
            f"{LEAST_MEMORY / GIB:.0f}: {INSTEAD}"
        )
    cache_gib = max(1, min(MOST_CACHE, available // 4) // GIB)
    share = available * 0.8 / psutil.virtual_memory().total
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[: _cores_of_the_container()]))
    number_type = "bfloat16" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "float32"
    return ForCpu(
        {"VLLM_CPU_KVCACHE_SPACE": str(cache_gib), "VLLM_CPU_OMP_THREADS_BIND": cores},
        ["--dtype", number_type, "--enforce-eager", "--gpu-memory-utilization", f"{share:.2f}"],
    )


def check(config: GenerationConfig, launch: LaunchConfig) -> None:
    """Check that the run can launch its servers, before anything is computed.

    Raises:
        GenerationError: there is no such command, this machine cannot run it, or a model that is here has no
            chat template.
        ModelError: a packaged model is not installed.
        ComputeError: there is no Ray cluster for replicas, or no node of it has room for one.
    """
    if launch.replicas:
        ray = connected("auto")
        check_room(ray, "a server (generation.launch)", *resources(ray, launch.cpus, launch.gpus))
        return
    server_command(launch)
    if not has_gpu():
        for_cpu()
    model_arguments(str(config.model))
    _check_template(str(config.model))


def _check_template(model: str) -> None:
    """Check that a model in a folder can be asked; of one of the hub its server says so."""
    if (Path(model) / "tokenizer_config.json").exists() and not AutoTokenizer.from_pretrained(
        model
    ).chat_template:
        raise GenerationError(
            f"the model {model} has no chat template, as base models do: name an instruction-tuned one"
        )


def server_command(launch: LaunchConfig) -> list[str]:
    """The words of `launch.command`; a relative path is looked for here, then beside this environment.

    Raises:
        GenerationError: there is no such command.
    """
    program, *arguments = shlex.split(launch.command)
    for place in (Path(), Path(sys.prefix).parent):
        found = shutil.which(place / program if "/" in program else program)
        if found:
            return [str(Path(found).absolute()), *arguments]
    raise GenerationError(
        f"{program} of generation.launch.command is not there; `make vllm` makes .venv-vllm"
    )


def model_arguments(model: str) -> list[str]:
    """The arguments that tell a server which model to load, and to serve it under the run's name for it."""
    name, _, revision = model.partition("@")
    if model.startswith("package://"):
        return ["--model", locate(model).path, "--served-model-name", model]
    if revision and not Path(model).exists():
        return ["--model", name, "--revision", revision, "--served-model-name", model]
    return ["--model", model]


def _left_to_the_container() -> int:
    """Bytes that a container may still use; infinite outside a container, or without a limit."""
    limit, used = _control_group("memory.max"), _control_group("memory.current")
    return int(limit[0]) - int(used[0]) if limit and used and limit[0] != "max" else sys.maxsize


def _cores_of_the_container() -> int | None:
    """The number of cores by a container's CPU quota, if it has one."""
    quota = _control_group("cpu.max")
    return max(1, int(quota[0]) // int(quota[1])) if quota and quota[0] != "max" else None


def _control_group(name: str) -> list[str]:
    """The words in a file of this process's control group; none if there is no such file."""
    file = CONTROL_GROUP / name
    return file.read_text().split() if file.is_file() else []


def _processor_flags() -> set[str]:
    """The features of the processor, as /proc/cpuinfo names them."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(values.split())
    return set()
