"""A reward model on vLLM's pooling server, which starts only to serve what it was asked to serve: before its
address is told, its rewards of rendered texts are compared with this project's own.

It runs in vLLM's environment, on a leash, listens on the loopback, and asks for the key in VLLM_API_KEY.
"""

import gc
import json
import os
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import httpx
import numpy as np
from accelerate.utils.memory import clear_device_cache
from pydantic import Field, SerializeAsAny

from mars_core.config import Configuration
from mars_core.data import dialogue
from mars_core.data.dialogue import Turn
from mars_core.data.samples import preferences
from mars_core.errors import MarsError, ModelError
from mars_core.generation import LaunchConfig
from mars_core.model.loading import has_trained_head
from mars_core.model.plain_checkpoint import save_plain
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import ObjectiveConfig
from tasks.processes.addresses import answers
from tasks.processes.child_environment import without_secrets
from tasks.processes.child_process import leashed
from tasks.run.run_config import TrackingConfig
from tasks.run.step import tell
from tasks.run.vllm_command import for_cpu, has_gpu, server_command
from tasks.tracking.logged_models import fetched
from tasks.using import key_middleware
from tasks.using.key_middleware import KEY

IMAGE = "vllm/vllm-openai:v0.32.0"
FLOAT32_TOLERANCE, FLOAT32_SIGNS, BFLOAT16_TOLERANCE = 1e-4, 0.999, 0.05
"""Shares of the rewards' spread, and of margins whose sign has to be the same."""
MIDDLEWARE = Path(key_middleware.__file__)
TEXTS_AT_ONCE = 32
LAST_LINES = 20


class ServeError(MarsError, RuntimeError):
    """The model cannot be served, or the server's rewards are others; the message says why."""


class ServeConfig(Configuration):
    """Everything that `mars serve` needs to know."""

    model: ModelConfig
    """The reward model, as `backbone`; `precision` is also that of the server."""
    objective: SerializeAsAny[ObjectiveConfig] | None = None
    """What the model was trained by; by default what its checkpoint names."""
    port: int = Field(8001, ge=1, le=65535)
    """Where the server listens, on the loopback."""
    sample: int = Field(64, ge=2)
    """Built-in pairs by which the server is compared with the model; there are a few hundred."""
    launch: LaunchConfig = LaunchConfig()
    """What starts the server."""
    tracking: TrackingConfig = TrackingConfig()
    """Where MLflow is, for a registered model."""


class Parity(NamedTuple):
    """How far a server's rewards are from the model's own, in float32."""

    precision: Literal["float32", "bfloat16"]
    """Of the server."""
    spread: float
    """Standard deviation of the model's rewards."""
    worst: float
    """Largest difference of two rewards of a text."""
    rms: float
    """Root of the mean squared difference."""
    signs: float
    """Share of pairs whose margins have the same sign."""
    pairs: int

    @property
    def holds(self) -> bool:
        """Whether the server serves this model: in float32 to 1e-4 of the spread and with the signs of
        99.9% of margins, in bfloat16 to 5% of the spread by root mean square."""
        if self.precision == "bfloat16":
            return self.rms <= BFLOAT16_TOLERANCE * self.spread
        return self.worst <= FLOAT32_TOLERANCE * self.spread and self.signs >= FLOAT32_SIGNS

    def __str__(self) -> str:
        """The comparison in a sentence."""
        return (
            f"{self.precision}, {2 * self.pairs} texts: the server's rewards differ by at most "
            f"{self.worst:.2g} (RMS {self.rms:.2g}), with a spread of {self.spread:.3g}; {self.signs:.1%} of "
            f"{self.pairs} margins have the same sign"
        )


class Served(NamedTuple):
    """A server that answers, during a `with` block."""

    address: str
    name: str
    """What requests call the model."""
    parity: Parity
    request: dict[str, Any]
    """The body of a request as people write it, to /classify; its reward is that of the same text here."""
    arguments: list[str]
    """Those of vLLM, but for the model, host, port and what this machine needs."""
    checkpoint: Path

    @property
    def curl(self) -> str:
        """A line that asks the server."""
        body = shlex.quote(json.dumps(self.request, ensure_ascii=False))
        return (
            f'curl {self.address}/classify -H "Authorization: Bearer ${KEY}" '
            f"-H 'Content-Type: application/json' -d {body}"
        )

    @property
    def container(self) -> str:
        """The command that serves the same model from vLLM's image, which was never run here."""
        port = self.address.rpartition(":")[2]
        arguments = shlex.join(self.arguments)
        return (
            f"docker run --gpus all --ipc host -e {KEY} -p 127.0.0.1:{port}:8000 -v FOLDER:/model:ro "
            f"-v {shlex.quote(str(MIDDLEWARE))}:/mars/{MIDDLEWARE.name}:ro -e PYTHONPATH=/mars {IMAGE} "
            f"--model /model --served-model-name {shlex.quote(self.name)} {arguments}"
        )


