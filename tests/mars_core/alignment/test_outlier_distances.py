"""What is usual must be known before anything is far from it."""

import pytest

from mars_core.alignment.outlier_distances import OutlierDistances
from mars_core.alignment.trainer_setup import TrainingError
from mars_core.errors import ModelError
from mars_core.model.reward_model import ModelConfig, RewardModel

FLOAT32 = ModelConfig(precision="float32")


def test_as_few_responses_as_latents_have_dimensions_are_refused_with_what_to_do(bottleneck):
    model = RewardModel.load(str(bottleneck), FLOAT32)
    with pytest.raises(TrainingError, match=r"2 responses do not tell what is usual in 2 dimensions: sample"):
        OutlierDistances([model], ["Why?"] * 2, ["Because.", "Why not?"])


def test_a_reward_model_without_latents_is_refused(bottleneck, tiny_decoder):
    models = [RewardModel.load(str(folder), FLOAT32) for folder in (bottleneck, tiny_decoder)]
    with pytest.raises(ModelError, match="gives no latents"):
        OutlierDistances(models, ["Why?"] * 3, ["Because.", "Why not?", "So."])
