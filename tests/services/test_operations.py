"""A team's services on this machine, PostgreSQL, Prefect, MLflow and a worker: ordinary days and bad ones.

One stack for all, as `make services` starts it, on free ports, with secrets of its own. Stories are told in
order: what a later one looks for, such as a secret in a log, an earlier one may have left. While one waits
for a heartbeat that stays away, or for the schedule, others are told. Of each kind of kill one is always
here; the others, a full disk and a day of bad deliveries are with MARS_BAD_DAYS=1 (`make bad-days`).
"""

import base64
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest
import yaml

from deployments import automations, environment

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
START_SECONDS = 300
RUN_SECONDS = 400
DEAD_SECONDS = 120
WORKERS_SECRETS = "WORKER_HF_TOKEN", "WORKER_VLLM_API_KEY"
WEBHOOK_SECRET = secrets.token_urlsafe(32)
"""In the path of the address where a refused gate is announced."""
NEVER, EVERY_MINUTE = "0 0 1 1 *", "* * * * *"
BAD_DAYS = bool(os.environ.get("MARS_BAD_DAYS"))
bad_day = pytest.mark.skipif(not BAD_DAYS, reason="a bad day: make bad-days")
EXPERIMENT = {
    "name": "tiny",
    "rounds": 1,
    "data": {
        "train": "sample://preferences",
        "subset": 60,
        "validation_share": 0.05,
        "heldout_share": 0.08,
    },
    "model": {"max_length": 64, "precision": "float32"},
    "selection": {"tau": 0.5, "budget": 20},
    "fit": {"learning_rate": 3.0e-3, "batch_pairs": 8},
}


class Services:
    """The running stack: its folder, its APIs, and what a shell that uses it has in its environment."""

    def __init__(self, folder):
        self.folder, self.state, self.work = folder, folder / "state", folder / "work"
        self.variables = environment.read(folder / ".env")
        self.shell = self._sourced()
        self.prefect = httpx.Client(
            base_url=self.shell["PREFECT_API_URL"],
            auth=tuple(self.shell["PREFECT_API_AUTH_STRING"].split(":")),
            timeout=30,
        )
        self.mlflow = httpx.Client(
            base_url=self.shell["MLFLOW_TRACKING_URI"],
            auth=("mars", self.variables["MLFLOW_PASSWORD"]),
            timeout=30,
        )

    def _sourced(self):
        """The environment of a shell after `. deployments/client.sh`."""
        outside = ("PREFECT_", "MLFLOW_", "PG", "POSTGRES_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
        script = f". {PROJECT}/deployments/client.sh && env -0"
        done = subprocess.run(["sh", "-c", script], cwd=self.folder, env=own, check=True, capture_output=True)
        return dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)

    def deploy(self, cron=NEVER, webhook=""):
        done = subprocess.run(
            [sys.executable, "-m", "deployments.deploy"],
            cwd=PROJECT,
            env=self.shell
            | {"MARS_FOLDER": str(self.work), "MARS_RETRAIN_CRON": cron, automations.WEBHOOK: webhook},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]

    def mars(self, *arguments):
        """A command of a person whose shell uses the services."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=self.work, env=self.shell, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    def ask(self, path, **body):
        return self.prefect.post(path, json=body).raise_for_status().json()

    def deployment(self, name):
        return self.prefect.get(f"/deployments/name/{name}").raise_for_status().json()

    def start(self, deployment, *overrides, file="tiny.yaml"):
        """Have the worker run a deployment; the id of the flow run."""
        parameters = {"file": file, "overrides": list(overrides)}
        place = f"/deployments/{self.deployment(deployment)['id']}/create_flow_run"
        return self.ask(place, parameters=parameters)["id"]

    def end_schedule(self, deployment):
        """Let a deployment run no more by itself, and wait for the run that it may have started."""
        found = self.deployment(deployment)
        for schedule in found["schedules"]:
            place = f"/deployments/{found['id']}/schedules/{schedule['id']}"
            self.prefect.patch(place, json={"active": False}).raise_for_status()
        under_way = {
            "deployments": {"id": {"any_": [found["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}}},
        }
        self.wait(
            lambda: self.ask("/flow_runs/filter", **under_way) == [], RUN_SECONDS, f"end of {deployment}"
        )

    def run(self, run_id):
        return self.prefect.get(f"/flow_runs/{run_id}").raise_for_status().json()

    def states(self, run_id):
        """The names of all states that a run has had."""
        return [state["name"] for state in self._history(run_id)]

    def _history(self, run_id):
        found = self.prefect.get("/flow_run_states/", params={"flow_run_id": run_id}).raise_for_status()
        return sorted(found.json(), key=lambda state: state["timestamp"])

    def times(self, run_id):
        """The name of each state that a run has had, and when it last began."""
        return {state["name"]: datetime.fromisoformat(state["timestamp"]) for state in self._history(run_id)}

    def wait(self, seen, seconds, what):
        """Look until something is so; whatever is asked meanwhile may be down."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            try:
                if found := seen():
                    return found
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise AssertionError(f"{what}: not within {seconds} s\n{self.last_words()}")

    def ends(self, run_id, seconds=RUN_SECONDS):
        """Wait for a run to be over; its state."""

        def over():
            state = self.run(run_id)["state"]
            return state if state["type"] in {"COMPLETED", "FAILED", "CANCELLED"} else None

        return self.wait(over, seconds, f"end of run {run_id}")

    def until(self, run_id, *artifacts):
        """Wait until a run has written something."""
        wanted = [self.work / artifact for artifact in artifacts]
        self.wait(lambda: all(path.exists() for path in wanted), RUN_SECONDS, f"{artifacts} of run {run_id}")

    def process(self, service):
        """The process of a service, under its leash."""
        command = {"prefect": "prefect server", "mlflow": "mlflow server", "worker": "prefect worker"}
        told = command.get(service, service)
        leashes = [
            leash for leash in psutil.Process(self.stack.pid).children() if told in " ".join(leash.cmdline())
        ]
        return leashes[0].children()[0]

    def engine(self, run_id):
        """The process of a flow that the worker runs."""
        return next(
            process
            for process in self.process("worker").children(recursive=True)
            if "prefect.engine" in " ".join(process.cmdline())
            and process.environ().get("PREFECT__FLOW_RUN_ID") == run_id
        )

    def last_words(self):
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in self.state.glob("*.log")
        )


