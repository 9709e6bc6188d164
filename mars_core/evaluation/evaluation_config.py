"""What a reward model is measured on: the section `evaluation`, and the rows of the benchmarks it names."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from datasets import Dataset
from pydantic import Field, field_validator, model_validator

from mars_core.config import Configuration, Later, Operational
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.benchmark import BENCHMARKS, Benchmark
from mars_core.evaluation.robustness import RobustnessConfig
from mars_core.extensions import ExtensionError

Suite = Mapping[str, Benchmark]
"""Benchmarks by their keys, which begin the names of their metrics and of their tables."""
TAKEN = {
    "allocation", "augmented", "contamination", "curvature", "distances", "heldout", "margins", "pairs",
    "rewrites", "robustness", "synthetic", "train", "validation", "variants",
}  # fmt: skip
"""Keys that no benchmark may have: sets of pairs and other tables of a run have them."""


class EvaluationConfig(Configuration):
    """What a reward model is measured on besides the validation and the held-out pairs."""

    renamed: ClassVar[Mapping[str, str]] = {
        "rewardbench": "evaluation.benchmarks.rewardbench",
        "rewardbench2": "evaluation.benchmarks.rewardbench2",
    }

    benchmarks: dict[str, str] = Field(default={})
    """Name of each benchmark → its source: a local file, or a hub dataset such as
    allenai/reward-bench@REVISION. A name is rewardbench, rewardbench2 (sample://NAME is the built-in
    miniature of these two), rmbench, judgebench, rmb, ppe_human_preference, ppe_correctness, rewardmath,
    mrewardbench, best_of_n, or module:attribute of a class of your own."""
    benchmark_rounds: Literal["all", "last"] = "all"
    """Rounds after which the benchmarks are run and robustness is measured. If it is only the last, as in a
    comparison, MLflow shows that round as the result, whatever validation says."""
    robustness: Annotated[RobustnessConfig, Later()] = RobustnessConfig()
    """What changes that keep a pair's ranking do to the rewards."""
    strict: Annotated[bool, Operational()] = False
    """Refuse a benchmark whose subsets do not have their official numbers of rows, instead of warning; the
    built-in samples, which are much smaller, are exempt."""

    @field_validator("benchmarks")
    @classmethod
    def _known(cls, sources: dict[str, str]) -> dict[str, str]:
        for name in sources:
            try:
                BENCHMARKS.find(name)
            except ExtensionError as error:
                raise ValueError(str(error)) from None
        keys = [key_of(name) for name in sources]
        if len(set(keys)) < len(keys) or not TAKEN.isdisjoint(keys):
            raise ValueError(
                f"the keys of benchmarks are {', '.join(keys)}: each may occur once, and none may be "
                f"{', '.join(sorted(TAKEN))}"
            )
        return sources

    @model_validator(mode="after")
    def _robustness_is_of_pairs(self) -> "EvaluationConfig":
        source = self.robustness.of
        if source != "pairs" and not (source in self.suite and self.suite[source].pairwise):
            pairwise = [key for key, one in self.suite.items() if one.pairwise]
            raise ValueError(
                f"robustness.of is {source!r}: it is pairs, or a benchmark here with one chosen and one "
                f"rejected response: {', '.join(pairwise) or 'there is none'}"
            )
        return self

    @property
    def suite(self) -> Suite:
        """The benchmarks to run."""
        return {key_of(name): BENCHMARKS.find(name)(Configuration()) for name in self.benchmarks}

    @property
    def sources(self) -> dict[str, str]:
        """Their sources, by the same keys."""
        return {key_of(name): source for name, source in self.benchmarks.items()}

    def identity(self) -> dict[str, str]:
        """What stands for a user's own benchmarks in the keys of steps, besides their sources."""
        found = {name: BENCHMARKS.identity(name) for name in self.benchmarks}
        return {f"{name} version": version for name, version in found.items() if version is not None}


def key_of(name: str) -> str:
    """The key of a benchmark: its name, or the attribute of a user's own module."""
    return name.rpartition(":")[2]


def read_benchmarks(config: EvaluationConfig) -> tuple[dict[str, Dataset], list[str]]:
    """The rows of the benchmarks to run, and warnings about their numbers.

    Raises:
        BenchmarkError: one cannot be used or, with `config.strict`, there is something to warn about.
        PairsError: a file or hub dataset cannot be loaded.
    """
    rows, warnings = {}, list[str]()
    for key, benchmark in config.suite.items():
        source = config.sources[key]
        rows[key] = benchmark.read(source)
        if source == benchmark.sample:
            continue
        told = benchmark.count_warnings(rows[key])
        if told and config.strict:
            raise BenchmarkError("\n  ".join([f"{source}: its counts are not the official ones:", *told]))
        warnings += told
    return rows, warnings
