"""A step: a Prefect task that makes its artifacts once, and later finds them in the run folder.

    @step("margins", version=1, reads=("model", "fit.objective"))
    def measure_margins(run: RunFolder, round: int, model: ArtifactRef, train: ArtifactRef) ->
    Made[ArtifactRef]:
        ...
        return Made(run.write_table(run.of_round(round).margins, table), {"margins/prompts_cut": 3.0})

A call of a step returns its artifacts; its metrics are in its record, and the run folder collects those of a
round. The key of a step is a digest of its version, its round, all its inputs, and the scientific keys of the
configuration sections that it names. Without a flow run a step is a plain function. A change of code that
does not change a step's results keeps its version, and so its artifacts. Prefect shows a step that was found
in the run folder as `Cached`.
"""

import functools
import inspect
import logging
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.exceptions import MissingContextError
from prefect.states import Completed
from pydantic import BaseModel

from mars_core.config import scientific, unset_later
from mars_core.files import digest
from mars_core.model.checkpoints import content_of_checkpoint
from tasks.run.prefect_api import task_of_flow
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder

P = ParamSpec("P")
Artifacts = TypeVar("Artifacts", ArtifactRef, Outputs)
VERSIONS: dict[str, int] = {}
"""Version of every step that was imported."""


@dataclass(frozen=True)
class Made(Generic[Artifacts]):
    """What a step made."""

    artifacts: Artifacts
    """One artifact, or several by name: the return value of the step."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Its metrics, which become part of the round's."""
    also: Outputs = field(default_factory=dict)
    """Further artifacts that belong to the step, by name."""


class Checkpoint(NamedTuple):
    """A model reference as an input of a step; for a local folder the key has its content."""

    reference: str


def step(
    name: str, *, version: int, reads: tuple[str, ...] = (), works_with: tuple[str, ...] = ()
) -> Callable[[Callable[P, Made[Artifacts]]], Callable[P, Artifacts]]:
    """Make a function `(run, round, inputs …) -> Made` a step.

    Args:
        name: its name in Prefect and in the run folder.
        version: raised when the step's results change for the same inputs.
        reads: configuration sections, such as `fit` or `fit.objective`, whose scientific keys shape the
            result.
        works_with: arguments that do not shape the result, such as an open generator; all others are part of
            the key.
    """
    VERSIONS[name] = version

    def decorate(compute: Callable[P, Made[Artifacts]]) -> Callable[P, Artifacts]:
        signature = inspect.signature(compute)

        def once(title: str, run: RunFolder, round: int | None, arguments: dict[str, Any]) -> Any:
            label = name if round is None else f"round-{round}-{name}"
            inputs = {key: value for key, value in arguments.items() if key not in works_with}
            key = step_key(name, version, round, run, reads, inputs)
            with run.alone_with(key):
                found = run.finished(label, key)
                if found is not None:
                    result: Any = _returned(found.outputs)
                    run.note_metrics(round, found.metrics)
                    return Completed(name="Cached", message="Found finished in the run folder.", data=result)
                started = time.monotonic()
                made = compute(run=run, round=round, **arguments)  # type: ignore[arg-type, call-arg]
                outputs = made.artifacts if isinstance(made.artifacts, dict) else {"": made.artifacts}
                outputs = outputs | made.also
                run.record(label, key, outputs, time.monotonic() - started, made.metrics)
                run.note_metrics(round, made.metrics)
            return _returned(outputs)

        run_once = task_of_flow(name, "{title}", compute.__doc__)(once)

        @functools.wraps(compute)
        def run_step(*args: P.args, **kwargs: P.kwargs) -> Artifacts:
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            run, number = arguments.pop("run"), arguments.pop("round")
            title = name if number is None else f"round {number} · {name}"
            outcome: Any = run_once(title, run, number, arguments)
            result: Artifacts = outcome.result() if isinstance(outcome, State) else outcome
            return result

        return run_step

    return decorate


def _returned(outputs: Outputs) -> ArtifactRef | Outputs:
    """The return value of a step: its only artifact, or all of them by name."""
    return outputs.get("", outputs)


def step_key(
    name: str,
    version: int,
    round: int | None,
    run: RunFolder,
    reads: tuple[str, ...],
    inputs: dict[str, Any],
) -> str:
    """Digest of everything that shapes a step's result."""
    sections = [section for section in reads if not unset_later(run.config, section)]
    return digest(
        {
            "step": name,
            "version": version,
            "round": round,
            "config": {section: content_of(operator.attrgetter(section)(run.config)) for section in sections},
            "inputs": content_of(inputs),
        }
    )


def tell(message: str, *values: Any, level: int = logging.INFO) -> None:
    """Log a message to the Prefect run; without one, to the logger `mars`."""
    try:
        logger = get_run_logger()
    except MissingContextError:
        logger = logging.getLogger("mars")
    logger.log(level, message, *values)


def content_of(value: Any) -> Any:
    """A value as it enters keys: artifacts, and models that the configuration marks, by their content."""
    if isinstance(value, ArtifactRef):
        return value.sha256
    if isinstance(value, Checkpoint):
        return content_of_checkpoint(value.reference)
    if isinstance(value, BaseModel):
        return scientific(value, content_of_checkpoint)
    if isinstance(value, (list, tuple)):
        return [content_of(item) for item in value]
    if isinstance(value, dict):
        return {key: content_of(item) for key, item in value.items()}
    return value
