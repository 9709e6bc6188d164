"""A reward model as plain transformers, TRL and vLLM load it: whole, in safetensors, with one linear output.

Adapters are merged and a chat template's date is pinned, as in every checkpoint that is saved here. Where the
objective's reward is a weighted sum of the head's outputs, that sum becomes the head.
"""

from pathlib import Path
from typing import NamedTuple

import torch

from mars_core.errors import ModelError
from mars_core.model.heads import head_of, last_layer, name_in
from mars_core.model.reward_model import RewardModel
from mars_core.objectives.objective import Objective, ObjectiveConfig, TextOutputs

PROBES = 8


class LinearReward(NamedTuple):
    """r = outputs · weights + offset."""

    weights: torch.Tensor
    """[k] what each output of the head counts."""
    offset: float

    @property
    def is_the_output(self) -> bool:
        """Whether the reward is the head's only output as it is."""
        return self.offset == 0 and self.weights.tolist() == [1.0]


@torch.no_grad()
def linear_reward(objective: Objective) -> LinearReward | None:
    """The reward as a function of the head's outputs, if it is linear in them and reads nothing else.

    It is found by asking the objective, with its own modules, for rewards of some outputs.
    """
    if objective.reads - {"paraphrase"}:
        return None
    k = objective.outputs
    drawn = torch.randn(PROBES, k, generator=torch.Generator().manual_seed(0))
    asked = torch.cat([torch.zeros(1, k), torch.eye(k), 10 * drawn])
    place = next(objective.modules.parameters(), asked).device
    rewards = objective.reward(objective.readout(TextOutputs(asked.to(place)))).cpu().double()
    offset, weights = rewards[0], rewards[1 : k + 1] - rewards[0]
    if not torch.allclose(rewards, asked.double() @ weights + offset, rtol=1e-5, atol=1e-5):
        return None
    return LinearReward(weights.float(), float(offset))


def save_plain(model: RewardModel, folder: Path) -> None:
    """Write a checkpoint with one output, which is the reward; the model is changed where it has several.

    Raises:
        ModelError: the objective's reward is no linear output.
    """
    linear = linear_reward(model.objective)
    name = model.objective.name
    if linear is None:
        raise ModelError(
            f"the reward of the objective {name} is more than a linear function of the head's outputs, so "
            "that no other software can load it as a reward model; mars score and mars evaluate compute it"
        )
    if not linear.is_the_output:
        _reduce_head(model, linear)
    model.save(folder)


def _reduce_head(model: RewardModel, linear: LinearReward) -> None:
    """Let the last layer of the head give the reward."""
    layer = last_layer(head_of(model.network))
    weights = linear.weights.to(layer.weight)
    bias = linear.offset + (weights @ layer.bias if layer.bias is not None else 0.0)
    if bias and layer.bias is None:
        raise ModelError(
            f"the objective {model.objective.name} adds {linear.offset:g} to each reward, for which the head "
            f"of {type(model.network).__name__} has no place"
        )
    reduced = torch.nn.Linear(layer.in_features, 1, bias=layer.bias is not None)
    with torch.no_grad():
        reduced.weight.copy_((weights @ layer.weight)[None])
        if reduced.bias is not None:
            reduced.bias.fill_(bias)
    place, _, attribute = name_in(model.network, layer).rpartition(".")
    setattr(model.network.get_submodule(place), attribute, reduced.to(layer.weight))
    model.network.config.num_labels = 1
    if hasattr(model.network, "num_labels"):
        model.network.num_labels = 1
    model.objective = ObjectiveConfig().open()
