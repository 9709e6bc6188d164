"""The words of the backend `rules`, and which wordings may stand for one another."""

import re
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

WORDS: dict[str, Any] = yaml.safe_load(
    (files("mars_core.generation") / "backends" / "rules.yaml").read_text(encoding="utf-8")
)


class Wording(NamedTuple):
    """One replacement of a phrase and the neighbours that forbid it."""

    replacement: str
    not_before: frozenset[str]
    not_after: frozenset[str]
    begins_sentence: bool


def parse(lines: str) -> dict[str, tuple[Wording, ...]]:
    """Read lines as `rules.yaml` describes them; phrases become lower-case keys.

    Raises:
        ValueError: a line's wordings differ in their number of forms.
    """
    found: dict[str, list[Wording]] = {}
    for line in lines.strip().splitlines():
        if line.startswith("# "):
            continue
        body, *guards = re.split(r" (?=[!<]\S)", line.removeprefix("^ "))
        before, after = (
            frozenset(word.lower() for guard in guards if guard[0] == mark for word in guard[1:].split())
            for mark in "!<"
        )
        left, one_way, right = body.partition(" > ")
        sides = [side.split("/") for side in ([left, *right.split(" | ")] if one_way else body.split(" = "))]
        for source in sides[:1] if one_way else sides:
            for target in sides:
                if target is source:
                    continue
                for phrase, replacement in zip(source, target, strict=True):
                    wording = Wording(replacement, before, after, line.startswith("^"))
                    found.setdefault(phrase.lower(), []).append(wording)
    return {phrase: tuple(wordings) for phrase, wordings in found.items()}


LEXICON = parse(WORDS["synonyms"])
PLAIN_NOUNS = frozenset(WORDS["plain_nouns"].split())
"""Nouns whose order in "bread and butter" does not matter."""
FUNCTION_WORDS = frozenset(WORDS["function_words"].split())
"""Words without content of their own, which may be written small wherever they stand."""
