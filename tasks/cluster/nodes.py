"""A Ray cluster: how this process connects to it, and whether its nodes can work for a run.

A node needs this version of the project, and the folder of the run under the same path.
"""

import functools
import importlib.metadata
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import mars_core
from mars_core.config import redact
from mars_core.errors import MarsError
from mars_core.files import digest, sha256_of

INSTALL = 'a Ray cluster is used by the package ray: pip install "mars[ray]", on every node of the cluster'
PROJECT = Path(mars_core.__file__).parents[1]
CONNECT_SECONDS = 25.0
START_SECONDS = 600.0
"""How long to wait for the first actor or task: nodes may have to be started for it."""


class ComputeError(MarsError, RuntimeError):
    """The cluster cannot be used, or a row cannot be scored; the message says which and why."""


def connected(address: str) -> Any:
    """The package ray, once this process is connected to the cluster.

    Raises:
        ComputeError: ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ComputeError(INSTALL) from None
    failed = list[BaseException]()

    def connect() -> None:
        try:
            ray.init(address, namespace="mars", log_to_driver=False, configure_logging=False)
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
            failed.append(error)

    # Not in this thread: ray.init would replace its handler of SIGTERM, and may wait for minutes.
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns that it does not
    connecting = threading.Thread(target=connect, daemon=True)
    if not ray.is_initialized():
        connecting.start()
        connecting.join(CONNECT_SECONDS)
    if failed or connecting.is_alive():
        why = first_line(failed[0]) if failed else f"no answer within {CONNECT_SECONDS:.0f} s"
        raise ComputeError(
            f"no Ray cluster can be used at {redact(address)}: {why}. Start its head, or name another one "
            "by compute.address or RAY_ADDRESS; docs/scaling.md has more"
        )
    return ray


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


@functools.cache
def sources() -> str:
    """The digest of the code that computes a part."""
    return _digest_of("mars_core/**/*.py", "tasks/cluster/*.py", "tasks/compute/*.py")


@functools.cache
def _all_sources() -> str:
    """The digest of the code that runs anywhere."""
    return _digest_of("mars_core/**/*.py", "tasks/**/*.py", "flows/*.py")


def _digest_of(*patterns: str) -> str:
    files = sorted(file for pattern in patterns for file in PROJECT.glob(pattern))
    return digest({str(file.relative_to(PROJECT)): sha256_of(file) for file in files})


def about() -> dict[str, str]:
    """The versions of what computes; builds of one version, as for CUDA, are the same."""
    names = ("mars", "torch", "transformers", "sentence-transformers", "tokenizers")
    found = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name).partition("+")[0]
    return found | {"sources of mars": _all_sources()[:12]}


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What a node has in another version than the driver; empty if nothing."""
    wrong = [
        f"{name} {there.get(name, 'is missing')} (here {here.get(name, 'none')})"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    return f"has other versions: {', '.join(wrong)}; install the same on every node" if wrong else ""


def computing_nodes(ray: Any) -> list[dict[str, Any]]:
    """The nodes of the cluster that compute.

    Raises:
        ComputeError: there is none.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise ComputeError("the Ray cluster has no node with CPUs: start one with `ray start --address`")
    return nodes


def resources(ray: Any, cpus: int | None, gpus: float | None) -> tuple[int, float]:
    """CPUs and GPUs of an actor, by default a GPU if the cluster has some and 1 CPU beside it, else all CPUs
    of the smallest node."""
    nodes = [node["Resources"] for node in computing_nodes(ray)]
    if gpus is None:
        gpus = float(any(node.get("GPU") for node in nodes))
    return cpus or (1 if gpus else int(min(node["CPU"] for node in nodes))), gpus


def room(ray: Any, cpus: int, gpus: float) -> int:
    """How many actors of so many CPUs and GPUs there is room for on an empty cluster; at least 1."""

    def of_node(own: dict[str, float]) -> float:
        by_cpus = own["CPU"] // cpus
        return min(by_cpus, own.get("GPU", 0) // gpus) if gpus else by_cpus

    return max(1, int(sum(of_node(node["Resources"]) for node in computing_nodes(ray))))


def check_room(ray: Any, what: str, cpus: float, gpus: float) -> None:
    """Check that there is a node with what a task or an actor takes, be it free or not.

    Raises:
        ComputeError: there is none; names `what`, such as "a cell".
    """
    nodes = [node["Resources"] for node in computing_nodes(ray)]
    if not any(node["CPU"] >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        sizes = sorted({(node["CPU"], node.get("GPU", 0)) for node in nodes})
        raise ComputeError(
            f"{what} takes {cpus:g} CPUs and {gpus:g} GPUs of one node, and the nodes of the cluster have "
            + " or ".join(f"{own_cpus:g} and {own_gpus:g}" for own_cpus, own_gpus in sizes)
        )


def check_nodes(ray: Any, folder: Path) -> None:
    """Check each node's version, and that it sees a folder as this process does.

    Raises:
        ComputeError: a node differs; names it.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nonce = uuid.uuid4().hex
    look = ray.remote(_look)
    folder.mkdir(parents=True, exist_ok=True)
    with _nonce_in(folder, nonce):
        looks = {}
        for node in computing_nodes(ray):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
            looks[node["NodeID"]] = node, look.options(**options).remote(str(folder), nonce, node["NodeID"])
        for name, (node, task) in looks.items():
            said = _said(ray, task) or _of_node(folder, nonce, name)
            if said:
                raise ComputeError(f"node {node['NodeName']} ({node['NodeManagerAddress']}): {said}")


def _said(ray: Any, task: Any) -> str:
    """What is wrong with a node."""
    try:
        there, wrong = ray.get(task, timeout=START_SECONDS)
        return differences(there, about()) or str(wrong)
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        found = [line for line in lines if "ModuleNotFoundError" in line or "ImportError" in line]
        return f"this project cannot be used there: {(found or lines or [type(error).__name__])[-1].strip()}"


# Whether all nodes see the folder of the run


@contextmanager
def _nonce_in(folder: Path, nonce: str) -> Iterator[None]:
    """Put what `look` looks for into a folder, and hold a lock there."""
    file = folder / f".ray-{nonce}"
    file.write_text(nonce)
    try:
        with FileLock(folder / f".ray-{nonce}.lock"):
            yield
    finally:
        for left in folder.glob(f".ray-{nonce}*"):
            left.unlink(missing_ok=True)


def _look(folder: str, nonce: str, node: str) -> tuple[dict[str, str], str]:
    """On a node: its versions, and what is wrong with the folder, which it also writes to."""
    advice = "the folder of the run must be on a file system that all nodes see under the same path"
    place = Path(folder)
    file, own = place / f".ray-{nonce}", place / f".ray-{nonce}.{node}"
    try:
        if file.read_text() != nonce:
            return about(), f"sees another {folder}; {advice}"
        with suppress(Timeout):
            FileLock(f"{file}.lock").acquire(timeout=0)
            return about(), f"{folder}: its file system has no locks between nodes; {advice}, with locks"
        own.with_suffix(".partial").write_text(nonce)
        own.with_suffix(".partial").replace(own)
    except OSError as error:
        return about(), f"cannot use {folder} ({type(error).__name__}: {error}); {advice}"
    return about(), ""


def _of_node(folder: Path, nonce: str, node: str) -> str:
    """What is wrong with what a node has written, as this process sees it."""
    for _ in range(20):
        with suppress(OSError):
            if (folder / f".ray-{nonce}.{node}").read_text() == nonce:
                return ""
        time.sleep(0.5)  # a network's file system shows a new file a little later
    return f"wrote into {folder}, and this process does not see it: it is another folder there"
