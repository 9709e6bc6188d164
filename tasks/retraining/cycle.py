"""A cycle of retraining: which deliveries it takes, the pairs it trains on and is measured on, its run."""

import shutil
from functools import partial
from pathlib import Path

import datasets
import pyarrow.parquet
from datasets import Dataset
from prefect import task
from prefect.cache_policies import NO_CACHE

from mars_core.config import ConfigError, scientific, to_yaml
from mars_core.data import reading
from mars_core.data.identity import pair_identity
from mars_core.data.source_rows import PairsError
from mars_core.files import digest, write_whole
from mars_core.method.selection import SelectionError
from tasks.retraining.jury import Division, balanced, without_repetitions
from tasks.retraining.ledger import Cycle, Ledger, LedgerError
from tasks.retraining.retrain_config import RetrainConfig, cycle_experiment, cycle_folder
from tasks.run.preflight import check
from tasks.run.run_config import RunConfig, load_run
from tasks.run.run_folder import RunFolderError, existing_run
from tasks.run.sources import source_digest
from tasks.run.step import tell
from tasks.tracking.registry import CYCLE, Champion, Registry, fetch_champion

TRUSTED, NEW = "trusted.parquet", "new.parquet"


@task(name="next cycle", task_run_name="next cycle", cache_policy=NO_CACHE, persist_result=False)
def next_cycle(config: RetrainConfig, ledger: Ledger, registry: Registry) -> Cycle | None:
    """The cycle that was begun and can go on, or else a new one if enough pairs are new.

    A cycle whose champion has changed since it was begun cannot go on, nor one whose configuration has before
    it was decided: its deliveries go into a new one. Suspected deliveries are tried before others.

    Raises:
        LedgerError: what is held out is not what it was in earlier cycles, or the registry's champion is not
            the one that the ledger knows.
        PairsError, and what else `check` raises: the experiment cannot be run.
    """
    _same_held_out(config, ledger)
    known = registry.champion()
    made_by = ledger.cycle_of(registry.tags(known.version).get(CYCLE)) if known else None
    begun = ledger.open_cycle
    if begun is not None and made_by == begun:
        return begun  # killed after its candidate had become champion
    _same_champion(config, ledger, registry, known, made_by)
    champion = known.version if known else None
    if begun is not None:
        if _is_readable(config, begun):
            decided = decision_file(config, begun).exists()
            if begun.champion == champion and (decided or _taken_over(config, begun, registry)):
                tell("Cycle %d goes on.", begun.number)
                return begun
            tell(
                "Cycle %d was begun with another configuration or champion: its deliveries begin a new one.",
                begun.number,
            )
        ledger.drop(begun)
    while deliveries := ledger.next_deliveries(config.min_new_pairs):
        planned = Cycle(number=ledger.next_number, deliveries=deliveries, champion=champion)
        try:
            _write_pairs(config, ledger, planned)
            experiment = _experiment(config, planned, registry)
            check(experiment)  # a cycle that cannot run is not begun, so that later deliveries may mend it
        except (PairsError, SelectionError) as error:  # they are too few; no fault of a server
            if deliveries not in ledger.suspects:
                raise
            tell("%d suspected deliveries cannot be tried alone: %s", len(deliveries), error)
            ledger.release(deliveries)
            continue
        _write_experiment(config, planned, experiment)
        return ledger.open(planned, _held_out(config), known)
    return None


def experiment_file(config: RetrainConfig, cycle: Cycle) -> Path:
    """Where the configuration of a cycle's run is."""
    return cycle_folder(config, cycle.number) / "experiment.yaml"


def decision_file(config: RetrainConfig, cycle: Cycle) -> Path:
    """Where the gate's decision on a cycle is, once it is made."""
    return cycle_folder(config, cycle.number) / "decision.json"


def trusted_ids(config: RetrainConfig, cycle: Cycle) -> set[str]:
    """Ids of the held-out pairs that decide at the gate."""
    file = cycle_folder(config, cycle.number) / "heldout" / TRUSTED
    if not file.exists():
        return set()
    return set(pyarrow.parquet.read_table(file, columns=["pair_id"])["pair_id"].to_pylist())


def _experiment(config: RetrainConfig, cycle: Cycle, registry: Registry) -> RunConfig:
    champion = None
    if cycle.champion is not None:
        champion = fetch_champion(registry, cycle.champion, config.root / "champion")
    return cycle_experiment(config, cycle.number, champion)


def _is_readable(config: RetrainConfig, cycle: Cycle) -> bool:
    """Whether this version reads the run of a cycle; one begun by an earlier version may have other keys."""
    try:
        root = load_run(experiment_file(config, cycle)).run_folder
        if (root / "config.yaml").exists():
            existing_run(root)
    except (ConfigError, RunFolderError) as error:
        tell("Cycle %d cannot go on, so its deliveries begin a new one: %s", cycle.number, error)
        return False
    return True


def _taken_over(config: RetrainConfig, cycle: Cycle, registry: Registry) -> bool:
    """Whether a cycle can go on as it is configured now; if so, its run gets the operational keys of now."""
    experiment = _experiment(config, cycle, registry)
    if scientific(load_run(experiment_file(config, cycle))) != scientific(experiment):
        return False
    _write_experiment(config, cycle, experiment)
    return True


