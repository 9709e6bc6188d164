"""Scoring in this process."""

from mars_core.model.scoring import ScoreSpec, score
from tasks.compute.compute import Compute, OnScored


class Local(Compute):
    """Loads the model for each specification, in this process."""

    def run(self, spec: ScoreSpec, on_scored: OnScored) -> None:
        """See `Compute.run`."""
        score(spec, on_scored)
