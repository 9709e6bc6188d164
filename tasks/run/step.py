"""A step: a Prefect task whose artifacts are made once and found again in the run folder.

The key of a step digests its version, its round, the digests of the artifacts it reads, and the scientific
keys of the configuration sections it names. A hotfix of code that does not change a step's results leaves
its version, and so its artifacts, alone. Prefect shows a step that was found as `Cached`.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import MissingContextError
from prefect.states import Completed

from mars_core.config import scientific
from mars_core.files import digest
from mars_core.model.checkpoints import content_of_checkpoint
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder

Result = TypeVar("Result", ArtifactRef, Outputs)
VERSIONS: dict[str, int] = {}
"""Version of every step that was imported."""


def step(name: str, *, version: int, reads: tuple[str, ...] = ()) -> Callable[..., Callable[..., Any]]:
    """Make a step of a function `(run, round, *inputs) -> ArtifactRef | dict of ArtifactRefs`.

    Of several artifacts the one named "", if there is one, is the step's result; the others go with it.

    Args:
        name: what Prefect and the run folder call it.
        version: raised when the step's results change for the same inputs.
        reads: configuration sections whose scientific keys shape the result.

    Keyword arguments of the function are what it works with, such as an open generator, and shape nothing.
    """

    VERSIONS[name] = version

    def decorate(compute: Callable[..., Result]) -> Callable[..., Result]:
        def once(title: str, run: RunFolder, round: int | None, *inputs: Any, **tools: Any) -> Any:
            label = name if round is None else f"round-{round}-{name}"
            key = step_key(name, version, round, run, reads, inputs)
            with run.alone_with(key):
                found = run.finished(label, key)
                if found is not None:
                    result: Any = found.get("", found)
                    return Completed(name="Cached", message="Found finished in the run folder.", data=result)
                started = time.monotonic()
                made = compute(run, round, *inputs, **tools)
                outputs = {"": made} if isinstance(made, ArtifactRef) else made
                run.record(label, key, outputs, time.monotonic() - started)
            return outputs.get("", outputs)

        prefect_task = task(
            name=name,
            task_run_name="{title}",
            description=compute.__doc__,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(once)

        @functools.wraps(compute)
        def run_step(run: RunFolder, round: int | None, *inputs: Any, **tools: Any) -> Result:
            title = name if round is None else f"round {round} · {name}"
            outcome: Any = prefect_task(title, run, round, *inputs, **tools)
            return outcome.result() if isinstance(outcome, State) else outcome

        return run_step

    return decorate


def step_key(
    name: str,
    version: int,
    round: int | None,
    run: RunFolder,
    reads: tuple[str, ...],
    inputs: tuple[Any, ...],
) -> str:
    """Digest of everything that shapes a step's result."""
    sections = scientific(run.config)
    return digest(
        {
            "step": name,
            "version": version,
            "round": round,
            "config": {section: content_of(sections[section]) for section in reads},
            "inputs": [content_of(value) for value in inputs],
        }
    )


def tell(message: str, *values: Any, level: int = logging.INFO) -> None:
    """Say something in the log of the Prefect run, where there is one."""
    with contextlib.suppress(MissingContextError):
        get_run_logger().log(level, message, *values)


def content_of(value: Any) -> Any:
    """A value as keys hold it: artifacts and local folders, such as a backbone's, by what is in them."""
    if isinstance(value, ArtifactRef):
        return value.sha256
    if isinstance(value, str) and value:
        return content_of_checkpoint(value)  # a local backbone or embedder counts by its weights
    if isinstance(value, (list, tuple)):
        return [content_of(item) for item in value]
    if isinstance(value, dict):
        return {key: content_of(item) for key, item in value.items()}
    return value
