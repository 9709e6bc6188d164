"""Responses of two models side by side, and recorded judgements of which one a judge prefers.

Two forms are read, told apart by their fields; files are those of `read_rows`.

- This project's own: prompt, response, baseline, preference (1 for the response, 0 for the baseline, .5 for
  neither, or between; null where the judge's answer could not be read) and, where it is known, shown_first
  (response or baseline).
- AlpacaEval's annotations: instruction, output_1 (of the baseline), output_2 (of the model), preference from
  1 (baseline) to 2 (model), where 0 stands for a tie and null for an answer that could not be read.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import pandas as pd

from mars_core.evaluation.benchmark_files import Row, read_rows

OWN, ALPACA_EVAL = "this project's judgements", "AlpacaEval's annotations"
MODELS, BASELINES = ("generator_2", "model"), ("generator_1", "baseline_model")
"""Fields with the names of those who wrote the responses."""


class Compared(NamedTuple):
    """Two responses to one prompt."""

    prompt: str
    response: str
    """Of the model whose win rate is wanted."""
    baseline: str
    """Of the one that it is compared with."""


@dataclass(frozen=True)
class Judgements:
    """Judgements of one model's responses against those of a baseline."""

    table: pd.DataFrame
    """A row for each: prompt, response, baseline, preference in [0, 1] (nan where the judge's answer could
    not be read), shown_first (response, baseline, or none)."""
    form: str
    """`OWN` or `ALPACA_EVAL`."""
    model: str
    baseline: str

    @property
    def pairs(self) -> pd.DataFrame:
        """A row for each prompt and its two responses: their mean preference, nan if no answer was read."""
        keys = ["prompt", "response", "baseline"]
        return self.table.groupby(keys, sort=False)["preference"].mean().reset_index()


def read_judgements(source: str) -> Judgements:
    """The judgements in a file, or in the files of a folder.

    Raises:
        BenchmarkError: it cannot be read, is of neither form, or judges several models; names the row.
    """
    rows = read_rows(source, "Judgements")
    if "preference" not in rows[0].values:
        rows[0].refuse("has no field preference: these are no judgements")
    alpaca_eval = _is_alpaca_eval(rows[0])
    preference = _of_alpaca_eval if alpaca_eval else _own
    return Judgements(
        table=pd.DataFrame([_compared(row)._asdict() | preference(row) for row in rows]).astype(
            {"preference": float}
        ),
        form=ALPACA_EVAL if alpaca_eval else OWN,
        model=_the_only(rows, MODELS, "the model"),
        baseline=_the_only(rows, BASELINES, "the baseline"),
    )


def read_compared(source: str) -> tuple[list[Compared], dict[str, str]]:
    """The responses in a file that are to be judged, and the names of model and baseline in its rows.

    Raises:
        BenchmarkError: it cannot be read, or has responses of several models; names the row.
    """
    rows = read_rows(source, "Responses")
    names = {
        "model": _the_only(rows, MODELS, "the model"),
        "baseline_model": _the_only(rows, BASELINES, "the baseline"),
    }
    return list(dict.fromkeys(map(_compared, rows))), names


def _is_alpaca_eval(row: Row) -> bool:
    return "output_1" in row.values


def _compared(row: Row) -> Compared:
    fields = ("instruction", "output_2", "output_1") if _is_alpaca_eval(row) else Compared._fields
    return Compared(*(row.checked(field, row.value(field)) for field in fields))


def _own(row: Row) -> dict[str, object]:
    first = row.values.get("shown_first")
    if first is not None:
        first = row.one_of("shown_first", ("response", "baseline"))
    preference = _number(row, lambda value: 0 <= value <= 1, "between 0 and 1")
    return {"preference": preference, "shown_first": first}


def _of_alpaca_eval(row: Row) -> dict[str, object]:
    """AlpacaEval shows one order, drawn at random, and does not record which."""
    value = _number(row, lambda value: value == 0 or 1 <= value <= 2, "0, or between 1 and 2")
    return {"preference": 0.5 if value == 0 else value - 1, "shown_first": None}


def _number(row: Row, allowed: Callable[[float], bool], said: str) -> float:
    value = row.value("preference")
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, Real):
        row.refuse(f"preference must be a number or null, it is {value!r}")
    number = float(value)
    if not math.isnan(number) and not allowed(number):
        row.refuse(f"preference is {number}; it must be {said}")
    return number


def _the_only(rows: list[Row], fields: tuple[str, ...], called: str) -> str:
    """The name in one of some fields, which is that of all rows."""
    names: dict[str, Row] = {}
    for row in rows:
        names.setdefault(next((str(row.values[field]) for field in fields if field in row.values), ""), row)
    if len(names) > 1:
        [(one, _), (other, row), *_] = names.items()
        row.refuse(f"judges {called} {other!r}, and the rows before {one!r}: give each a file of its own")
    return next(iter(names)) or called