@contextmanager
def served(config: ServeConfig, log: Path) -> Iterator[Served]:
    """Serve a model during a `with` block, which begins when the server's rewards are the model's.

    Raises:
        ServeError: there is no key, the port is taken, texts are rendered in a way that vLLM does not know,
            the server does not start, or its rewards are others.
        ModelError: the model cannot be loaded, is no reward model, or its reward is no linear output.
        GenerationError: there is no vLLM here, or this machine cannot run it.
    """
    key = os.environ.get(KEY)
    if not key:
        raise ServeError(f"{KEY} is not set: put a key into it, such as that of `openssl rand -hex 32`")
    if config.launch.replicas:
        raise ServeError("mars serve starts one server, on this machine: remove the key launch.replicas")
    _check_port(config.port)
    command = server_command(config.launch)
    cpu = None if has_gpu() else for_cpu()
    with (
        fetched(config.tracking, config.model.backbone) as reference,
        TemporaryDirectory(prefix="mars-serve-") as at,
    ):
        checkpoint = Path(at) / "model"
        sample = _Sample(config, reference, checkpoint)
        precision = _precision(config.model, cpu.arguments if cpu else [])
        name = Path(config.model.backbone).name
        arguments = [
            "--runner", "pooling", "--convert", "classify", "--pooler-config", '{"use_activation": false}',
            "--max-model-len", str(sample.max_length), "--dtype", precision,
            "--middleware", f"{MIDDLEWARE.stem}.{key_middleware.AsksForKey.__name__}",
        ]  # fmt: skip
        address = f"http://127.0.0.1:{config.port}"
        place = ["--model", str(checkpoint), "--served-model-name", name, "--host", "127.0.0.1"]
        command += [*place, "--port", str(config.port), *(_without_dtype(cpu.arguments) if cpu else ())]
        command += [*arguments, *shlex.split(config.launch.arguments)]
        importable = Path(at) / "importable"
        importable.mkdir()
        shutil.copy(MIDDLEWARE, importable)
        environment = {
            **(cpu.environment if cpu else {}), **without_secrets(), KEY: key, "PYTHONPATH": str(importable)
        }  # fmt: skip
        tell("Starting a server of %s; its log is %s.", config.model.backbone, log)
        with leashed(command, log=log, env=environment) as server:
            _wait(server.poll, address, config.launch.start_seconds, log)
            ask = _asker(address, name, key)
            parity = sample.compared(ask, precision)
            if not parity.holds:
                advice = "; model.precision=float32 is slower and exact" if precision == "bfloat16" else ""
                raise ServeError(f"the server does not serve this model. {parity}{advice}")
            tell("%s.", parity)
            request = sample.request(ask, name)
            yield Served(address, name, parity, request, arguments, checkpoint)


