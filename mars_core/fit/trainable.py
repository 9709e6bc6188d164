"""Which weights of a reward model a fit trains, and how the checkpoint is saved."""

from pathlib import Path
from typing import Literal

import torch

from mars_core.model.loading import save_objective
from mars_core.model.reward_model import RewardModel

Trainable = Literal["all", "lora", "head"]


def choose_weights(model: RewardModel, trainable: Trainable, lora_rank: int) -> None:
    """Enable gradients for all weights, for new low-rank adapters and the head, or for the head's last layer.

    The objective's own modules are always trained.
    """
    if trainable == "head":
        model.network.requires_grad_(False)
        model.scalar_layer.requires_grad_(True)
    elif trainable == "lora":
        import peft

        head = next(name for name, module in model.network.named_modules() if module is model.head)
        drawn = [name for name in model.drawn if name != head and not name.startswith(f"{head}.")]
        settings = peft.LoraConfig(
            task_type=peft.TaskType.SEQ_CLS,
            r=lora_rank,
            lora_alpha=2 * lora_rank,
            target_modules="all-linear",
            modules_to_save=[head, *drawn],
        )
        commit = getattr(model.network.config, "_commit_hash", None)  # of a checkpoint from the hub
        model.network = peft.get_peft_model(model.network, settings, revision=commit)
        model.head = model.network.base_model.model.get_submodule(head)  # of which a copy is trained


def hold_frozen_in_bfloat16(model: RewardModel) -> None:
    """Cast the matrices that low-rank adapters do not train, once.

    Autocast would cast them in every forward pass, and the backward pass would hold each cast.
    """
    for layer in model.network.modules():
        if type(layer) is torch.nn.Linear and not layer.weight.requires_grad:
            layer.weight.data = layer.weight.data.bfloat16()


def trained_weights(model: RewardModel) -> dict[str, torch.nn.Parameter]:
    """The weights that a fit changes, by name; those of the objective's own modules are among them."""
    own = {f"objective.{name}": weight for name, weight in model.objective.own_weights()}
    return {name: weight for name, weight in model.network.named_parameters() if weight.requires_grad} | own


def save_checkpoint(model: RewardModel, folder: Path) -> None:
    """Write the checkpoint; adapters are merged into it, and also saved in its folder `adapter`."""
    if hasattr(model.network, "merge_and_unload"):
        model.network.save_pretrained(folder / "adapter", save_embedding_layers=False)
        save_objective(model.objective, folder / "adapter")
        model.network = model.network.merge_and_unload()
    model.save(folder)
