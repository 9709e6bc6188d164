"""What can be wrong with a run is said before a server is started, or a model loaded, for it."""

from contextlib import closing

from mars_core.config import scientific
from mars_core.experiment import ExperimentConfig
from mars_core.files import digest
from mars_core.generation import open_backend
from mars_core.model.checkpoints import locate
from mars_core.model.loading import has_trained_head
from tasks.run.run_folder import claimed_run
from tasks.run.sources import _check_budget, read_sources


def check(*configs: ExperimentConfig) -> None:
    """Say what is wrong with runs before a server is started, or a model loaded, for them.

    What several have in common, such as the data of a comparison's arms, is read once.

    Raises:
        RunFolderError: its folder is in use, or was made with other scientific keys.
        PairsError: the data cannot be used.
        RewardBenchError: a benchmark cannot be used.
        SelectionError: the budget exceeds what the originals can take.
        ModelError: backbone or embedder are not there, or a trained head has other than one output.
        GenerationError: texts are still to be written, and nobody who could is there.
    """
    originals: dict[str, int] = {}
    for config in configs:
        generation = config.generation
        with claimed_run(config) as run:
            if not run.path("round-0/metrics.json").exists():  # later starts know their data to be good
                data = digest(config.seed, scientific(config.data), scientific(config.evaluation))
                if data not in originals:
                    originals[data] = len(read_sources(config)[0].train)
                _check_budget(originals[data], config)
            has_trained_head(config.model.backbone)
            locate(config.semantics.embedder)
            written = run.path(f"round-{config.rounds}/augmented.parquet").exists()
            if not (written or generation.launch or generation.offline):
                with closing(open_backend(generation)) as backend:
                    list(backend.answers([]))
