"""The model of round 0 (docs/method.md, step 6)."""

from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import RewardModel
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Checkpoint, Made, step
from tasks.steps.fit_reward_model import fit_reward_model


@step("adopt", version=2, reads=("model", "fit.objective"))
def _adopt_backbone(run: RunFolder, round: int, backbone: Checkpoint) -> Made[ArtifactRef]:
    """Use a backbone that is already a reward model as the model of round 0."""
    config = run.config
    loaded = RewardModel.load(backbone.reference, config.model, config.fit.objective)
    return Made(run.write(run.of_round(round).model, loaded.save))


def initial_reward_model(run: RunFolder, train: ArtifactRef, validation: ArtifactRef) -> ArtifactRef:
    """The model of round 0: the backbone itself if its head is trained, else a fit on the originals alone.

    The margins of a newly initialised head are noise, and no budget should be spent on noise.
    """
    backbone = run.config.model.backbone
    if has_trained_head(backbone, run.config.model, run.config.fit.objective):
        return _adopt_backbone(run, 0, Checkpoint(backbone))
    return fit_reward_model(run, 0, Checkpoint(backbone), train, [], validation)
