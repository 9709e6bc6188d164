import numpy as np
import pytest
import torch

from mars_core.objectives.objective import Noise, PairOutputs, TextOutputs

DIFFERENTIATED = ("outputs", "pooled", "token_outputs")
STEP = 1e-5


@pytest.fixture(scope="session")
def agree():
    """Check an objective's losses, and their gradient, against a plain reference in double precision."""

    def check(objective, seed, reference, *, shapes, n=2, asked=None, **more):
        """`shapes` are those of the texts' float fields; `reference` gives the summed losses of two dicts."""
        rng = np.random.default_rng(seed)
        sides = [{name: rng.normal(size=(n, *shape)) for name, shape in shapes.items()} for _ in range(2)]
        for texts in sides:
            if "log_probabilities" in texts:
                texts["log_probabilities"] = -np.abs(texts["log_probabilities"])
            texts |= {name: rng.integers(*ends, size=n) for name, ends in more.get("counts", {}).items()}
        noise = Noise((seed,), 1, np.arange(n))
        tensors = [{name: torch.from_numpy(part) for name, part in texts.items()} for texts in sides]
        leaves = [
            tensor.requires_grad_()
            for texts in tensors
            for name, tensor in texts.items()
            if name in DIFFERENTIATED
        ]
        margins = torch.full((n,), torch.nan) if asked is None else torch.from_numpy(asked(rng, n))
        pairs = PairOutputs(*(TextOutputs(**texts) for texts in tensors), margins.double(), noise)
        objective.modules.double()
        losses = objective.losses(pairs)
        assert losses.shape == (n,)
        found = torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
        assert losses.sum().item() == pytest.approx(reference(*sides, sides, margins, noise), rel=1e-9)

        # The reference's gradient by central differences; what has no gradient is read from the third.
        frozen = [{name: part.copy() for name, part in texts.items()} for texts in sides]
        points = [texts[name] for texts in sides for name in texts if name in DIFFERENTIATED]
        for gradient, point in zip(found, points, strict=True):
            flat, expected = point.reshape(-1), np.empty(point.size)
            for place, value in enumerate(flat.copy()):
                ends = []
                for moved in (value + STEP, value - STEP):
                    flat[place] = moved
                    ends.append(reference(*sides, frozen, margins, noise))
                flat[place] = value
                expected[place] = (ends[0] - ends[1]) / (2 * STEP)
            gradient = torch.zeros(point.shape) if gradient is None else gradient
            np.testing.assert_allclose(gradient.numpy().reshape(-1), expected, rtol=1e-6, atol=1e-6)

    return check