class _Sample:
    """Rendered texts with the model's rewards of them, in float32; the model itself is gone."""

    def __init__(self, config: ServeConfig, reference: str, checkpoint: Path) -> None:
        """Load the model, score the sample, and write the checkpoint that vLLM reads."""
        exact = config.model.model_copy(update={"precision": "float32"})
        if not has_trained_head(reference, exact, config.objective):
            raise ModelError(f"{config.model.backbone} has no trained head: it is no reward model yet")
        model = RewardModel.load(reference, exact, config.objective)
        if model.renderer.pairs:
            raise ServeError(
                f"{config.model.backbone} reads prompt and response as a sentence pair, which vLLM's server "
                "does not render: mars score scores by it"
            )
        rows = preferences()[: config.sample]
        self.prompts = [row["prompt"] for row in rows] * 2
        self.responses = [row["chosen"] for row in rows] + [row["rejected"] for row in rows]
        self.ids = model.renderer.render(self.prompts, self.responses).ids
        save_plain(model, checkpoint)  # before scores: a head of several outputs becomes one
        self.rewards = model.score(self.prompts, self.responses).astype(np.float64)
        self.max_length = model.renderer.max_length
        self._template = "template" in model.renderer.description
        self._end = model.tokenizer.eos_token if self._plain_end(model.tokenizer) else ""
        del model
        gc.collect()
        clear_device_cache()

    def compared(self, ask: "Ask", precision: Literal["float32", "bfloat16"]) -> Parity:
        """Compare the server's rewards of the same tokens."""
        found = np.array(ask({"input": self.ids}), np.float64)
        chosen, rejected = np.split(self.rewards - found, 2)
        margins, served = (np.subtract(*np.split(some, 2)) for some in (self.rewards, found))
        difference = np.concatenate([chosen, rejected])
        return Parity(
            precision,
            float(self.rewards.std()),
            float(np.abs(difference).max()),
            float(np.sqrt((difference**2).mean())),
            float((np.sign(margins) == np.sign(served)).mean()),
            len(margins),
        )

    def request(self, ask: "Ask", name: str) -> dict[str, Any]:
        """A request as people write it, with messages or text; with tokens where these are not rendered
        alike by the server."""
        shortest = min(range(len(self.ids)), key=lambda text: len(self.ids[text]))
        ids = self.ids[shortest]
        said = [*dialogue.turns(self.prompts[shortest]), Turn("assistant", self.responses[shortest])]
        written: dict[str, Any] = (
            {"messages": [{"role": turn.role, "content": turn.content} for turn in said]}
            if self._template
            else {"input": dialogue.transcript(said) + self._end}
        )
        [by_tokens], [as_written] = ask({"input": [ids]}), ask(written)
        alike = abs(by_tokens - as_written) <= 1e-3 * float(self.rewards.std())
        if not alike:
            tell("The server renders texts otherwise than the model was trained: send token ids.")
        return {"model": name, **(written if alike else {"input": [ids]})}

    @staticmethod
    def _plain_end(tokenizer: Any) -> bool:
        """Whether a text has to bring its own end, because the tokenizer adds none."""
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        return bool(tokenizer("a")["input_ids"] == bare and tokenizer.eos_token)


Ask = Callable[[dict[str, Any]], list[float]]
"""Rewards of the texts in a request's body."""


def _asker(address: str, name: str, key: str) -> Ask:
    def ask(body: dict[str, Any]) -> list[float]:
        given, found = body.get("input"), list[float]()
        bodies = [body]
        if isinstance(given, list):
            starts = range(0, len(given), TEXTS_AT_ONCE)
            bodies = [{"input": given[start : start + TEXTS_AT_ONCE]} for start in starts]
        for one in bodies:
            try:
                answer = httpx.post(
                    f"{address}/classify",
                    json={"model": name, **one},
                    headers={"Authorization": f"Bearer {key}"},
                    timeout=600,
                )
                answer.raise_for_status()
            except httpx.HTTPError as error:
                raise ServeError(f"the server does not classify: {error}") from None
            data = sorted(answer.json()["data"], key=lambda item: item["index"])
            found += [item["probs"][0] for item in data]
        return found

    return ask


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ServeError(f"port {port} of 127.0.0.1 is taken: name another, --port {port + 1}") from None


def _precision(model: ModelConfig, cpu: list[str]) -> Literal["float32", "bfloat16"]:
    """What the server computes in: what the configuration says, or else what suits the machine."""
    if model.precision != "auto":
        return model.precision
    return "float32" if "float32" in cpu else "bfloat16"


def _without_dtype(arguments: list[str]) -> list[str]:
    place = arguments.index("--dtype")
    return arguments[:place] + arguments[place + 2 :]


def _wait(ended: Callable[[], int | None], address: str, seconds: float, log: Path) -> None:
    started = time.monotonic()
    while not answers(f"{address}/health"):
        late = time.monotonic() - started > seconds
        if late or ended() is not None:
            lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
            how = f"did not answer within {seconds:g} s" if late else "ended before it answered"
            raise ServeError(f"the server {how}. Last lines of its log, {log}:\n" + "\n".join(lines))
        time.sleep(0.2)
    tell("The server answers after %.0f s.", time.monotonic() - started)
