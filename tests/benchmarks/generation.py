"""The generation engine against a bare client of the same vLLM server, and against vLLM without a server.

Needs the environment that `make vllm` makes. The model has random weights and is large enough that the
server is what takes the time. Every text is written to its full length, so that all sides do the same work.
"""

import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from mars_core.data.samples import preferences
from mars_core.generation import GenerationConfig, GenerationStore, Generator, Request
from mars_core.generation.backends.vllm import VllmBackend
from mars_core.method.guards import Guards, GuardsConfig
from mars_core.method.semantics import Embedder, SemanticsConfig

PYTHON = Path(".venv-vllm/bin/python")
ARGUMENTS = os.environ.get(
    "MARS_VLLM_ARGUMENTS",
    "--dtype bfloat16 --enforce-eager --gpu-memory-utilization 0.2 --max-model-len 2048 "
    "--no-enable-prefix-caching --max-num-seqs 256",
)
"""Of the server; the default is for a CPU. Without prefix caching, or what comes later would be cheaper."""
REQUESTS = int(os.environ.get("MARS_VLLM_REQUESTS", "384"))
SAMPLES, TOKENS = 2, 32
FIXED = (16, 32, 64, 128)
ROUNDS = 2


def http_ceiling(data: Path | None) -> dict[str, Any]:
    """Seconds of a bare client at its best concurrency over those of the engine: 1 is the server's own rate.

    The engine's time holds its store and the guards that look at the text alone. Those that need embeddings
    are timed apart.
    """
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder)) as backend:
        requests = _requests()
        bodies = [backend.body(request) for request in requests]
        address = backend.options.addresses[0]
        asyncio.run(_bare(address, bodies[:32], 16))  # warm
        fixed = {level: asyncio.run(_bare(address, bodies, level)) for level in FIXED}
        best = min(fixed, key=lambda level: fixed[level])
        bare, engine, guards = [fixed[best]], [], None
        for turn in range(ROUNDS):
            seconds, guards, texts = _engine(backend, requests, Path(folder) / f"store-{turn}")
            engine.append(seconds)
            if turn + 1 < ROUNDS:
                bare.append(asyncio.run(_bare(address, bodies, best)))
        guards.distances(texts, texts)
        tokens = REQUESTS * SAMPLES * TOKENS
        return {
            "ratio": round(min(bare) / min(engine), 3),
            "engine_tokens_per_second": round(tokens / min(engine)),
            "bare_tokens_per_second": {level: round(tokens / s) for level, s in fixed.items()},
            "best_concurrency": best,
            "engine_concurrency": backend.servers[0].limit.limit,
            "text_guards_seconds": round(guards.seconds["texts"], 2),
            "embedding_guards_seconds": round(guards.seconds["embeddings"], 2),
        }


