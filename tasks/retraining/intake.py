"""Take in deliveries: accepted pairs and bad rows go into files, what became of them into the ledger.

Each delivery is examined in a process of its own with limits of memory and time. If that fails, the ledger
counts it; after `ATTEMPTS` the delivery is quarantined, and no other waits for it.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from mars_core.data import identity, reading
from mars_core.data.deliveries import Delivery, new_deliveries, on_disk
from mars_core.data.examination import FULL_DISK, Examination, Outcome
from mars_core.files import RememberedDigests, write_whole
from tasks.processes.child_environment import without_secrets
from tasks.processes.child_process import ChildError, run_forked
from tasks.retraining.ledger import Delivered, Ledger
from tasks.retraining.retrain_config import RetrainConfig
from tasks.run.run_folder import DIGESTS
from tasks.run.step import tell

ATTEMPTS = 3
"""How often a delivery is examined that does not read to its end, or whose examination fails."""
KNOWN = ("waiting", "undecided", "suspected", "trusted")
"""States of deliveries whose pairs are known."""
REASON_CHARACTERS = 1000


@task(name="intake", task_run_name="intake", cache_policy=NO_CACHE, persist_result=False)
def take_in(config: RetrainConfig, ledger: Ledger) -> None:
    """Look for deliveries that are not in the ledger; accept their pairs, quarantine bad rows with reasons.

    Raises:
        PairsError: the source is not there or cannot be loaded.
        ChildError: there is no room on the disk.
    """
    digests = RememberedDigests(config.root / DIGESTS)
    found, left = new_deliveries(config.data, ledger.examined, time.time(), digests)
    ledger.forget_unread({delivery.digest for delivery in found})
    for delivery in found:
        with _folder(config.root) as folder:
            try:
                outcome = _examined(config, ledger, delivery, folder)
            except ChildError as error:
                if error.status == FULL_DISK:
                    raise
                outcome = Outcome(unfinished=str(error)[:REASON_CHARACTERS])
            if outcome.gone:
                left[delivery.name] = outcome.gone
            elif outcome.unfinished:
                left |= _keep_unread(ledger, delivery, outcome.unfinished)
            else:
                _keep(config.root, ledger, delivery, outcome, folder)
    gone = ledger.readmitted - {delivery.digest for delivery in found}
    left = {
        ledger.deliveries[digest].file: "it was readmitted, but is there no more" for digest in gone
    } | left
    for name, why in left.items():
        tell("%s is left for the next look: %s.", name, why, level=logging.WARNING)
    tell(
        "%s: %d new deliveries; %s accepted pairs wait, a cycle begins at %s.",
        config.data.source, len(found) - len(left.keys() & {delivery.name for delivery in found}),
        f"{ledger.waiting_pairs():,}", f"{config.min_new_pairs:,}",
    )  # fmt: skip


def _examined(config: RetrainConfig, ledger: Ledger, delivery: Delivery, folder: Path) -> Outcome:
    """What a process of its own finds in a delivery; what it writes is in the folder.

    Raises:
        ChildError: it failed.
    """
    file = on_disk(delivery, folder)
    assert isinstance(file.content, Path)
    before = ledger.deliveries.get(delivery.digest)
    judged = before is not None and before.state == "readmitted"  # by a person
    spec = Examination(
        name=delivery.name.encode("utf-8", "replace").decode(),  # it may be no text
        digest=file.digest,
        file=os.fsencode(file.content.absolute()),
        config=config.data.model_dump(mode="json"),
        max_bad_share=1.0 if judged else config.data.max_bad_share,
        known=ledger.all_accepted(*KNOWN),
        refused=[] if judged else ledger.all_accepted("refused"),
        folder=folder,
    )
    written = folder / "examination.json"
    written.write_text(spec.model_dump_json())
    run_forked(
        "mars_core.data.examination",
        written,
        log=folder / "examination.log",
        deadline_seconds=config.data.limits.seconds,
        environment=without_secrets(),
    )
    return Outcome.model_validate_json((folder / "outcome.json").read_bytes())


@contextmanager
def _folder(root: Path) -> Iterator[Path]:
    """A folder for one examination."""
    folder = root / "examination"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep_unread(ledger: Ledger, delivery: Delivery, reason: str) -> dict[str, str]:
    """Count an examination that failed; name and reason of a delivery that is left for the next look."""
    before = ledger.deliveries.get(delivery.digest)
    attempts = 1 + (before.attempts if before else 0)
    given_up = attempts >= ATTEMPTS
    became = Delivered(
        file=delivery.name,
        state="quarantined" if given_up else before.state if before else "unread",
        reason=reason, rows=0, pairs=0, duplicates=0, bad=0, seen=_now(),
        reading=reading.VERSION, identity=identity.VERSION, attempts=attempts,
    )  # fmt: skip
    ledger.keep(delivery.digest, became)
    if not given_up:
        return {delivery.name: reason}
    tell(
        "%s (%s) is quarantined whole after %d attempts: %s.",
        delivery.name, delivery.digest[:12], attempts, reason, level=logging.WARNING,
    )  # fmt: skip
    return {}


def _keep(root: Path, ledger: Ledger, delivery: Delivery, outcome: Outcome, folder: Path) -> None:
    """Write what was accepted, what was not, then the ledger: killed in between, it all happens again."""
    bad_rows = quarantine_file(root, delivery)
    for made, place, rows in (
        ("accepted.parquet", ledger.accepted(delivery.digest), outcome.pairs),
        ("bad.jsonl", bad_rows, outcome.bad),
    ):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.parent.chmod(0o700)  # an earlier version made it
        if rows:
            write_whole(place, partial(shutil.copyfile, folder / made))
    before = ledger.deliveries.get(delivery.digest)
    became = Delivered(
        file=delivery.name,
        state="quarantined" if outcome.refusal else "waiting" if outcome.pairs else "known",
        reason=outcome.refusal or "",
        rows=outcome.rows,
        pairs=outcome.pairs,
        duplicates=outcome.duplicates,
        bad=outcome.bad,
        seen=_now(),
        reading=reading.VERSION,
        identity=identity.VERSION,
        attempts=1 + (before.attempts if before else 0),
    )
    ledger.keep(delivery.digest, became)
    if outcome.remark:
        tell("%s: %s.", delivery.name, outcome.remark)
    for reason, count in outcome.left_out.items():
        tell("%s: left out %s: %s.", delivery.name, f"{count:,}", reason)
    if outcome.refusal:
        tell(
            "%s (%s) is quarantined whole: %s.%s",
            delivery.name, delivery.digest[:12], outcome.refusal,
            f" Its bad rows are in {bad_rows}." if outcome.bad else "", level=logging.WARNING,
        )  # fmt: skip
        return
    tell(
        "%s (%s): %s of %s rows are new pairs, %s were known, %s are bad%s.",
        delivery.name, delivery.digest[:12],
        *(f"{count:,}" for count in (outcome.pairs, outcome.rows, outcome.duplicates, outcome.bad)),
        f" and in {bad_rows}" if outcome.bad else "",
    )  # fmt: skip


def quarantine_file(root: Path, delivery: Delivery) -> Path:
    """Where a delivery's bad rows are: one JSON object a line, with file, row, reason and the row itself."""
    name = re.sub(r"[^\w.-]", "_", delivery.name, flags=re.ASCII)[:100]
    return root / "quarantine" / f"{name}-{delivery.digest[:12]}.jsonl"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
