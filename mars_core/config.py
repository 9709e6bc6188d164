"""What every configuration section has in common: unknown keys are errors, each field explains itself."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict


class Configuration(BaseModel):
    """Base of the configuration sections, which live beside what they configure.

    The sentence under a field is its documentation: `mars config --explain` prints it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Operational:
    """Marks a field that changes how fast or where a run goes, never what it computes.

    Operational keys may differ between two starts of one run; all others are *scientific* and are
    part of the cache keys of the steps that read them. Use as `device: Annotated[str, Operational()]`.
    """


def scientific(config: BaseModel) -> dict[str, Any]:
    """The keys that shape results, as plain values; sections keep their place."""
    values = {}
    for name, field in type(config).model_fields.items():
        if any(isinstance(mark, Operational) for mark in field.metadata):
            continue
        value = getattr(config, name)
        values[name] = scientific(value) if isinstance(value, BaseModel) else value
    return values


def _one_without_password(address: str) -> str:
    if ",http" in address.replace(" ", ""):
        raise ValueError("several addresses are a list, as in [http://a/v1, http://b/v1]")
    if urlsplit(address).password:
        raise ValueError("holds a password, which would be written into logs and files; use the environment")
    return address


Address = Annotated[str, Operational(), AfterValidator(_one_without_password)]
"""Where a server is; a secret belongs into an environment variable, not into the configuration."""
