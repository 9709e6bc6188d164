"""A miniature of RewardBench: its 23 subsets with ten pairs each, to try the evaluation without a download.

The pairs are ours, in the spirit of each subset; scores on them say nothing about the benchmark itself.
"""

import re

from mars_core.data.samples.bench_chat import CHAT
from mars_core.data.samples.bench_instruction import INSTRUCTION
from mars_core.data.samples.bench_maths import MATHS
from mars_core.data.samples.bench_safety import SAFETY
from mars_core.data.samples.cards import Card
from mars_core.data.samples.programs import SOURCES, TASKS

_VARIANT = re.compile(r"⟨(?P<right>[^|⟩]*)\|(?P<buggy>[^⟩]*)⟩")


def rewardbench() -> list[dict[str, str]]:
    """The same 230 pairs at every call, as rows with id, subset, prompt, chosen and rejected."""
    subsets = {
        **CHAT,
        **INSTRUCTION,
        **SAFETY,
        "math-prm": MATHS,
        **{name: _programs(name) for name in SOURCES},
    }
    rows = [(subset, card) for subset, cards in subsets.items() for card in cards]
    return [
        {"id": str(index), "subset": subset, **card._asdict()} for index, (subset, card) in enumerate(rows)
    ]


def _programs(subset: str) -> list[Card]:
    """Small programs, and the same with one bug."""
    language, text = SOURCES[subset]
    sources = text.strip("\n").split("\n\n")
    return [_program(language, task, source) for task, source in zip(TASKS.values(), sources, strict=True)]


def _program(language: str, task: str, source: str) -> Card:
    signature = source.splitlines()[0].rstrip(" {:")
    return Card(
        f"Write a {language} function that {task}. Its signature is: {signature}",
        _VARIANT.sub(lambda match: match["right"], source),
        _VARIANT.sub(lambda match: match["buggy"], source),
    )
