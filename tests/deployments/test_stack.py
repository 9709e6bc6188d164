"""Services of a small compose file, run without Docker: their order, their restart, their end."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from deployments import stack
from deployments.compose import services

PROJECT = Path(__file__).parents[2]
SUPERVISE = """
import pathlib, sys
from deployments import compose, stack
state = pathlib.Path(sys.argv[1])
stack.supervise(compose.services(state, {}, state / "docker-compose.yml"), state)
"""


def service(script, health="true", **more):
    check = {"test": ["CMD", "sh", "-c", health], "interval": "1s", "retries": 5}
    return {"command": ["sh", "-c", script], "healthcheck": check, **more}


def written(folder, **described):
    (folder / "docker-compose.yml").write_text(yaml.safe_dump({"services": described}))
    return services(folder, {}, folder / "docker-compose.yml")


def started(folder, name):
    """The process ids of a service's starts, which it writes down itself."""
    file = folder / name
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def noting(folder, name):
    return f"echo $$$$ >> {folder / name}; exec sleep 1000"  # a compose file doubles its dollars


@contextmanager
def supervised(folder, **described):
    """The services in a process of their own, once all are healthy."""
    written(folder, **described)
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(folder)],
        env=os.environ | {"PYTHONPATH": str(PROJECT)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait(lambda: (folder / "healthy").exists())
        yield process
    finally:
        process.kill()
        process.wait()


def wait(seen):
    begun = time.monotonic()
    while not seen():
        assert time.monotonic() - begun < 60
        time.sleep(0.05)


def test_a_service_starts_when_the_one_it_needs_is_healthy(tmp_path):
    first = service(
        f"sleep 0.5; touch {tmp_path}/up; {noting(tmp_path, 'first')}", health=f"test -e {tmp_path}/up"
    )
    second = service(
        f"test -e {tmp_path}/up && {noting(tmp_path, 'second')}",
        depends_on={"first": {"condition": "service_healthy"}},
    )
    with supervised(tmp_path, second=second, first=first):
        wait(lambda: started(tmp_path, "second"))


def test_a_service_that_dies_is_started_again_and_the_other_is_left_alone(tmp_path):
    described = {name: service(noting(tmp_path, name)) for name in ("one", "other")}
    with supervised(tmp_path, **described):
        wait(lambda: started(tmp_path, "one") and started(tmp_path, "other"))
        os.kill(started(tmp_path, "one")[0], signal.SIGKILL)
        wait(lambda: len(started(tmp_path, "one")) == 2)
        assert psutil.pid_exists(started(tmp_path, "one")[1])
        assert len(started(tmp_path, "other")) == 1


def test_nothing_lives_on_when_the_stack_is_killed(tmp_path):
    with supervised(tmp_path, one=service(noting(tmp_path, "one"))) as process:
        wait(lambda: started(tmp_path, "one"))
        (pid,) = started(tmp_path, "one")
        process.kill()
        wait(lambda: not psutil.pid_exists(pid))


def test_a_service_that_ends_at_once_is_an_error_with_its_last_words(tmp_path):
    planned = written(tmp_path, broken=service("echo no such database; exit 3", health="false"))
    with pytest.raises(stack.StackError, match=r"broken ended before it was healthy(.|\n)*no such database"):
        stack.supervise(planned, tmp_path)


def test_a_service_that_does_not_become_healthy_is_an_error_and_leaves_nothing(tmp_path):
    planned = written(tmp_path, deaf=service(noting(tmp_path, "deaf"), health="false"))
    with pytest.raises(stack.StackError, match="deaf is not healthy after 5 s"):
        stack.supervise(planned, tmp_path)
    wait(lambda: not any(map(psutil.pid_exists, started(tmp_path, "deaf"))))