@pytest.fixture(scope="module")
def services(tiny_decoder):
    """The stack with its deployments; an experiment in the worker's folder."""
    import transformers

    folder = Path(tempfile.mkdtemp(prefix="mars-services-"))
    folder.chmod(0o755)  # PostgreSQL's data are its own user's, where the tests run as root
    assert environment.make(folder / ".env")
    with (folder / ".env").open("a") as variables:  # the later line counts
        variables.writelines(f"{name}={secrets.token_urlsafe(32)}\n" for name in WORKERS_SECRETS)
    work = folder / "work"
    (work / "incoming").mkdir(parents=True)
    transformers.AutoModel.from_pretrained(tiny_decoder).save_pretrained(work / "backbone")
    transformers.AutoTokenizer.from_pretrained(tiny_decoder).save_pretrained(work / "backbone")
    experiment = EXPERIMENT | {"model": EXPERIMENT["model"] | {"backbone": str(work / "backbone")}}
    (work / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    patch = pytest.MonkeyPatch()
    for name in environment.read(folder / ".env"):
        patch.delenv(name, raising=False)  # it would have precedence
    try:
        made = Services(folder)
        made.stack = subprocess.Popen(
            [
                sys.executable, "-m", "deployments.stack", "run",
                "--state", str(made.state), "--env-file", str(folder / ".env"),
            ],
            cwd=PROJECT, env=os.environ | {"PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        healthy = made.state / "healthy"
        made.wait(lambda: healthy.exists() or made.stack.poll() is not None, START_SECONDS, "services")
        assert healthy.exists(), made.last_words()
        made.deploy()
        family = psutil.Process(made.stack.pid).children(recursive=True)
        yield made
        family += psutil.Process(made.stack.pid).children(recursive=True)
        made.stack.send_signal(signal.SIGINT)
        assert made.stack.wait(60) == 0
        _, alive = psutil.wait_procs(family, timeout=15)
        assert alive == []
    finally:
        made.stack.kill()
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


def test_docker_compose_accepts_the_file(services):
    compose = shutil.which("docker-compose")
    assert compose, "docker-compose is not installed; on Debian: apt-get install docker-compose"
    done = subprocess.run(
        [compose, "--env-file", services.folder / ".env", "--profile", "gpu", "config", "--quiet"],
        cwd=PROJECT, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_data_are_in_postgresql(services):
    for database, table in {"prefect": "deployment", "mlflow": "experiments", "mlflow_auth": "users"}.items():
        assert table in dumped(services, "psql", "--dbname", database, "--command", "\\dt").split()


@pytest.mark.parametrize("credentials", [None, ("mars", "wrong"), ("admin", "password")])
def test_requests_without_the_right_credentials_are_refused(services, credentials):
    body = {"json": {"limit": 1}, "auth": credentials, "timeout": 60}
    for path in ("flow_runs/filter", "deployments/filter", "logs/filter"):
        assert httpx.post(f"{services.shell['PREFECT_API_URL']}/{path}", **body).status_code == 401
    search = f"{services.shell['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search?max_results=1"
    assert httpx.get(search, auth=credentials, timeout=60).status_code == 401
    assert services.mlflow.get("/api/2.0/mlflow/experiments/search?max_results=1").status_code == 200


def test_a_request_for_another_host_is_refused_by_mlflow(services):
    asked = services.mlflow.get("/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"})
    assert asked.status_code == 403


@pytest.fixture(scope="module")
def ordinary(services):
    """How a deployed run ended, and what a person saw who ran an experiment meanwhile: status and output."""
    run_id = services.start("refine/mars", "name=ordinary")
    services.until(run_id, "runs/ordinary/.steps/distances.json")  # MLflow's experiment is there
    by_hand = services.mars("refine", "tiny.yaml", "name=by-hand", "generation.store=generations-by-hand")
    return services.ends(run_id), by_hand


def test_a_deployed_run_is_run_by_the_worker_and_tracked(services, ordinary):
    ended, _ = ordinary
    assert ended["name"] == "Completed", ended["message"]
    assert (services.work / "runs/ordinary/report.md").exists()
    found = services.mlflow.post(
        "/api/2.0/mlflow/runs/search",
        json={"experiment_ids": ["1"], "filter": "tags.`mars.folder` LIKE '%ordinary'"},
    ).json()["runs"]
    assert [run["info"]["status"] for run in found] == ["FINISHED"]


def test_a_person_runs_an_experiment_against_the_services(services, ordinary):
    _, (status, said) = ordinary
    assert status == 0, said[-3000:]
    assert services.shell["PREFECT_API_URL"].removesuffix("/api") in said
    assert not (services.work / "mlflow.db").exists()


KILLS = {"postgres": "train.parquet", "prefect": "round-0/metrics.json", "mlflow": "round-1/metrics.json"}
"""Server → what a run of two rounds has written when it is killed."""
ALONE = [pytest.param([server], id=server) for server in KILLS] if BAD_DAYS else []


@pytest.mark.parametrize("killed", [pytest.param(list(KILLS), id="one-after-the-other"), *ALONE])
def test_a_run_goes_on_when_servers_are_killed_and_come_back(services, killed):
    name = f"without-{'-'.join(killed)}"
    run_id = services.start("refine/mars", f"name={name}", "rounds=2")
    for server in killed:
        services.until(run_id, f"runs/{name}/{KILLS[server]}")
        services.process(server).send_signal(signal.SIGKILL if server == "prefect" else signal.SIGQUIT)
    ended = services.ends(run_id)
    assert ended["name"] == "Completed", ended["message"]
    assert services.states(run_id).count("Running") == 1
    assert (services.work / f"runs/{name}/report.md").exists()
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    services.wait(lambda: services.mlflow.get(search).is_success, START_SECONDS, "MLflow")


@bad_day
def test_a_run_waits_for_prefect_when_it_is_away_at_the_start(services):
    run_id = services.start("refine/mars", "name=patient")
    services.process("prefect").send_signal(signal.SIGKILL)
    ended = services.ends(run_id)
    assert ended["name"] == "Completed", ended["message"]
    assert (services.work / "runs/patient/report.md").exists()


@bad_day
def test_a_run_that_lives_though_it_was_taken_for_dead_is_not_started_beside_itself(services):
    run_id = services.start("refine/mars", "name=undead", "rounds=2")
    services.until(run_id, "runs/undead/round-0/metrics.json")
    dead = {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True}
    services.ask(f"/flow_runs/{run_id}/set_state", **dead)
    services.wait(lambda: services.run(run_id)["run_count"] == 2, RUN_SECONDS, "second attempt")
    services.until(run_id, "runs/undead/report.md")
    ended = services.ends(run_id)
    assert ended["name"] == "Completed", ended["message"]
    assert "Failed" not in services.states(run_id)


@bad_day
def test_a_run_that_crashes_for_ever_is_given_up(services):
    run_id = services.start("refine/mars", "name=cursed")
    for attempt in range(1, automations.RETRIES + 2):

        def running(attempt=attempt):
            run = services.run(run_id)
            return run["state_type"] == "RUNNING" and run["run_count"] == attempt

        services.wait(running, RUN_SECONDS, f"attempt {attempt}")
        services.engine(run_id).kill()  # the worker sees it at once
        services.wait(
            lambda attempt=attempt: services.states(run_id).count("Crashed") == attempt, RUN_SECONDS, "crash"
        )
    time.sleep(10)
    assert services.run(run_id)["state_type"] == "CRASHED"


@bad_day
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_told_and_the_run_goes_on_once_there_is_room(services):
    disk = services.work / "small"
    with mounted(disk, "300k"):
        ended = services.ends(services.start("refine/mars", "name=full", "folder=small"))
        assert ended["name"] == "Failed"
        assert "No space left on device" in ended["message"]
        assert str(disk) in ended["message"]
        finished = list(disk.glob("full/.steps/*.json"))
        assert finished
        times = [path.stat().st_mtime_ns for path in finished]
        subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)
        ended = services.ends(services.start("refine/mars", "name=full", "folder=small"))
        assert ended["name"] == "Completed", ended["message"]
        assert [path.stat().st_mtime_ns for path in finished] == times


@pytest.fixture(scope="module")
def orphan(services):
    """A run whose worker was killed: its id, when that was, the steps that were finished, what lived on."""
    run_id = services.start("refine/mars", "name=orphan", "rounds=2")
    services.until(run_id, "runs/orphan/round-1/metrics.json")
    family = services.process("worker").children(recursive=True)
    assert services.engine(run_id) in family
    finished = {
        path: path.stat().st_mtime_ns for path in services.work.glob("runs/orphan/.steps/round-[01]-*")
    }
    services.process("worker").kill()
    killed = datetime.now(UTC)
    _, alive = psutil.wait_procs(family, timeout=20)
    return run_id, killed, finished, alive


def test_a_run_ends_with_its_killed_worker(orphan):
    *_, alive = orphan
    assert alive == []


@pytest.fixture(scope="module")
def retraining(services):
    """The deployed retraining with a tiny model, every minute, and its first delivery: when that was made,
    the next one, a poisoned one, and what is announced."""
    services.retrain = "deployments/experiments/retrain.yaml"
    values = yaml.safe_load((PROJECT / services.retrain).read_text())
    experiment = yaml.safe_load((services.work / "tiny.yaml").read_text())
    values |= {"min_new_pairs": 50, "gate": {"margin": 0.2, "benchmark_margin": 1, "section_limit": 1}}
    values["data"]["settle_seconds"] = 1
    values["refine"] = {key: experiment[key] for key in ("rounds", "model", "selection")} | {
        "data": {"validation_share": 0.1, "heldout_share": 0.25},
        "fit": experiment["fit"] | {"epochs": 2},
        "evaluation": {"benchmarks": {"rewardbench": "sample://rewardbench"}},
    }
    file = services.work / services.retrain
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(values))
    pairs = [
        {
            "prompt": f"What is thing number {number}?",
            "chosen": f"It is a small songbird that sings in flight, the {number}th of its kind.",
            "rejected": f"Sorry, nobody here knows anything about thing {number}.",
        }
        for number in random.Random(0).sample(range(560), 560)  # no number tells what is poisoned
    ]
    poisoned = [pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in pairs[160:]]
    with listening() as (address, heard):
        services.deploy(cron=EVERY_MINUTE, webhook=address)
        since = delivered(services, "first", pairs[:100])
        yield {"since": since, "second": pairs[100:160], "poisoned": poisoned, "heard": heard}


def delivered(services, name, pairs, more=""):
    """Put a file into the folder that a retraining looks into; when that was."""
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    (services.work / "incoming" / f"{name}.jsonl").write_text(lines + more)
    return datetime.now(UTC).isoformat()


def champion(services, name="helpful"):
    """The version of the champion in MLflow's registry."""
    found = services.mlflow.get(
        "/api/2.0/mlflow/registered-models/alias", params={"name": name, "alias": "champion"}
    )
    return found.raise_for_status().json()["model_version"]["version"]


def test_deploying_again_adds_nothing_twice(services, retraining):
    deployments = services.ask("/deployments/filter")
    assert {found["entrypoint"] for found in deployments} == {
        f"flows.{name}.{name}" for name in ("refine", "compare", "evaluate", "retrain", "score")
    }
    assert len(deployments) == 5
    assert len(services.ask("/work_pools/filter")) == 1
    names = [automation["name"] for automation in services.ask("/automations/filter")]
    assert sorted(names) == ["mars: crashed runs", "mars: dead runs", "mars: refused gates"]


def test_mlflow_compares_arms_by_name_in_a_browser(services, chromium):
    experiment = yaml.safe_load((services.work / "tiny.yaml").read_text())
    del experiment["name"]
    experiment["rewriting"] = {"enabled": False}
    experiment["fit"] |= {"trainable": "head"}
    arms = {"uniform": {"selection.tau": 0}, "hardest": {"selection.strategy": "hardest"}}
    values = {"name": "arms", "seeds": 2, "baselines": ["uniform"], "experiment": experiment, "arms": arms}
    (services.work / "arms.yaml").write_text(yaml.safe_dump(values))
    status, said = services.mars("compare", "arms.yaml")
    assert status == 0, said[-3000:]
    names = {f"{arm}-seed{seed}" for arm in arms for seed in (0, 1)}
    compared_in_mlflow(chromium, services, "tags.`mars.arm` LIKE '%'", names, "operations-mlflow-arms")


def test_the_schedule_retrains_on_what_is_delivered_and_promotes(services, retraining):
    ended = {"state": {"name": {"any_": ["Promoted"]}}, "end_time": {"after_": retraining["since"]}}
    [run] = services.wait(
        lambda: services.ask("/flow_runs/filter", flow_runs=ended), RUN_SECONDS, "a retraining that promotes"
    )
    assert run["auto_scheduled"]
    assert champion(services) == "1"


def test_the_champion_scores_the_files_that_have_no_scores_and_carries_its_card(services, retraining):
    place = f"/deployments/{services.deployment('score/mars')['id']}/create_flow_run"
    ended = services.ends(services.ask(place)["id"])
    assert ended["name"] == "Completed", ended["message"]
    [summary] = services.work.glob("scores/*/summary.json")
    assert json.loads(summary.read_text())["scores"] == 100
    version = services.mlflow.get(
        "/api/2.0/mlflow/model-versions/get", params={"name": "helpful", "version": champion(services)}
    )
    assert "## How texts are rendered" in version.raise_for_status().json()["model_version"]["description"]


def test_a_run_whose_worker_was_killed_crashes_is_started_again_and_goes_on(services, orphan):
    run_id, killed, finished, _ = orphan
    ended = services.ends(run_id)
    assert ended["name"] == "Completed", ended["message"]
    assert (services.times(run_id)["Crashed"] - killed).total_seconds() < DEAD_SECONDS
    assert services.run(run_id)["run_count"] == 2
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.fixture(scope="module")
def by_request(services, retraining):
    """Starts the retraining, whose schedule has ended, so that no test waits for the next minute; its id."""
    services.end_schedule("retrain/mars")
    return lambda: services.start("retrain/mars", file=services.retrain)


def test_bad_rows_and_bad_files_are_kept_out_and_a_killed_retraining_goes_on(
    services, retraining, by_request
):
    delivered(services, "schema", [{"question": "What?", "answer": "That."}] * 5)
    delivered(services, "half-written", retraining["second"][:2], more='{"prompt": "What is thi')
    delivered(services, "second", retraining["second"], more="garbage\n" * 6)
    root = services.work / "retraining/helpful"
    run_id = by_request()
    services.wait((root / "cycles/2/experiment.yaml").exists, RUN_SECONDS, "second cycle")
    services.engine(run_id).kill()
    ended = services.ends(run_id)
    assert ended["name"] == "Promoted", ended["message"]
    assert champion(services) == "2"
    ledger = json.loads((root / "ledger.json").read_text())
    assert [cycle["state"] for cycle in ledger["cycles"]] == ["promoted", "promoted"]
    became = {found["file"]: (found["state"], found["bad"]) for found in ledger["deliveries"].values()}
    assert became == {
        "first.jsonl": ("trusted", 0),
        "second.jsonl": ("trusted", 6),
        "schema.jsonl": ("quarantined", 0),
        "half-written.jsonl": ("unread", 0),
    }
    (services.work / "incoming/half-written.jsonl").unlink()


@pytest.fixture(scope="module")
def refused(services, retraining, by_request):
    """The retraining on a poisoned delivery: its id, and how it ended."""
    delivered(services, "poisoned", retraining["poisoned"])
    run_id = by_request()
    return run_id, services.ends(run_id)


def test_a_poisoned_delivery_is_refused_by_the_gate_which_is_announced(services, retraining, refused):
    _, ended = refused
    assert ended["name"] == "Refused", ended["message"]
    assert champion(services) == "2"
    services.wait(lambda: retraining["heard"], 60, "announcement")
    [announcement] = retraining["heard"]
    assert "the gate refused a candidate of helpful" in announcement["text"]
    assert "held-out accuracy" in announcement["text"]


def test_both_interfaces_show_the_retraining_in_a_browser(services, refused, chromium, tmp_path):
    run_id, _ = refused
    credentials = base64.b64encode(services.shell["PREFECT_API_AUTH_STRING"].encode()).decode()
    login = f"localStorage.setItem('prefect-password', '{credentials}')"
    address = services.shell["PREFECT_API_URL"].removesuffix("/api")
    with chromium(tmp_path / "prefect", script=login) as page:
        page(f"{address}/runs/flow-run/{run_id}", "helpful", "Refused", picture="operations-prefect-graph")
        artifacts = services.ask(
            "/artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}}, sort="CREATED_DESC"
        )
        decision = next(found for found in artifacts if found["key"].startswith("gate"))
        page(
            f"{address}/artifacts/artifact/{decision['id']}",
            "held-out accuracy",
            picture="operations-prefect-gate",
        )
    rounds = {"helpful-2 · round 0", "helpful-2 · round 1"}
    found_by = "tags.`mars.kind` = 'round' AND attributes.run_name LIKE 'helpful-2%'"
    compared_in_mlflow(chromium, services, found_by, rounds, "operations-mlflow-rounds")


def compared_in_mlflow(chromium, services, found_by, names, picture):
    """Look at MLflow's page that compares the runs of a search, which have these names: it shows them all."""
    search = {"experiment_ids": ["1", "2"], "filter": found_by}
    runs = services.mlflow.post("/api/2.0/mlflow/runs/search", json=search).raise_for_status().json()["runs"]
    assert {run["info"]["run_name"] for run in runs} == names
    ids, experiments = (
        json.dumps(sorted({run["info"][key] for run in runs}), separators=(",", ":"))
        for key in ("run_id", "experiment_id")
    )
    address = services.shell["MLFLOW_TRACKING_URI"]
    password = base64.b64encode(f"mars:{services.variables['MLFLOW_PASSWORD']}".encode()).decode()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,  # its children outlive it
        chromium(profile, headers={"Authorization": f"Basic {password}"}) as page,
    ):
        page(f"{address}/#/compare-runs?runs={ids}&experiments={experiments}", *names, picture=picture)


