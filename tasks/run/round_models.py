"""The reward models of a run, as its steps load them."""

from mars_core.model.reward_model import RewardModel
from tasks.run.run_folder import ArtifactRef, RunFolder


def load_reward_model(run: RunFolder, model: ArtifactRef) -> RewardModel:
    """Load a round's model; if only the head is trained, all rounds share the features of a text."""
    loaded = RewardModel.load(str(run.path(model)), run.config.model, run.config.fit.objective)
    if run.config.fit.trainable == "head":
        loaded.keep_features(run.vectors)
    return loaded
