"""Check the theory of MARS on a round: the curvature that its synthetic pairs add to the originals'."""

import pandas as pd

from mars_core.method.curvature import measure
from mars_core.model.moments import Moments
from mars_core.objectives.objective import curvature_of
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import Made, step, tell


def measure_curvature(
    run: RunFolder, round: int, originals: Outputs, synthetic: Outputs
) -> ArtifactRef | None:
    """Measure from the margins and moments of originals and synthetic pairs under the previous round's model.

    Scoring these pairs has given both, so that no text is scored again. If the objective
    defines no curvature there are no moments either.
    """
    if "moments" in originals and "moments" in synthetic:
        return _measure(
            run,
            round,
            originals["margins"],
            originals["moments"],
            synthetic["synthetic"],
            synthetic["moments"],
        )
    tell("The theory's curvature is not defined for the objective %s.", run.config.fit.objective.name)
    return None


@step("curvature", version=4, reads=("fit.objective", "fit.synthetic_weight"))
def _measure(
    run: RunFolder,
    round: int,
    margins: ArtifactRef,
    margins_moments: ArtifactRef,
    synthetic: ArtifactRef,
    synthetic_moments: ArtifactRef,
) -> Made[ArtifactRef]:
    """Measure the curvature of originals and synthetic pairs under the previous round's model."""
    objective = run.config.fit.objective.open()
    of_originals = run.open(margins).numbers("margin")
    of_synthetic = run.open(synthetic).numbers("margin_before")
    c_originals, c_synthetic = (curvature_of(objective, of) for of in (of_originals, of_synthetic))
    assert c_originals is not None  # as there are moments
    assert c_synthetic is not None
    found = measure(
        Moments.load(run.verified(margins_moments)),
        Moments.load(run.verified(synthetic_moments)),
        of_originals,
        of_synthetic,
        c_originals,
        c_synthetic,
        run.config.fit.synthetic_weight,
    )
    metrics = {f"curvature/{name}": value for name, value in found.items()}
    tell(
        "Mean c(Δ) %.4f on the originals, %.4f on the synthetic pairs; the mixture has %.2f times the "
        "originals' information on average, and at least %.2f times in every direction.",
        found["originals/mean_c"], found["synthetic/mean_c"], found["mean_gain"], found["worst_gain"],
    )  # fmt: skip
    return Made(run.write_table(run.of_round(round).curvature, pd.DataFrame([found])), metrics)
