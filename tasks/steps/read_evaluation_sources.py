"""The sources on which `mars evaluate` measures a model: benchmarks and pairs."""

from typing import Any

from datasets import Dataset
from prefect import task
from prefect.cache_policies import NO_CACHE

from mars_core.data.pairs import DataConfig
from mars_core.data.reading import read
from mars_core.evaluation.evaluation_config import EvaluationConfig, read_benchmarks
from tasks.run.sources import source_digest
from tasks.run.step import tell


@task(name="read sources", task_run_name="read sources", cache_policy=NO_CACHE, persist_result=False)
def read_evaluation_sources(
    evaluation: EvaluationConfig, data: DataConfig
) -> tuple[dict[str, Dataset], dict[str, dict[str, Any]], list[str]]:
    """Tables by name to measure one model on (`pairs` is `data.heldout`), the source of each, and notes.

    Raises:
        BenchmarkError: a benchmark cannot be used.
        PairsError: the pairs cannot be used.
    """
    tables, remarks = read_benchmarks(evaluation)
    named, suite = evaluation.sources, evaluation.suite
    if data.heldout:
        named["pairs"] = data.heldout
        tables["pairs"], left_out, read_as = read(
            data.heldout, data.open(), where=data.where, invalid=data.invalid
        )
        remarks += read_as
        remarks += [f"{data.heldout}: left out {count:,} rows: {why}" for why, count in left_out.items()]
    remarks += [
        f"{source} is a built-in miniature: its scores compare with no published ones"
        for name, source in named.items()
        if name in suite and source == suite[name].sample
    ]
    about = {
        name: {"source": source, "content": source_digest(source), "rows": len(tables[name])}
        for name, source in named.items()
    }
    for remark in remarks:
        tell("%s", remark)
    return tables, about, remarks
