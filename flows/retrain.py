"""Scheduled retraining: new pairs, self-refinement from the champion, the gate, promotion."""

from contextlib import ExitStack
from typing import Literal, NamedTuple

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.refine import refine
from mars_core.evaluation.gate_decision import Decision
from tasks.retraining.cycle import decision_file, experiment_file, next_cycle, trusted_ids
from tasks.retraining.gate import by_agreement, decision_tags, pass_gate, publish
from tasks.retraining.intake import take_in
from tasks.retraining.ledger import Cycle, Ledger
from tasks.retraining.retrain_config import RetrainConfig, cycle_experiment, load_retraining
from tasks.run.round_metrics import best_round
from tasks.run.run_folder import RunFolderError, existing_run, owned
from tasks.run.step import tell
from tasks.tracking.registry import (
    CYCLE,
    Registry,
    appoint,
    check_compared,
    previous_champion,
    promote,
    refuse,
    register_candidate,
    restore,
)
from tasks.using.describe import hub, licences, run_card

End = Literal["Skipped", "Nothing new", "Promoted", "Refused"]
"""How a retraining ends; the name of its flow run's final state."""


class Outcome(NamedTuple):
    """How a retraining ended, and in sentences."""

    name: End
    message: str
    decision: Decision | None = None


def _name() -> str:
    return load_retraining(**flow_run.parameters).name


@flow(name="retrain", flow_run_name=_name, persist_result=False)
def retrain(file: str, overrides: tuple[str, ...] = ()) -> State[Outcome]:
    """Take in new preference pairs; where there are enough, refine the champion, promote or refuse it.

    The candidate takes the champion's place only if it passes the gate. The name of the flow run's final
    state says how it ended. One retraining at a time: a second one is skipped. Killed and started again,
    it goes on with the same cycle. Where the champion changes while it runs, by a person's rollback, it ends
    with an error, and its deliveries take part in a new cycle.

    Args:
        file: path of the retraining's configuration.
        overrides: `dotted.key=value` changes to it.
    """
    config = load_retraining(file, overrides)
    with ExitStack() as stack:
        try:
            stack.enter_context(owned(config.root))
        except RunFolderError:
            return _ended(Outcome("Skipped", f"Another retraining of {config.name} is under way."))
        ledger, registry = Ledger.of(config.root), _registry(config)
        take_in(config, ledger)
        cycle = next_cycle(config, ledger, registry)
        if cycle is None:
            waiting = f"{ledger.waiting_pairs():,} new pairs wait, {config.min_new_pairs:,} are needed"
            return _ended(Outcome("Nothing new", f"{waiting}. Deliveries: {ledger.summary()}."))

        report = refine(str(experiment_file(config, cycle)))
        run = existing_run(config.root / "runs" / report.name)
        first = 0 if cycle.champion is None else 1  # round 0 is the champion itself
        best = first + best_round(report.rounds[first:])
        decision = pass_gate(
            config.gate, run, best, trusted_ids(config, cycle), cycle.champion is not None,
            ledger.looks(cycle.champion) + 1, decision_file(config, cycle),
        )  # fmt: skip

        tags = {"mars.retraining": config.name, CYCLE: ledger.label(cycle), **decision_tags(decision)}
        candidate = register_candidate(
            registry, run, len(report.rounds), best, tags, run_card(run, best, licences(hub()))
        )
        delivered = _became(decision, cycle)
        suspects = list[str]()
        if delivered == "suspected":
            suspects = by_agreement(run, cycle.deliveries, lambda name: ledger.accepted_pairs(name).ids())
        with ledger.held():  # else a rollback might come between the look at the champion and its change
            check_compared(registry, candidate, cycle.champion)
            if decision.promoted:
                end: End = "Promoted"
                promote(registry, candidate, cycle.champion)
                advice = (
                    f"Version {candidate} is champion. Back to the one before: mars retrain {file} --rollback"
                )
            else:
                end = "Refused"
                refuse(registry, candidate)
                advice = f"{_who_stays(file, cycle, candidate)} {_what_now(file, cycle, decision)}"
            publish(config.name, cycle.number, candidate, decision, advice)
            state: Literal["promoted", "refused"] = "promoted" if decision.promoted else "refused"
            ledger.close(cycle, state, delivered, decision.reason, registry.champion(), suspects)
        return _ended(Outcome(end, f"{decision.reason} {advice}", decision))


