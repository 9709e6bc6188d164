"""Over-optimisation: what the best of n responses is worth to the reward that chooses it, and to gold."""

import pandas as pd
from datasets import Dataset

from mars_core.evaluation.benchmarks.best_of_n import KEY, BestOfN
from tasks.run.align_config import AlignConfig
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Made, step
from tasks.steps.score_responses import GOLD, PROXY


@step("best of n", version=1)
def measure_best_of_n(
    run: RunFolder[AlignConfig], round: int, responses: ArtifactRef, rewards: ArtifactRef
) -> Made[ArtifactRef]:
    """Gather the responses of each prompt that has two, and measure the choice of the best of n.

    The metrics are those of the benchmark `best_of_n`; without a gold model they have its own reward alone.
    """
    both = run.table(responses).merge(run.table(rewards), on=["prompt_id", "sample"])
    rows = [
        {
            "id": prompt_id,
            "subset": "all",
            "prompt": of_prompt["prompt"].iloc[0],
            "responses": of_prompt["response"].tolist(),
            "gold": of_prompt[GOLD].astype(float).tolist() if GOLD in of_prompt else None,
            "rewards": of_prompt[PROXY].tolist(),
        }
        for prompt_id, of_prompt in both.groupby("prompt_id", sort=False)
        if len(of_prompt) > 1
    ]
    table = pd.DataFrame(rows)
    scores = BestOfN(BestOfN.Config()).score(table)
    written = run.write_table(run.of_round(round).best_of_n, Dataset.from_pandas(table))
    return Made(written, {f"{KEY}/{name}": value for name, value in scores.items()})
