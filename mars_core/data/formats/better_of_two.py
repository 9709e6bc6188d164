"""Two responses, and a column that says which is the better one, such as PKU-SafeRLHF and HelpSteer3."""

from collections.abc import Sequence, Set
from typing import Any, Literal

from mars_core.config import Configuration
from mars_core.data.formats.format import (
    PROMPTS,
    Format,
    LeftOut,
    Made,
    Pair,
    dialogue_of,
    first_of,
    number_of,
    prompt_columns,
    response_of,
)
from mars_core.data.source_rows import Row

RESPONSES = (
    ("response_0", "response_1"),
    ("response_a", "response_b"),
    ("response_1", "response_2"),
    ("response1", "response2"),
)
SIGNED = "overall_preference"
"""A number below zero where the first response is better, and above where the second is."""
LABELS = {
    "better": ("better_response_id", "better_response", "winner", "preference", SIGNED),
    "safer": ("safer_response_id", "safer_response"),
}
TIES = ("tie", "both", "both_bad", "tie (bothbad)", "-1")


class BetterOfTwo(Format):
    """The response that the label names is chosen, the other one rejected."""

    class Config(Configuration):
        """Which of two labels counts."""

        label: Literal["better", "safer"] = "better"
        """What makes a response the chosen one: `better` goes by better_response_id (or winner,
        preference, or the sign of overall_preference), `safer` by safer_response_id."""

    config: Config
    columns = "prompt, response_0, response_1 and better_response_id or safer_response_id"

    @classmethod
    def recognises(cls, columns: Set[str], rows: Sequence[Row]) -> bool:
        """Whether there are two responses and a label."""
        return _responses(columns) is not None and any(first_of(names, columns) for names in LABELS.values())

    def at(self, columns: Set[str], rows: Sequence[Row]) -> "Format":
        """This format, if the source has the label that is asked for."""
        wanted = LABELS[self.config.label]
        if _responses(columns) is None or not first_of(wanted, columns):
            raise ValueError(
                f"data.label={self.config.label} needs two responses and a column {' or '.join(wanted)}; "
                f"found {', '.join(sorted(columns))}"
            )
        return self

    def used(self, columns: Set[str]) -> list[str]:
        """The prompt's columns, both responses and the label."""
        label = first_of(LABELS[self.config.label], columns)
        prompt = prompt_columns(columns)
        prompt += ["context"] if "context" in columns and not first_of(PROMPTS, columns) else []
        return [*prompt, *(_responses(columns) or ()), *([label] if label else [])]

    def pairs(self, rows: Sequence[Row]) -> Made:
        """The pair of a row, unless its label is a tie."""
        for row in rows:
            names = _responses(row) or RESPONSES[0]
            label = first_of(LABELS[self.config.label], row)
            said = row.get(label or "")
            if label == SIGNED:
                better = _by_sign(said)
            else:
                better = _which(said, names, label or f"data.label={self.config.label}")
            if better is None:
                yield LeftOut("a tie")
                continue
            texts = [response_of(row.get(name), name) for name in names]
            if not first_of(PROMPTS, row) and "context" in row:
                row = row | {"prompt": row["context"]}
            yield Pair(dialogue_of(row), texts[better], texts[1 - better])


def _responses(columns: Any) -> tuple[str, str] | None:
    return next((two for two in RESPONSES if all(name in columns for name in two)), None)


def _which(label: Any, names: tuple[str, str], column: str) -> int | None:
    """Which of two responses a label means, 0 or 1; None for a tie."""
    said = str(label).strip().lower()
    said = str(int(label)) if isinstance(label, float) and label.is_integer() else said
    if said in TIES:
        return None
    ends = [name.rpartition("_")[2] for name in names]
    for place, (name, end) in enumerate(zip(names, ends, strict=True)):
        if said in (name, end, f"model_{end}"):
            return place
    raise ValueError(
        f"{column} names neither response: {str(label)[:40]!r}, where {', '.join(ends)} and tie are known"
    )


def _by_sign(label: Any) -> int | None:
    preference = number_of(label, SIGNED)
    if preference is None:
        raise ValueError(f"{SIGNED} is missing or null")
    return None if preference == 0 else int(preference > 0)
