"""Margins of the originals under the current reward model (docs/method.md, step 1)."""

from mars_core.method.curvature import Moments
from mars_core.model.reward_model import pair_rewards
from tasks.run.progress import progress
from tasks.run.round_models import load_reward_model
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import step


@step("margins", version=4, reads=("model",))
def measure_margins(run: RunFolder, round: int, model: ArtifactRef, train: ArtifactRef) -> Outputs:
    """Score every original with the previous round's model: `margins`, and `moments` of the features."""
    originals = run.dataset(train)
    reward_model = load_reward_model(run, model)
    moments = Moments()
    with progress(f"round {round} · margins", 2 * len(originals), "texts") as advance:
        rewards = pair_rewards(reward_model, originals, advance, moments.add)
    figures = {
        "margins/prompts_cut": float(reward_model.prompts_cut),
        "margins/responses_cut": float(reward_model.responses_cut),
    }
    return {
        "margins": run.write_table(f"round-{round}/margins.parquet", rewards, figures),
        "moments": run.write(f"round-{round}/margins_moments.npz", moments.save),
    }
