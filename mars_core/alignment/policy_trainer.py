"""The process that trains a policy: `python -m mars_core.alignment.policy_trainer SPECIFICATION`.

It trains up to a step, from the snapshot of an earlier evaluation or of a start that was killed, and writes
the policy: safetensors, tokenizer and chat template. Low-rank adapters are merged into their base, in
float32: what a short training changes would be lost by rounding to bfloat16. A snapshot is a checkpoint of
TRL's trainer with the states of optimizer, schedule and random numbers; one is whole when its last file can
be read.

Where a gradient is not finite, the weights that gave it are given up: the policy is that of the last snapshot
before them.
"""

import contextlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import transformers
from pydantic import Field, SerializeAsAny, ValidationError
from transformers.trainer_callback import TrainerState

from mars_core.alignment.methods.method import TrainingConfig
from mars_core.alignment.outlier_distances import OutlierDistances
from mars_core.alignment.policy import policy_tokenizer, prompt_tokens, response_tokens
from mars_core.alignment.rewards import OptimisedReward
from mars_core.alignment.trainer_setup import Setup, TrainingError
from mars_core.config import ByContent, Configuration, Operational
from mars_core.errors import MarsError
from mars_core.files import write_whole
from mars_core.generation.generation_config import ResponseSampling
from mars_core.model.checkpoints import locate
from mars_core.model.reward_model import ModelConfig, RewardModel, device_of

STATE = "trainer_state.json"
"""The last file of a snapshot that is written."""
KEPT = 2
"""Snapshots that are kept: the one before the last is taken where the last one's weights are broken."""


class TrainingSpec(Configuration):
    """The specification of training, which the process reads from a file."""

    policy: Annotated[str, ByContent()]
    """Reference of the policy to start from, which is also what it is kept near to."""
    responses: Path
    """Parquet file: prompt_id, prompt, response, is_cut_off, reward, and reward_0, … of each model."""
    models: tuple[str, ...]
    """References of the reward models, for methods that score in training."""
    rewards: OptimisedReward = OptimisedReward()
    """What they say together."""
    reward_model: ModelConfig = ModelConfig()
    """How texts go through them, and where policy and reward models run."""
    sampling: ResponseSampling = ResponseSampling()
    """How the policy is sampled."""
    training: SerializeAsAny[TrainingConfig] = Field(default_factory=TrainingConfig)
    """The method and its keys."""
    seed: int
    """Seed of order, adapters and sampling."""
    until: int = Field(ge=1)
    """Optimizer steps after which the policy is written."""
    snapshots: Annotated[Path, Operational()]
    """Folder of the snapshots."""
    output: Annotated[Path, Operational()]
    """Folder of the policy."""
    log: Annotated[Path, Operational()]
    """File of the training curve, one JSON line a step."""


class _NotFiniteError(Exception):
    """A gradient is NaN or infinite; the argument is the number of the step, from 1."""


def train(spec: TrainingSpec, report: Callable[[dict[str, float]], None]) -> dict[str, float]:
    """Train up to `spec.until`, and write the policy.

    Args:
        spec: what to train, on what, and how.
        report: called with what TRL logs of each optimizer step, and with the step of a snapshot.

    Returns:
        `steps` of the policy that was written, `loss` of its last step, `seconds` of this start;
        `resumed_at`, the step of the snapshot that it went on from, or 0; and where training broke off
        `broken_at`, the number of the step whose gradient was not finite.

    Raises:
        TrainingError: nothing is to be learned, or a gradient is not finite and there is no earlier snapshot.
    """
    started, result = time.monotonic(), dict[str, float]()
    for step, folder in _snapshots(spec.snapshots).items():
        if step > spec.until:  # of a later evaluation, whose policy is made anew
            shutil.rmtree(folder)
    last = max(_snapshots(spec.snapshots), default=0)
    result["resumed_at"] = float(last)
    if last:
        report({"step": last})
    if last < spec.until:
        trainer = spec.training.open().trainer(_setup(spec))
        trainer.add_callback(_Watch(spec.until, spec.training, report))
        trainer.remove_callback(transformers.PrinterCallback)
        try:
            trainer.train(resume_from_checkpoint=str(_snapshots(spec.snapshots)[last]) if last else None)
        except _NotFiniteError as error:
            [broken] = error.args
            result["broken_at"] = float(broken)
            last = _before(spec, broken)
        else:
            last = spec.until
    snapshot = _snapshots(spec.snapshots)[last]
    history = TrainerState.load_from_json(str(snapshot / STATE)).log_history
    curve = [entry for entry in history if "loss" in entry]
    write_whole(
        spec.log,
        lambda path: path.write_text("".join(json.dumps(_finite(entry)) + "\n" for entry in curve)),
    )
    write_whole(spec.output, lambda folder: _write_policy(spec, snapshot, folder))
    loss = float(curve[-1]["loss"]) if curve else math.nan
    return result | {"steps": float(last), "loss": loss, "seconds": time.monotonic() - started}


