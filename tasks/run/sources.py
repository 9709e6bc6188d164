"""The current content of a run's sources of pairs and benchmarks, and its digests."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset

from mars_core.data import pairs, reading, samples
from mars_core.data.remote import content_at, is_remote
from mars_core.data.source_rows import READERS
from mars_core.evaluation.evaluation_config import read_benchmarks
from mars_core.experiment import ExperimentConfig
from mars_core.files import RememberedDigests, digest, remove, sha256_of
from mars_core.method.augmentation import capacity
from mars_core.method.selection import check_budget
from mars_core.model.rendering import RenderingError
from mars_core.model.reward_model import renderer_of
from tasks.run.progress import progress
from tasks.run.run_folder import RunFolder
from tasks.run.step import content_of

LEFT_OUT = "left out"
"""The output of the step `prepare` that counts rows which were left out, by reason."""
UNFINISHED = ".prepare"
"""Folder in a run's folder of pairs that were read, by the check before it or by a preparation that was
killed; the next reading goes on from them."""


@contextmanager
def read_sources(config: ExperimentConfig) -> Iterator[tuple[pairs.ThreeSets, dict[str, Dataset]]]:
    """The three sets, which exist during a `with` block, and the benchmarks by name.

    It raises the errors of `check` about data and budget.
    """
    with tempfile.TemporaryDirectory(prefix="mars-pairs-") as folder:
        sets = three_sets(config, Path(folder))
        check_originals(len(sets.train), config)
        benchmarks, _ = read_benchmarks(config.evaluation)
        yield sets, benchmarks


def three_sets(config: ExperimentConfig, folder: Path) -> pairs.ThreeSets:
    """The three sets of a run, as `mars_core.data.pairs` has them, with the progress of their reading."""
    with progress("reading pairs", None, "pairs") as advance:
        return pairs.three_sets(config.data, config.seed, folder, refusal(config), advance)


def unfinished(run: RunFolder[Any], contents: dict[str, str]) -> Path:
    """The folder for pairs of sources with this content; what was read of another content is removed."""
    root = run.path(UNFINISHED)
    shaping = (reading.VERSION, contents, run.config.seed, run.config.data, run.config.model)
    folder = root / digest(*map(content_of, shaping))
    for other in root.glob("*"):
        if other != folder:
            remove(other)
    return folder


def refusal(config: ExperimentConfig) -> Callable[[str], str | None]:
    """What says of a prompt why the backbone's chat template cannot render it, if so.

    Raises:
        ModelError: the backbone has no tokenizer that can be read.
        RenderingError: its tokenizer does not tell which characters a token stands for.
    """
    renderer = renderer_of(config.model.backbone, config.model)

    def refuse(prompt: str) -> str | None:
        try:
            renderer.check([prompt])
        except RenderingError as error:
            return f"the model cannot read it: {error}"
        return None

    return refuse


def check_originals(originals: int, config: ExperimentConfig) -> None:
    """Raise SelectionError if this number of originals cannot take the budget."""
    most = capacity(config.augmentation, config.selection.budget_unit)
    check_budget(originals, config.selection, most)


def check_rendering(config: ExperimentConfig, benchmarks: dict[str, Dataset]) -> None:
    """Raise RenderingError if the backbone's chat template cannot render rows of a benchmark.

    Those of pairs are found while they are read; see `refusal`.
    """
    renderer = renderer_of(config.model.backbone, config.model)
    for key, rows in benchmarks.items():
        renderer.check(config.evaluation.suite[key].texts(rows).prompts)


def contents(config: ExperimentConfig, digests: RememberedDigests | None = None) -> dict[str, str]:
    """The digest of each source of pairs as it is now: if a file has changed, a run prepares its pairs
    again. `digests` are those of its files that are remembered."""
    named = {
        "train": config.data.train,
        "validation": config.data.validation,
        "heldout": config.data.heldout,
    }
    return {name: source_digest(source, digests) for name, source in named.items() if source}


def benchmark_contents(config: ExperimentConfig, digests: RememberedDigests | None = None) -> dict[str, str]:
    """The digest of each benchmark's source as it is now."""
    return {key: source_digest(source, digests) for key, source in config.evaluation.sources.items()}


def source_digest(source: str, digests: RememberedDigests | None = None) -> str:
    """Digest of a file, of all below a folder, or of built-in data; a hub data set is name and revision.

    At an address, names, sizes and etags of the files decide.
    """
    of_file = digests.of if digests else sha256_of
    if source in samples.SAMPLES:
        return digest(samples.rows(source))
    if is_remote(source):
        return content_at(source, tuple(READERS))
    path = Path(source).expanduser()
    if not path.exists():
        return source
    folder = path if path.is_dir() else path.parent
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    whole = hashlib.sha256()
    for file in files:
        name = file.relative_to(folder).as_posix()
        whole.update(name.encode() + bytes.fromhex(of_file(file)))
    return whole.hexdigest()
