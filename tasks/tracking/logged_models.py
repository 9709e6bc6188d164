"""MLflow: checkpoints as logged and registered models."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from mars_core.config import redact
from mars_core.model.loading import OBJECTIVE, OBJECTIVE_WEIGHTS
from mars_core.model.reward_model import ModelConfig, RewardModel
from tasks.run.run_config import TrackingConfig
from tasks.run.run_folder import RunFolder
from tasks.tracking.mlflow_store import (
    TrackingError,
    fluent,
    reached,
    told,
    tracking_uri,
)


def registered_checkpoint(config: TrackingConfig, reference: str, folder: Path) -> str:
    """Fetch a registered model (models:/NAME@ALIAS or models:/NAME/VERSION) as a checkpoint in a folder.

    MLflow keeps the tokenizer of a transformers model, and the objective, separate from its network; here
    they are put together.

    Raises:
        TrackingError: there is no such model.
    """
    try:
        with fluent(reached(config).tracking_uri):
            fetched = Path(mlflow.artifacts.download_artifacts(reference, dst_path=str(folder)))
    except Exception as error:  # artifact stores raise many kinds of errors
        raise TrackingError(
            f"{reference} is not available; MLflow at {redact(tracking_uri(config))} {told(error)}"
        ) from error
    tokenizer = fetched / "components" / "tokenizer"
    if not tokenizer.is_dir():
        return str(fetched)
    shutil.copytree(tokenizer, fetched / "model", dirs_exist_ok=True)
    for name in (OBJECTIVE, OBJECTIVE_WEIGHTS):
        if (fetched / name).exists():
            shutil.copyfile(fetched / name, fetched / "model" / name)
    return str(fetched / "model")


@contextmanager
def fetched(config: TrackingConfig, reference: str) -> Iterator[str]:
    """The reference of a model's checkpoint during a `with` block; a registered model is fetched.

    Raises:
        TrackingError: there is no such registered model.
    """
    if not reference.startswith("models:/"):
        yield reference
        return
    with TemporaryDirectory(prefix="mars-model-") as place:
        yield registered_checkpoint(config, reference, Path(place))


def log_model(client: MlflowClient, run: RunFolder, to: Run, t: int) -> str:
    """Send a round's checkpoint, once, as an MLflow model for `mlflow.transformers.load_model`; returns its
    id.

    The network and its tokenizer are passed in memory: to log a folder, MLflow asks transformers 5 for a
    pipeline in a form that it no longer has.
    """
    step = "fit" if run.path(f".steps/round-{t}-fit.json").exists() else "adopt"
    model = run.outputs(f"round-{t}-{step}")[""]
    if to.data.tags.get("mars.model") == model.sha256 and "mars.model.id" in to.data.tags:
        return to.data.tags["mars.model.id"]
    checkpoint = run.path(model)
    loaded = RewardModel.load(str(checkpoint), ModelConfig(device="cpu"), run.config.fit.objective)
    with fluent(client.tracking_uri), mlflow.start_run(run_id=to.info.run_id):
        logged = mlflow.transformers.log_model(
            transformers_model={"model": loaded.network, "tokenizer": loaded.tokenizer},
            name="reward_model",
            task="text-classification",
            pip_requirements=["torch", "transformers"],
        )
    for name in (OBJECTIVE, OBJECTIVE_WEIGHTS):
        if (checkpoint / name).exists():
            client.log_model_artifact(logged.model_id, str(checkpoint / name))
    client.set_tag(to.info.run_id, "mars.model.id", logged.model_id)
    client.set_tag(to.info.run_id, "mars.model", model.sha256)
    return logged.model_id
