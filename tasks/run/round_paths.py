"""Where the artifacts of a round lie, relative to the run's folder."""


class RoundPaths:
    """The paths of one round; round 0 has only the model, its evaluation and its metrics."""

    def __init__(self, round: int) -> None:
        """Paths of the round with this number."""
        folder = f"round-{round}"
        self.folder = folder
        self.margins = f"{folder}/margins.parquet"
        """Rewards and margins of the originals by the previous round's model."""
        self.margins_moments = f"{folder}/margins_moments.npz"
        self.margins_features = f"{folder}/margins_features.npy"
        self.allocation = f"{folder}/allocation.parquet"
        """Budgets of the originals."""
        self.distances = f"{folder}/distances.parquet"
        self.rewrites = f"{folder}/rewrites.parquet"
        self.augmented = f"{folder}/augmented.parquet"
        """The synthetic pairs that were trained on."""
        self.variants = f"{folder}/variants.parquet"
        """The texts that were generated for them."""
        self.dropped_rewrites = f"{folder}/dropped_rewrites.parquet"
        """Some of the rewrites that guards dropped, and why."""
        self.dropped_paraphrases = f"{folder}/dropped_paraphrases.parquet"
        """Some of the paraphrases that guards dropped, and why."""
        self.synthetic = f"{folder}/synthetic.parquet"
        """The synthetic pairs with their margins before and after the fit."""
        self.synthetic_moments = f"{folder}/synthetic_moments.npz"
        self.prompts = f"{folder}/prompts.parquet"
        """What a policy is asked."""
        self.responses = f"{folder}/responses.parquet"
        """What it responds."""
        self.response_rewards = f"{folder}/response_rewards.parquet"
        self.best_of_n = f"{folder}/best_of_n.parquet"
        """The responses of each prompt with what is optimised for and gold."""
        self.model = f"{folder}/model"
        self.fit = f"{folder}/fit.json"
        """The fit's specification."""
        self.fit_log = f"{folder}/fit.log"
        self.training = f"{folder}/training.jsonl"
        """The training curve."""
        self.contamination = f"{folder}/contamination.parquet"
        self.curvature = f"{folder}/curvature.parquet"
        self.metrics = f"{folder}/metrics.json"

    def rewards(self, pairs: str) -> str:
        """Rewards of a set of pairs by the round's model."""
        return f"{self.folder}/{pairs}_rewards.parquet"

    def benchmark(self, key: str) -> str:
        """Results of a benchmark by the round's model."""
        return f"{self.folder}/{key}.parquet"
