"""The file .env: secrets and ports of the services, as .env.example lists them.

python -m deployments.environment        makes .env with random secrets, or adds to it what it lacks
"""

import os
import re
import secrets
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from mars_core.errors import MarsError
from tasks.processes.addresses import free_port

PROJECT = Path(__file__).resolve().parents[1]
FILE, EXAMPLE = PROJECT / ".env", PROJECT / ".env.example"
HEADER = "# Secrets and ports of the services; .env.example explains them.\n"
SECRETS = (
    "POSTGRES_PASSWORD",
    "PREFECT_DATABASE_PASSWORD",
    "MLFLOW_DATABASE_PASSWORD",
    "PREFECT_PASSWORD",
    "MLFLOW_PASSWORD",
    "MLFLOW_WORKER_PASSWORD",
    "MLFLOW_SECRET_KEY",
)
SECRET_BYTES = 32
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<kind>:-|:\?)(?P<rest>[^}]*))?\}")
"""`$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?what to do}`: all that docker-compose.yml uses."""


class EnvironmentFileError(MarsError, ValueError):
    """A variable has no value; the message names it and says what to do."""


def make(file: Path = FILE, example: Path = EXAMPLE) -> list[str]:
    """Write what the file lacks of the example, with random secrets and free ports; returns what was added.

    Only its owner may read it.
    """
    content = file.read_text() if file.exists() else HEADER
    known, added = dotenv_values(stream=StringIO(content), interpolate=False), []
    for line in example.read_text().splitlines():
        name, equals, value = line.partition("=")
        if not equals or line.startswith("#") or name in known:
            continue
        if name in SECRETS:
            value = secrets.token_urlsafe(SECRET_BYTES)
        elif name.endswith("_PORT"):
            value = str(free_port(int(value)))
        content += f"{name}={value}\n"
        added.append(name)
    if added:
        beside = file.with_name(f"{file.name}.partial")
        beside.touch(0o600)
        beside.write_text(content)
        beside.replace(file)
    return added


def read(file: Path = FILE) -> dict[str, str]:
    """The variables of the file; the environment of this process overrides them, as in docker-compose."""
    values = {name: value or "" for name, value in dotenv_values(file, interpolate=False).items()}
    return values | {name: os.environ[name] for name in values if name in os.environ}


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Replace the variables in a text by their values, by docker-compose's rules.

    Raises:
        EnvironmentFileError: a required variable has no value.
    """

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found["name"], found["kind"], found["rest"]
        if name is None:
            return "$"
        if variables.get(name) or kind is None:
            return variables.get(name, "")
        if kind == ":?":
            raise EnvironmentFileError(f"{name} has no value in .env: {rest}")
        return str(rest)

    return VARIABLE.sub(value, text)


if __name__ == "__main__":
    print(f"Added to .env: {', '.join(make()) or 'nothing, it is complete'}.")
