"""A run's generator: its backend behind the store of generations."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mars_core.generation import GenerationStore, Generator
from tasks.processes.vllm_server import LaunchedBackend
from tasks.run.run_folder import RunFolder


@contextmanager
def open_generator(run: RunFolder) -> Iterator[Generator]:
    """The generator of a run's configuration, for the length of a `with` block.

    A model in this process or a server that the run launches is there from the first text that must be
    written to the end of the block, so that what follows has the GPU to itself.
    """
    config = run.config.generation
    launch = config.launch
    backend = LaunchedBackend(config, launch, run.path("vllm.log")) if launch else config.open()
    with closing(backend), GenerationStore(Path(config.store)) as store:
        yield Generator(backend, store, config.max_failed_share, offline=config.offline)
