"""A reward model as plain transformers, TRL, vLLM and rewardbench load it: whole, in safetensors, with one
linear output.

Adapters are merged and a chat template's date is pinned, as in every checkpoint that is saved here. Where the
objective's reward is a weighted sum of the head's outputs, that sum becomes the head. The rewardbench package
reads checkpoints by transformers 4, which has other names for some settings.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
            "that no other software can load it as a reward model; mars export --format model writes it for "
            "mars score and mars evaluate, which compute it"
        )
    if not linear.is_the_output:
        _reduce_head(model, linear)
    model.save(folder)
    _change_json(folder / "config.json", _with_positions_of_transformers_4)
    names = list(model.tokenizer.model_input_names)
    _change_json(folder / "tokenizer_config.json", lambda about: _with_class_of_transformers_4(about, names))


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


def _change_json(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    changed = change(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(changed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _with_positions_of_transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """A network's settings with rotary positions by their names in transformers 4 too, which does not know
    `rope_parameters` and would compute other rewards with its defaults, without a word."""
    rotary = dict(config.get("rope_parameters") or {})
    names = [name for name in ("rope_theta", "partial_rotary_factor") if name in rotary]
    older = {name: rotary.pop(name) for name in names}
    if "rope_theta" in older and rotary.get("rope_type", "default") != "default":
        older["rope_scaling"] = rotary
    return config | older


def _with_class_of_transformers_4(tokenizer: dict[str, Any], input_names: list[str]) -> dict[str, Any]:
    """A tokenizer's settings with a class that transformers 4 knows, where it has but the general one."""
    if tokenizer.get("tokenizer_class") != "TokenizersBackend":
        return tokenizer
    changed = tokenizer | {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": input_names}
    if isinstance(tokens := changed.pop("extra_special_tokens", None), list):
        changed["additional_special_tokens"] = tokens
    return changed
