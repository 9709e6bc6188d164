from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_core.model.batching import OutOfMemoryError, TokenBudget, padded, tight_batches, token_batches

lengths_of_texts = st.lists(st.integers(1, 60), max_size=50)
either = pytest.mark.parametrize("batches_of", [token_batches, tight_batches])


@either
@given(lengths=lengths_of_texts, batch_tokens=st.integers(1, 200))
def test_every_text_is_in_one_batch_and_the_longest_come_first(batches_of, lengths, batch_tokens):
    order = [i for batch in batches_of(lengths, batch_tokens) for i in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)


@either
@given(lengths=lengths_of_texts, batch_tokens=st.integers(1, 200))
def test_a_batch_of_several_texts_keeps_to_its_padded_tokens(batches_of, lengths, batch_tokens):
    for batch in batches_of(lengths, batch_tokens):
        padded_tokens = len(batch) * max(lengths[i] for i in batch)
        assert padded_tokens <= batch_tokens or len(batch) == 1


@given(lengths_of_texts, st.integers(1, 200))
def test_a_batch_takes_as_many_texts_as_fit(lengths, batch_tokens):
    for batch in token_batches(lengths, batch_tokens)[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > batch_tokens


def test_neighbours_in_length_share_a_batch_and_the_longest_come_first():
    batches = token_batches([3, 100, 4, 50, 4], batch_tokens=12)
    assert [batch.tolist() for batch in batches] == [[1], [3], [2, 4, 0]]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7), st.integers(60, 200), st.integers(0, 40))
def test_tight_batches_cost_no_more_than_any_other_cuts(lengths, batch_tokens, overhead):
    lengths.sort(reverse=True)

    def cost(sizes):
        starts = np.cumsum([0, *sizes[:-1]])
        batches = [size * lengths[start] for start, size in zip(starts, sizes, strict=True)]
        return sum(batches) + overhead * len(batches) if max(batches) <= batch_tokens else np.inf

    n = len(lengths)
    cuts = [(0, *inner, n) for count in range(n) for inner in combinations(range(1, n), count)]
    least = min(cost([end - start for start, end in pairwise(cut)]) for cut in cuts)
    assert cost([len(batch) for batch in tight_batches(lengths, batch_tokens, overhead)]) == least


def test_padding_is_on_the_right_and_masked():
    inputs = padded([[5, 6, 7], [8]], pad_token_id=9)
    assert inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert {tensor.dtype for tensor in inputs.values()} == {torch.long}


def test_lengths_may_be_an_array():
    (batch,) = token_batches(np.array([2, 5, 3]), batch_tokens=100)
    assert batch.tolist() == [1, 2, 0]


# Memory


def with_room_for(tokens, lengths):
    def forward(batch):
        if len(batch) * lengths[batch].max() > tokens:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return len(batch)

    return forward


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60), max_size=50), st.integers(60, 200), st.integers(60, 400))
def test_each_text_is_computed_once_in_whatever_memory(lengths, room, tokens):
    lengths = np.array(lengths, dtype=int)
    computed = [*TokenBudget(tokens).run(with_room_for(room, lengths), lengths)]
    assert sorted(i for batch, _ in computed for i in batch) == list(range(len(lengths)))
    assert all(size == len(batch) for batch, size in computed)


def test_the_budget_stays_halved_and_this_is_said(caplog):
    budget, lengths = TokenBudget(64), np.full(16, 8)
    sizes = [size for _, size in budget.run(with_room_for(20, lengths), lengths)]
    assert sizes == [2] * 8
    assert budget.tokens == 16
    assert [record.getMessage() for record in caplog.records] == [
        "Out of memory; going on with batches of 32 tokens.",
        "Out of memory; going on with batches of 16 tokens.",
    ]


def test_a_text_that_does_not_fit_alone_ends_with_its_length():
    lengths = np.array([5, 50])
    with pytest.raises(OutOfMemoryError, match=r"a text of 50 tokens .* lower model\.max_length"):
        list(TokenBudget(100).run(with_room_for(20, lengths), lengths))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def forward(batch):
        raise RuntimeError("mat1 and mat2 must have the same dtype")

    with pytest.raises(RuntimeError, match="the same dtype"):
        list(TokenBudget(100).run(forward, np.array([5])))
