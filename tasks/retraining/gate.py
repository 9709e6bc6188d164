"""The gate's decision on a cycle: taken from the run's artifacts, shown in Prefect, kept, and announced."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from pydantic import TypeAdapter

from mars_core.evaluation import robustness
from mars_core.evaluation.benchmarks import best_of_n
from mars_core.evaluation.contamination import prompt_numbers
from mars_core.evaluation.gate_decision import Decision, GateConfig, decide, table
from mars_core.files import write_whole
from tasks.run.run_folder import RunFolder

DECISION = TypeAdapter(Decision)


@task(name="gate", task_run_name="gate", cache_policy=NO_CACHE, persist_result=False)
def pass_gate(
    config: GateConfig,
    run: RunFolder,
    round: int,
    trusted: set[str],
    champion: bool,
    look: int,
    file: Path,
) -> Decision:
    """Compare the model of a round with the champion, which is that of round 0 if there is one.

    It is the `look`-th candidate that this champion is compared with.
    A cycle is decided once: the decision is kept in a file, and read from there if that exists.
    """
    if file.exists():
        return DECISION.validate_json(file.read_bytes())
    decision = _compared(config, run, round, trusted, champion, look)
    write_whole(file, lambda path: path.write_bytes(DECISION.dump_json(decision, indent=2)))
    return decision


def by_agreement(run: RunFolder, deliveries: Sequence[str], ids: Callable[[str], list[str]]) -> list[str]:
    """Deliveries in the order in which suspects are tried: first those that the champion agrees with most.

    One without a held-out pair, of which nothing is known, stands where the champion agrees with one half.

    Args:
        run: of the cycle; its round 0 is the champion, or, without one, the first model.
        deliveries: those that were new in it.
        ids: of the pairs of a delivery.
    """
    measured = _results(run, 0)["heldout"]
    right = (measured["margin"] > 0).astype(float).set_axis(measured["pair_id"])
    agreement = {name: right[right.index.isin(ids(name))].mean() for name in deliveries}
    return sorted(deliveries, key=lambda name: -0.5 if np.isnan(agreement[name]) else -agreement[name])


def decision_tags(decision: Decision) -> dict[str, str]:
    """The decision as tags of a model version."""
    tags = {"mars.gate.reason": decision.reason[:5000]}
    for check in decision.checks:
        difference = f"{check.difference:+.3f} [{check.low:+.3f}, {check.high:+.3f}]"
        tags[f"mars.gate.{_slug(check.name)}"] = difference
    return tags


@task(name="decision", task_run_name="decision", cache_policy=NO_CACHE, persist_result=False)
def publish(name: str, cycle: int, version: str, decision: Decision, advice: str) -> None:
    """Show the decision in Prefect, and emit mars.gate.promoted or .refused."""
    verdict = "promoted" if decision.promoted else "refused"
    create_markdown_artifact(
        key=f"gate-{_slug(name)}",
        markdown=f"# {name}, cycle {cycle}: version {version} {verdict}\n\n{decision.reason}\n\n"
        f"{table(decision)}\n\n{advice}\n",
        description=f"The gate's decision on version {version} of {name}",
    )
    emit_event(
        event=f"mars.gate.{verdict}",
        resource={"prefect.resource.id": f"mars.retraining.{name}", "prefect.resource.name": name},
        payload={"name": name, "cycle": cycle, "version": version, **asdict(decision)},
    )


def _compared(
    config: GateConfig, run: RunFolder, round: int, trusted: set[str], champion: bool, look: int
) -> Decision:
    candidate, incumbent = (_results(run, part) for part in (round, 0))
    margins, is_trusted = candidate["heldout"]["margin"], candidate["heldout"]["pair_id"].isin(list(trusted))
    prompts = prompt_numbers(run.open(run.outputs("prepare")["heldout"]).texts("prompt"))
    if not champion:
        return decide(config, margins, None, is_trusted, prompts=prompts, look=look)
    if not candidate["heldout"]["pair_id"].equals(incumbent["heldout"]["pair_id"]):
        raise ValueError(f"{run.root}: rounds 0 and {round} were measured on different held-out pairs")
    suite = run.config.evaluation.suite
    benchmarks = [(one, candidate[key], incumbent[key]) for key, one in suite.items() if key in candidate]

    def of_both(key: str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        return (candidate[key], incumbent[key]) if key in candidate and key in incumbent else None

    return decide(
        config,
        margins,
        incumbent["heldout"]["margin"],
        is_trusted,
        benchmarks,
        robustness=of_both(robustness.KEY),
        best_of_n=of_both(best_of_n.KEY),
        prompts=prompts,
        look=look,
    )


def _results(run: RunFolder, round: int) -> dict[str, pd.DataFrame]:
    """The tables that the model of a round was measured by: heldout, validation, and those of benchmarks."""
    return {name: run.table(part) for name, part in run.outputs(f"round-{round}-evaluation").items()}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
