"""The experiments, one Prefect flow a file, and the command line that starts them."""

import os

# What the libraries read when they are imported and child processes inherit; the environment has precedence.
# Nothing of a run is sent anywhere but to the configured servers. Threads that wait sleep: spinning, which is
# OpenMP's default, gains a twelfth on an idle machine, and more than halves a fit's rate on a shared one.
for _variable, _value in {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar for each file of a checkpoint
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",  # what failed is told once, by us
    "DATASETS_VERBOSITY": "critical",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; after 90 of silence a run counts as dead
}.items():
    os.environ.setdefault(_variable, _value)

# A server on this machine is asked directly: a proxy would look for it on its own.
_direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
if "*" not in _direct:
    _direct = ",".join(filter(None, [_direct, "127.0.0.1", "localhost", "::1"]))
os.environ |= {"NO_PROXY": _direct, "no_proxy": _direct}
