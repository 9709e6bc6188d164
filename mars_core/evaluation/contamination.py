"""Whether a reward model was trained on the rows that it is measured on.

A prompt is contaminated *exactly* if it equals a training prompt up to case, punctuation and spacing, and
*nearly* if at least `NEAR` of its runs of `WORDS` words occur in one training prompt (PaLM's rule, arXiv
2204.02311 section 8, but for one training text at a time, so that it can be named). Responses are compared
with training responses, both chosen and rejected; responses with fewer words than a run are skipped, because
short ones such as "I don't know" are common. Overlaps are counted, not estimated, at a cost linear in the
texts.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from mars_core.data import dialogue

WORDS = 8
"""Words in a run."""
NEAR = 0.7
"""Least share of a text's runs of words in one training text that makes it a near-duplicate."""
BLOCK = 8192
"""Training texts compared at a time; bounds memory."""
COLUMNS = {"row": "str", "exact": "bool", "share": "float64", "training_id": "str"}
"""Columns of the result and their types; a set without a contaminated row has them too."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters, which are written without spaces between words."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no word of a run is lost modulo 2⁶⁴."""


class Texts(NamedTuple):
    """Aligned lists: the row or pair that a response belongs to, its prompt, and the response."""

    rows: Sequence[str]
    prompts: Sequence[str]
    responses: Sequence[str]


def texts_of_pairs(rows: Dataset) -> Texts:
    """The responses of pairs: first all chosen ones, then all rejected ones."""
    ids = rows["pair_id" if "pair_id" in rows.column_names else "synthetic_id"][:]
    return Texts(ids * 2, rows["prompt"][:] * 2, rows["chosen"][:] + rows["rejected"][:])


class Measured:
    """An evaluation set, prepared for repeated comparisons with a growing set of training texts."""

    def __init__(self, texts: Texts) -> None:
        """Count the runs of words in prompts and in responses."""
        self.prompts = _Runs(_rows_by_words(zip(texts.rows, _spoken(texts.prompts), strict=True)))
        self.responses = _Runs(_rows_by_words(zip(texts.rows, texts.responses, strict=True), WORDS))


def contaminated_rows(measured: Mapping[str, Measured], training: Texts) -> dict[str, pd.DataFrame]:
    """The rows of evaluation sets that repeat a training text.

    Returns:
        For each set a table with one line for each contaminated row, for its greatest overlap: row, part
        (prompt or response), exact, share (of the text's runs of words that the training text has; 1 if
        exact), training_id (the first training row with that text).
    """
    prompts = _repeated(
        [one.prompts for one in measured.values()],
        _rows_by_words(zip(training.rows, _spoken(training.prompts), strict=True)),
    )
    responses = _repeated(
        [one.responses for one in measured.values()],
        _rows_by_words(zip(training.rows, training.responses, strict=True), WORDS),
    )
    return {
        name: greatest([asked.assign(part="prompt"), answered.assign(part="response")])
        for name, asked, answered in zip(measured, prompts, responses, strict=True)
    }


def contaminating(measured: Sequence[str], training: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each training prompt [n] repeats, exactly or nearly, a prompt of an evaluation set."""
    own = _Runs(_rows_by_words(zip(measured, _spoken(measured), strict=True)))
    trained_by = _rows_by_words(zip(map(str, range(len(training))), _spoken(training), strict=True))
    found = np.zeros(len(training), dtype=bool)
    texts = list(trained_by)
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        repeats = np.array([text in own.rows_of for text in block])
        if not own.columns.empty:
            shared = (own.incidence @ _incidence(_runs(block), len(block), own.columns).T).tocoo()
            repeats[shared.col[shared.data >= NEAR * own.number[shared.row]]] = True
        for text in itertools.compress(block, repeats):
            found[list(map(int, trained_by[text]))] = True
    return found


def greatest(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """For each row the line with the greatest overlap; the first of equal ones."""
    lines = pd.concat(found, ignore_index=True)
    return lines.sort_values(["exact", "share"], ascending=False, kind="stable").drop_duplicates("row")


class _Runs:
    """Distinct texts of an evaluation set, and the runs of words in them."""

    def __init__(self, rows_of: dict[str, list[str]]) -> None:
        """Of `_rows_by_words`."""
        self.rows_of = rows_of
        runs = _runs(list(rows_of))
        self.columns = pd.Index(runs["run"].unique())
        self.incidence = _incidence(runs, len(rows_of), self.columns)
        self.number = np.maximum(self.incidence.sum(axis=1).A1, 1)


def _repeated(measured: Sequence[_Runs], trained_by: dict[str, list[str]]) -> list[pd.DataFrame]:
    """The rows of each set that have a text in common with training; `trained_by` comes from
    `_rows_by_words`."""
    training = list(trained_by)
    found = []
    for one, (shares, places) in zip(measured, _greatest_shares(measured, training), strict=True):
        lines = [
            (row, True, 1.0, trained_by[words][0])
            for words, rows in one.rows_of.items()
            if words in trained_by
            for row in rows
        ]
        texts = list(one.rows_of.values())
        for i in np.flatnonzero(shares >= NEAR):
            near = trained_by[training[places[i]]][0]
            lines += [(row, False, shares[i], near) for row in texts[i]]
        found.append(pd.DataFrame(lines, columns=list(COLUMNS)).astype(COLUMNS))
    return found


def _rows_by_words(texts: Iterable[tuple[str, str]], least_words: int = 1) -> dict[str, list[str]]:
    """The rows of each distinct text with enough words; case and ligatures are folded, and words separated by
    one space."""
    rows: dict[str, list[str]] = {}
    for row, text in texts:
        words = words_of(text)
        if len(words) >= least_words:
            rows.setdefault(" ".join(words), []).append(row)
    return rows


def words_of(text: str) -> list[str]:
    """The words of a text, without case, ligatures or punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def prompt_numbers(prompts: Sequence[str]) -> NDArray[np.intp]:
    """A number for each prompt [n]: those that differ in case, spacing or punctuation alone share one."""
    return np.unique([" ".join(words_of(prompt)) or prompt for prompt in prompts], return_inverse=True)[1]


def _greatest_shares(
    measured: Sequence[_Runs], training: Sequence[str]
) -> list[tuple[NDArray[np.float64], NDArray[np.intp]]]:
    """For each set, each text's greatest share of runs of words in one training text, and that text's
    place."""
    found = [(np.zeros(len(one.rows_of)), np.zeros(len(one.rows_of), dtype=np.intp)) for one in measured]
    for start in range(0, len(training), BLOCK):
        block = training[start : start + BLOCK]
        runs = _runs(block)
        for one, (best, places) in zip(measured, found, strict=True):
            if one.columns.empty:
                continue
            # A sparse product: a join would have many more lines if texts share boilerplate.
            shared = (one.incidence @ _incidence(runs, len(block), one.columns).T).tocsr()
            shares = shared.max(axis=1).toarray().ravel() / one.number
            better = shares > best
            best[better] = shares[better]
            places[better] = start + shared.argmax(axis=1).A1[better]
    return found


def _incidence(runs: pd.DataFrame, texts: int, columns: pd.Index) -> csr_matrix:
    """Which text has which run of words, [texts, columns]; runs that are not in `columns` are left out."""
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
    """The content of each prompt's turns, without the speakers."""
    return [" ".join(turn.content for turn in dialogue.turns(prompt)) for prompt in prompts]
