"""Change a sample of pairs in ways that keep their ranking (docs/robustness.md)."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from mars_core.evaluation import robustness
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.evaluation_config import EvaluationConfig
from mars_core.evaluation.measure import texts_of_sets
from mars_core.evaluation.robustness import RobustnessConfig
from mars_core.generation import Answer, GenerationConfig, Generator, Request
from mars_core.method.guards import Guards, GuardsConfig
from mars_core.method.semantics import Embedder, SemanticsConfig
from tasks.processes.open_generator import generator_of
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import Made, step, tell


def transform_pairs(run: RunFolder, sets: Outputs) -> Outputs:
    """The changed pairs as `robustness`, the same for all rounds; nothing where none are asked for."""
    wanted = run.config.evaluation.robustness
    if not wanted.rows:
        return {}
    return {
        robustness.KEY: _transform_pairs(run, None, sets["heldout" if wanted.of == "pairs" else wanted.of])
    }


@step("robustness", version=1, reads=("evaluation.robustness", "semantics", "generation", "guards"))
def _transform_pairs(run: RunFolder, round: None, source: ArtifactRef) -> Made[ArtifactRef]:
    """Write a sample of pairs as they are, and as each transform changes them."""
    config = run.config
    wanted, rows = config.evaluation.robustness, Dataset(run.open(source).read())
    texts = texts_of_sets(config.evaluation.suite, {wanted.of: rows})[wanted.of]
    embedder = Embedder(config.semantics, run.vectors)
    guards = Guards(config.guards, embedder, prompts=config.generation.told)
    made = transformed_sample(wanted, texts, embedder, guards, config.generation, run.path("vllm.log"))
    return Made(run.write_table(f"{robustness.KEY}_rows.parquet", made))


@task(name="robustness", task_run_name="robustness", cache_policy=NO_CACHE, persist_result=False)
def changed_pairs(
    evaluation: EvaluationConfig,
    tables: Mapping[str, Dataset],
    semantics: SemanticsConfig,
    guards: GuardsConfig,
    generation: GenerationConfig,
    folder: Path,
) -> Dataset:
    """The changed pairs of `mars evaluate`, whose sets are `tables`; caches and logs go into the folder."""
    wanted, embedder = evaluation.robustness, Embedder(semantics, folder / ".vectors.sqlite")
    texts = texts_of_sets(evaluation.suite, {wanted.of: tables[wanted.of]})[wanted.of]
    judges = Guards(guards, embedder, prompts=generation.told)
    return transformed_sample(wanted, texts, embedder, judges, generation, folder / "vllm.log")


def transformed_sample(
    wanted: RobustnessConfig,
    texts: Texts,
    embedder: Embedder,
    guards: Guards,
    generation: GenerationConfig,
    log: Path,
) -> Dataset:
    """A sample of pairs as `robustness.transformed` has them; says how many pairs each transform changed.

    Args:
        wanted: how many pairs, and the transforms.
        texts: first all chosen responses, then all rejected ones.
        embedder: of the transforms that need one.
        guards: judge what a generator writes.
        generation: the generator, which is opened if a transform needs it.
        log: what a server that it launches says.
    """
    transforms = wanted.by_key
    ids, pairs = robustness.sample(texts, wanted.rows)
    writes = any(transform.needs in ("generator", "chat") for transform in transforms.values())
    with generator_of(generation, log) if writes else nullcontext() as generator:
        made = robustness.transformed(ids, pairs, transforms, _Models(embedder, guards, generator))
    changed = made.to_pandas()["transform"].value_counts()
    tell(
        "Of %s pairs, so many were changed: %s.",
        f"{len(pairs):,}", ", ".join(f"{name} {changed.get(name, 0):,}" for name in transforms),
    )  # fmt: skip
    return made


class _Models:
    """The embedder, and a generator behind guards."""

    def __init__(self, embedder: Embedder, guards: Guards, generator: Generator | None) -> None:
        self.embedder = embedder
        self.guards = guards
        self.generator = generator

    def similarities(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float32]:
        """See `Models.similarities`."""
        return 1 - self.embedder.distances(texts, others)

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """See `Models.answers`."""
        if self.generator is None:
            raise ValueError("a transform that asks a generator says so in `needs`")
        return self.generator.generate(requests)

    def paraphrases(self, requests: Sequence[Request], answers: Sequence[Answer]) -> list[str | None]:
        """See `Models.paraphrases`."""
        samples = [
            (place, sample)
            for place, asked in enumerate(zip(requests, answers, strict=True))
            for sample in self.guards.samples(str(place), *asked)
        ]
        distances = self.guards.distances(
            [sample.text for _, sample in samples], [sample.request.text for _, sample in samples]
        )
        least = self.guards.config.min_similarity
        found: dict[int, str] = {}
        for (place, sample), distance in zip(samples, distances.tolist(), strict=True):
            if 1 - distance >= least:
                found.setdefault(place, sample.text)
            else:
                self.guards.drop("meaning lost", sample, 1 - distance)
        return [found.get(place) for place in range(len(requests))]
