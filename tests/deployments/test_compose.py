"""docker-compose.yml, .env.example and prefect.yaml name what exists; the native stack runs what they say."""

import importlib
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from deployments import automations
from deployments.compose import services
from deployments.environment import SECRETS, VARIABLE, EnvironmentFileError, fill, make, read
from flows.retrain import End

PROJECT = Path(__file__).parents[2]
COMPOSE = (PROJECT / "docker-compose.yml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
SERVERS = [pytest.param(name, values, id=name) for name, values in SERVICES.items()]
VALUES = dict.fromkeys(SECRETS, "secret") | {
    "POSTGRES_PORT": "1111",
    "PREFECT_PORT": "2222",
    "MLFLOW_PORT": "3333",
    "WORKER_PORT": "4444",
}


def listed(text):
    return set(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE))


@pytest.fixture
def native(tmp_path):
    """The services as this machine runs them, by name."""
    return {service.name: service for service in services(tmp_path, VALUES)}


def test_every_variable_of_the_compose_file_is_listed_in_the_example():
    used = {found["name"] for found in VARIABLE.finditer(COMPOSE) if found["name"]}
    assert used <= listed((PROJECT / ".env.example").read_text())


def test_every_variable_that_a_shell_or_a_deployment_reads_is_listed_in_the_example():
    client = (PROJECT / "deployments/client.sh").read_text()
    prefect = (PROJECT / "deployments/prefect.yaml").read_text()
    needed = set(re.findall(r"\$(\w+)", client + prefect)) - {"MARS_FOLDER"}
    assert needed | {automations.WEBHOOK} <= listed((PROJECT / ".env.example").read_text())


def test_no_secret_has_a_value_in_the_repository():
    example = (PROJECT / ".env.example").read_text()
    assert all(f"\n{name}=\n" in example for name in SECRETS)
    secret = rf"\$\{{(?:{'|'.join(SECRETS)})(?!:\?)"
    assert not re.search(secret, COMPOSE), "a secret without a value must be an error"


@pytest.mark.parametrize(("name", "values"), SERVERS)
def test_ports_are_on_the_loopback_only(name, values):
    for port in values.get("ports", ()):
        host, outside, inside = fill(port, {}).split(":")
        assert host == "127.0.0.1"
        assert outside == inside


@pytest.mark.parametrize(("name", "values"), SERVERS)
def test_images_are_pinned(name, values):
    _, _, tag = values["image"].partition(":")
    assert re.match(r"v?\d+\.\d+", tag)


@pytest.mark.parametrize(("name", "values"), SERVERS)
def test_every_service_is_confined_limited_watched_and_started_again(name, values):
    assert values["user"] not in {"root", "0"}
    assert values["read_only"] is True
    assert values["cap_drop"] == ["ALL"]
    assert values["restart"] == "unless-stopped"
    assert values["healthcheck"]["test"][0] == "CMD"
    assert {"mem_limit", "cpus", "pids_limit"} <= values.keys()


@pytest.mark.parametrize(("name", "values"), SERVERS)
def test_every_referenced_file_and_volume_exists(name, values):
    made_by_their_users = {"./incoming", "./models"}
    for mount in values.get("volumes", ()):
        source, _, _ = mount.partition(":")
        if not source.startswith("."):
            assert source in yaml.safe_load(COMPOSE)["volumes"]
        elif source not in made_by_their_users:
            assert (PROJECT / source).exists()
    if "build" in values:
        dockerfile = (PROJECT / values["build"]["dockerfile"]).read_text()
        assert f" AS {values['build']['target']}\n" in dockerfile


def test_images_copy_files_that_exist_and_no_secrets():
    dockerfile = (PROJECT / "deployments/images/Dockerfile").read_text()
    allowed = (PROJECT / ".dockerignore").read_text().splitlines()
    for sources in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE):
        for source in sources.split():
            assert (PROJECT / source).exists()
            assert f"!{source}" in allowed
    assert "*" in allowed
    assert not any(".env" in line for line in allowed if line.startswith("!"))


