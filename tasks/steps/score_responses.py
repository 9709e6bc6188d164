"""Rewards of a policy's responses, by each model that is optimised for and by the one that is not."""

import pyarrow as pa

from mars_core.model.scoring import ScoreSpec, TextsSpec
from tasks.run.align_config import AlignConfig
from tasks.run.compute_rewards import scored
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Checkpoint, Made, step

NAME = "responses"
GOLD, PROXY = "gold", "reward"


@step("rewards", version=1, reads=("reward_model", "rewards"))
def score_responses(
    run: RunFolder[AlignConfig], round: int, responses: ArtifactRef, models: dict[str, Checkpoint]
) -> Made[ArtifactRef]:
    """Score every response: columns prompt_id, sample, `reward` (what is optimised for), those of its models,
    and `gold`.

    Args:
        run: the folder.
        round: of the policy.
        responses: of the policy.
        models: name of a column → checkpoint; that of `GOLD` is not optimised for.
    """
    rows, found = run.open(responses), dict[str, pa.Array]()
    for name, model in models.items():
        spec = ScoreSpec(
            model=model.reference,
            reward_model=run.config.reward_model,
            texts={NAME: TextsSpec(file=run.verified(responses))},
            output=run.path(".scores"),
        )
        with scored(run.config.compute.open(), spec, f"rewards by {name}", len(rows)) as results:
            found[name] = pa.array(results.texts(NAME)["rewards"])
    known, texts = rows.read("prompt_id", "sample"), rows.read("response")["response"].to_pylist()
    optimised = [values.to_numpy() for name, values in found.items() if name != GOLD]
    reward = run.config.rewards.of(optimised, known["prompt_id"].to_numpy(), texts)
    table = known.append_column(PROXY, pa.array(reward))
    for name, values in found.items():
        table = table.append_column(name, values)
    return Made(run.write_table(run.of_round(round).response_rewards, table))
