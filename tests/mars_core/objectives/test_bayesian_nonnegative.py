import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import weibull_min

from mars_core.objectives.bayesian_nonnegative import divergence_of, drawn
from mars_core.objectives.objective import ObjectiveConfig, TextOutputs

K, WIDTH = 4, 3


def nonnegative(**keys):
    objective = ObjectiveConfig(name="bayesian_nonnegative", factors=K, hidden=5, **keys).open()
    torch.manual_seed(0)
    objective.modules = torch.nn.ModuleDict(objective.build(WIDTH)).double()
    return objective


def of_mlp(mlp, z):
    """A plain MLP of one hidden layer."""
    first, _, last = ([p.detach().numpy() for p in layer.parameters()] for layer in mlp)
    return last[0] @ np.maximum(first[0] @ z + first[1], 0) + last[1]


def factors(mean, shape):
    """m and k."""
    return np.clip(np.maximum(mean, 0), 1e-6, 1e4), 1 + np.log1p(np.exp(shape))


def divergence(mean, shape):
    """KL(Weibull ‖ Gamma(1, 1)), averaged."""
    scale = [m / math.gamma(1 + 1 / k) for m, k in zip(mean, shape, strict=True)]
    gamma = float(np.euler_gamma)
    terms = [
        -(math.log(s) - gamma / k + math.log(1 / k) - s * math.gamma(1 + 1 / k) + gamma + 1)
        for s, k in zip(scale, shape, strict=True)
    ]
    return sum(terms) / len(terms)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_loss_is_that_of_drawn_factors_and_a_mean_divergence(agree, seed, eta):
    objective = nonnegative(eta=eta)
    free = {name: value.detach().numpy() for name, value in objective.modules["weights"].items()}

    def sample(mean, shape, u):
        scale = mean / np.array([math.gamma(1 + 1 / k) for k in shape])
        return scale * (-np.log(1 - u)) ** (1 / shape)

    def reference(chosen, rejected, _, margins, noise):
        u = noise.uniform(3, K).double().numpy()
        total = 0.0
        for row in range(len(margins)):
            weights = sample(*factors(free["mean"], free["shape"]), u[row, 2])
            rewards, divergences = [], []
            for side, texts in enumerate((chosen, rejected)):
                z = texts["pooled"][row]
                theta = factors(*(of_mlp(objective.modules[name], z) for name in ("mean", "shape")))
                rewards.append(sample(*theta, u[row, side]) @ weights)
                divergences.append(divergence(*theta))
            total += math.log(1 + math.exp(rewards[1] - rewards[0])) + eta * sum(divergences) / 2
        return total

    agree(objective, seed, reference, shapes={"outputs": (1,), "pooled": (WIDTH,)})
    weights = factors(free["mean"], free["shape"])
    assert objective.penalty().item() == pytest.approx(eta * divergence(*weights), rel=1e-9)


@pytest.mark.parametrize(("mean", "shape"), [(0.3, 1.2), (1.0, 1.0), (2.0, 3.5)])
def test_the_divergence_is_that_of_a_sample(mean, shape):
    scale = mean / math.gamma(1 + 1 / shape)
    sample = weibull_min(shape, scale=scale).rvs(400_000, random_state=0)
    log_ratio = weibull_min(shape, scale=scale).logpdf(sample) + sample  # Gamma(1, 1) has the density e⁻ˣ
    found = divergence_of(torch.tensor(mean, dtype=torch.float64), torch.tensor(shape, dtype=torch.float64))
    error = log_ratio.std() / math.sqrt(len(sample))
    assert found.item() == pytest.approx(log_ratio.mean(), abs=5 * error + 1e-9)


def test_drawn_factors_have_the_mean_and_are_finite_with_finite_gradients():
    mean, shape = torch.tensor(0.7, requires_grad=True), torch.tensor(1.8, requires_grad=True)
    sample = drawn(mean, shape, torch.linspace(0, 1 - 2**-24, 100_000))
    assert sample.mean().item() == pytest.approx(0.7, abs=2e-3)
    sample.sum().backward()
    assert mean.grad.isfinite()
    assert shape.grad.isfinite()


def test_the_reward_is_that_of_the_means_with_the_variance_of_its_factors():
    objective = nonnegative()
    texts = TextOutputs(torch.zeros(1, 1), torch.randn(1, WIDTH, dtype=torch.float64))
    with torch.no_grad():
        readout = objective.readout(texts)
    theta = factors(*(of_mlp(objective.modules[name], texts.pooled[0].numpy()) for name in ("mean", "shape")))
    weights = np.full(K, K**-0.5)
    assert objective.reward(readout).item() == pytest.approx(theta[0] @ weights)
    variances = [weibull_min(k, scale=m / math.gamma(1 + 1 / k)).var() for m, k in zip(*theta, strict=True)]
    assert objective.uncertainty(readout).item() == pytest.approx(weights**2 @ variances, rel=1e-6)
