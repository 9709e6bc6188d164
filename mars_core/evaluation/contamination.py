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
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from mars_core.data import dialogue
from mars_core.data.reading import FirstPlaces, key_of
from mars_core.tables import Table

WORDS = 8
"""Words in a run."""
NEAR = 0.7
"""Least share of a text's runs of words in one training text that makes it a near-duplicate."""
BLOCK = 8192
"""Texts compared at a time; bounds memory."""
COLUMNS = {"row": "str", "exact": "bool", "share": "float64", "training_id": "str"}
"""Columns of the result and their types; a set without a contaminated row has them too."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters, which are written without spaces between words."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no word of a run is lost modulo 2⁶⁴."""


Blocks = Iterable[tuple[Sequence[str], Sequence[str]]]
"""Texts, some at a time: the row that each belongs to, and the text."""


class TextBlocks(NamedTuple):
    """Prompts and responses of rows, each read once."""

    prompts: Blocks
    responses: Blocks


class Texts(NamedTuple):
    """Aligned lists: the row or pair that a response belongs to, its prompt, and the response."""

    rows: Sequence[str]
    prompts: Sequence[str]
    responses: Sequence[str]

    def blocks(self) -> TextBlocks:
        """As one block."""
        return TextBlocks([(self.rows, self.prompts)], [(self.rows, self.responses)])


def texts_of_pairs(rows: Dataset) -> Texts:
    """The responses of pairs: first all chosen ones, then all rejected ones."""
    ids = rows["pair_id" if "pair_id" in rows.column_names else "synthetic_id"][:]
    return Texts(ids * 2, rows["prompt"][:] * 2, rows["chosen"][:] + rows["rejected"][:])


def blocks_of_pairs(table: Table) -> TextBlocks:
    """The prompts of pairs, and their responses: first all chosen ones, then all rejected ones."""
    ids = "pair_id" if "pair_id" in table.columns else "synthetic_id"

    def column(name: str) -> Blocks:
        for batch in table.batches(ids, name):
            yield batch[ids].to_pylist(), batch[name].to_pylist()

    return TextBlocks(column("prompt"), itertools.chain(column("chosen"), column("rejected")))


class Measured:
    """An evaluation set, prepared for repeated comparisons with a growing set of training texts."""

    def __init__(self, texts: TextBlocks) -> None:
        """Count the runs of words in prompts and in responses."""
        self.prompts = _Runs(_worded(_spoken(texts.prompts)))
        self.responses = _Runs(_worded(texts.responses, WORDS))


def contaminated_rows(measured: Mapping[str, Measured], training: TextBlocks) -> dict[str, pd.DataFrame]:
    """The rows of evaluation sets that repeat a training text.

    Returns:
        For each set a table with one line for each contaminated row, for its greatest overlap: row, part
        (prompt or response), exact, share (of the text's runs of words that the training text has; 1 if
        exact), training_id (the first training row with that text).
    """
    asked = _repeated([one.prompts for one in measured.values()], _worded(_spoken(training.prompts)))
    answered = _repeated([one.responses for one in measured.values()], _worded(training.responses, WORDS))
    return {
        name: greatest([of_prompts.assign(part="prompt"), of_responses.assign(part="response")])
        for name, of_prompts, of_responses in zip(measured, asked, answered, strict=True)
    }


