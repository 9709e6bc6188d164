"""Take in deliveries: accepted pairs and bad rows go into files, what became of them into the ledger."""

import json
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from mars_core.data import reading
from mars_core.data.deliveries import (
    Delivery,
    Intake,
    NoFileError,
    UnfinishedError,
    examine,
    new_deliveries,
)
from mars_core.files import write_whole
from tasks.retraining.ledger import Delivered, Ledger
from tasks.retraining.retrain_config import RetrainConfig
from tasks.run.step import tell


@task(name="intake", task_run_name="intake", cache_policy=NO_CACHE, persist_result=False)
def take_in(config: RetrainConfig, ledger: Ledger) -> None:
    """Look for deliveries that are not in the ledger; accept their pairs, quarantine bad rows with reasons.

    Raises:
        PairsError: the source is not there or cannot be loaded.
    """
    found, left = new_deliveries(config.data, ledger.deliveries.keys() - ledger.readmitted, time.time())
    known, refused = ledger.pair_ids("waiting", "undecided", "trusted"), ledger.pair_ids("refused")
    known_first = ledger.pair_ids("waiting", "undecided", "trusted", reading=1)
    reads = config.data.open()
    for delivery in found:
        try:
            if delivery.digest in ledger.deliveries:  # readmitted: a person has judged it
                intake = examine(delivery, known, (), 1.0, reads, known_first)
            else:
                intake = examine(delivery, known, refused, config.data.max_bad_share, reads, known_first)
        except (UnfinishedError, NoFileError, OSError) as error:
            left[delivery.name] = str(error)
            continue
        _keep(config.root, ledger, delivery, intake)
        if intake.accepted is not None:
            known.update(intake.accepted["pair_id"])
    gone = ledger.readmitted - {delivery.digest for delivery in found}
    left = {
        ledger.deliveries[digest].file: "it was readmitted, but is there no more" for digest in gone
    } | left
    for name, why in left.items():
        get_run_logger().warning("%s is left for the next look: %s.", name, why)
    tell(
        "%s: %d new deliveries; %s accepted pairs wait, a cycle begins at %s.",
        config.data.source, len(found) - len(left.keys() & {delivery.name for delivery in found}),
        f"{ledger.waiting_pairs():,}", f"{config.min_new_pairs:,}",
    )  # fmt: skip


def _keep(root: Path, ledger: Ledger, delivery: Delivery, intake: Intake) -> None:
    """Write what was accepted, what was not, then the ledger: killed in between, it all happens again."""
    accepted = intake.accepted
    for place in (ledger.accepted(delivery.digest), quarantine_file(root, delivery)):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.parent.chmod(0o700)  # an earlier version made it
    if accepted is not None:
        write_whole(ledger.accepted(delivery.digest), accepted.to_parquet)
    if intake.bad:
        lines = [
            json.dumps({"file": delivery.name, **row._asdict()}, ensure_ascii=False) for row in intake.bad
        ]
        write_whole(
            quarantine_file(root, delivery),
            partial(Path.write_text, data="\n".join(lines) + "\n", encoding="utf-8", errors="replace"),
        )
    pairs = 0 if accepted is None else len(accepted)
    became = Delivered(
        file=delivery.name,
        state="quarantined" if intake.refusal else "waiting" if pairs else "known",
        reason=intake.refusal or "",
        rows=intake.rows,
        pairs=pairs,
        duplicates=intake.duplicates,
        bad=len(intake.bad),
        seen=datetime.now(UTC).isoformat(timespec="seconds"),
        reading=reading.VERSION,
    )
    ledger.keep(delivery.digest, became)
    if intake.remark:
        tell("%s: %s.", delivery.name, intake.remark)
    for reason, count in intake.left_out.items():
        tell("%s: left out %s: %s.", delivery.name, f"{count:,}", reason)
    if intake.refusal:
        get_run_logger().warning(
            "%s (%s) is quarantined whole: %s.%s",
            delivery.name, delivery.digest[:12], intake.refusal,
            f" Its bad rows are in {quarantine_file(root, delivery)}." if intake.bad else "",
        )  # fmt: skip
        return
    tell(
        "%s (%s): %s of %s rows are new pairs, %s were known, %s are bad%s.",
        delivery.name, delivery.digest[:12],
        *(f"{count:,}" for count in (pairs, intake.rows, intake.duplicates, len(intake.bad))),
        f" and in {quarantine_file(root, delivery)}" if intake.bad else "",
    )  # fmt: skip


def quarantine_file(root: Path, delivery: Delivery) -> Path:
    """Where a delivery's bad rows are: one JSON object a line, with file, row, reason and the row itself."""
    return root / "quarantine" / f"{Path(delivery.name).name}-{delivery.digest[:12]}.jsonl"
