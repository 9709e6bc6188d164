"""Direct preference optimisation (arXiv 2305.18290) on the best and the worst response to each prompt.

−ln σ(β·[ln π(y⁺)/π_ref(y⁺) − ln π(y⁻)/π_ref(y⁻)]), by TRL. With another divergence than the reverse KL, ln is
replaced by f′ of f-DPO (arXiv 2309.16240).
"""

from typing import Any, Literal

from pydantic import Field

from mars_core.alignment.methods.method import Method
from mars_core.alignment.sampled_pairs import PAIR_TOKENS, best_and_worst
from mars_core.alignment.trainer_setup import Setup


class Dpo(Method):
    """Prefer the best to the worst."""

    class Config(Method.Config):
        """What keeps the policy near the reference."""

        beta: float = Field(0.1, gt=0)
        """β: the greater, the nearer the policy stays to the untrained one."""
        divergence: Literal["reverse_kl", "forward_kl", "js_divergence"] = "reverse_kl"
        """Measure of the distance from it."""

    def trainer(self, setup: Setup) -> Any:
        """See `Method.trainer`."""
        from mars_core.alignment.pair_trainers import DpoOnTokens

        pairs = best_and_worst(setup.responses)
        return DpoOnTokens.of(
            setup,
            self.config,
            pairs[PAIR_TOKENS],
            f_divergence_type=self.config.divergence,
        )
