"""Pairs at addresses: read, changed, denied; nothing that they hold but texts reaches a message."""

import json
from pathlib import Path

import fsspec
import pytest

from mars_core.config import ConfigError, validated
from mars_core.data import reading
from mars_core.data.remote import RemoteError
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.run.sources import source_digest
from tasks.steps.prepare import prepare

ROWS = [{"id": n, "prompt": f"Question {n}?", "chosen": "Right.", "rejected": "Wrong."} for n in range(6)]
SECRET = "never-to-be-shown"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(params=["memory", "s3"])
def bucket(request):
    """Puts files into a bucket; its address."""
    if request.param == "memory":
        system = fsspec.filesystem("memory")
        address = "memory://bucket"
    else:
        request.getfixturevalue("s3")
        system = fsspec.filesystem("s3")
        system.mkdir("bucket")
        address = "s3://bucket"

    def put(name, content):
        system.pipe_file(f"/bucket/{name}" if address.startswith("memory") else f"bucket/{name}", content)
        return address

    yield put
    system.rm("/bucket" if address.startswith("memory") else "bucket", recursive=True)


@pytest.fixture(scope="module")
def server():
    """A server that speaks S3."""
    pytest.importorskip("s3fs", reason="the extra s3")
    server = pytest.importorskip("moto.server", reason="moto").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(server, monkeypatch):
    """What an environment with credentials for the server looks like."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    found = {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.mark.parametrize("place", ["prefs/*.jsonl", "prefs", "prefs/a.jsonl"])
def test_a_file_a_folder_and_a_pattern_are_read(place, bucket):
    bucket("prefs/a.jsonl", lines(ROWS[:4]))
    address = bucket("prefs/b.jsonl", lines(ROWS[4:]))
    bucket("prefs/about.txt", b"no pairs")
    table = reading.read(f"{address}/{place}").table
    assert len(table) == (4 if place.endswith("a.jsonl") else 6)


def test_what_is_about_the_data_is_not_read_as_pairs(bucket):
    bucket("prefs/_parts.json", b"{}")
    bucket("prefs/dataset_infos.json", b"{}")
    address = bucket("prefs/a.jsonl", lines(ROWS[:4]))
    assert len(reading.read(f"{address}/prefs").table) == 4


def test_a_parquet_file_is_read_where_it_is(bucket, write):
    address = bucket("rows.parquet", Path(write(ROWS, "rows.parquet")).read_bytes())
    assert list(reading.read(f"{address}/*.parquet").table["pair_id"]) == [str(n) for n in range(6)]


def test_a_source_has_changed_where_a_file_was_added_or_has_another_content(bucket):
    address = bucket("prefs/a.jsonl", lines(ROWS[:4]))
    source = f"{address}/prefs/*.jsonl"
    before = source_digest(source)
    assert source_digest(source) == before
    bucket("prefs/b.jsonl", lines(ROWS[4:]))
    longer = source_digest(source)
    bucket("prefs/b.jsonl", lines([ROWS[5], ROWS[4]]))
    assert len({before, longer, source_digest(source)}) == 3


@pytest.mark.parametrize("place", ["other/*.jsonl", "other", "prefs/*.parquet", "odd/*", "odd/README.md"])
def test_a_place_without_files_is_told(place, bucket):
    bucket("odd/README.md", b"What the pairs are.")
    address = bucket("prefs/a.jsonl", lines(ROWS))
    with pytest.raises(RemoteError, match=rf"{address}/{place}".replace("*", r"\*")):
        reading.read(f"{address}/{place}")


def test_a_bucket_without_rights_is_told_without_the_credentials(s3, monkeypatch):
    fsspec.filesystem("s3").mkdir("closed")
    import requests

    requests.post(f"{s3}/moto-api/reset-auth", data=b"0", timeout=30)  # from now on it asks for rights
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        with pytest.raises(RemoteError, match=r"s3://closed/a\.jsonl: the credentials of the env") as told:
            reading.read("s3://closed/a.jsonl")
    finally:
        requests.post(f"{s3}/moto-api/reset-auth", data=str(float("inf")).encode(), timeout=30)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert SECRET not in str(told.value)


def test_what_a_preparation_writes_and_says_holds_no_credentials(
    s3, tmp_path, tiny_decoder, without_prefect, caplog
):
    caplog.set_level("DEBUG", logger="mars_core")
    system = fsspec.filesystem("s3")
    system.mkdir("private")
    rows = [ROWS[0] | {"id": n, "prompt": f"Question {n}?"} for n in range(40)]
    system.pipe_file("private/a.jsonl", lines(rows))
    config = RunConfig.model_validate(
        {
            "name": "tiny",
            "folder": str(tmp_path / "runs"),
            "data": {"train": "s3://private/*.jsonl"},
            "model": {"backbone": str(tiny_decoder)},
            "selection": {"budget": 4},
        }
    )
    with open_run(config) as run:
        prepare(run)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"s3://private" in content for content in written)
    assert not any(SECRET.encode() in content for content in written)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", ["train", "validation", "heldout"])
def test_an_address_that_holds_a_secret_is_refused_and_not_shown(name):
    values = {"name": "tiny", "data": {name: f"s3://key:{SECRET}@bucket/prefs"}}
    with pytest.raises(ConfigError, match=rf"data\.{name}.*secrets belong into the environment") as told:
        validated(RunConfig, values, "tiny.yaml")
    assert SECRET not in str(told.value)


def test_a_protocol_whose_package_is_not_installed_is_told(monkeypatch):
    def not_installed(address):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", not_installed)
    with pytest.raises(RemoteError, match=r's3://bucket/a\.jsonl: Install s3fs .*pip install "mars\[s3\]"'):
        reading.read("s3://bucket/a.jsonl")
