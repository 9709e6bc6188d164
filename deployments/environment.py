"""The file .env: secrets and ports of the services, as .env.example lists them.

python -m deployments.environment        makes .env with random secrets, if there is none
"""

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from mars_core.errors import MarsError
from tasks.processes.addresses import free_port

PROJECT = Path(__file__).resolve().parents[1]
FILE, EXAMPLE = PROJECT / ".env", PROJECT / ".env.example"
SECRETS = ("POSTGRES_PASSWORD", "PREFECT_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET_KEY")
SECRET_BYTES = 32
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<kind>:-|:\?)(?P<rest>[^}]*))?\}")
"""`$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?what to do}`: all that docker-compose.yml uses."""


class EnvironmentFileError(MarsError, ValueError):
    """A variable has no value; the message names it and says what to do."""


def make(file: Path = FILE, example: Path = EXAMPLE) -> bool:
    """Write the file from the example, with random secrets and free ports; returns False if it exists.

    Only its owner may read it.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as content:
        content.write("# Secrets and ports of the services; .env.example explains them.\n")
        for line in example.read_text().splitlines():
            name, equals, value = line.partition("=")
            if name in SECRETS:
                value = secrets.token_urlsafe(SECRET_BYTES)
            elif name.endswith("_PORT"):
                value = str(free_port(int(value)))
            if equals and not line.startswith("#"):
                content.write(f"{name}={value}\n")
    return True


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
    print(".env with random secrets was made." if make() else ".env exists already and was not changed.")
