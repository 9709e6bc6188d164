"""An estimate of what an evaluation costs before it starts: texts, tokens and hours of each model.

Hours are computed as `tasks.inspect.estimate` computes them, as if nothing were scored yet.
"""

from collections.abc import Mapping

from datasets import Dataset

from mars_core.evaluation.evaluation_config import Suite
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import ObjectiveConfig
from tasks.inspect.estimate import UTILISATION, matrix_product_rate
from tasks.steps.measure_checkpoint import counted_texts


def estimate_evaluation(
    reference: str,
    config: ModelConfig,
    objective: ObjectiveConfig | None,
    suite: Suite,
    tables: Mapping[str, Dataset],
) -> dict[str, str]:
    """What scoring the sets of `tables` with a model costs; returns texts by name.

    Raises:
        ModelError: the model cannot be loaded.
    """
    model = RewardModel.load(reference, config, objective)
    texts, distinct, tokens = counted_texts(model.renderer, suite, tables)
    weights = sum(p.numel() for name, p in model.network.named_parameters() if "embeddings." not in name)
    rate = UTILISATION * matrix_product_rate(model)
    return {
        "sets": ", ".join(f"{name} {len(table):,} rows" for name, table in tables.items()),
        "texts": f"{texts:,}, of which {distinct:,} are distinct and scored",
        "tokens": f"about {tokens:,.0f}",
        "hours": f"about {2 * weights * tokens / rate / 3600:,.2f} on this {model.device.type} "
        f"({rate / 1e9:,.0f} GFLOP/s: {UTILISATION:.0%} of its matrix-product rate now)",
    }
