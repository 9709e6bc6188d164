"""Children end with the run, however it ends, and say in a sentence how they failed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pandas as pd
import psutil
import pytest

from tasks.processes import leash
from tasks.processes.child_process import ChildError, leashed, run_child, run_forked

FAMILY = ["sh", "-c", "sleep 1000 & echo $$ $!; wait"]
"""A command with a child of its own; prints both process ids."""
STUBBORN = ["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.1; done"]
LEASHING = f"""
import pathlib, time
from tasks.processes.child_process import leashed
with leashed({FAMILY}, log=pathlib.Path("log"), capture=True) as child:
    print(child.stdout.readline(), flush=True)
    time.sleep(1000)
"""
FITTING = """
import functools, pathlib
from tasks.processes.child_process import run_forked
show = functools.partial(print, flush=True)
fit = pathlib.Path("fit.json")
run_forked("mars_core.fit.train", fit, log=pathlib.Path("log"), on_line=show, deadline_seconds=120)
"""
PAIRS = [
    {
        "pair_id": f"{n}",
        "prompt": f"Human: Is {n} odd?",
        "chosen": f"It is {n % 2 == 1}.",
        "rejected": "Who knows?",
    }
    for n in range(4)
]


def alive(pid):
    """Whether a process, or a thread of it, which keeps its files open, is not over."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def end_soon(pids, seconds=4.0):
    """Whether all processes are gone within some seconds, which are fewer than the leash's grace."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def family(line):
    pids = [int(pid) for pid in line.split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    return pids


@contextmanager
def starter(script, tmp_path):
    """A process that runs a script which starts others."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run(script, tmp_path, on_line=lambda line: None, deadline_seconds=60):
    run_child(["sh", "-c", script], log=tmp_path / "log", on_line=on_line, deadline_seconds=deadline_seconds)


def test_lines_of_a_child_are_delivered_as_they_come(tmp_path):
    lines, release = [], tmp_path / "release"

    def on_line(line):
        lines.append(line)
        release.touch()

    run(f"echo one; until [ -e {release} ]; do sleep 0.02; done; echo two; echo aside >&2", tmp_path, on_line)
    assert lines == ["one\n", "two\n"]
    assert (tmp_path / "log").read_text() == "aside\n"


def test_a_failing_child_is_told_by_its_exit_status_and_last_words(tmp_path):
    with pytest.raises(ChildError, match=r"failed with exit status 3\b") as told:
        run("echo the pairs file is gone >&2; exit 3", tmp_path)
    assert str(told.value).endswith("the pairs file is gone")
    assert str(tmp_path / "log") in str(told.value)


def test_a_silent_failure_is_told_as_such(tmp_path):
    with pytest.raises(ChildError, match=r"exit status 1\..*\n\(none\)"):
        run("exit 1", tmp_path)


def test_an_exit_status_beyond_all_signals_is_no_signal(tmp_path):
    with pytest.raises(ChildError, match="failed with exit status 255"):
        run("exit 255", tmp_path)


def test_a_child_that_was_killed_is_told_with_the_usual_reason(tmp_path):
    with pytest.raises(ChildError, match=r"was ended by SIGKILL .*memory runs out"):
        run("kill -9 $$", tmp_path)


def test_a_child_that_crashed_is_told_by_its_signal(tmp_path):
    with pytest.raises(ChildError, match=r"was ended by SIGSEGV\. "):
        run("kill -SEGV $$", tmp_path)


def test_a_command_that_is_not_there_is_a_failed_child(tmp_path):
    with pytest.raises(ChildError, match="FileNotFoundError"):
        run_child(["/no/such/command"], log=tmp_path / "log", on_line=print, deadline_seconds=60)


def test_a_child_is_ended_at_its_deadline_without_waiting_for_the_grace(tmp_path):
    pids = []
    started = time.monotonic()
    with pytest.raises(ChildError, match="after its deadline"):
        run_child(
            FAMILY,
            log=tmp_path / "log",
            on_line=lambda line: pids.extend(family(line)),
            deadline_seconds=3,
        )
    assert time.monotonic() - started < 3 + leash.GRACE_SECONDS
    assert pids
    assert end_soon(pids)


