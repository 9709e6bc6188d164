"""A whole augmentation step on a language model, against a bare client that sends the same requests at once.

The step learns what to ask for next from the answers and judges every text on the way, embeddings included;
the bare client knows all requests beforehand and throws the answers away. Needs the environment that
`make vllm` makes; the model is SmolLM2-135M-Instruct, de-quantised from Q4_1, with the prompts and sampling
of the quickstart.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from material import preference_pairs

from mars_core.generation import Answer, GenerationStore, Generator, Request
from mars_core.method.augmentation import AugmentationConfig, Parent, augment
from mars_core.method.guards import Guards, GuardsConfig
from mars_core.method.semantics import Embedder, SemanticsConfig, measure_distances
from tasks.inspect.preview import Listened
from tasks.processes.launched_backend import LaunchedBackend
from tasks.processes.open_generator import one_thread
from tasks.run.run_config import load_run

PAIRS = int(os.environ.get("MARS_STEP_PAIRS", "150"))
FIXED = (64, 128)
ARGUMENTS = "--no-enable-prefix-caching"
"""Of the server: or what comes later would be cheaper."""


def full_step(data: Path | None) -> dict[str, Any]:
    """Completion tokens a second of the step over those of the bare client at its best concurrency."""
    arguments = [f"generation.launch.arguments={ARGUMENTS}"]
    config = load_run("deployments/experiments/quickstart.yaml", arguments).generation
    with (
        tempfile.TemporaryDirectory() as folder,
        GenerationStore(Path(folder) / "store") as store,
        one_thread(),
    ):
        assert config.launch
        backend = LaunchedBackend(config, config.launch, Path(folder) / "vllm.log")
        try:
            listened = Listened(Generator(backend, store))
            warm = Request(
                "paraphrase_chosen", "p", "A lark is a small songbird that sings in flight.", "r", 2
            )
            listened.generate([warm])
            listened.heard.clear()
            pairs = preference_pairs(data, PAIRS)
            embedder = Embedder(SemanticsConfig(), Path(folder) / "vectors.sqlite")
            measure_distances(pairs, embedder, "mean")  # as a run has done before: it keeps the responses'
            guards = Guards(GuardsConfig(), embedder, None, config.instructions)
            parents = [
                Parent(pair["pair_id"], pair["prompt"], pair["chosen"], pair["rejected"], 1)
                for pair in pairs.to_list()
            ]
            started = time.perf_counter()
            made = augment(parents, listened, guards, AugmentationConfig(min_characters=60))
            seconds = time.perf_counter() - started
            answers = {answer.key: answer.completion_tokens for _, answer in listened.heard}
            tokens = sum(answers.values())
            kept = sum(sum(of_part) for parent in parents for of_part in parent.tokens.values())
            bare = {level: asyncio.run(_bare(backend, listened.heard, level)) for level in FIXED}
        finally:
            backend.close()
    best = max(bare.values())
    return {
        "ratio": round(tokens / seconds / best, 3),
        "wanted": "≥ 0.9",
        "step_tokens_per_second": round(tokens / seconds),
        "bare_tokens_per_second": {level: round(rate) for level, rate in bare.items()},
        "requests": len(listened.heard),
        "step_seconds": round(seconds),
        "pairs_made": len(made.pairs),
        "shortfall": made.shortfall,
        "tokens_paid_for_each_kept": round(tokens / kept, 2),
        "guards_seconds": {kind: round(spent, 1) for kind, spent in guards.seconds.items()},
    }


async def _bare(
    launched: LaunchedBackend, heard: Sequence[tuple[Request, Answer]], concurrency: int
) -> float:
    """Completion tokens a second of so many workers that take the requests from one queue."""
    backend: Any = launched.backend
    queue = iter([backend.body(request) for request, _ in heard])
    tokens = 0

    async def work(client: httpx.AsyncClient) -> None:
        nonlocal tokens
        for body in queue:
            response = await client.post(f"{backend.options.base_url}/chat/completions", json=body)
            tokens += response.raise_for_status().json()["usage"]["completion_tokens"]

    headers = {"Authorization": f"Bearer {backend.api_key}"}
    async with httpx.AsyncClient(
        timeout=None, headers=headers, limits=httpx.Limits(max_connections=concurrency)
    ) as client:
        started = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(concurrency)))
        return tokens / (time.perf_counter() - started)


BENCHMARKS = {"generation/full-step": full_step}
