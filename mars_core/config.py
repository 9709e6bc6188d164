"""Configurations: sections that explain themselves, from YAML and overrides; an unknown key is an error.

The sections live beside what they configure. A key is *scientific* unless it is marked `Operational`:
scientific keys shape results and are part of the cache keys of the steps that read them; operational ones
(addresses, devices, concurrency) may change between two starts of one run.
"""

import difflib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from mars_core.errors import MarsError


class Configuration(BaseModel):
    """Base of the configuration sections, which live beside what they configure.

    The sentence under a field is its documentation: `mars config --explain` prints it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys that this section had before, and what they are called now, in full."""

    @classmethod
    def resolved(cls, values: Mapping[str, Any]) -> type[Self]:
        """The class that reads these values; a section that names a plug-in takes in the plug-in's keys."""
        return cls

    def identity(self) -> dict[str, str]:
        """What counts in the keys of steps beside the section's own keys."""
        return {}


class Names(ABC):
    """Marks a field that holds one of some names."""

    @abstractmethod
    def names(self) -> list[str]:
        """The names."""


class Operational:
    """Marks a field that changes how fast or where a run goes, never what it computes.

    Operational keys may differ between two starts of one run; all others are *scientific* and are
    part of the cache keys of the steps that read them. Use as `device: Annotated[str, Operational()]`.
    """


class Later:
    """Marks a scientific field that was added after the first release of its section.

    At its default it is in no key, so that what was computed before there was such a field is found again.
    """


class ByContent:
    """Marks a field that names a model, which counts in the keys of steps by what is in it if it is a
    folder."""


def scientific(config: BaseModel, content: Callable[[str], str] | None = None) -> dict[str, Any]:
    """The keys that shape results, as plain values; sections keep their place.

    Args:
        config: a section, or a whole configuration.
        content: what a value marked `ByContent` counts as; by default as it stands.
    """
    values: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        if any(isinstance(mark, Operational) for mark in field.metadata):
            continue
        if unset_later(config, name):
            continue
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            values[name] = scientific(value, content)
        elif (
            content and isinstance(value, str) and any(isinstance(mark, ByContent) for mark in field.metadata)
        ):
            values[name] = content(value)
        else:
            values[name] = value
    return values | (config.identity() if isinstance(config, Configuration) else {})


def unset_later(config: BaseModel, key: str) -> bool:
    """Whether a dotted key is marked `Later` and at its default, so that it is in no key of a step."""
    section, _, rest = key.partition(".")
    if rest:
        return unset_later(getattr(config, section), rest)
    field = type(config).model_fields[key]
    is_later = any(isinstance(mark, Later) for mark in field.metadata)
    return is_later and getattr(config, key) == field.default


class SecretFoundError(ValueError):
    """A value may hold a secret, so no message shows it."""


class Private:
    """Marks a field that may hold secrets: files of the run have its values; logs and MLflow do not."""


HIDDEN = "(not shown)"
"""What stands for a private value."""


def without_secrets(address: str) -> str:
    """An address of one server or file, if it holds no secret; else an error that does not show it."""
    rest = address.partition("://")[2] or address
    local = rest.startswith("/")  # a file's path, such as that of a database, may have an @ in it
    if "?" in rest or "#" in rest or ("@" in rest and not local):
        raise SecretFoundError(
            "holds a user, a password or a query, which would be written into logs and files; an address is "
            "scheme://host:port/path, and secrets belong into the environment"
        )
    if ",http" in address.replace(" ", ""):
        raise ValueError("several addresses are a list, as in [http://a/v1, http://b/v1]")
    return address


def redact(text: str) -> str:
    """A text without the users, passwords and queries of the addresses in it.

    A password that is not escaped may hold any sign, so that no parser reads its address right: all up to the
    last @ goes, and where a query comes before it, all that follows the scheme.
    """

    def bare(found: re.Match[str]) -> str:
        before, _, place = found[1].rpartition("@")
        if "?" in before:
            return "//…"
        place, query, _ = place.partition("?")
        return f"//{place}{'?…' if query else ''}"

    return re.sub(r"//(\S*)", bare, text)


def origin(file: str | Path, overrides: Sequence[str]) -> str:
    """Where a configuration comes from, for messages: its file, and the keys that are overridden."""
    return " ".join([str(file), *(f"{change.partition('=')[0]}=…" for change in overrides)])


def public(config: BaseModel) -> dict[str, Any]:
    """The configuration as plain values, without what private fields hold."""
    values = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            values[name] = public(value)
        elif _is_private(field) and value:
            values[name] = HIDDEN
    return values


def _is_private(field: FieldInfo) -> bool:
    return any(isinstance(mark, Private) for mark in field.metadata)


Address = Annotated[str, Operational(), AfterValidator(without_secrets)]
"""Where a server is; a secret belongs into an environment variable, not into the configuration."""
PairsSource = Annotated[
    str, AfterValidator(lambda source: without_secrets(source) if "://" in source else source)
]
"""A source of pairs: a file or folder, a hub data set, or an address, which holds no secret."""


Config = TypeVar("Config", bound=BaseModel)


class ConfigError(MarsError, ValueError):
    """The configuration is wrong; the message names the key and, for an unknown one, the nearest known."""


