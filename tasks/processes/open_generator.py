"""A run's generator: its backend behind the store of generations."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import torch

from mars_core.generation import GenerationConfig, GenerationStore, Generator
from tasks.processes.launched_backend import LaunchedBackend
from tasks.run.run_folder import RunFolder
from tasks.run.vllm_command import has_gpu

THREADS = torch.get_num_threads()


@contextmanager
def open_generator(run: RunFolder) -> Iterator[Generator]:
    """The generator of a run's configuration, during a `with` block; see `generator_of`."""
    launch = run.config.generation.launch
    if launch and launch.replicas:
        run.config.compute.open().release()
    with generator_of(run.config.generation, run.path("vllm.log")) as generator:
        yield generator


@contextmanager
def generator_of(config: GenerationConfig, log: Path) -> Iterator[Generator]:
    """The generator of a configuration, during a `with` block.

    A model in this process, or a server that is launched, which writes into `log`, starts with the first text
    that must be written and ends with the block, so that later steps have the GPU to themselves.
    """
    launch = config.launch
    backend = LaunchedBackend(config, launch, log) if launch else config.open()
    beside = one_thread() if launch and not has_gpu() else nullcontext()
    with beside, closing(backend), GenerationStore(Path(config.store)) as store:
        yield Generator(backend, store, config.max_failed_share, offline=config.offline)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, beside a server that computes on all cores.

    More threads would wait for the server's threads at every product: on two cores embeddings took 141 s of a
    step of seven minutes. It is one thread from the start, whether or not the server ever starts, so that a
    repeated step gives the same bits.
    """
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(THREADS)
