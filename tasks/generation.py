"""A run's generator: its backend behind the store of generations."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from mars_core.generation import GenerationStore, Generator, open_backend
from tasks.run_folder import RunFolder


@contextmanager
def open_generator(run: RunFolder) -> Iterator[Generator]:
    """The generator of a run's configuration, for the length of a `with` block."""
    config = run.config.generation
    with GenerationStore(Path(config.store)) as store:
        yield Generator(open_backend(config), store, config.max_failed_share)


def counted(generator: Generator, section: str) -> dict[str, float]:
    """What generation cost, as figures of a section."""
    return {f"{section}/{name}": float(value) for name, value in asdict(generator.counts).items()}
