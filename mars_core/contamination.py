"""Whether a reward model was trained on the rows that it is measured on.

A prompt is contaminated *exactly* where it is a training prompt, case, punctuation and spacing aside, and
*nearly* where at least `NEAR` of the runs of `WORDS` words in it occur in one training prompt (PaLM's rule,
arXiv 2204.02311 section 8, but for one training text at a time, so that it can be named). Responses are
compared with training responses, chosen and rejected alike; those of fewer words than a run are left out,
for everybody says "I don't know". Overlaps are counted, not estimated, at a cost linear in the texts.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from mars_core import dialogue

WORDS = 8
"""Words in a run."""
NEAR = 0.7
"""Least share of a text's runs of words in one training text that makes it a near-duplicate."""
BLOCK = 8192
"""Training texts compared at a time; bounds memory."""
COLUMNS = {"row": "str", "exact": "bool", "share": "float64", "training_id": "str"}
"""Columns of what was found and their types, which a set without a contaminated row has too."""
_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no word of a run is lost modulo 2⁶⁴."""


class Texts(NamedTuple):
    """Aligned: the row or pair that a response belongs to, its prompt, and the response."""

    rows: Sequence[str]
    prompts: Sequence[str]
    responses: Sequence[str]


def contaminated_rows(measured: Texts, training: Texts) -> pd.DataFrame:
    """The rows of an evaluation set that repeat a training text.

    Returns:
        A line a contaminated row, for its greatest overlap: row, part (prompt or response), exact, share (of
        the text's runs of words that the training text has, 1 where exact), training_id (the training row,
        of those with equal texts the first).
    """
    prompts = _repeated(
        zip(measured.rows, _spoken(measured.prompts), strict=True),
        zip(training.rows, _spoken(training.prompts), strict=True),
    )
    responses = _repeated(
        zip(measured.rows, measured.responses, strict=True),
        zip(training.rows, training.responses, strict=True),
        least_words=WORDS,
    )
    return greatest([prompts.assign(part="prompt"), responses.assign(part="response")])


def greatest(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Of several lines about one row the one with the greatest overlap, and of equals the first."""
    lines = pd.concat(found, ignore_index=True)
    return lines.sort_values(["exact", "share"], ascending=False, kind="stable").drop_duplicates("row")


def _repeated(
    measured: Iterable[tuple[str, str]], training: Iterable[tuple[str, str]], least_words: int = 1
) -> pd.DataFrame:
    """The rows with a text that the other side has too; both sides are (row, text)."""
    rows_of, trained_by = _rows_by_words(measured, least_words), _rows_by_words(training, least_words)
    lines = [
        (row, True, 1.0, trained_by[words][0])
        for words, rows in rows_of.items()
        if words in trained_by
        for row in rows
    ]
    measured_words, training_words = list(rows_of), list(trained_by)
    shares, places = _greatest_shares(measured_words, training_words)
    for i in np.flatnonzero(shares >= NEAR):
        near = trained_by[training_words[places[i]]][0]
        lines += [(row, False, shares[i], near) for row in rows_of[measured_words[i]]]
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(COLUMNS)


def _rows_by_words(texts: Iterable[tuple[str, str]], least_words: int) -> dict[str, list[str]]:
    """The rows of each distinct text of enough words, in lower case with one space between words."""
    rows: dict[str, list[str]] = {}
    for row, text in texts:
        words = _WORD.findall(text.lower())
        if len(words) >= least_words:
            rows.setdefault(" ".join(words), []).append(row)
    return rows


def _greatest_shares(
    measured: Sequence[str], training: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Each measured text's greatest share of runs of words in one training text, and that text's place."""
    best, places = np.zeros(len(measured)), np.zeros(len(measured), dtype=np.intp)
    own = _runs(measured)
    if own.empty:
        return best, places
    columns = pd.Index(own["run"].unique())
    runs = _incidence(own, len(measured), columns)
    number = np.maximum(runs.sum(axis=1).A1, 1)
    for start in range(0, len(training), BLOCK):
        # A sparse product: texts that share much boilerplate would be many more lines of a join.
        block = training[start : start + BLOCK]
        shared = (runs @ _incidence(_runs(block), len(block), columns).T).tocsr()
        shares = shared.max(axis=1).toarray().ravel() / number
        better = shares > best
        best[better] = shares[better]
        places[better] = start + shared.argmax(axis=1).A1[better]
    return best, places


def _incidence(runs: pd.DataFrame, texts: int, columns: pd.Index) -> csr_matrix:
    """Which text has which run of words, [texts, columns]; runs that are no column are left out."""
    places = columns.get_indexer(pd.Index(runs["run"]))
    there = places >= 0
    ones = np.ones(int(there.sum()), dtype=np.int32)
    return csr_matrix((ones, (runs["text"][there], places[there])), shape=(texts, len(columns)))


def _runs(texts: Sequence[str]) -> pd.DataFrame:
    """The distinct runs of words in each text: text, its place, and run, a hash of 64 bits."""
    words = [text.split() for text in texts]
    lengths = np.array([len(own) for own in words], dtype=np.intp)
    hashes = pd.util.hash_array(np.array(list(itertools.chain.from_iterable(words)), dtype=object))
    starts = np.arange(len(hashes) - WORDS + 1) if len(hashes) >= WORDS else np.arange(0)
    text = np.repeat(np.arange(len(texts)), lengths)
    starts = starts[text[starts] == text[starts + WORDS - 1]]
    run = np.zeros(len(starts), dtype=np.uint64)
    for place in range(WORDS):
        run = run * _FACTOR + hashes[starts + place]
    return pd.DataFrame({"text": text[starts], "run": run}).drop_duplicates()


def _spoken(prompts: Sequence[str]) -> list[str]:
    """What is said in each prompt, without the speakers."""
    return [" ".join(turn.content for turn in dialogue.turns(prompt)) for prompt in prompts]
