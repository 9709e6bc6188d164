"""The model that a run begins with (docs/method.md, step 6)."""

from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import RewardModel
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import step
from tasks.steps.fit_reward_model import fit_reward_model


@step("adopt", version=1, reads=("model",))
def _adopt_backbone(run: RunFolder, round: int, backbone: str) -> ArtifactRef:
    """Take a backbone that is a reward model already as the model of round 0."""
    return run.write(f"round-{round}/model", RewardModel.load(backbone, run.config.model).save)


def initial_reward_model(run: RunFolder, train: ArtifactRef, validation: ArtifactRef) -> ArtifactRef:
    """The model of round 0: the backbone itself if its head is trained, else a fit on the originals alone.

    Margins of a head that was just drawn are noise, and a budget must not be spent on noise.
    """
    backbone = run.config.model.backbone
    if has_trained_head(backbone):
        return _adopt_backbone(run, 0, backbone)
    return fit_reward_model(run, 0, backbone, train, [], validation)
