"""Extension points: what a configuration swaps by a name.

    STRATEGIES = ExtensionPoint("selection strategy", Strategy)

    class SelectionConfig(PluginSection):
        strategy: Annotated[str, STRATEGIES] = "softmax"
        budget: int = 2000

A name is the name of a file beside the base class's file, or `module:attribute` for a user's own class. Each
plug-in is a class whose configuration is its inner class `Config`; its keys stand beside the name in YAML.
A key that the section already has is refused; an unknown key is an error, as everywhere.

A user's plug-in executes code, so only a configuration can name one, never a checkpoint. Its identity is the
version that it declares, or else the digest of its source; it is part of the key of every step that reads the
section. A built-in plug-in has an identity only if it declares a version. The module must be importable
wherever steps, fits and workers run.
"""

import functools
import importlib
import inspect
import pkgutil
from abc import ABC
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import Field, ValidationError, create_model, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mars_core.config import Configuration, Names, nearest
from mars_core.errors import MarsError
from mars_core.files import sha256_of


class ExtensionError(MarsError, ValueError):
    """There is no such plug-in, or it cannot be used; the message lists the known ones."""


class Plugin(ABC):  # noqa: B024 - each kind has abstract methods of its own
    """What all plug-ins have in common: a configuration of their own and, optionally, a version."""

    class Config(Configuration):
        """The keys of the plug-in; none by default."""

    version: ClassVar[str | None] = None
    """Raised when its results change: it is part of the keys of steps. A user's plug-in without a version has
    the digest of its source there."""

    def __init__(self, config: Any) -> None:
        """Keep the configuration, which has the keys of `Config`."""
        self.config = config


P = TypeVar("P", bound=Plugin)


class ExtensionPoint(Names, Generic[P]):
    """A kind of plug-in; the built-in ones are files beside the file of their base class."""

    def __init__(self, kind: str, base: type[P]) -> None:
        """`kind` is what messages call it."""
        self.kind, self.base = kind, base
        self.package, _, self._file = base.__module__.rpartition(".")

    def names(self) -> list[str]:
        """The names of the built-in plug-ins."""
        package = importlib.import_module(self.package)
        return sorted({module.name for module in pkgutil.iter_modules(package.__path__)} - {self._file})

    def find(self, name: str) -> type[P]:
        """The class of a plug-in.

        Args:
            name: the name of a file, or `module:attribute`.

        Raises:
            ExtensionError: there is none, it cannot be imported, or it is of another kind.
        """
        if self.is_own(name):
            return self._import_own(name)
        if name not in self.names():
            raise ExtensionError(
                f"there is no {self.kind} {name!r}; there are {', '.join(self.names())}, or module:attribute "
                f"of your own. The nearest is {nearest(name, self.names())}"
            )
        module = importlib.import_module(f"{self.package}.{name}")
        [plugin] = (
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, self.base)
            and value.__module__ == module.__name__
        )
        return plugin

    @staticmethod
    def is_own(name: str) -> bool:
        """Whether a name is a user's `module:attribute`."""
        module, _, attribute = name.partition(":")
        return bool(module and attribute)

    def identity(self, name: str) -> str | None:
        """What stands for a plug-in in the keys of steps: its version, or the digest of a user's own
        source."""
        plugin = self.find(name)
        declared: str | None = vars(plugin).get("version")  # a base class's says nothing of its subclass
        if declared or not self.is_own(name):
            return declared
        source = inspect.getsourcefile(plugin)
        return sha256_of(Path(source)) if source else name

    def _import_own(self, name: str) -> type[P]:
        place, _, attribute = name.partition(":")
        try:
            module = importlib.import_module(place)
        except Exception as error:  # a user's module may raise anything
            raise ExtensionError(
                f"{self.kind} {name!r}: {place} cannot be imported ({type(error).__name__}: {error}); it "
                "must be on the Python path wherever steps run"
            ) from error
        plugin = getattr(module, attribute, None)
        if plugin is None:
            raise ExtensionError(f"{self.kind} {name!r}: the module {place} has no {attribute}")
        if not (isinstance(plugin, type) and issubclass(plugin, self.base)):
            raise ExtensionError(f"{self.kind} {name!r}: is no class that derives from {self.base.__name__}")
        if inspect.isabstract(plugin):
            lacks = ", ".join(sorted(plugin.__abstractmethods__))
            raise ExtensionError(f"{self.kind} {name!r}: lacks {lacks}")
        return plugin


