"""Look at what the budget bought: the synthetic pairs' margins before and after the fit."""

from mars_core.method.augmentation import PARTS
from mars_core.method.curvature import Moments
from mars_core.method.synthetic_margins import summarise
from mars_core.model.reward_model import pair_rewards
from tasks.run.progress import progress
from tasks.run.round_models import load_reward_model
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import step


@step("synthetic", version=3, reads=("model",))
def measure_synthetic_pairs(
    run: RunFolder,
    round: int,
    augmented: ArtifactRef,
    rewrites: ArtifactRef,
    originals: ArtifactRef,
    before: ArtifactRef,
    after: ArtifactRef,
) -> Outputs:
    """Margins of the `synthetic` pairs under the model that asked for them, and after the fit on them.

    `moments` are of their features under the model that asked; `originals` are the originals' margins.
    """
    pairs = run.dataset(augmented)
    named = pairs.rename_column("synthetic_id", "pair_id")
    moments = Moments()
    with progress(f"round {round} · synthetic margins", 4 * len(pairs), "texts") as advance:
        for moment, model, on_features in (("before", before, moments.add), ("after", after, None)):
            reward_model = load_reward_model(run, model)
            margins = pair_rewards(reward_model, named, advance, on_features)["margin"]
            pairs = pairs.add_column(f"margin_{moment}", margins.to_numpy())
    numbers = pairs.remove_columns(list(PARTS)).to_pandas()
    rewritten = run.table(rewrites).query("rewritten != 'none'")["pair_id"]
    figures = {
        f"synthetic/{name}": value
        for name, value in summarise(numbers, run.table(originals), rewritten).items()
    }
    return {
        "synthetic": run.write_table(f"round-{round}/synthetic.parquet", pairs, figures),
        "moments": run.write(f"round-{round}/synthetic_moments.npz", moments.save),
    }
