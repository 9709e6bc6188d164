"""The sections of a report that show texts: variants of the hardest originals, and texts that guards dropped.

Texts come from data sets and language models, so all Markdown and HTML in them is escaped. Each stands in a
table on one line, and a long one is shortened in the middle. The sections do not depend on the order of the
tables' rows.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mars_core.method.augmentation import PARTS
from mars_core.report.wording import count, number, small, table

ORIGINALS = 5
"""Originals that are shown."""
VARIANTS = 2
"""Variants of each text that are shown."""
PAIRS = 6
"""Synthetic pairs of an original whose margins are shown."""
DROPPED = 8
"""Dropped texts that are shown."""
CHARACTERS = 400
"""Characters that are shown of a text."""
MEASURES = {
    "meaning lost": "cosine similarity",
    "copy": "share of words in common",
    "length": "times as long or short",
    "beside the prompt": "cosine similarity to the prompt",
    "order flipped": "margin of the pair",
}
"""Why a text was dropped → what the guard measured."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LINK = re.compile(r"(?<=:)//|(?<=www)\.", re.IGNORECASE)
"""What makes a link of a bare address on GitHub, which would show the backslashes in it."""
# Entities where renderers disagree on a backslash: inside tables, and where formulas are shown.
_ESCAPES = str.maketrans(
    {sign: f"\\{sign}" for sign in "\\`*_[]~"} | {sign: f"&#{ord(sign)};" for sign in "&<>|$"}
)


@dataclass(frozen=True)
class RoundTexts:
    """What a report shows of the tables of a round: the rows about some originals, and the dropped texts."""

    round: int
    originals: pd.DataFrame
    """A row an original, the hardest first: pair_id, prompt, chosen, rejected, and its margin by the model
    of the round before."""
    rewrites: pd.DataFrame
    """A row a close original: pair_id, rewritten (chosen, rejected or none), chosen and rejected as they are
    then."""
    variants: pd.DataFrame
    """A row a text that was bought: parent_id, part, variant (its number) and text."""
    synthetic: pd.DataFrame
    """A row a synthetic pair: synthetic_id, parent_id, prompt_variant, chosen_variant, rejected_variant (0 is
    the text itself), margin_before and margin_after the fit."""
    dropped: pd.DataFrame | None
    """A row a text that a guard dropped: role and pair_id of the request, source, text, reason, and number,
    what the guard measured, or nan. None where the round has no such table."""


def hardest(margins: Iterable[pd.DataFrame], parents: Iterable[Sequence[str]]) -> list[str]:
    """Ids of the originals to show, those of the smallest margin first.

    Args:
        margins: pair_id and margin of every original, some at a time.
        parents: ids of the originals that have synthetic pairs, some at a time.
    """
    keys = np.concatenate([np.empty(0, np.uint64), *map(_keys, parents)])
    known = pd.Index(np.unique(keys))
    shown: list[tuple[float, str]] = []
    for some in margins:
        spent = some[known.get_indexer(_keys(some["pair_id"])) >= 0]
        shown = nsmallest(ORIGINALS, chain(shown, zip(spent["margin"], spent["pair_id"], strict=True)))
    return [pair_id for _, pair_id in shown]


def _keys(ids: Iterable[str]) -> NDArray[np.uint64]:
    """Hashes of ids, which take a tenth of their memory."""
    return pd.util.hash_array(np.array(list(ids), dtype=object))


def originals(texts: RoundTexts) -> list[str]:
    """The hardest originals beside their rewrites and variants, with the margins of their synthetic pairs."""
    parts = [
        "## What was made of the hardest originals",
        f"The {len(texts.originals)} originals of the smallest margin among those that have synthetic pairs "
        f"in round {texts.round}. Variants are the new texts of these pairs: paraphrases of the rewritten "
        "text where there is one, or sampled responses. Margins before the fit are by the model of the round "
        f"before. At most {VARIANTS} variants of each part are shown. ↵ is a line break, and of a text over "
        f"{CHARACTERS} characters the middle is left out.",
    ]
    for original in texts.originals.to_dict("records"):
        rewrites, variants, synthetic = (
            frame[frame[key] == original["pair_id"]]
            for frame, key in (
                (texts.rewrites, "pair_id"), (texts.variants, "parent_id"), (texts.synthetic, "parent_id"),
            )
        )  # fmt: skip
        parts += [
            f"### Original {quote(original['pair_id'])}: margin {number(original['margin'])}",
            _texts_table(original, rewrites, variants),
            _margins_sentence(synthetic, len(variants)),
        ]
    return parts