def _write_experiment(config: RetrainConfig, cycle: Cycle, experiment: RunConfig) -> None:
    text = to_yaml(experiment)
    write_whole(experiment_file(config, cycle), lambda path: path.write_text(text, encoding="utf-8"))


def _held_out(config: RetrainConfig) -> str:
    trusted = source_digest(config.gate.pairs) if config.gate.pairs else None
    return digest(cycle_experiment(config, 1, None).data.heldout_share, trusted)


def _same_held_out(config: RetrainConfig, ledger: Ledger) -> None:
    if ledger.held_out not in (None, _held_out(config)):
        raise LedgerError(
            f"{config.name}: refine.data.heldout_share, or what gate.pairs={config.gate.pairs} holds, has "
            "changed since the first cycle, so the champion may have been trained on pairs that would be "
            "held out now; put it back, or begin a retraining of another name"
        )


def _same_champion(
    config: RetrainConfig, ledger: Ledger, registry: Registry, found: Champion | None, made_by: Cycle | None
) -> None:
    """Refuse to go on where the champion is another than the ledger's: no comparison would mean anything.

    A ledger of an earlier version knows its champion by the cycle that made it.
    """
    promoted = [cycle.number for cycle in ledger.cycles if cycle.state == "promoted"]
    if ledger.champion is not None:
        expected, same = f"version {ledger.champion.version}", found == ledger.champion
    else:
        expected = f"the model of cycle {', '.join(map(str, promoted))}"
        same = not promoted or (made_by is not None and made_by.state == "promoted")
    if not same:
        there = f"version {found.version}, another model," if found else "no version"
        raise LedgerError(
            f"{config.name}: {there} is champion in MLflow at {registry.address}, where the ledger has "
            f"{expected}. If that is another MLflow, or one restored from a backup, name the right one in "
            "tracking.uri or MLFLOW_TRACKING_URI, or restore a later backup. If --rollback or --promote was "
            "interrupted, give the same command again. If the alias was moved or deleted, choose a champion: "
            "mars retrain FILE --promote VERSION"
        )


def _write_pairs(config: RetrainConfig, ledger: Ledger, cycle: Cycle) -> None:
    """Write the pairs to train on, and the held-out ones of earlier deliveries and of the new."""
    share = cycle_experiment(config, cycle.number, None).data.heldout_share
    division = Division(ledger, share)
    earlier, new = (
        [division.divide(ledger.accepted_pairs(digest)) for digest in digests]
        for digests in (ledger.digests("trusted"), cycle.deliveries)
    )
    named = [] if config.gate.pairs is None else [_named(config)]
    trusted = balanced([part.held for part in earlier], sum(map(len, named)))
    trusted += [part for table in named for part in _others(table, trusted)]
    new_held = [part for delivered in new for part in _others(delivered.held, trusted)]
    if cycle.champion is not None and not trusted:
        raise PairsError(
            f"{config.name} has a champion, version {cycle.champion}, but no held-out pairs of earlier "
            "deliveries to compare a candidate with it on: name a source of trusted pairs in gate.pairs"
        )
    if not (trusted or new_held):
        raise PairsError(
            f"none of {ledger.waiting_pairs():,} accepted pairs is held out by "
            f"refine.data.heldout_share={share:g}: raise it, or min_new_pairs"
        )
    judges = [*named, *(part.held for part in [*earlier, *new])]
    train = [without_repetitions(part.train, judges) for part in [*earlier, *new]]
    repetitions = sum(len(part.train) for part in [*earlier, *new]) - sum(map(len, train))
    folder = cycle_folder(config, cycle.number)
    shutil.rmtree(folder, ignore_errors=True)  # of a start that ended before the cycle was begun
    tables = {"train.parquet": train}
    tables |= {f"heldout/{TRUSTED}": trusted, f"heldout/{NEW}": new_held}
    counts = {}
    for name, all_parts in tables.items():
        parts = [part for part in all_parts if len(part)]
        counts[name] = sum(map(len, parts))
        if parts:
            numbers = {column for part in parts for column in part.column_names} & set(reading.NUMBERS)
            whole = datasets.concatenate_datasets([reading.with_numbers(part, numbers) for part in parts])
            write_whole(folder / name, partial(reading.write_table, whole))
    tell(
        "Cycle %d: %s pairs to train on and validate; held out are %s that decide, and %s new ones; "
        "left out are %s that repeat held-out ones.",
        cycle.number, *(f"{count:,}" for count in [*counts.values(), repetitions]),
    )  # fmt: skip


def _named(config: RetrainConfig) -> Dataset:
    """The trusted pairs of `gate.pairs`, each known as accepted pairs are."""
    assert config.gate.pairs is not None
    table = reading.read(config.gate.pairs, config.data.open()).table
    ids = [
        pair_identity(*texts) for texts in zip(*(table[name] for name in reading.COLUMNS[1:4]), strict=True)
    ]
    named = table.remove_columns("pair_id").add_column("pair_id", ids).select_columns(table.column_names)
    first = {pair_id: row for row, pair_id in reversed(list(enumerate(ids)))}
    return named.select(sorted(first.values()))


def _others(table: Dataset, parts: list[Dataset]) -> list[Dataset]:
    """The pairs of a table that are in none of the other tables; none, or one table."""
    taken = {pair_id for part in parts for pair_id in part["pair_id"]}
    rows = [row for row, pair_id in enumerate(table["pair_id"]) if pair_id not in taken]
    return [table.select(rows)] if rows else []
