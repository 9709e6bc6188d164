"""What a retraining knows from one start to the next: its deliveries, its cycles, and what became of them.

One JSON file, replaced whole, is the one truth; who changes it holds its lock and reads it anew, so that a
rollback may come in the middle of a cycle. A delivery *waits* for a cycle, is *trusted* once a model
that was trained on it has been promoted, *refused* if the gate blamed it for that model's fall, *quarantined*
when it came, *known* if it held no new pair, or *unread* if it could not be examined yet. It is *undecided*
if the gate had too little evidence: it takes part in the next cycle, which begins when as many pairs as ever
are new. A *readmitted* one was quarantined, and its good rows are accepted at the next look.

The gate cannot tell which of several deliveries made a model fall, so all of them are *suspected*: the next
cycles try one half of them each, and halve again what is refused. A single delivery that is refused is
guilty. One guilty delivery among k is found in at most 1 + 2⌈log₂ k⌉ cycles, and the others are trusted by
then.
"""

import json
import secrets
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, PrivateAttr, ValidationError

from mars_core.data.accepted import Accepted
from mars_core.errors import MarsError
from mars_core.files import write_whole
from tasks.run.run_folder import IDENTITY
from tasks.tracking.registry import Champion

BEFORE = "ledger.before.json"
"""The ledger before its last change."""


class LedgerError(MarsError, ValueError):
    """A delivery is not known, or the configuration does not go with what was done before."""


class Delivered(BaseModel):
    """One delivery, and what became of it."""

    file: str
    state: Literal[
        "waiting",
        "trusted",
        "refused",
        "suspected",
        "undecided",
        "quarantined",
        "readmitted",
        "known",
        "unread",
    ]
    reason: str = ""
    """Why it was refused or quarantined."""
    rows: int
    pairs: int
    """New pairs that were accepted."""
    duplicates: int
    bad: int
    seen: str
    """When, in UTC."""
    reading: int = 1
    """Version of the reading that its pairs are known by."""
    identity: int = 1
    """Version of the identity that its pairs are known by, and its prompts divided by."""
    attempts: int = 1
    """How often it was examined."""


class Cycle(BaseModel):
    """One run of self-refinement and its way through the gate."""

    number: int
    state: Literal["open", "promoted", "refused", "dropped", "withdrawn"] = "open"
    deliveries: list[str]
    """Digests of those that were new."""
    champion: str | None
    """Version of the registered model that it started from and is compared with."""