def dropped(texts: RoundTexts) -> list[str]:
    """Some texts that the guards dropped, beside their sources; nothing where none was."""
    if texts.dropped is None or texts.dropped.empty:
        return []
    rows = [
        [
            _why(row["reason"], row["number"]),
            quote(f"{row['role'].replace('_', ' of ')}, {row['pair_id']}"),
            quote(row["source"]),
            quote(row["text"]),
        ]
        for row in spread_over_reasons(texts.dropped).to_dict("records")
    ]
    headers = ["why", "asked for", "source", "text that was dropped"]
    return [
        "## What the guards dropped",
        f"Some of the texts that guards dropped in round {texts.round}, of every reason in turn.",
        table(headers, rows, align="---"),
    ]


def spread_over_reasons(dropped: pd.DataFrame) -> pd.DataFrame:
    """The rows to show of dropped texts: one of each reason, then a second one of each, until enough."""
    rows = dropped.sort_values(["reason", "pair_id", "role", "text"], ignore_index=True)
    turn = rows.groupby("reason").cumcount()
    return rows.loc[turn.sort_values(kind="stable").index[:DROPPED].sort_values()]


def quote(text: str) -> str:
    """A text for a cell of a Markdown table: one line, shortened, in which no sign is markup."""
    line = " ↵ ".join(" ".join(words) for line in text.splitlines() if (words := line.split()))
    if len(line) > CHARACTERS:
        half = CHARACTERS // 2
        line = f"{line[:half].rstrip()} … {line[-half:].lstrip()}"
    # No renderer shows control characters, and PostgreSQL takes no NUL in a text.
    shown = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", line).translate(_ESCAPES)
    return _LINK.sub(lambda found: "".join(f"&#{ord(sign)};" for sign in found[0]), shown) or "*empty*"


def _texts_table(original: Mapping[Any, Any], rewrites: pd.DataFrame, variants: pd.DataFrame) -> str:
    """A table with a row a part of the pair, and a column the text, its rewrite and each variant."""
    columns: dict[str, dict[str, str]] = {"original": {part: original[part] for part in PARTS}}
    for rewrite in rewrites.to_dict("records"):
        if rewrite["rewritten"] != "none":
            columns["rewritten"] = {rewrite["rewritten"]: rewrite[rewrite["rewritten"]]}
    for variant in sorted(variants["variant"].unique())[:VARIANTS]:
        of_it = variants[variants["variant"] == variant]
        columns[f"variant {variant}"] = dict(zip(of_it["part"], of_it["text"], strict=True))
    rows = [
        [f"**{part}**", *(quote(column[part]) if part in column else "" for column in columns.values())]
        for part in PARTS
    ]
    return table(["", *columns], rows, align="---")


def _margins_sentence(synthetic: pd.DataFrame, new_texts: int) -> str:
    """The synthetic pairs of an original in a sentence: what is new in them, margins before and after."""
    pairs = synthetic.sort_values("synthetic_id").to_dict("records")
    shown = []
    for pair in pairs[:PAIRS]:
        new = [f"{part} {pair[f'{part}_variant']}" for part in PARTS if pair[f"{part}_variant"]]
        margins = f"{number(pair['margin_before'])} → {number(pair['margin_after'])}"
        shown.append(f"{' + '.join(new) or 'the original again'} ({margins})")
    if len(pairs) > PAIRS:
        shown.append(f"and {count(len(pairs) - PAIRS)} more")
    return (
        f"Synthetic pairs: {count(len(pairs))}; new texts: {count(new_texts)}. Variants in each pair, and "
        f"margins before → after the fit: {', '.join(shown)}."
    )


def _why(reason: str, measured: float) -> str:
    if math.isnan(measured):
        return quote(reason)
    return quote(f"{reason} ({MEASURES.get(reason, 'measured')} {small(measured)})")