def vllm_offline(data: Path | None) -> dict[str, Any]:
    """For information: seconds of vLLM's own `LLM.chat` over those of the engine with such a server."""
    with tempfile.TemporaryDirectory() as folder:
        with _served(Path(folder)) as backend:
            requests = _requests()
            asyncio.run(_bare(backend.options.addresses[0], [backend.body(r) for r in requests[:32]], 16))
            engine, _, _ = _engine(backend, requests, Path(folder) / "store")
        asked = Path(folder) / "asked.json"
        asked.write_text(json.dumps([backend.body(request)["messages"] for request in requests]))
        options = {
            "model": f"{folder}/model", "dtype": "bfloat16", "enforce_eager": True, "max_model_len": 2048,
            "gpu_memory_utilization": 0.2, "enable_prefix_caching": False, "max_num_seqs": 256,
        }  # fmt: skip
        done = subprocess.run(
            [PYTHON, "-c", OFFLINE, json.dumps(options), asked, str(SAMPLES), str(TOKENS)],
            env=_environment(), stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        offline = float(re.findall(r"^seconds (.*)$", done.stdout, re.MULTILINE)[0])
        tokens = REQUESTS * SAMPLES * TOKENS
        return {
            "ratio": round(offline / engine, 3),
            "engine_tokens_per_second": round(tokens / engine),
            "offline_tokens_per_second": round(tokens / offline),
        }


BENCHMARKS = {"generation/http-ceiling": http_ceiling, "generation/vllm-offline": vllm_offline}

OFFLINE = """
import json, sys, time
from vllm import LLM, SamplingParams
options, asked, n, tokens = json.loads(sys.argv[1]), json.load(open(sys.argv[2])), *map(int, sys.argv[3:])
if __name__ == "__main__":
    llm = LLM(**options)
    sampling = SamplingParams(n=n, max_tokens=tokens, temperature=0.8, top_p=0.95, ignore_eos=True)
    llm.chat(asked[:32], sampling, use_tqdm=False)
    started = time.perf_counter()
    llm.chat(asked, sampling, use_tqdm=False)
    print("seconds", time.perf_counter() - started)
"""


def _requests() -> list[Request]:
    pairs = preferences()
    return [
        Request("paraphrase_chosen", pair["prompt"], f"{number}. {pair['chosen']}", pair["rejected"], SAMPLES)
        for number, pair in ((number, pairs[number % len(pairs)]) for number in range(REQUESTS))
    ]


def _engine(
    backend: VllmBackend, requests: Sequence[Request], store: Path
) -> tuple[float, Guards, list[str]]:
    """Seconds to have all answers stored and their texts judged; the guards, and the raw texts."""
    # Texts of a full length all count as cut off, and would pass no further guard.
    guards = Guards(GuardsConfig(cut_off=False), Embedder(SemanticsConfig()))
    fresh = VllmBackend(backend.config)
    with GenerationStore(store) as generations:
        started = time.perf_counter()
        answers = Generator(fresh, generations).generate(requests)
        for request, answer in zip(requests, answers, strict=True):
            guards.samples("", request, answer)
        seconds = time.perf_counter() - started
    backend.servers = fresh.servers
    assert all(answer.completion_tokens == SAMPLES * TOKENS for answer in answers)
    return seconds, guards, [text for answer in answers for text in answer.texts]


async def _bare(address: str, bodies: Sequence[dict[str, Any]], concurrency: int) -> float:
    """Seconds of as many workers that take requests from one queue; nothing is kept."""
    queue = iter(bodies)

    async def work(client: httpx.AsyncClient) -> None:
        for body in queue:
            response = await client.post(f"{address}/chat/completions", json=body)
            assert len(response.raise_for_status().json()["choices"]) == SAMPLES

    async with httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=concurrency)) as client:
        started = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(concurrency)))
        return time.perf_counter() - started


@contextmanager
def _served(folder: Path) -> Iterator[VllmBackend]:
    """A vLLM server of a random model in `folder`, and the engine's backend of it."""
    if not PYTHON.exists():
        raise FileNotFoundError(f"{PYTHON} is not there: `make vllm` makes it")
    model = folder / "model"
    _save_model(model)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--disable-uvicorn-access-log", *shlex.split(ARGUMENTS)],
        env=_environment(), stdout=sys.stderr, start_new_session=True,
    )  # fmt: skip
    try:
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if server.poll() is not None:
                raise RuntimeError("the vLLM server did not start; what it said is above")
            time.sleep(0.5)
        address = f"http://127.0.0.1:{port}/v1"
        config = {
            "backend": "vllm",
            "model": str(model),
            "paraphrase_chosen": {"max_tokens": TOKENS},
            "options": {"base_url": address, "extra_body": {"ignore_eos": True}},
        }
        yield VllmBackend(GenerationConfig.model_validate(config))
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def _environment() -> dict[str, str]:
    return {"VLLM_CPU_KVCACHE_SPACE": "2", **os.environ}


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _save_model(folder: Path) -> None:
    """A chat model of random weights whose forward pass costs about 35 million multiplications a token."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator((pair["chosen"] for pair in preferences()), trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|end|>",
        chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:",
    )
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=5,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
