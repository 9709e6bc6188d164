"""A real MLflow server that goes away and comes back, and one that refuses: what a run does meanwhile."""

import importlib
import logging
import os
import shutil
import socket
import socketserver
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import pandas as pd
import pytest
from mlflow import MlflowClient

import flows
from mars_core.config import redact
from tasks.processes.addresses import answers, free_port
from tasks.processes.local_server import serving
from tasks.run.run_config import RunConfig, TrackingConfig
from tasks.run.run_folder import open_run
from tasks.tracking import run_tracking as tracking
from tasks.tracking.mlflow_store import TrackingError, check_tracking

PROMPT_SECONDS = 20
"""A run may not stand still for longer, whatever has become of the server."""


class Line(socketserver.BaseRequestHandler):
    """A connection with the server behind."""

    def handle(self):
        with socket.create_connection(self.server.behind) as other, self.server.lines(self.request, other):
            threading.Thread(target=pass_on, args=(other, self.request), daemon=True).start()
            pass_on(self.request, other)


def pass_on(source, target):
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class Exchange(socketserver.ThreadingTCPServer):
    """An address at which another is answered; closed, all connections are cut."""

    allow_reuse_address = daemon_threads = True
    block_on_close = False

    def __init__(self, port, behind):
        self.behind, self.open = ("127.0.0.1", behind), set()
        super().__init__(("127.0.0.1", port), Line)
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    @contextmanager
    def lines(self, *ends):
        self.open.update(ends)
        yield
        self.open.difference_update(ends)

    def close(self):
        self.shutdown()
        self.server_close()
        for end in list(self.open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Server:
    """`mlflow server` on SQLite, behind an address at which it can be away.

    Starting it takes seconds; the tests of services kill real ones.
    """

    def __init__(self, folder):
        self.port, self.exchange = free_port(), None
        self.uri = f"http://127.0.0.1:{self.port}"
        self.behind = free_port()
        command = [
            sys.executable, "-m", "mlflow", "server", "--port", str(self.behind), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--allowed-hosts", "*",
            "--artifacts-destination", str(folder / "artifacts"),
        ]  # fmt: skip
        self.running = serving(
            command,
            f"http://127.0.0.1:{self.behind}/health",
            folder / "server.log",
            {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )

    def come_back(self):
        self.exchange = self.exchange or Exchange(self.port, self.behind)

    def go_away(self):
        if self.exchange:
            self.exchange.close()
            self.exchange = None


@pytest.fixture(scope="module")
def server(tmp_path_factory, mlflow_store):
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(mlflow_store, folder / "mlflow.db")
    server = Server(folder)
    with server.running:
        yield server
        server.go_away()


@pytest.fixture
def run(request, server, tmp_path):
    """A folder with two finished rounds and a report, whose MLflow is the server."""
    config = RunConfig.model_validate(
        {
            "name": "tiny",
            "rounds": 1,
            "folder": str(tmp_path),
            "tracking": {"uri": server.uri, "experiment": request.node.name, "models": "none"},
        }
    )
    with open_run(config) as run:
        names = "train", "validation", "heldout"
        sets = {name: run.write_table(f"{name}.parquet", pd.DataFrame({"pair_id": ["a"]})) for name in names}
        run.record("prepare", "key", sets, 0)
        for t in (0, 1):
            figures = {"validation/accuracy": 0.5 + t / 4, "heldout/accuracy": 0.5}
            metrics = run.write_json(f"round-{t}/metrics.json", figures)
            run.record(f"round-{t}-metrics", "key", {"": metrics}, 0)
        run.path("round-1/training.jsonl").write_text('{"step": 1, "loss": 0.7}\n')
        run.write("report.md", lambda path: path.write_text("# Report"))
        run.write("figures/accuracy.png", lambda path: path.write_bytes(b"png"))
        yield run


def sent(run):
    """What the server has of a run: its name or round → status, final accuracy, and files."""
    client = MlflowClient(run.config.tracking.uri)
    experiment = client.get_experiment_by_name(run.config.tracking.experiment)
    return {
        found.data.tags.get("mars.round", "run"): (
            found.info.status,
            found.data.metrics["validation/accuracy"],
            [file.path for file in client.list_artifacts(found.info.run_id)],
        )
        for found in client.search_runs([experiment.experiment_id])
    }


ALL = {
    "run": ("FINISHED", 0.75, ["config.yaml", "figures", "report.md"]),
    "0": ("FINISHED", 0.5, ["metrics.json"]),
    "1": ("FINISHED", 0.75, ["metrics.json"]),
}


def said(caplog):
    return [record.getMessage() for record in caplog.records if "MLflow" in record.getMessage()]


def test_what_a_server_misses_while_it_is_away_is_sent_when_it_is_back(run, server, in_flow, caplog):
    def story():
        with tracking.tracked(run) as track:
            server.go_away()
            track(1)
            track(1)
            server.come_back()
            track(2)
            track(2, ended=True)

    server.come_back()
    in_flow(story)
    assert sent(run) == ALL
    away, back = said(caplog)
    assert f"MLflow at {server.uri} does not answer. The run goes on; its metrics are in {run.root}" in away
    assert "is available again" in back


def test_a_server_that_dies_in_the_middle_of_a_round_holds_nothing_up(
    run, server, in_flow, caplog, monkeypatch
):
    curve, seconds = tracking._training_curve, []

    def dies(file):
        server.go_away()
        return curve(file)

    def story():
        with tracking.tracked(run) as track:
            track(1)
            monkeypatch.setattr(tracking, "_training_curve", dies)
            started = time.monotonic()
            track(2)
            track(2, ended=True)
            seconds.append(time.monotonic() - started)

    server.come_back()
    in_flow(story)
    assert seconds[0] < PROMPT_SECONDS
    first, last = said(caplog)
    assert "The run goes on" in first
    assert "once it is back, the same command sends what is missing" in last
    monkeypatch.undo()
    server.come_back()
    caplog.clear()
    in_flow(lambda: tracking.send_run(MlflowClient(server.uri), run, 2, ended=True))
    assert sent(run) == ALL


def test_a_run_begins_and_ends_without_its_server_and_the_next_start_sends_all(run, server, in_flow, caplog):
    def story():
        with tracking.tracked(run) as track:
            track(1)
            track(2)
            track(2, ended=True)

    server.go_away()
    started = time.monotonic()
    check_tracking(run.config.tracking)
    in_flow(story)
    assert time.monotonic() - started < PROMPT_SECONDS
    assert len(said(caplog)) == 2
    server.come_back()
    in_flow(story)
    assert sent(run) == ALL


def test_an_error_of_the_run_is_the_one_that_is_told_when_the_server_is_away_too(run, server, in_flow):
    def story():
        with tracking.tracked(run):
            raise ZeroDivisionError("the run's own")

    server.go_away()
    with pytest.raises(ZeroDivisionError, match="the run's own"):
        in_flow(story)


def test_a_deleted_experiment_is_told_before_the_work(run, server):
    server.come_back()
    client = MlflowClient(server.uri)
    client.delete_experiment(client.create_experiment(run.config.tracking.experiment))
    with pytest.raises(TrackingError, match="was deleted; restore it, or name another"):
        check_tracking(run.config.tracking)


def test_a_place_for_artifacts_that_cannot_be_written_is_told_before_the_work(run, server, in_flow):
    server.come_back()
    MlflowClient(server.uri).create_experiment(
        run.config.tracking.experiment, artifact_location="file:///proc/nowhere"
    )

    def story():
        with tracking.tracked(run):
            raise AssertionError("the work began")

    with pytest.raises(TrackingError, match=r"failed \(.*/proc/nowhere"):
        in_flow(story)


class Refusal(BaseHTTPRequestHandler):
    def __init__(self, status, *given):
        self.status = status
        super().__init__(*given)

    def do_GET(self):
        self.heard(self.headers)
        self.send_response(200 if self.path == "/health" else self.status)
        self.end_headers()
        self.wfile.write(b"You are not authenticated.")

    do_POST = do_GET  # noqa: N815 - the name is http.server's

    def heard(self, headers):
        pass

    def log_message(self, *_):
        pass


@contextmanager
def refusing(status):
    """The address of a server that is there, and answers every request with a status."""
    with HTTPServer(("127.0.0.1", 0), partial(Refusal, status)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "there"), [(200, True), (302, True), (401, True), (404, False), (503, False)]
)
def test_a_server_that_asks_who_is_there_is_there_and_hears_no_password(status, there, monkeypatch):
    heard = []
    monkeypatch.setattr(Refusal, "heard", heard.append)
    with refusing(status) as address:
        assert answers(f"http://worker:a-secret@{address}/api") is there
    assert "Authorization" not in heard[0]


def test_a_server_on_this_machine_is_asked_directly_whatever_proxy_there_is(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "intranet")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    importlib.reload(flows)
    assert os.environ["NO_PROXY"].startswith("intranet,")
    with refusing(200) as address:
        assert answers(f"http://{address}/api")


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_told_before_the_work_without_the_password(status, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "worker")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-secret")
    with refusing(status) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://worker:a-secret@{address}")
        with pytest.raises(
            TrackingError, match=f"MLflow at http://{address} refuses the credentials"
        ) as told:
            check_tracking(TrackingConfig())
    assert "a-secret" not in str(told.value)


def test_a_busy_server_is_waited_for_and_no_password_is_logged(run, in_flow, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-secret")
    caplog.set_level(logging.DEBUG)

    def story():
        with tracking.tracked(run):
            pass

    with refusing(503) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://worker:a-secret@{address}")
        run.config = run.config.model_copy(update={"tracking": TrackingConfig()})
        in_flow(story)
    assert len(said(caplog)) == 2
    assert "a-secret" not in caplog.text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (
            "https://me:secret@mlflow.example.org/api failed with http://mlflow:5000",
            "https://mlflow.example.org/api failed with http://mlflow:5000",
        ),
        ("http://SECRET@mlflow:5000/#/experiments/1", "http://mlflow:5000/#/experiments/1"),
        ("at http://me:se@cr/et@mlflow:5000.", "at http://mlflow:5000."),
        ("at http://me:sec?ret@mlflow:5000.", "at http://…"),
        ("http://mlflow/api?token=secret&mail=me@example.org ended", "http://… ended"),
        ("http://mlflow/api?token=secret", "http://mlflow/api?…"),
    ],
    ids=["password", "user", "@ and /", "?", "query with @", "query"],
)
def test_addresses_are_shown_without_secrets(text, redacted):
    assert redact(text) == redacted


@pytest.mark.parametrize("address", ["ftp://nowhere", "http://127.0.0.1:50O0"])
def test_an_address_that_is_none_is_told(address):
    with pytest.raises(TrackingError, match=f"MLflow at {address} failed"):
        check_tracking(TrackingConfig(uri=address))
