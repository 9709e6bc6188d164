"""Taking in deliveries: whatever a file holds or does to its reader, others are taken in beside it."""

import gzip
import json
import os
import resource

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from tasks.retraining.intake import ATTEMPTS, take_in
from tasks.retraining.ledger import Ledger
from tasks.retraining.retrain_config import load_retraining

MEGABYTE = 2**20
GOOD = [{"prompt": f"What is {i}?", "chosen": f"{i} is a number.", "rejected": "No idea."} for i in range(20)]
FORMAT = """
import os, time
from mars_core.data.formats.preference import Preference

class Harmful(Preference):
    def at(self, columns, rows):
        return self

    def pairs(self, rows):
        deed = rows[0].get("deed")
        if deed == "greedy":
            bytearray(2**40)
        if deed == "killed":
            os.kill(os.getpid(), 9)
        if deed == "slow":
            time.sleep(1000)
        if deed == "nosy":
            raise ValueError(str(sorted(os.environ)))
        return super().pairs(rows)
"""


class Intake:
    """A retraining that looks into a folder."""

    def __init__(self, folder):
        self.folder, self.file = folder, folder / "retrain.yaml"
        self.write()
        (folder / "incoming").mkdir()

    def write(self, **data):
        values = {"source": str(self.folder / "incoming"), "settle_seconds": 0, **data}
        self.file.write_text(
            json.dumps({"name": "a", "folder": str(self.folder), "data": values, "refine": {"rounds": 1}})
        )

    def deliver(self, name, rows):
        content = (
            rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        )
        (self.folder / "incoming" / name).write_bytes(content)

    def look(self):
        """What became of each file, after another look."""
        config = load_retraining(self.file)
        take_in.fn(config, Ledger.of(config.root))
        self.ledger = Ledger.of(config.root)
        return {found.file: found.state for found in self.ledger.deliveries.values()}

    def of(self, name):
        return next(found for found in self.ledger.deliveries.values() if found.file == name)


@pytest.fixture
def intake(tmp_path):
    return Intake(tmp_path)


def table(**columns):
    """A Parquet file of the good rows and further columns."""
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table(pd.DataFrame(GOOD).to_dict("list") | columns), sink)
    return sink.getvalue().to_pybytes()


def test_no_file_stops_the_look_that_finds_it(intake):
    sound = pa.array([{"bytes": b"RIFF", "path": None}] * 20)
    intake.deliver("audio.parquet", table(audio=sound))
    intake.deliver("far.parquet", table(at=pa.array([2**62] * 20, pa.timestamp("us"))))
    long = "n" * 240 + ".jsonl"
    intake.deliver(long, [*GOOD, {"prompt": "none"}])
    intake.deliver("growing.jsonl.gz", gzip.compress(b" " * 120 * MEGABYTE))
    intake.write(limits={"bytes": 100 * MEGABYTE})
    assert intake.look() == {
        "audio.parquet": "quarantined",
        "far.parquet": "waiting",
        long: "known",
        "growing.jsonl.gz": "quarantined",
    }
    assert "20 × audio is not empty" in intake.of("audio.parquet").reason
    assert intake.of("growing.jsonl.gz").reason == "it holds more than data.limits.bytes=104,857,600"


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("greedy", "it needs more memory than data.limits.memory_bytes=268,435,456"),
        ("killed", "was ended by SIGKILL"),
        ("slow", "was ended after its deadline"),
    ],
    ids=["memory", "killed", "time"],
)
def test_what_ends_its_reader_is_quarantined_by_digest_after_some_attempts(intake, monkeypatch, deed, said):
    (intake.folder / "harmful.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(intake.folder)
    intake.write(format="harmful:Harmful")
    intake.deliver("b.jsonl", GOOD)
    intake.look()  # what is forked for each delivery has been started
    limits = {"seconds": 2 if deed == "slow" else 100, "memory_bytes": 256 * MEGABYTE}
    intake.write(format="harmful:Harmful", limits=limits)
    intake.deliver("a.jsonl", [GOOD[0] | {"deed": deed}])
    for attempt in range(1, ATTEMPTS + 1):
        state = "unread" if attempt < ATTEMPTS else "quarantined"
        assert intake.look() == {"a.jsonl": state, "b.jsonl": "waiting"}
        assert intake.of("a.jsonl").attempts == attempt
        assert said in intake.of("a.jsonl").reason
    intake.write(format="harmful:Harmful")
    intake.look()
    assert intake.of("a.jsonl").attempts == ATTEMPTS
    intake.deliver("a.jsonl", GOOD[:1])
    assert intake.look()["a.jsonl"] == "known"


def test_what_never_reads_to_its_end_is_not_read_for_ever(intake):
    intake.deliver("cut.jsonl.gz", gzip.compress(b"{}\n" * 100)[:-9])
    assert [intake.look()["cut.jsonl.gz"] for _ in range(ATTEMPTS)] == ["unread", "unread", "quarantined"]
    assert "cannot be read to its end" in intake.of("cut.jsonl.gz").reason


def test_a_large_delivery_takes_no_memory_of_the_retraining(intake):
    intake.deliver("many.jsonl", [GOOD[0] | {"prompt": f"{i} {'word ' * 200}"} for i in range(20_000)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    intake.look()
    assert intake.of("many.jsonl").pairs == 20_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024


def test_whoever_reads_a_delivery_has_no_secrets(intake, monkeypatch):
    (intake.folder / "harmful.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(intake.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "lark")
    monkeypatch.setenv("HARMLESS", "1")
    intake.write(format="harmful:Harmful")
    intake.deliver("a.jsonl", [GOOD[0] | {"deed": "nosy"}])
    intake.look()
    [bad] = (intake.folder / "a/quarantine").iterdir()
    assert "HARMLESS" in bad.read_text()
    assert "MLFLOW_TRACKING_PASSWORD" not in bad.read_text()
    assert "MLFLOW_TRACKING_PASSWORD" in os.environ
