"""A Ray cluster on this machine, to try and to test what runs on several: a head and two nodes.

    python -m deployments.cluster run         until Ctrl-C or SIGTERM
    python -m deployments.cluster start       in the background, until:
    python -m deployments.cluster stop

    . services/ray/client.sh                  lets a shell, and what it starts, use the cluster

All listens on the loopback alone and asks for the token in the folder, which only its owner may read. A node
that dies is started again. There is no dashboard: it needs further packages.
"""

import os
import secrets
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from deployments import environment
from deployments.stack import end, in_background, interrupt, is_free, owned, say, told_errors
from mars_core.errors import MarsError
from tasks.processes.addresses import free_port
from tasks.processes.child_environment import without_secrets

STATE = environment.PROJECT / "services" / "ray"
PORT = 6399
NODES = ("head", "node-1", "node-2")
STORE_BYTES = 100 * 2**20
"""Object store of a node: rows and results go through files."""
AGENTS = ("metrics_agent", "metrics_export", "dashboard_agent_listen", "runtime_env_agent")
"""They get ports that are free: by default those of two clusters on one machine may be the same."""
TRIES = 3
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by default 15: whatever else runs on this machine would keep actors waiting
}
LOOK_SECONDS = 1.0
RESTART_SECONDS = 5.0

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
State = Annotated[Path, typer.Option(resolve_path=True, help="Folder of the token, the address and the log.")]


class ClusterError(MarsError, RuntimeError):
    """The cluster cannot be started; the message says what to do."""


def variables(state: Path) -> dict[str, str]:
    """What the environment of a process needs that uses the cluster; no secret, but the place of one."""
    return {
        "RAY_ADDRESS": (state / "address").read_text(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(state / "token"),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps Ray on the loopback
    }


@app.command()
def run(state: State = STATE) -> None:
    """Run the cluster until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with told_errors(), owned(state):
            _write_client(state)
            kept = without_secrets() | variables(state) | SETTINGS
            for name in os.environ.keys() - kept.keys():
                del os.environ[name]  # what tasks see is the environment of their node
            os.environ.update(kept)
            _supervise(state)
    except KeyboardInterrupt:
        say("Ended.")


@app.command()
def start(state: State = STATE) -> None:
    """Run the cluster in the background; returns when it can be used."""
    with told_errors():
        state.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(TRIES)):
            if not is_free(state):
                break
            try:
                in_background(["deployments.cluster", "run", "--state", str(state)], state)
            except typer.Exit:
                if not left:
                    raise
                say("Trying again: Ray gives a node's agents 15 s to start, which a busy machine may not.")
        say(f"For a shell:  . {state}/client.sh        End:  make cluster-stop")


@app.command()
def stop(state: State = STATE) -> None:
    """End the cluster that runs in the background."""
    with told_errors():
        end(state)


def _write_client(state: Path) -> None:
    token = state / "token"
    if not token.exists():
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
    (state / "address").write_text(f"127.0.0.1:{free_port(PORT)}")
    lines = [f"export {name}='{value}'" for name, value in variables(state).items()]
    (state / "client.sh").write_text("\n".join(lines) + "\n")


def _supervise(state: Path) -> None:
    """Start the nodes, and those that die again."""
    try:
        from ray.cluster_utils import Cluster  # after the environment is set, which Ray reads when imported
    except ModuleNotFoundError:
        raise ClusterError('a cluster needs the package ray: pip install "mars[ray]"') from None

    cores = max(1, (os.cpu_count() or 1) // 2)
    with tempfile.TemporaryDirectory(prefix="mars-ray-") as sockets:  # whose names may not be long
        os.environ["RAY_TMPDIR"] = sockets
        cluster, nodes, began = Cluster(), {}, {}

        def begin(name: str) -> None:
            about = {"num_cpus": cores, "object_store_memory": STORE_BYTES, "node_name": name}
            about |= {f"{agent}_port": free_port() for agent in AGENTS}
            if name == NODES[0]:
                port = int(variables(state)["RAY_ADDRESS"].rpartition(":")[2])
                about |= {"num_cpus": 0, "gcs_server_port": port}
                about |= {"include_dashboard": False, "include_log_monitor": False}
            began[name] = time.monotonic()
            nodes[name] = cluster.add_node(**about)
            signal.signal(signal.SIGTERM, interrupt)  # Ray's own handler would end this one node

        try:
            for name in NODES:
                begin(name)
                say(f"{name}: started")
            say(f"Ray:      {cluster.address}")
            (state / "healthy").touch()
            while nodes[NODES[0]].remaining_processes_alive():
                for name in NODES[1:]:
                    is_alive = nodes[name].remaining_processes_alive()
                    if not is_alive and time.monotonic() - began[name] > RESTART_SECONDS:
                        say(f"{name}: ended; starting it again")
                        cluster.remove_node(nodes[name], allow_graceful=False)
                        begin(name)
                time.sleep(LOOK_SECONDS)
            raise ClusterError("the head ended")
        finally:
            (state / "healthy").unlink(missing_ok=True)
            cluster.shutdown()


if __name__ == "__main__":
    app()