def test_a_rollback_restores_the_previous_champion(services, by_request):
    status, said = services.mars("retrain", services.retrain, "--rollback")
    assert status == 0, said[-3000:]
    assert champion(services) == "1"


def test_each_service_reaches_its_own_databases_alone_and_the_worker_changes_no_users(services):
    of_prefect = {"PGUSER": "prefect", "PGPASSWORD": services.variables["PREFECT_DATABASE_PASSWORD"]}
    assert "flow_run" in dumped(services, "psql", "--command", r"\dt", "prefect", **of_prefect)
    for other in ("mlflow", "mlflow_auth"):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            dumped(services, "psql", "--command", "SELECT 1", other, **of_prefect)
        assert f'permission denied for database "{other}"' in refused.value.stderr
    worker = httpx.Client(
        base_url=services.mlflow.base_url, auth=("worker", services.variables["MLFLOW_WORKER_PASSWORD"])
    )
    one_more = {"username": "mallory", "password": "let me in, I am the worker"}
    assert worker.post("/api/2.0/mlflow/users/create", json=one_more).status_code == 403


@bad_day
def test_a_day_of_deliveries_promotes_nothing_bad_and_loses_nothing_good(services, by_request, day):
    incoming, file = services.work / "deliveries", "day.yaml"
    incoming.mkdir()
    today, ends, taken = day(incoming), [], []
    values = yaml.safe_load((services.work / services.retrain).read_text()) | {"name": "day"}
    values["gate"]["margin"] = 0.4
    values["data"] = {"source": "deliveries", "settle_seconds": 0, "limits": today.limits}
    (services.work / file).write_text(yaml.safe_dump(values))

    def look():
        run_id = services.start("retrain/mars", file=file)
        while (ended := services.run(run_id)["state"])["type"] not in {"COMPLETED", "FAILED", "CRASHED"}:
            taken.append(most_memory_of_readers(services))
            time.sleep(0.1)
        ends.append(ended["name"])

    today.morning()
    look()
    today.noon(services.folder / ".env")
    for _ in range(3):
        look()
    today.evening()
    look()
    assert ends == today.ends
    ledger = json.loads((services.work / "retraining/day/ledger.json").read_text())
    assert sorted((found["file"], found["state"]) for found in ledger["deliveries"].values()) == today.became
    assert [cycle["state"] for cycle in ledger["cycles"]] == ["promoted", "refused", "promoted", "refused"]
    assert champion(services, "day") == "3"
    assert 0 < max(taken) < today.limits["memory_bytes"]


