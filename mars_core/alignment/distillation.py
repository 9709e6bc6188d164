"""The loss of reward distillation (arXiv 2405.19316)."""

import torch


def distillation_loss(
    log_ratios: torch.Tensor, reward_differences: torch.Tensor, beta: float, pessimism: float
) -> torch.Tensor:
    """min over models of mean (Δr − β·Δ ln π/π_ref)², plus γ·mean(−ln π/π_ref).

    Args:
        log_ratios: [2n] ln π(y)/π_ref(y) of all first responses, and then of all second ones.
        reward_differences: [n, k] r(y₁) − r(y₂) by each of k reward models.
        beta: β.
        pessimism: γ, of the forward KL divergence of responses that π_ref was sampled for.
    """
    first, second = log_ratios.chunk(2)
    errors = (reward_differences - beta * (first - second)[:, None]) ** 2
    return errors.mean(dim=0).min() - pessimism * log_ratios.mean()