def test_an_error_over_a_line_ends_the_child(tmp_path):
    pids = []

    def on_line(line):
        pids.extend(family(line))
        raise LookupError(line)

    with pytest.raises(LookupError):
        run_child(FAMILY, log=tmp_path / "log", on_line=on_line, deadline_seconds=60)
    assert end_soon(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_the_command_ends_if_the_leash_itself_is_killed(tmp_path):
    with leashed(["sleep", "1000"], log=tmp_path / "log") as leash:
        children = []
        while not children:
            children = [child for child in psutil.Process(leash.pid).children() if child.name() == "sleep"]
        leash.kill()
        assert end_soon([child.pid for child in children])


def test_the_end_of_the_with_block_ends_the_child_and_its_children(tmp_path):
    with leashed(FAMILY, log=tmp_path / "log", capture=True) as child:
        pids = family(child.stdout.readline())
    assert end_soon(pids)


def test_what_a_finished_command_leaves_behind_is_ended(tmp_path):
    lines = []
    run("sleep 1000 & echo $!", tmp_path, lines.append)
    assert end_soon([int(lines[0])])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process inherit orphans")
def test_what_a_finished_command_leaves_in_another_session_is_ended(tmp_path):
    lines = []
    run("setsid sh -c 'sleep 1000 & echo $$ $!; wait' & sleep 0.3", tmp_path, lines.append)
    assert end_soon([int(pid) for pid in lines[0].split()])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_the_end_of_the_starter_ends_the_child_and_its_children(number, tmp_path):
    with starter(LEASHING, tmp_path) as process:
        pids = family(process.stdout.readline())
        process.send_signal(number)
        process.wait(10)
        assert end_soon(pids)


def test_ctrl_c_in_the_terminal_ends_the_child_through_its_starter(tmp_path):
    with starter(LEASHING, tmp_path) as process:
        pids = family(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)
        process.wait(10)
        assert end_soon(pids)


def test_a_child_that_ignores_the_request_to_end_is_killed_after_the_grace(tmp_path):
    shortened = (
        "import sys; from tasks.processes import leash; leash.GRACE_SECONDS = 0.3; leash.main(sys.argv[1:])"
    )
    leash = subprocess.Popen(
        [sys.executable, "-c", shortened, *STUBBORN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pid = int(leash.stdout.readline())
    leash.stdin.close()
    time.sleep(0.1)
    asked_only = alive(pid)
    assert leash.wait(5) == 0
    leash.stdout.close()
    assert asked_only
    assert end_soon([pid])


def test_a_leash_that_is_asked_to_end_ends_the_child(tmp_path):
    with leashed(FAMILY, log=tmp_path / "log", capture=True) as child:
        pids = family(child.stdout.readline())
        child.terminate()
        assert end_soon(pids)
        assert child.wait(5) == 128 + signal.SIGTERM


def test_a_request_to_end_is_not_lost_when_it_comes_with_the_first_breath_of_the_child(tmp_path):
    pids = []
    with pytest.raises(ChildError, match="SIGTERM"):
        run("echo $$; kill -TERM $PPID; exec sleep 1000", tmp_path, lambda line: pids.append(int(line)), 10)
    assert end_soon(pids)


# Forked fits


@pytest.fixture
def spec(tmp_path, tiny_decoder):
    """Write the specification of a fit of four pairs for some epochs; its file."""

    def write(epochs=1, pairs="pairs.parquet"):
        pd.DataFrame(PAIRS).to_parquet(tmp_path / "pairs.parquet")
        values = {
            "model": str(tiny_decoder), "pairs": [str(tmp_path / pairs)], "output": str(tmp_path / "model"),
            "log": str(tmp_path / "training.jsonl"), "seed": 0, "fit": {"epochs": epochs, "batch_pairs": 4},
            "reward_model": {"max_length": 64, "precision": "float32", "device": "cpu"},
        }  # fmt: skip
        file = tmp_path / "fit.json"
        file.write_text(json.dumps(values))
        return file

    return write


def fit(spec, on_line=lambda line: None, deadline_seconds=120):
    run_forked(
        "mars_core.fit.train",
        spec,
        log=spec.with_name("log"),
        on_line=on_line,
        deadline_seconds=deadline_seconds,
    )


def forks(pid):
    """What a process has forked to fit: the fork server, then leashes, and trainers."""
    (server,) = children(*children(psutil.Process(pid)))
    return server, children(*children(server))


def children(*processes):
    return [child for process in processes for child in process.children() if alive(child.pid)]


def test_a_forked_fit_tells_its_steps_as_they_are_taken_and_leaves_a_model(spec, tmp_path):
    steps = []

    def on_line(line):
        steps.append(json.loads(line))
        assert (tmp_path / "model").exists() == ("result" in steps[-1])

    fit(spec(epochs=3), on_line)
    assert [step.get("step") for step in steps] == [1, 2, 3, None]


def test_the_next_fit_is_forked_from_the_same_process(spec):
    servers = []
    for _ in range(2):
        fit(spec(), lambda line: servers.append(forks(os.getpid())[0].pid))
    assert len(set(servers)) == 1


def test_fits_that_are_forked_at_once_do_not_disturb_each_other(spec, tmp_path):
    ended = []

    def often(name):
        for _ in range(5):
            run_forked("mars_core.fit.train", missing, log=tmp_path / name, deadline_seconds=120)

    def told(name):
        with pytest.raises(ChildError, match=r"exit status 1\."):
            often(name)
        ended.append(name)

    missing = spec(pairs="missing.parquet")
    threads = [threading.Thread(target=told, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == list("abcd")


def test_what_is_wrong_with_a_forked_fit_is_told_without_a_stack(spec):
    with pytest.raises(ChildError, match=r"exit status 1\..*\n\S+missing.parquet: no such file of pairs$"):
        fit(spec(pairs="missing.parquet"))


def test_a_forked_fit_has_the_environment_and_the_folder_of_now(spec, tmp_path, monkeypatch):
    fit(spec())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "nonsense")
    file = spec()
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"pairs": ["pairs.parquet"]}))
    with pytest.raises(ChildError, match="nonsense"):
        fit(file)
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    fit(file)


def test_what_kills_a_forked_fit_is_told(spec):
    lines = []

    def kill_at_the_first(line):
        if not lines:
            forks(os.getpid())[1][0].kill()
        lines.append(line)

    with pytest.raises(ChildError, match=r"was ended by SIGKILL .*memory runs out"):
        fit(spec(epochs=10**6), kill_at_the_first)


def test_a_forked_fit_that_does_not_end_at_its_deadline_is_killed_after_the_grace(spec, monkeypatch):
    stopped, ends, timer = [], [], threading.Timer

    def on_line(line):
        if not stopped:
            stopped.extend(forks(os.getpid())[1])
            stopped[0].suspend()  # no request to end reaches it
            ends[0]()

    monkeypatch.setattr(threading, "Timer", lambda seconds, end: ends.append(end) or timer(seconds, end))
    with pytest.raises(ChildError, match="after its deadline"):
        fit(spec(epochs=10**6), on_line)
    assert end_soon([stopped[0].pid])


def test_an_error_over_a_line_ends_the_forked_fit_which_saves_where_it_is(spec, tmp_path):
    pids = []

    def on_line(line):
        pids.extend(trainer.pid for trainer in forks(os.getpid())[1])
        raise LookupError(line)

    with pytest.raises(LookupError):
        fit(spec(epochs=10**6), on_line)
    assert end_soon(pids)
    assert (tmp_path / ".model.unfinished").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda n: n.name)
