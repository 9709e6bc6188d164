"""Scoring in this process."""

from mars_core.model.scoring import ScoreSpec, score
from tasks.compute.compute import Compute, OnScored


class Local(Compute):
    """The model is loaded here, and stays for the length of one specification."""

    def run(self, spec: ScoreSpec, on_scored: OnScored) -> None:
        """See `Compute.run`."""
        score(spec, on_scored)