class _Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Reports steps, asks for snapshots, and ends training at a step, or before a broken update."""

    def __init__(self, until: int, training: Any, report: Callable[[dict[str, float]], None]) -> None:
        self.until, self.minutes, self.report = until, training.snapshot_minutes, report
        self.saved = time.monotonic()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        gradients = (weight.grad for weight in model.parameters() if weight.grad is not None)
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            raise _NotFiniteError(state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        ends = state.global_step >= self.until
        if ends or time.monotonic() - self.saved >= 60 * self.minutes:
            control.should_save = True
            self.saved = time.monotonic()
        control.should_training_stop |= ends

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" in logs:
            self.report({"step": state.global_step, **_finite(logs)})


def _setup(spec: TrainingSpec) -> Setup:
    """What the method makes its trainer of."""
    training: Any = spec.training
    tokenizer, (path, revision) = policy_tokenizer(spec.policy), locate(spec.policy)
    device = device_of(spec.reward_model)
    responses = _responses(spec, tokenizer)
    loading = {"dtype": "float32", "use_safetensors": True}
    arguments = {
        "output_dir": str(spec.snapshots),
        "max_steps": training.steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.schedule,
        "max_grad_norm": training.clip_norm,
        "gradient_checkpointing": training.gradient_checkpointing,
        "model_init_kwargs": loading | ({"revision": revision} if revision else {}),
        "seed": spec.seed,
        "bf16": device != "cpu",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # `_Watch` asks for snapshots
        "save_total_limit": KEPT,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return Setup(
        policy=path,
        arguments=arguments,
        tokenizer=tokenizer,
        adapters=_adapters(training),
        responses=responses,
        models=tuple(f"reward_{number}" for number in range(len(spec.models))),
        reward=_Scorer(spec, responses),
        sampling=spec.sampling,
    )


def _adapters(training: Any) -> Any:
    if training.trainable == "all":
        return None
    import peft

    return peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=training.lora_rank,
        lora_alpha=2 * training.lora_rank,
        target_modules="all-linear",
    )


def _responses(spec: TrainingSpec, tokenizer: Any) -> pd.DataFrame:
    table = pd.read_parquet(spec.responses)
    prompts = {prompt: prompt_tokens(tokenizer, prompt) for prompt in table["prompt"].unique()}
    table["prompt_tokens"] = table["prompt"].map(prompts)
    table["response_tokens"] = [
        response_tokens(tokenizer, response, is_cut_off=bool(is_cut_off))
        for response, is_cut_off in zip(table["response"], table["is_cut_off"], strict=True)
    ]
    return table


class _Scorer:
    """The rewards of responses by the reward models, which are loaded when the first are asked for."""

    def __init__(self, spec: TrainingSpec, usual: pd.DataFrame) -> None:
        self.spec = spec
        self.usual = usual

    @cached_property
    def models(self) -> list[RewardModel]:
        return [RewardModel.load(name, self.spec.reward_model) for name in self.spec.models]

    @cached_property
    def outliers(self) -> OutlierDistances:
        return OutlierDistances(self.models, list(self.usual["prompt"]), list(self.usual["response"]))

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        rewards = [model.score(prompts, responses) for model in self.models]
        distances = self.outliers.of(prompts, responses) if self.spec.rewards.outlier_penalty else None
        return list(map(float, self.spec.rewards.of(rewards, prompts, responses, distances)))


def _snapshots(folder: Path) -> dict[int, Path]:
    """Step → snapshot that is whole."""
    found = {}
    for state in folder.glob(f"checkpoint-*/{STATE}"):
        with contextlib.suppress(ValueError):  # it was being written when the process was killed
            found[int(json.loads(state.read_text())["global_step"])] = state.parent
    return found


def _before(spec: TrainingSpec, broken: int) -> int:
    """The step of the last snapshot whose weights gave a finite gradient."""
    good = [step for step in _snapshots(spec.snapshots) if step < broken - 1]
    if not good:
        raise TrainingError(
            f"step {broken}: the gradient is NaN or infinite, and there is no earlier snapshot; lower "
            "training.learning_rate"
        )
    return max(good)


def _finite(logs: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold of TRL's logs."""
    return {
        name: value for name, value in logs.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def _write_policy(spec: TrainingSpec, snapshot: Path, folder: Path) -> None:
    """Write the policy of a snapshot."""
    training: Any = spec.training
    lora = training.trainable == "lora"
    path, revision = locate(spec.policy) if lora else (str(snapshot), None)
    network = transformers.AutoModelForCausalLM.from_pretrained(
        path, revision=revision, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    if lora:
        import peft

        network = peft.PeftModel.from_pretrained(network, snapshot).merge_and_unload()
    network.save_pretrained(folder)
    own_path, own_revision = locate(spec.policy)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        own_path, revision=own_revision, trust_remote_code=False
    )
    tokenizer.save_pretrained(folder)


def main(spec_file: str) -> None:
    """Train one policy; standard output carries its metrics as JSON lines, the last of which is the result.

    Raises:
        TrainingError: as `train`, or the file holds no specification.
    """
    try:
        spec = TrainingSpec.model_validate_json(Path(spec_file).read_text())
    except (OSError, ValidationError) as error:
        raise TrainingError(f"{spec_file}: {error}") from error
    lines = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # libraries print
        result = train(spec, lambda figures: print(json.dumps(figures), file=lines, flush=True))
    print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except MarsError as error:
        sys.exit(str(error))