def read(file: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a YAML file with `dotted.key=value` overrides, not validated.

    Raises:
        ConfigError: no such file, or not a mapping.
    """
    path = Path(file)
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds no configuration, which is a mapping of keys to values")
    override(values, overrides)
    return values


def override(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set nested values by `dotted.key=value`, the value being YAML.

    Raises:
        ConfigError: one does not read so, or a part of its key is no section.
    """
    for change in overrides:
        key, equals, text = change.partition("=")
        if not key or not equals:
            raise ConfigError(f"{redact(change)!r}: an override reads key=value, such as selection.tau=0.1")
        try:
            put(values, key, yaml.safe_load(text))
        except yaml.YAMLError as error:
            why = getattr(error, "problem", None) or "it cannot be read"  # the whole error shows the value
            raise ConfigError(f"{key}: the value is not YAML: {why}") from None


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested values.

    Raises:
        ConfigError: a part of the key is no section.
    """
    section = values
    *path, name = key.split(".")
    for part in path:
        below = section.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{key}: {part} is no section")
        section = below
    section[name] = value


def validated(model: type[Config], values: Mapping[str, Any], origin: str) -> Config:
    """Build a configuration; every problem is named by its dotted key, and `origin` says where it stands.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines, problems = [], error.errors()
        secrets = [problem["input"] for problem in problems if _is_of_a_secret(problem)]
        for problem in problems:
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                lines.append(f"{key}: {_unknown(key, model, values)}")
            elif problem["type"] == "missing":
                lines.append(f"{key}: is required")
            else:
                what = problem["msg"].removeprefix("Value error, ")
                # A section names its values itself.
                hidden = isinstance(problem["input"], Mapping) or problem["input"] in secrets
                hidden = hidden or _is_of_private_field(problem, model, values)
                found = "" if hidden else f"; found {redact(repr(problem['input']))}"
                lines.append(f"{key}: {what}{found}".removeprefix(": "))
        raise ConfigError(f"{origin}: " + "\n  ".join(lines)) from None  # its cause would show the values


def _is_of_a_secret(problem: Any) -> bool:
    return isinstance(problem.get("ctx", {}).get("error"), SecretFoundError)


def _is_of_private_field(problem: Any, model: type[BaseModel], values: Any) -> bool:
    section: type[BaseModel] | None = model
    for part in problem["loc"]:
        if section is None or not isinstance(values, Mapping):
            break
        if issubclass(section, Configuration):
            with suppress(ValueError):  # an unknown plug-in is a problem of its own
                section = section.resolved(values)
        field = section.model_fields.get(str(part))
        if field is None:
            break
        if _is_private(field):
            return True
        section, values = section_of(field), values.get(str(part))
    return False


def _unknown(key: str, model: type[BaseModel], values: Mapping[str, Any]) -> str:
    """What to do about a key that there is not."""
    section: type[BaseModel] | None = model
    *path, name = key.split(".")
    for part in path:
        field = section.model_fields.get(part) if section else None
        section = section_of(field) if field else None
    now = section.renamed.get(name) if section and issubclass(section, Configuration) else None
    return (
        f"is {now} now" if now else f"no such key; the nearest is {nearest(key, known_keys(model, values))}"
    )


def known_keys(
    model: type[BaseModel], values: Mapping[str, Any] | None = None, prefix: str = ""
) -> list[str]:
    """Dotted names of all keys of a configuration, sections included, and those of the plug-ins it names."""
    given = values if isinstance(values, Mapping) else {}
    if issubclass(model, Configuration):
        with suppress(ValueError):  # an unknown plug-in is told by itself
            model = model.resolved(given)
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if section := section_of(field):
            names += known_keys(section, given.get(name), f"{prefix}{name}.")
    return names


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a key that is a section, one that may be left out (`None`) included."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def nearest(key: str, known: Sequence[str]) -> str:
    """The known key most like `key`, as a whole and in its last part: the section may be the mistake."""

    def likeness(candidate: str) -> float:
        last_parts = key.rpartition(".")[2], candidate.rpartition(".")[2]
        return sum(difflib.SequenceMatcher(None, *both).ratio() for both in ((key, candidate), last_parts))

    return max(known, key=likeness)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    dotted: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            dotted |= flat(value, f"{prefix}{key}.")
        else:
            dotted[prefix + key] = value
    return dotted


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration, every key spelled out."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def explained(config: BaseModel, prefix: str = "") -> str:
    """Every key with its value and its meaning, one after the other; what is left out is told too."""
    lines = []
    for name, field in type(config).model_fields.items():
        value, section = getattr(config, name), section_of(field)
        if not isinstance(value, BaseModel):
            meaning = " ".join((field.description or "").split())
            lines.append(
                f"{prefix}{name} = {json.dumps(value, default=str)}\n    {meaning}{_notes(field, value)}\n"
            )
        if section:
            lines.append(
                explained(
                    value if isinstance(value, BaseModel) else section.model_construct(), f"{prefix}{name}."
                )
            )
    return "".join(lines)


def _notes(field: FieldInfo, value: Any) -> str:
    """What a key takes, its default where the value is another, and whether it is operational."""
    choices = [
        choice
        for kind in (field.annotation, *get_args(field.annotation))
        if get_origin(kind) is Literal
        for choice in get_args(kind)
    ] + [name for mark in field.metadata if isinstance(mark, Names) for name in mark.names()]
    notes = [f"one of {', '.join(map(str, choices))}"] if choices else []
    default = field.get_default(call_default_factory=True)
    if not field.is_required() and default != value:
        notes.append(f"default {json.dumps(default, default=str)}")
    if any(isinstance(mark, Operational) for mark in field.metadata):
        notes.append("operational")
    return f" [{'; '.join(notes)}]" if notes else ""
