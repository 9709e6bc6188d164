"""Built-in data, written for this project: preference pairs, and small benchmarks in RewardBench's layouts.

The rows are JSON lines in the folder `built_in`. They let every step of an experiment run without a download;
scores on the small benchmarks say nothing about the benchmarks themselves.

- `preferences`: 820 pairs from four equally large sources, which take turns, so that the first n rows are a
  fair sample. The right response can be told from the row's texts, and the longer one wins as often as not.
- `rewardbench`: ten pairs of each of RewardBench's 23 subsets.
- `rewardbench2`: six prompts of each of RewardBench 2's subsets, with four answers of which one is right; in
  Ties a prompt comes twice, as `tied:i` with several right answers and as `ref:i` with one of them.
"""

import hashlib
import json
from importlib.resources import files
from typing import Any

from mars_core.errors import MarsError

SAMPLES = {
    "sample://preferences": "7db4cb4e97c181c61eea15e2570db94f972a4b18d3f2978f9ca473147fe61336",
    "sample://rewardbench": "fb8d1a1806115827fca60fb1c13a02b1dee61f3c217310eff0ea5972edb32e50",
    "sample://rewardbench2": "8488eaca3cc57504daed0ba08ec325b2e5440906d56f877d4606e3625ddf8c1e",
}
"""Name and sha256 of each built-in file."""


class SamplesError(MarsError, RuntimeError):
    """A file of the built-in data is missing or was changed."""


def rows(source: str) -> list[dict[str, Any]]:
    """The rows of a built-in source; each call reads them anew.

    Raises:
        SamplesError: the file is not there, or is not the one that this version came with.
    """
    file = files("mars_core.data") / "built_in" / f"{source.removeprefix('sample://')}.jsonl"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SamplesError(f"{source}: {file} cannot be read ({error}); install the package again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SAMPLES[source]:
        raise SamplesError(
            f"{source}: {file} is not the file that this version came with: its sha256 is {found} instead of "
            f"{SAMPLES[source]}; restore it, or copy it elsewhere and name the copy's path as the source"
        )
    return [json.loads(line) for line in content.splitlines()]


def preferences() -> list[dict[str, str]]:
    """The built-in pairs: id, prompt, chosen, rejected and source."""
    return rows("sample://preferences")
