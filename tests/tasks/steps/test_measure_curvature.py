"""The theory held against a round, from what its steps have left."""

import numpy as np
import pandas as pd
import pytest

from mars_core.method.curvature import measure
from mars_core.model.moments import Moments
from mars_core.objectives.objective import ObjectiveConfig, curvature_of
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.steps.measure_curvature import measure_curvature

pytestmark = pytest.mark.usefixtures("without_prefect")


def left_by_scoring(run, name, seed, column):
    rng = np.random.default_rng(seed)
    psi, margins = rng.normal(size=(20, 3)), rng.normal(size=20)
    moments = Moments()
    moments.add(psi, curvature_of(ObjectiveConfig().open(), margins))
    table = run.write_table(f"round-1/{name}.parquet", pd.DataFrame({column: margins}))
    return {name: table, "moments": run.write(f"round-1/{name}_moments.npz", moments.save)}, moments, margins


def test_curvature_is_measured_from_moments_and_margins_of_both_sides(tmp_path):
    config = RunConfig.model_validate({"name": "tiny", "folder": str(tmp_path)})
    with open_run(config) as run:
        originals, p, p_margins = left_by_scoring(run, "margins", 0, "margin")
        synthetic, q, q_margins = left_by_scoring(run, "synthetic", 1, "margin_before")
        made = measure_curvature(run, 1, originals, synthetic)
        curvatures = (curvature_of(ObjectiveConfig().open(), of) for of in (p_margins, q_margins))
        expected = measure(p, q, p_margins, q_margins, *curvatures)
        metrics = {f"curvature/{name}": value for name, value in expected.items()}
        assert run.metrics_of(1) == pytest.approx(metrics, nan_ok=True)
        assert run.table(made).iloc[0].to_dict() == pytest.approx(expected, nan_ok=True)
