"""The services of docker-compose.yml, translated for this machine without Docker.

Commands, environments, health checks and order are those of the file. Only what depends on a container
changes: a service's name as host becomes the loopback, a named volume a folder of the state, a mounted file
that file, and the worker's folder the project. All services are ended by SIGTERM, and by SIGKILL five seconds
later, whatever signal and grace period the file gives.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deployments.environment import PROJECT, fill

FILE = PROJECT / "docker-compose.yml"
LOOPBACK = "127.0.0.1"
SECONDS = re.compile(r"(\d+)s")


@dataclass(frozen=True)
class Service:
    """One service of the file, as it runs on this machine."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    after: tuple[str, ...]
    """Services that must be healthy before it starts."""
    health: tuple[str, ...]
    """Command that succeeds when the service is healthy."""
    patience_seconds: float
    """How long that may take."""
    volumes: tuple[Path, ...]
    """Folders of its state."""
    mounted: Mapping[str, Path]
    """Files of the project that it reads, by name."""
    port: int | None
    """Its port on the loopback."""


def services(state: Path, variables: Mapping[str, str], file: Path = FILE) -> list[Service]:
    """The services that belong to no profile, each after those that it needs.

    Raises:
        EnvironmentFileError: a secret has no value.
    """
    described = {
        name: values
        for name, values in yaml.safe_load(file.read_text())["services"].items()
        if "profiles" not in values
    }
    host_with_port = re.compile(rf"(?<![\w.-])({'|'.join(described)})(?=:)")

    def local(text: Any, places: Mapping[str, Path]) -> str:
        put = host_with_port.sub(LOOPBACK, fill(str(text), variables)).replace("0.0.0.0", LOOPBACK)
        for inside, outside in sorted(places.items(), reverse=True):  # the longer path first
            put = put.replace(inside, str(outside))
        return put

    found: dict[str, Service] = {}

    def add(name: str) -> None:
        values = described[name]
        after = tuple(values.get("depends_on", ()))
        for other in after:
            if other not in found:
                add(other)
        mounts = [mount.split(":") for mount in values.get("volumes", ())]
        folder = values.get("working_dir")
        named = {
            inside: state / source
            for source, inside, *_ in mounts
            if not source.startswith(".") and not (folder and inside.startswith(folder))
        }
        mounted = {inside: (PROJECT / source) for source, inside, *_ in mounts if source.startswith(".")}
        places = named | mounted | ({folder: PROJECT} if folder else {})
        program, *arguments = values["command"]
        check = values["healthcheck"]
        ports = [fill(port, variables).split(":")[1] for port in values.get("ports", ())]
        found[name] = Service(
            name=name,
            command=(program, *(local(argument, places) for argument in arguments)),
            environment={
                key: LOOPBACK if key.endswith("HOST") and value in described else local(value, places)
                for key, value in values.get("environment", {}).items()
            },
            after=after,
            health=tuple(local(part, places) for part in check["test"][1:]),
            patience_seconds=_seconds(check["interval"]) * check["retries"],
            volumes=tuple(named.values()),
            mounted={path.name: path for path in mounted.values()},
            port=int(ports[0]) if ports else None,
        )

    for name in described:
        add(name)
    return list(found.values())


def _seconds(text: str) -> float:
    found = SECONDS.fullmatch(text)
    assert found, f"{text!r}: docker-compose.yml gives intervals in seconds, such as 5s"
    return float(found[1])