class Ledger(BaseModel):
    """All deliveries by their digests, and all cycles."""

    held_out: str | None = None
    """Digest of what decides which pairs are held out; fixed with the first cycle."""
    salt: str = ""
    """See `secret`."""
    champion: Champion | None = None
    """The version that cycles start from and are compared with, as the registry had it last."""
    deliveries: dict[str, Delivered] = {}
    cycles: list[Cycle] = []
    suspects: list[list[str]] = []
    """Groups of suspected deliveries; each is tried in a cycle of its own, the first one next."""
    _root: Path = PrivateAttr()
    _lock: FileLock = PrivateAttr()

    @classmethod
    def of(cls, root: Path) -> "Ledger":
        """The ledger in the folder of a retraining; an empty one where there is none yet."""
        ledger = cls()
        ledger._root, ledger._lock = root, FileLock(root / "ledger.lock")
        ledger._read()
        return ledger

    @contextmanager
    def held(self) -> Iterator[None]:
        """Read the ledger as it is now, and keep all others from changing it for a `with` block."""
        self._root.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._read()
            yield

    def _read(self) -> None:
        file = self._root / "ledger.json"
        if not file.exists():
            return
        try:
            read = type(self).model_validate_json(file.read_bytes())
        except ValidationError as error:
            problem = error.errors()[0]
            raise LedgerError(
                f"{file} cannot be read: {'.'.join(map(str, problem['loc']))} {problem['msg']}. As it was "
                f"before the last change it is in {self._root / BEFORE}: look at both, and copy that one "
                "over, or begin a retraining of another name"
            ) from None
        self.__dict__.update(read.__dict__)

    def keep(self, digest: str, delivery: Delivered) -> None:
        """Note what became of a delivery."""
        with self.held():
            self.deliveries[digest] = delivery
            self._save()

    def recognise(self, champion: Champion | None) -> None:
        """Note who is champion, where no cycle has made it so."""
        with self.held():
            self.champion = champion
            self._save()

    def _save(self) -> None:
        """Replace the file, which its owner alone may read."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

        def put(path: Path, content: bytes) -> None:
            path.touch(mode=0o600)
            path.write_bytes(content)

        file = self._root / "ledger.json"
        if file.exists():
            write_whole(self._root / BEFORE, partial(put, content=file.read_bytes()))
        write_whole(file, partial(put, content=text.encode()))

    def accepted(self, digest: str) -> Path:
        """Where the accepted pairs of a delivery are."""
        return self._root / "accepted" / f"{digest}.parquet"

    def digests(self, *states: str) -> list[str]:
        """The deliveries in one of these states that have pairs, in the order in which they came."""
        return [digest for digest, found in self.deliveries.items() if found.state in states and found.pairs]

    @property
    def readmitted(self) -> set[str]:
        """The deliveries that are to be read again."""
        return {digest for digest, found in self.deliveries.items() if found.state == "readmitted"}

    @property
    def examined(self) -> set[str]:
        """The deliveries that are not to be read any more."""
        return {
            digest for digest, found in self.deliveries.items() if found.state not in ("readmitted", "unread")
        }

    def forget_unread(self, there: Container[str]) -> None:
        """Forget the unread deliveries but for those that are there: what was half written has another digest
        now."""
        gone = [
            digest
            for digest, found in self.deliveries.items()
            if found.state == "unread" and digest not in there
        ]
        if gone:
            with self.held():
                for digest in gone:
                    self.deliveries.pop(digest, None)
                self._save()

    def accepted_pairs(self, digest: str) -> Accepted:
        """The accepted pairs of a delivery."""
        found = self.deliveries[digest]
        return Accepted(file=self.accepted(digest), reading=found.reading, identity=found.identity)

    def all_accepted(self, *states: str) -> list[Accepted]:
        """The accepted pairs of the deliveries in one of these states, by default in any."""
        return [
            self.accepted_pairs(digest)
            for digest, found in self.deliveries.items()
            if found.pairs and (not states or found.state in states)
        ]

    def secret(self) -> str:
        """What decides, with a prompt, whether its pairs are held out; whoever delivers must not know it."""
        if not self.salt:
            with self.held():
                self.salt = self.salt or secrets.token_hex(16)
                self._save()
        return self.salt

    def waiting_pairs(self) -> int:
        """How many accepted pairs no cycle was trained on yet."""
        return sum(self.deliveries[digest].pairs for digest in self.digests("waiting"))

    def next_deliveries(self, least_pairs: int) -> list[str]:
        """What the next cycle takes: a group of suspects, or else all that wait if they are enough."""
        if self.suspects:
            return self.suspects[0]
        return self.digests("waiting", "undecided") if self.waiting_pairs() >= least_pairs else []

    def release(self, suspects: list[str]) -> None:
        """Try a group of suspects no more by itself, but beside the deliveries that come next."""
        with self.held():
            self.suspects.remove(suspects)
            for digest in suspects:
                self.deliveries[digest].state = "undecided"
            self._save()

    @property
    def open_cycle(self) -> Cycle | None:
        """The cycle that was begun and not ended."""
        return self.cycles[-1] if self.cycles and self.cycles[-1].state == "open" else None

    def open(self, cycle: Cycle, held_out: str, champion: Champion | None) -> Cycle:
        """Begin a cycle, from a champion if there is one."""
        with self.held():
            self.held_out = held_out
            self.champion = self.champion or champion  # a rollback may have come meanwhile
            self.cycles.append(cycle)
            self._save()
        return cycle

    def label(self, cycle: Cycle) -> str:
        """What no cycle of any other retraining is called: its number, and the identity of this folder."""
        return f"{cycle.number} of {(self._root / IDENTITY).read_text().strip()}"

    def cycle_of(self, label: str | None) -> Cycle | None:
        """The cycle that a version was made by, by the label that it has; none where it is not of here."""
        return next((cycle for cycle in self.cycles if self.label(cycle) == label), None)

    def looks(self, champion: str | None) -> int:
        """How many candidates were compared with a version, or, before there was a champion, with a coin."""
        decided = [cycle for cycle in self.cycles if cycle.state not in ("open", "dropped")]
        return sum(cycle.champion == champion for cycle in decided)

    @property
    def next_number(self) -> int:
        """Number of the cycle that comes next."""
        return len(self.cycles) + 1

    def close(
        self,
        cycle: Cycle,
        state: Literal["promoted", "refused", "withdrawn"],
        delivered: Literal["trusted", "undecided", "suspected", "refused"],
        reason: str,
        champion: Champion | None,
        suspects: Sequence[str] = (),
    ) -> None:
        """End a cycle, or withdraw what came of it, and note who is champion from now on.

        The deliveries that were new in it are trusted, undecided, suspected or set aside. `suspects` are the
        suspected ones, in the order in which they are tried.
        """
        with self.held():
            self.cycles[cycle.number - 1].state = state
            for digest in cycle.deliveries:
                delivery = self.deliveries[digest]
                delivery.state = delivered
                delivery.reason = "" if state == "promoted" else f"cycle {cycle.number}: {reason}"
            middle = (len(suspects) + 1) // 2
            tried = [group for group in self.suspects if group != cycle.deliveries]
            groups = [suspects[:middle], suspects[middle:], *tried]
            judged = ([one for one in group if self._is_suspected(one)] for group in groups)
            self.suspects = [group for group in judged if group]
            self.champion = champion
            self._save()

    def _is_suspected(self, digest: str) -> bool:
        return self.deliveries[digest].state == "suspected"

    def drop(self, cycle: Cycle) -> None:
        """End a cycle that cannot go on; its deliveries wait for the next."""
        with self.held():
            self.cycles[cycle.number - 1].state = "dropped"
            self._save()

    def readmit(self, beginning: str) -> tuple[str, Delivered]:
        """Let a delivery that was set aside take part: a refused one waits, a quarantined one is read again.

        Args:
            beginning: of its digest.

        Returns:
            Its digest, and what it was before.

        Raises:
            LedgerError: none, or more than one, is meant.
        """
        with self.held():
            aside = {
                digest: found
                for digest, found in self.deliveries.items()
                if found.state in ("refused", "quarantined")
            }
            meant = [digest for digest in aside if beginning and digest.startswith(beginning)]
            if len(meant) != 1:
                listed = "\n  ".join(
                    f"{digest[:12]}  {found.file}  {found.state}: {found.reason}"
                    for digest, found in aside.items()
                )
                raise LedgerError(
                    f"{beginning!r} is the beginning of {len(meant)} digests of refused or quarantined "
                    f"deliveries; there are:\n  {listed or 'none'}"
                )
            [digest] = meant
            before = aside[digest].model_copy()
            delivery = self.deliveries[digest]
            delivery.state = "readmitted" if before.state == "quarantined" else "waiting"
            delivery.reason, delivery.attempts = "", 0
            self._save()
            return digest, before

    def summary(self) -> str:
        """How many deliveries are in each state."""
        counts = Counter(found.state for found in self.deliveries.values())
        return ", ".join(f"{count} {state}" for state, count in counts.items()) or "none yet"