def contaminating(measured: Sequence[str], training: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each training prompt [n] repeats, exactly or nearly, a prompt of an evaluation set."""
    own = _Runs(_worded(_spoken([(measured, measured)])))
    found = np.zeros(len(training), dtype=bool)
    for rows, words in _worded(_spoken([(list(map(str, range(len(training)))), training)])):
        repeats = own.numbers.find(list(map(key_of, words))) >= 0
        repeats[[place for place, *_ in _near(own, _runs(words), len(words))]] = True
        found[list(map(int, itertools.compress(rows, repeats)))] = True
    return found


def greatest(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """For each row the line with the greatest overlap; the first of equal ones."""
    lines = pd.concat(found, ignore_index=True)
    return lines.sort_values(["exact", "share"], ascending=False, kind="stable").drop_duplicates("row")


class _Runs:
    """Distinct texts of an evaluation set by their numbers, and the runs of words in them."""

    def __init__(self, blocks: Blocks) -> None:
        """Of `_worded`."""
        self.numbers = FirstPlaces()
        """The number of a text, by its key."""
        self._rows: list[str] = []
        owners, texts, hashes, n = array("q"), list[NDArray[np.intp]](), list[NDArray[np.uint64]](), 0
        for rows, words in blocks:
            keys = list(map(key_of, words))
            new, fresh = dict[int, int](), list[str]()
            for text, key, known in zip(words, keys, self.numbers.find(keys).tolist(), strict=True):
                if known < 0 and key not in new:
                    new[key] = n + len(fresh)
                    fresh.append(text)
                owners.append(new[key] if known < 0 else known)
            self.numbers.add(new)
            self._rows += rows
            runs = _runs(fresh)
            texts.append(runs["text"].to_numpy() + n)
            hashes.append(runs["run"].to_numpy())
            n += len(fresh)
        self._by_text = np.argsort(owners, kind="stable")
        self._ends = np.bincount(owners, minlength=n).cumsum() if n else np.zeros(0, np.intp)
        owner = np.concatenate([np.empty(0, np.intp), *texts])
        self.columns, column = np.unique(
            np.concatenate([np.empty(0, np.uint64), *hashes]), return_inverse=True
        )
        self.length = np.bincount(owner, minlength=n)
        """How many distinct runs a text has."""
        ones = np.ones(len(owner), dtype=np.int8)
        self.texts_of: csr_matrix = csr_matrix((ones, (column, owner)), shape=(len(self.columns), n))
        """Which run is in which text, [columns, texts]."""

    def rows_of(self, text: int) -> list[str]:
        """The rows that have a text."""
        start = self._ends[text - 1] if text else 0
        return [self._rows[place] for place in self._by_text[start : self._ends[text]]]


def _repeated(measured: Sequence[_Runs], training: Blocks) -> list[pd.DataFrame]:
    """The rows of each set that have a text in common with training; the texts are those of `_worded`."""
    exact: list[dict[int, str]] = [{} for _ in measured]
    near: list[dict[int, tuple[float, str]]] = [{} for _ in measured]
    for rows, words in training:
        first: dict[str, str] = {}
        for row, text in zip(rows, words, strict=True):
            first.setdefault(text, row)
        rows, runs = list(first.values()), _runs(list(first))
        keys = list(map(key_of, first))
        for one, same, similar in zip(measured, exact, near, strict=True):
            for number, row in zip(one.numbers.find(keys).tolist(), rows, strict=True):
                if number >= 0:
                    same.setdefault(number, row)
            for place, number, share in _near(one, runs, len(rows)):
                if share > similar.get(number, (0.0, ""))[0]:
                    similar[number] = share, rows[place]
    found = []
    for one, same, similar in zip(measured, exact, near, strict=True):
        lines = [(row, True, 1.0, by) for text, by in sorted(same.items()) for row in one.rows_of(text)]
        lines += [
            (row, False, share, by)
            for text, (share, by) in sorted(similar.items())
            for row in one.rows_of(text)
        ]
        found.append(pd.DataFrame(lines, columns=list(COLUMNS)).astype(COLUMNS))
    return found


def _near(one: _Runs, runs: pd.DataFrame, texts: int) -> Iterator[tuple[int, int, float]]:
    """The places of training texts, the numbers of texts of a set that are near to them, and the shares."""
    if not len(one.columns) or runs.empty:
        return
    at = np.minimum(np.searchsorted(one.columns, runs["run"]), len(one.columns) - 1)
    there = one.columns[at] == runs["run"].to_numpy()
    ones, text = np.ones(int(there.sum()), dtype=np.int32), runs["text"].to_numpy()[there]
    of_texts = csr_matrix((ones, (text, at[there])), shape=(texts, len(one.columns)))
    # A sparse product: a join would have many more lines if texts share boilerplate.
    shared = (of_texts @ one.texts_of).tocoo()
    shares = shared.data / one.length[shared.col]
    near = np.flatnonzero(shares >= NEAR)
    for place in near[np.argsort(shared.row[near], kind="stable")]:
        yield int(shared.row[place]), int(shared.col[place]), float(shares[place])


def _worded(blocks: Blocks, least_words: int = 1) -> Blocks:
    """Texts with enough words, at most `BLOCK` at a time; case and ligatures are folded, and words separated
    by one space."""
    for rows, texts in blocks:
        for start in range(0, len(texts), BLOCK):
            some = slice(start, start + BLOCK)
            worded = [(row, words_of(text)) for row, text in zip(rows[some], texts[some], strict=True)]
            enough = [(row, " ".join(words)) for row, words in worded if len(words) >= least_words]
            yield [row for row, _ in enough], [text for _, text in enough]


def words_of(text: str) -> list[str]:
    """The words of a text, without case, ligatures or punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def prompt_numbers(prompts: Iterable[str]) -> NDArray[np.intp]:
    """A number for each prompt [n]: those that differ in case, spacing or punctuation alone share one."""
    worded = pa.array((" ".join(words_of(prompt)) or prompt for prompt in prompts), pa.large_string())
    encoded = worded.dictionary_encode()
    numbers = np.empty(len(encoded.dictionary), dtype=np.intp)
    numbers[pc.sort_indices(encoded.dictionary)] = np.arange(len(numbers))
    found: NDArray[np.intp] = numbers[encoded.indices]
    return found


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


def _spoken(blocks: Blocks) -> Blocks:
    """The content of each prompt's turns, without the speakers."""
    for rows, prompts in blocks:
        yield rows, [" ".join(turn.content for turn in dialogue.turns(prompt)) for prompt in prompts]
