"""Rewards of a policy's responses, by each model that is optimised for and by the one that is not."""

import pyarrow as pa

from mars_core.alignment.outlier_distances import OutlierDistances
from mars_core.model.reward_model import RewardModel
from mars_core.model.scoring import ScoreSpec, TextsSpec
from tasks.run.align_config import AlignConfig
from tasks.run.compute_rewards import scored
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Checkpoint, Made, step

NAME = "responses"
GOLD, PROXY, DISTANCE = "gold", "reward", "distance"


@step("rewards", version=1, reads=("reward_model", "rewards"))
def score_responses(
    run: RunFolder[AlignConfig],
    round: int,
    responses: ArtifactRef,
    usual: ArtifactRef,
    models: dict[str, Checkpoint],
) -> Made[ArtifactRef]:
    """Score every response: columns prompt_id, sample, `reward` (what is optimised for), those of its models,
    `gold`, and `distance` from what is usual where outliers are penalised.

    Args:
        run: the folder.
        round: of the policy.
        responses: of the policy.
        usual: responses of the untrained policy.
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
    known, texts = rows.read("prompt_id", "sample"), rows.read("prompt", "response").to_pandas()
    optimised = {name: values.to_numpy() for name, values in found.items() if name != GOLD}
    far = None
    if run.config.rewards.outlier_penalty:
        loaded = [RewardModel.load(models[name].reference, run.config.reward_model) for name in optimised]
        usually = run.table(usual)
        outliers = OutlierDistances(loaded, list(usually["prompt"]), list(usually["response"]))
        far = outliers.of(list(texts["prompt"]), list(texts["response"]))
        found[DISTANCE] = pa.array(far.mean(axis=0))
    of_prompts = known["prompt_id"].to_numpy()
    reward = run.config.rewards.of([*optimised.values()], of_prompts, list(texts["response"]), far)
    table = known.append_column(PROXY, pa.array(reward))
    for name, values in found.items():
        table = table.append_column(name, values)
    return Made(run.write_table(run.of_round(round).response_rewards, table))
