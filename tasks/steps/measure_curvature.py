"""Hold the theory of MARS against a round: what curvature its synthetic pairs add to the originals'."""

import pandas as pd

from mars_core.method.curvature import Moments, measure
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import step, tell


@step("curvature", version=2)
def measure_curvature(
    run: RunFolder, round: int, originals: dict[str, ArtifactRef], synthetic: dict[str, ArtifactRef]
) -> ArtifactRef:
    """Measure, from margins and moments of originals and synthetic pairs under the model that asked for them.

    Both come from the scoring of these pairs, so that no text goes through the model again.
    """
    found = measure(
        Moments.load(run.path(originals["moments"])),
        Moments.load(run.path(synthetic["moments"])),
        run.table(originals["margins"])["margin"],
        run.table(synthetic["synthetic"])["margin_before"],
    )
    figures = {f"curvature/{name}": value for name, value in found.items()}
    tell(
        "Mean c(Δ) %.4f on the originals, %.4f on the synthetic pairs; the mixture has %.2f times the "
        "originals' information on average, and at least %.2f times in every direction.",
        found["originals/mean_c"], found["synthetic/mean_c"], found["mean_gain"], found["worst_gain"],
    )  # fmt: skip
    return run.write_table(f"round-{round}/curvature.parquet", pd.DataFrame([found]), figures)
