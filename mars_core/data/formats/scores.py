"""Responses with scores: a row each, as HelpSteer2 has them, or those of a prompt in one (UltraFeedback)."""

import json
from collections.abc import Hashable, Mapping, Sequence, Set
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from mars_core.data.formats.format import (
    PROMPTS,
    SYSTEMS,
    Format,
    GapConfig,
    LeftOut,
    Made,
    compared,
    dialogue_of,
    first_of,
    number_of,
    prompt_columns,
    response_of,
)
from mars_core.data.source_rows import Row

LISTS = ("completions", "responses", "generations", "answers")
TEXTS = ("response", "completion", "output", "answer", "text", "content")
SCORES = ("helpfulness", "overall_score", "score", "rating", "reward")
LISTS_OF_SCORES = ("scores", "ratings", "rewards")
UNSCORED = ("", "n/a", "na", "nan", "none", "null")


def _several(named: Any) -> Any:
    return (named,) if isinstance(named, str) else named


class Scores(Format):
    """Two responses of a prompt are a pair where their scores differ: the higher one is chosen."""

    class Config(GapConfig):
        """What the score is, and which two responses are a pair."""

        score: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
        """Columns whose mean is a response's score, such as [helpfulness, correctness]; by default the first
        that there is of helpfulness, overall_score, score, rating and reward."""
        comparisons: Literal["all", "best"] = "all"
        """`all` pairs every two responses of a prompt, `best` the best one with each of the others; the
        weights of a prompt sum to one either way."""

    config: Config
    columns = "prompt, response and a score (helpfulness, score, …), a row each; or completions with scores"

    @classmethod
    def recognises(cls, columns: Set[str], rows: Sequence[Row]) -> bool:
        """Whether responses have scores, and no pair is named."""
        if "chosen" in columns or not first_of(PROMPTS, columns):
            return False
        if first_of(TEXTS, columns) and first_of(SCORES, columns):
            return True
        return any(_listed(row, SCORES) for row in rows)

    def used(self, columns: Set[str]) -> list[str]:
        """The prompt's columns, the responses and what their score is made of."""
        if self._by_row(columns):
            named = [first_of(TEXTS, columns), *self._scores(columns)]
        else:
            named = [first_of(LISTS, columns), first_of(LISTS_OF_SCORES, columns)]
        return [*prompt_columns(columns), *(name for name in named if name)]

    def at(self, columns: Set[str], rows: Sequence[Row]) -> "Format":
        """This format, if the source has the scores that are asked for."""
        lacking = set(self.config.score) - columns
        if lacking and self._by_row(columns):
            raise ValueError(
                f"no column {', '.join(sorted(lacking))}, which data.score names; found "
                f"{', '.join(sorted(columns))}"
            )
        return self

    def group(self, row: Row) -> Hashable | None:
        """The prompt, where a row holds one response."""
        if not self._by_row(row):
            return None
        asked = {name: row[name] for name in (*PROMPTS, *SYSTEMS) if name in row and name not in TEXTS}
        return json.dumps(asked, sort_keys=True, default=str)

    def pairs(self, rows: Sequence[Row]) -> Made:
        """The pairs of one prompt."""
        first = rows[0]
        responses = []
        for row in rows:
            if self._by_row(row):
                name = first_of(TEXTS, row) or TEXTS[0]
                found = [(row[name], [row.get(score) for score in self._scores(row)])]
            else:
                name = first_of(LISTS, row) or LISTS[0]
                found = _listed(row, self.config.score or SCORES)
            if not found:
                raise ValueError(f"{name} is no list of responses with a score each")
            for text, scores in found:
                numbers = [_score(score) for score in scores]
                if not numbers or None in numbers:
                    yield LeftOut("a response without a score")
                    continue
                mean = sum(number for number in numbers if number is not None) / len(numbers)
                responses.append((response_of(text, name), mean))
        if len(responses) == 1:
            yield LeftOut("the only response to its prompt")
        if len(responses) > 1:
            yield from compared(dialogue_of(first), responses, self.config.comparisons == "best", self.config)

    def _by_row(self, columns: Set[str] | Mapping[str, Any]) -> bool:
        """Whether a row holds one response."""
        return bool(first_of(TEXTS, columns) and (self.config.score or first_of(SCORES, columns)))

    def _scores(self, columns: Set[str] | Mapping[str, Any]) -> list[str]:
        """The columns that a score is the mean of."""
        default = first_of(SCORES, columns)
        return list(self.config.score) or ([default] if default else [])


def _score(value: Any) -> float | None:
    return None if str(value).strip().lower() in UNSCORED else number_of(value, "score")


def _listed(row: Row, names: Sequence[str]) -> list[tuple[Any, list[Any]]]:
    """The responses that one row holds, each with what its score is the mean of; none if it holds no list."""
    given, scores = row.get(first_of(LISTS, row) or ""), row.get(first_of(LISTS_OF_SCORES, row) or "")
    if not isinstance(given, Sequence) or isinstance(given, str):
        return []
    if isinstance(scores, Sequence) and len(scores) == len(given):
        return [(text, [score]) for text, score in zip(given, scores, strict=True)]
    if not all(isinstance(response, Mapping) for response in given):
        return []
    found = []
    for response in given:
        named = [name for name in names if name in response]
        text = response.get(first_of(TEXTS, response) or "")
        found.append((text, [response[name] for name in (named[:1] if names is SCORES else named)]))
    return found if any(scores for _, scores in found) else []
