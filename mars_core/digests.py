"""Digests: equal values, and files of equal content, have equal digests on any machine."""

import hashlib
import json
from pathlib import Path


def digest(*values: object) -> str:
    """sha256 (hexadecimal) over JSON-serialisable values; the order of a mapping's keys does not count."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Digest of a file, or of the names and digests of all files under a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{file.relative_to(path).as_posix()} {sha256_of(file)}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
