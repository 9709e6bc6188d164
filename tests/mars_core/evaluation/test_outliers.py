import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.errors import ModelError
from mars_core.evaluation.outliers import distances, latents_of, measures, reference_of
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import ObjectiveConfig

FLOAT32 = ModelConfig(precision="float32")


@given(st.integers(0, 10_000))
def test_a_distance_is_counted_in_deviations_of_the_reference(seed):
    latents = np.random.default_rng(seed).normal(size=(20, 3)).astype(np.float32)
    others = 3 * latents[:5]
    covariance = np.cov(latents.astype(float).T) + 1e-6 * np.eye(3)
    apart = others - latents.astype(float).mean(axis=0)
    expected = [np.sqrt(row @ np.linalg.inv(covariance) @ row) for row in apart]
    np.testing.assert_allclose(distances(others, reference_of(latents)), expected, rtol=1e-6)


def test_far_responses_are_outliers():
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(500, 4)).astype(np.float32)
    reference = reference_of(usual)
    far = np.full((10, 4), 9, np.float32)
    found = measures(distances(far, reference), distances(usual, reference))
    assert found["outliers"] == 1
    assert found["mean_distance"] > 4 * found["reference_distance"]
    assert measures(distances(usual, reference), distances(usual, reference))["outliers"] <= 0.01


def test_one_text_is_no_reference():
    with pytest.raises(ValueError, match="at least two"):
        reference_of(np.zeros((1, 3), np.float32))


def test_latents_follow_from_the_tokens_of_a_text(headless):
    objective = ObjectiveConfig(name="information_bottleneck", dimensions=4)
    model = RewardModel.load(str(headless), FLOAT32, objective)
    prompts, responses = ["Why?", "Who?", "Why?"], ["Because.", "I.", "Because."]
    latents = latents_of(model, prompts, responses)
    assert latents.shape == (3, 4)
    np.testing.assert_array_equal(latents[0], latents[2])
    outputs = model.forward(model.renderer.render(prompts, responses).ids).outputs
    np.testing.assert_allclose(latents, outputs[:, :4].detach().numpy(), atol=1e-5)


def test_a_model_without_latents_is_refused(tiny_decoder):
    model = RewardModel.load(str(tiny_decoder), FLOAT32)
    with pytest.raises(ModelError, match="bradley_terry gives no latents"):
        latents_of(model, ["Why?"], ["Because."])
