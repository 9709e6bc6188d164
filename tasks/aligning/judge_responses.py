"""Responses of two models judged by a chat model, for `mars winrate --judge`."""

from pathlib import Path

from mars_core.alignment.judge import ORDERS, JudgeConfig, judge
from mars_core.alignment.judgements import read_compared
from mars_core.config import origin, read, validated
from mars_core.files import write_whole
from tasks.processes.open_generator import generator_of
from tasks.run.progress import progress

JUDGEMENTS = "judgements.jsonl"


def judge_responses(responses: Path, judge_file: Path, folder: Path) -> Path:
    """Have the responses in a file judged; what was judged before is in the store of generations.

    Args:
        responses: as `read_compared` reads them.
        judge_file: YAML with the keys of `JudgeConfig`.
        folder: gets judgements.jsonl, and the log of a server that is launched.

    Returns:
        The file of judgements.

    Raises:
        ConfigError: an unknown key, or a value out of range.
        BenchmarkError, JudgeError, GenerationError: as of `read_compared` and `judge`.
    """
    config = validated(JudgeConfig, read(judge_file), origin(judge_file, ()))
    compared, names = read_compared(str(responses))
    folder.mkdir(parents=True, exist_ok=True)
    with generator_of(config, folder / "vllm.log") as generator:

        def tokens() -> int:
            return generator.counts.completion_tokens

        with progress("judging", len(ORDERS) * len(compared), "answers", tokens) as advance:
            table = judge(generator, compared, config.max_missing_share, lambda: advance(1))
    written = folder / JUDGEMENTS
    write_whole(written, lambda path: table.assign(**names).to_json(path, orient="records", lines=True))
    return written