@flow(name="roll back", flow_run_name=_name, persist_result=False)
def roll_back(file: str, overrides: tuple[str, ...] = ()) -> str:
    """Let the previous champion be champion again, and set aside what the withdrawn one was trained on first.

    A retraining that is under way need not end first: what it makes is not promoted.

    Returns:
        What was done, in a sentence.

    Raises:
        RegistryError: there is no previous champion.
    """
    config = load_retraining(file, overrides)
    registry, ledger = _registry(config), Ledger.of(config.root)
    with ledger.held():
        champion, previous = previous_champion(registry)
        said = f"Version {previous} of {config.name} is champion again"
        again = registry.known(previous)
        cycle = ledger.cycle_of(registry.tags(champion).get(CYCLE))
        if champion != previous:
            said += f"; version {champion} is withdrawn"
        if champion != previous and cycle is not None:
            ledger.close(cycle, "withdrawn", "refused", f"version {champion} was rolled back", again)
            said += f", and the {len(cycle.deliveries)} deliveries new in it are set aside"
        else:
            ledger.recognise(again)
        restore(registry, champion, previous)
    tell("%s.", said)
    return f"{said}."


@flow(name="promote", flow_run_name=_name, persist_result=False)
def promote_by_hand(file: str, version: str, overrides: tuple[str, ...] = ()) -> str:
    """Let a version be champion that a person has judged; what it was trained on is trusted from now on.

    Returns:
        What was done, in a sentence.

    Raises:
        RegistryError: there is no such version.
    """
    config = load_retraining(file, overrides)
    registry, ledger = _registry(config), Ledger.of(config.root)
    with ledger.held():
        champion = registry.known(version)
        appoint(registry, champion.version)
        said = f"Version {champion.version} of {config.name} is champion"
        cycle = ledger.cycle_of(registry.tags(champion.version).get(CYCLE))
        if cycle is not None and cycle.state != "promoted":
            ledger.close(cycle, "promoted", "trusted", "", champion)
            said += f", and the {len(cycle.deliveries)} deliveries new in it are trusted"
        else:
            ledger.recognise(champion)
    tell("%s.", said)
    return f"{said}."


def _registry(config: RetrainConfig) -> Registry:
    return Registry(cycle_experiment(config, 1, None).tracking, config.name)


def _became(decision: Decision, cycle: Cycle) -> Literal["trusted", "undecided", "suspected", "refused"]:
    """What becomes of the deliveries that were new in a cycle."""
    if decision.promoted:
        return "trusted"
    if not decision.blames_data:
        return "undecided"
    return "suspected" if len(cycle.deliveries) > 1 else "refused"


def _who_stays(file: str, cycle: Cycle, candidate: str) -> str:
    if cycle.champion is not None:
        return f"Version {cycle.champion} stays champion."
    return (
        f"Nobody is champion; version {candidate} stays challenger. To make it champion all the same: "
        f"mars retrain {file} --promote {candidate}"
    )


def _what_now(file: str, cycle: Cycle, decision: Decision) -> str:
    """What becomes of the deliveries of a refused candidate, and what a person can do."""
    digests = ", ".join(digest[:12] for digest in cycle.deliveries)
    became = _became(decision, cycle)
    if became == "suspected":
        return (
            f"One of the deliveries {digests} may be to blame: the next cycles try one half of them each, "
            "until it is found, and set nothing aside before."
        )
    if became == "refused":
        return (
            f"Deliveries {digests} are set aside; "
            f"to train on one all the same: mars retrain {file} --readmit DIGEST"
        )
    return (
        f"That is for want of evidence, so deliveries {digests} take part in the next cycle again; "
        "more trusted pairs in gate.pairs, or wider margins, would decide sooner."
    )


def _ended(outcome: Outcome) -> State[Outcome]:
    tell("%s: %s", outcome.name, outcome.message)
    return Completed(name=outcome.name, message=outcome.message, data=outcome)
