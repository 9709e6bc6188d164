import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_core.objectives.objective import ObjectiveConfig, TextOutputs

K = 3


def bottleneck(**keys):
    objective = ObjectiveConfig(name="information_bottleneck", dimensions=K, **keys).open()
    torch.manual_seed(0)
    objective.modules = torch.nn.ModuleDict(objective.build(5)).double()
    return objective


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_loss_is_that_of_drawn_latents_and_a_divergence_of_means_over_dimensions(agree, seed, beta):
    objective = bottleneck(beta=beta)
    decoder = objective.modules["decoder"]
    weight, bias = decoder.weight[0].tolist(), decoder.bias.item()

    def reference(chosen, rejected, _, margins, noise):
        drawn = noise.normal(2, K).double().numpy()
        total = 0.0
        for row in range(len(margins)):
            rewards, divergence = [], 0.0
            for side, texts in enumerate((chosen, rejected)):
                mean, log_variance = texts["outputs"][row, :K], texts["outputs"][row, K:]
                s = [
                    m + math.exp(v / 2) * e
                    for m, v, e in zip(mean, log_variance, drawn[row, side], strict=True)
                ]
                rewards.append(sum(w * x for w, x in zip(weight, s, strict=True)) + bias)
                m, v = sum(mean) / K, sum(log_variance) / K
                divergence += (math.exp(v) + m * m - 1 - v) / 2
            total += math.log(1 + math.exp(rewards[1] - rewards[0])) + beta * divergence / 2
        return total

    agree(objective, seed, reference, shapes={"outputs": (2 * K,)})


def test_the_reward_is_decoded_from_the_mean_latent():
    objective = bottleneck()
    texts = TextOutputs(torch.randn(4, 2 * K, dtype=torch.float64))
    with torch.no_grad():
        rewards = objective.reward(objective.readout(texts))
        torch.testing.assert_close(rewards, objective.modules["decoder"](texts.outputs[:, :K]).squeeze(1))