def test_the_native_stack_runs_the_commands_of_the_compose_file(native, tmp_path):
    for name, service in native.items():
        wanted = [fill(part, VALUES).replace("0.0.0.0", "127.0.0.1") for part in SERVICES[name]["command"]]
        there = [part.replace(str(tmp_path / "mlflow"), "/var/lib/mlflow") for part in service.command]
        assert there == [re.sub(r"(?<=[=,])mlflow(?=:)", "127.0.0.1", part) for part in wanted]


def test_the_native_stack_has_the_environment_of_the_compose_file(native):
    for name, service in native.items():
        assert service.environment.keys() == SERVICES[name]["environment"].keys()
    for name in ("prefect", "mlflow"):  # a role has its service's name, which is also a host's
        assert native[name].environment["PGHOST"] == "127.0.0.1"
        assert native[name].environment["PGUSER"] == name
    assert not [name for name in native["worker"].environment if name.startswith(("PG", "POSTGRES_"))]
    assert native["worker"].environment["PREFECT_API_URL"] == "http://127.0.0.1:2222/api"
    assert native["worker"].environment["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:3333"


def test_the_native_stack_keeps_data_in_its_state_and_reads_files_of_the_project(native, tmp_path):
    assert native["postgres"].environment["PGDATA"] == str(tmp_path / "postgres")
    assert native["worker"].environment["PREFECT_HOME"] == str(tmp_path / "worker/prefect")
    for service in native.values():
        assert all(path.is_relative_to(tmp_path) for path in service.volumes)
    auth = Path(native["mlflow"].environment["MLFLOW_AUTH_CONFIG_PATH"])
    assert auth == PROJECT / "deployments/images/mlflow_auth.ini"


def test_the_native_stack_starts_each_service_after_those_it_needs(native):
    order = list(native)
    assert set(order) == {name for name, values in SERVICES.items() if "profiles" not in values}
    for name, service in native.items():
        assert all(order.index(other) < order.index(name) for other in service.after)


def test_a_missing_secret_is_an_error_that_names_it(tmp_path):
    with pytest.raises(EnvironmentFileError, match="MLFLOW_PASSWORD has no value"):
        services(tmp_path, VALUES | {"MLFLOW_PASSWORD": ""})


def test_env_is_made_once_with_random_secrets_for_its_owner_alone(tmp_path, monkeypatch):
    for name in listed((PROJECT / ".env.example").read_text()):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / ".env"
    assert set(make(file)) == listed(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    values = read(file)
    assert all(len(values[name]) > 40 for name in SECRETS)
    assert len({values[name] for name in SECRETS}) == len(SECRETS)
    assert values["MARS_RETRAIN_CRON"].count(" ") == 4
    before = file.read_text()
    assert not make(file)
    assert file.read_text() == before


def test_an_env_of_an_earlier_version_gets_what_it_lacks_and_keeps_the_rest(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# mine\nPREFECT_PASSWORD=old\nPREFECT_PORT=4242\n")
    added = make(file)
    assert file.read_text().startswith("# mine\nPREFECT_PASSWORD=old\nPREFECT_PORT=4242\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "MLFLOW_WORKER_PASSWORD" in added
    assert not {"PREFECT_PASSWORD", "PREFECT_PORT"} & set(added)


def test_every_deployment_names_a_flow_and_a_file_that_exist():
    for deployment in yaml.safe_load((PROJECT / "deployments/prefect.yaml").read_text())["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        flow.validate_parameters(deployment["parameters"])
        if "file" in deployment["parameters"]:
            assert (PROJECT / deployment["parameters"]["file"]).is_file()
        assert f"--pool {deployment['work_pool']['name']} " in SERVICES["worker"]["command"][-1]
        assert deployment["concurrency_limit"]["limit"] == 1


def test_every_end_of_a_retraining_is_known_to_the_watch_for_dead_runs():
    assert set(get_args(End)) <= set(automations.ENDS)


def test_a_run_is_seen_dead_within_two_minutes_whoever_started_it():
    heartbeat = int(SERVICES["worker"]["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert (
        f'"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "{heartbeat}"' in (PROJECT / "flows/__init__.py").read_text()
    )
    trigger = automations.dead_runs().trigger
    assert 2 * heartbeat < trigger.within.total_seconds() <= 100