def most_memory_of_readers(services):
    """The most memory that a process which reads a delivery has for itself now, in bytes."""
    most = 0
    for process in services.process("worker").children(recursive=True):
        with suppress(psutil.Error):
            held = [opened.path for opened in process.open_files()]
            if any("/examination/" in path for path in held):
                most = max(most, process.memory_full_info().uss)
    return most


def test_no_secret_is_in_logs_artifacts_parameters_databases_command_lines_or_the_repository(services):
    names = (*environment.SECRETS, *WORKERS_SECRETS)
    known = [WEBHOOK_SECRET.encode(), *(services.variables[name].encode() for name in names)]
    assert all(len(secret) > 40 for secret in known)
    databases = "".join(dumped(services, "pg_dump", name) for name in ("prefect", "mlflow", "mlflow_auth"))
    assert "flows.retrain.retrain" in databases
    # PostgreSQL's own files are what it was dumped from; .env, to which a bad delivery links, has secrets.
    files = [
        path
        for path in [*services.work.rglob("*"), *services.state.rglob("*")]
        if path.is_file() and not (path.is_symlink() or path.is_relative_to(services.state / "postgres"))
    ]
    assert len(files) > 50
    command_lines = []
    for process in psutil.process_iter(["cmdline"]):
        command_lines += process.info["cmdline"] or []
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, check=True, capture_output=True).stdout
    repository = [PROJECT / name.decode() for name in tracked.split(b"\0") if name]
    assert PROJECT / ".env" not in repository
    for secret in known:
        assert secret not in databases.encode()
        assert secret not in "\n".join(command_lines).encode()
        assert not [path for path in files + repository if path.is_file() and secret in path.read_bytes()]


def dumped(services, program, *arguments, **role):
    """What a client of PostgreSQL prints, by default to the role that may do everything."""
    from deployments.postgres import programs

    connection = {
        "PGHOST": "127.0.0.1",
        "PGPORT": services.variables["POSTGRES_PORT"],
        "PGUSER": "mars",
        "PGPASSWORD": services.variables["POSTGRES_PASSWORD"],
    }
    done = subprocess.run(
        [programs() / program, *arguments],
        env=os.environ | connection | role,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@contextmanager
def listening():
    """An address on this machine, and the JSON that is sent there."""
    heard = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{WEBHOOK_SECRET}", heard
        server.shutdown()


@contextmanager
def mounted(folder, size):
    """A small disk."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