class PluginSection(Configuration):
    """A section with one field that names a plug-in, whose keys stand beside it.

    Reading a file gives an object of a class that has the keys of both; `resolved` makes that class.
    """

    plugin: ClassVar[type[Plugin] | None] = None
    """The plug-in whose keys this class has."""
    options_field: ClassVar[str | None] = None
    """The field that holds the plug-in's keys, where they do not stand beside the others."""

    def __new__(cls, *args: Any, **values: Any) -> Self:
        """Make an object that has the plug-in's keys as well."""
        return super().__new__(cls.resolved(values) if cls.plugin is None else cls)

    @model_validator(mode="wrap")
    @classmethod
    def _take_in_the_plugin(cls, values: Any, handler: Callable[[Any], Self]) -> Self:
        if cls.plugin is not None or not isinstance(values, Mapping):
            return handler(values)
        try:
            resolved = cls.resolved(values)
        except ExtensionError as error:
            unknown = PydanticCustomError("unknown_plugin", "{said}", {"said": str(error)})
            field, _ = cls.choice()
            detail = InitErrorDetails(type=unknown, loc=(field,), input=values.get(field))
            raise ValidationError.from_exception_data(cls.__name__, [detail]) from None
        return resolved.model_validate(values)

    @classmethod
    def resolved(cls, values: Mapping[str, Any]) -> type[Self]:
        """The class that has the keys of the plug-in that `values` name.

        Raises:
            ExtensionError: there is no such plug-in.
        """
        if cls.plugin is not None:
            return cls
        field, point = cls.choice()
        name = values.get(field, cls.model_fields[field].default)
        section: Any = cls
        resolved: type[Self] = _with_keys_of(section, point.find(str(name)))  # type: ignore[arg-type]
        return resolved

    def identity(self) -> dict[str, str]:
        """What stands for the plug-in in the keys of steps, besides its configuration."""
        field, point = self.choice()
        found = point.identity(getattr(self, field))
        return {} if found is None else {f"{field} version": found}

    def open(self) -> Any:
        """The plug-in with these keys."""
        assert self.plugin is not None
        return self.plugin(self)

    @classmethod
    def own_keys(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The part of `values` that belongs to the section itself, whichever plug-in it names."""
        return {
            key: value
            for key, value in values.items()
            if key in cls.model_fields and key != cls.options_field
        }

    @classmethod
    def choice(cls) -> tuple[str, ExtensionPoint[Any]]:
        """The field that names the plug-in, and its extension point."""
        [choice] = (
            (name, mark)
            for name, field in cls.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, ExtensionPoint)
        )
        return choice


@functools.cache
def _with_keys_of(section: Any, plugin: Any) -> type[Any]:
    """A section's class with the keys of a plug-in beside its own, or in the field reserved for them."""
    make: Any = functools.partial(
        create_model,
        section.__name__,
        __module__=section.__module__,
        __doc__=section.__doc__,
        __cls_kwargs__={"use_attribute_docstrings": False},  # it has no source, which takes long to look for
    )
    resolved: type[Any]
    if section.options_field:
        keys = plugin.Config, Field(default_factory=plugin.Config)
        resolved = make(__base__=section, **{section.options_field: keys})
    elif both := section.model_fields.keys() & plugin.Config.model_fields.keys():
        raise ExtensionError(
            f"{plugin.__name__}.Config has the keys {', '.join(sorted(both))}, which the section has "
            "itself: rename them"
        )
    else:
        resolved = make(__base__=(section, plugin.Config))
    resolved.plugin = plugin
    return resolved
