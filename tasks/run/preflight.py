"""Checks of a run before a server is started, or a model loaded, for it."""

from contextlib import closing

from mars_core.config import scientific
from mars_core.errors import MarsError
from mars_core.evaluation.evaluation_config import read_benchmarks
from mars_core.files import digest, remove
from mars_core.method.selection import check_signals
from mars_core.model.checkpoints import locate
from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import check_objective
from tasks.run import vllm_command
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import RunFolder, claimed_run
from tasks.run.sources import (
    UNFINISHED,
    check_originals,
    check_rendering,
    contents,
    three_sets,
    unfinished,
)


def check(*configs: RunConfig) -> None:
    """Check runs before a server is started, or a model loaded, for them.

    What several have in common, such as the data of a comparison's arms, is read once.

    Raises:
        RunFolderError: its folder is in use, or was made with other scientific keys.
        PairsError: the data cannot be used.
        BenchmarkError: a benchmark cannot be used.
        RenderingError: the model's chat template cannot render a row of a benchmark.
        SelectionError: the budget exceeds what the originals can take, or the strategy reads signals that the
            objective does not give.
        ModelError: the backbone or the embedder is missing, or a trained head is of another objective or has
            a name that is not read, or it does not give what the objective reads.
        ComputeError: the compute backend cannot be used, or does not see the run's folder.
        GenerationError: texts have to be written, and no server answers, or one refuses fields of the
            requests, or this machine cannot run the server that the run has to launch.
    """
    originals: dict[str, int] = {}
    for config in configs:
        generation = config.generation
        with claimed_run(config) as run:
            has_trained_head(config.model.backbone, config.model, config.fit.objective)
            check_objective(config.model.backbone, config.model, config.fit.objective)
            check_signals(config.selection, config.fit.objective)
            locate(config.semantics.embedder)
            config.compute.open().check(run.root)
            if not run.path(".steps/prepare.json").exists():  # later starts have checked their data already
                sections = (config.data, config.evaluation, config.model)
                data = digest(config.seed, *map(scientific, sections))
                if data not in originals:
                    originals[data] = _read(run)
                check_originals(originals[data], config)
            written = run.path(run.of_round(config.rounds).augmented).exists()
            if generation.launch and not (written or generation.offline):
                vllm_command.check(generation, generation.launch)
            if not (written or generation.launch or generation.offline):
                with closing(generation.open()) as backend:
                    backend.check()


def _read(run: RunFolder[RunConfig]) -> int:
    """Read and check all pairs and benchmarks of a run: the number of its originals.

    The pairs are left for the step that prepares them.
    """
    config = run.config
    try:
        sets = three_sets(config, unfinished(run, contents(config, run.digests)))
        check_originals(len(sets.train), config)
        benchmarks, _ = read_benchmarks(config.evaluation)
        check_rendering(config, benchmarks)
    except MarsError:
        remove(run.path(UNFINISHED))
        raise
    return len(sets.train)
