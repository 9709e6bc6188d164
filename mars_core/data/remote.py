"""Files at addresses such as s3://bucket/prefs/*.parquet, listed and read by fsspec.

Credentials come from the environment, as the library of the protocol finds them there, never from an address.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import fsspec

from mars_core.config import redact
from mars_core.errors import MarsError
from mars_core.files import digest


class RemoteError(MarsError, ValueError):
    """What is at an address cannot be listed or read; the message names the address."""


class RemoteFile(NamedTuple):
    """A file at an address."""

    address: str
    system: Any
    """The file system of fsspec."""
    path: str
    """As the file system calls it."""
    state: tuple[int, str]
    """Its size, and what changes with its content, such as its etag."""

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Read it.

        Raises:
            RemoteError: that fails, at whatever place; not what the `with` block itself raises of ours.
        """
        with _explained(self.address), self.system.open(self.path, "rb") as content:
            yield content


def is_remote(source: str) -> bool:
    """Whether a source is an address of files: s3://…, gs://…, and what else fsspec knows."""
    protocol, separator, _ = source.partition("://")
    return bool(separator) and protocol in fsspec.available_protocols()


def files_at(source: str, kinds: tuple[str, ...]) -> list[RemoteFile]:
    """The files at an address, by name.

    Args:
        source: the address of a file, of a folder, or a pattern with *.
        kinds: how the names end of those that count in a folder and under a pattern.

    Raises:
        RemoteError: there are none, they may not be listed, or nothing here speaks the protocol.
    """
    source = redact(source)
    with _explained(source):
        system, path = fsspec.core.url_to_fs(source)
        system.invalidate_cache()  # what was listed before may have changed
        if "*" in path:
            found = system.glob(path, detail=True).values()
        elif system.info(path)["type"] == "directory":
            found = system.ls(path, detail=True)
        else:
            found = [system.info(path)]
        files = sorted(about["name"] for about in found if about["type"] == "file")
        named = of_pairs(files, kinds) if len(found) > 1 else [name for name in files if name.endswith(kinds)]
        remote = [
            RemoteFile(
                str(system.unstrip_protocol(name)),
                system,
                name,
                (int(system.size(name) or 0), str(system.checksum(name))),
            )
            for name in named
        ]
    if not remote:
        raise RemoteError(f"{source}: no file there whose name ends in {', '.join(kinds)}")
    return remote


def of_pairs(names: Iterable[str], kinds: Collection[str]) -> list[str]:
    """The files of pairs among those of a folder or pattern.

    Names that begin with an underscore or a dot are about the data, and .json files may be: they count where
    there are no others.
    """
    plain = [name for name in names if PurePosixPath(name).name[:1] not in {"_", "."}]
    named = [name for name in plain if name.endswith(tuple(kinds))]
    return [name for name in named if not name.endswith((".json", ".json.gz"))] or named


def content_at(source: str, kinds: tuple[str, ...]) -> str:
    """A digest that changes with the files at an address: of their names, sizes and etags.

    Raises:
        RemoteError: as of `files_at`.
    """
    return digest([(file.path, *file.state) for file in files_at(source, kinds)])


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Tell what failed at an address; errors of ours, and of values, are told as they are."""
    try:
        yield
    except (MarsError, UnicodeError):
        raise
    except ImportError as error:
        raise RemoteError(
            f'{address}: {error}; for s3:// install this project with its extra: pip install "mars[s3]"'
        ) from error
    except FileNotFoundError as error:
        raise RemoteError(f"{address}: nothing is there") from error
    except PermissionError as error:
        raise RemoteError(
            f"{address}: the credentials of the environment may not read it: {redact(str(error))}"
        ) from error
    except Exception as error:  # each library of a protocol raises its own kinds
        raise RemoteError(f"{address}: cannot be read: {redact(str(error))}") from error
