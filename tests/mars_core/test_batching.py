import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mars_core.batching import padded, token_batches

lengths_of_texts = st.lists(st.integers(1, 60), max_size=50)


@given(lengths_of_texts, st.integers(1, 200))
def test_every_text_is_in_one_batch(lengths, batch_tokens):
    batches = token_batches(lengths, batch_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))


@given(lengths_of_texts, st.integers(1, 200))
def test_a_batch_of_several_texts_keeps_to_its_padded_tokens(lengths, batch_tokens):
    for batch in token_batches(lengths, batch_tokens):
        padded_tokens = len(batch) * max(lengths[i] for i in batch)
        assert padded_tokens <= batch_tokens or len(batch) == 1


@given(lengths_of_texts, st.integers(1, 200))
def test_a_batch_takes_as_many_texts_as_fit(lengths, batch_tokens):
    for batch in token_batches(lengths, batch_tokens)[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > batch_tokens


def test_neighbours_in_length_share_a_batch_and_the_longest_come_first():
    batches = token_batches([3, 100, 4, 50, 4], batch_tokens=12)
    assert [batch.tolist() for batch in batches] == [[1], [3], [2, 4, 0]]


def test_padding_is_on_the_right_and_masked():
    inputs = padded([[5, 6, 7], [8]], pad_token_id=9)
    assert inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert {tensor.dtype for tensor in inputs.values()} == {torch.long}


def test_lengths_may_be_an_array():
    (batch,) = token_batches(np.array([2, 5, 3]), batch_tokens=100)
    assert batch.tolist() == [1, 2, 0]