def test_the_end_of_the_starter_ends_the_forked_fit_and_the_fork_server(number, spec, tmp_path):
    spec(epochs=10**6)
    with starter(FITTING, tmp_path) as process:
        process.stdout.readline()
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 4  # a leash and the fork server, a leash and the trainer
        process.send_signal(number)
        process.wait(15)
        assert end_soon([child.pid for child in children])


def test_a_fork_server_that_was_killed_is_told_and_replaced(spec):
    pids = []

    def on_line(line):
        if not pids:
            server, trainers = forks(os.getpid())
            pids.extend(trainer.pid for trainer in trainers)
            server.kill()

    with pytest.raises(ChildError, match=r"was ended by SIGKILL"):
        fit(spec(epochs=10**6), on_line)
    assert end_soon(pids)
    fit(spec())


SCATTERED = ["sh", "-c", "sleep 1000 & setsid sleep 1000 & echo $$ $!; wait"]
"""A command with a child in its group, and one in a session of its own; prints the second's process id."""
LEASHING_SCATTERED = f"""
import pathlib, time
from tasks.processes.child_process import leashed
with leashed({SCATTERED}, log=pathlib.Path("log"), capture=True) as child:
    print(child.pid, *child.stdout.readline().split(), flush=True)
    time.sleep(1000)
"""


def descendants(pid):
    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


def test_a_leash_that_is_killed_leaves_no_descendant(tmp_path):
    with leashed(SCATTERED, log=tmp_path / "log", capture=True) as child:
        family(child.stdout.readline())
        held = descendants(child.pid)
        assert len(held) == 3
        child.kill()
        assert end_soon(held)


def test_what_a_leash_left_that_was_killed_with_its_starter_ends_at_the_next_start(tmp_path):
    with starter(LEASHING_SCATTERED, tmp_path) as process:
        leash_pid, *_ = (int(pid) for pid in process.stdout.readline().split())
        held = descendants(leash_pid)
        os.kill(leash_pid, signal.SIGSTOP)  # else it would see its starter's end first
        process.kill()
        process.wait()
        os.kill(leash_pid, signal.SIGKILL)
        assert not end_soon([leash_pid], 1) or any(map(alive, held))
        with leashed(["true"], log=tmp_path / "log") as child:
            child.wait()
        assert end_soon(held)


def test_a_start_leaves_what_other_leashes_hold_alone(tmp_path):
    with leashed(FAMILY, log=tmp_path / "log", capture=True) as child:
        held = family(child.stdout.readline())
        with leashed(["true"], log=tmp_path / "other") as other:
            assert other.wait() == 0
        assert all(map(alive, held))
