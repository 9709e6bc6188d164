import pytest

from mars_core.data.formats.by_columns import ByColumns
from mars_core.data.scorable import files_to_score, rows_to_score

ASKED, ANSWERED = "What is a lark?", "A small songbird."
TURNS = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}]


def read(source, **options):
    reads = ByColumns(ByColumns.Config())
    return [row for part in files_to_score([source]) for row in rows_to_score(part, reads, **options)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASKED, "response": ANSWERED},
        {"prompt": ASKED, "response": ANSWERED, "helpfulness": 3},
        {"instruction": ASKED, "input": "", "output": ANSWERED},
        {"messages": TURNS},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"prompt": ASKED, "responses": [ANSWERED], "gold": [1]},
    ],
    ids=["texts", "beside-a-score", "instruction", "conversation", "turns", "list"],
)
def test_single_responses_are_read_however_they_are_written(write, row):
    [read_row] = read(write([row | {"id": 7}]))
    [item] = read_row.items
    assert item == ("7", ASKED, (ANSWERED,))


def test_pairs_are_read_in_the_formats_of_training(write):
    rows = [
        {"prompt": ASKED, "response_0": "A stone.", "response_1": ANSWERED, "better_response_id": 1},
        {"prompt": ASKED, "response_0": "A tie.", "response_1": ANSWERED, "better_response_id": 1},
    ]
    assert [item.responses for row in read(write(rows)) for item in row.items] == [
        (ANSWERED, "A stone."),
        (ANSWERED, "A tie."),
    ]


def test_each_response_of_a_list_has_an_id_of_its_own(write):
    [row] = read(write([{"id": "a", "prompt": ASKED, "responses": [ANSWERED, "A stone."]}]))
    assert [item.id for item in row.items] == ["a-0", "a-1"]


def test_the_same_texts_may_come_twice(write):
    row = {"prompt": ASKED, "chosen": ANSWERED, "rejected": "A stone."}
    first, second = read(write([row, row]))
    assert first.items == second.items
    assert not second.problem


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": ASKED, "response": " "}, "response is empty"),
        ({"prompt": None, "response": ANSWERED}, "prompt is missing"),
        ({"prompt": ASKED, "response": ANSWERED, "image": "x.png"}, "image is not empty"),
    ],
    ids=["empty", "no-prompt", "picture"],
)
def test_a_row_that_cannot_be_scored_keeps_its_place_and_says_why(write, row, told):
    good = {"prompt": ASKED, "response": ANSWERED}
    first, second, third = read(write([good, row, good]))
    assert second.number == 2
    assert second.items == []
    assert told in second.problem
    assert first.items
    assert third.items


def test_a_row_that_the_model_refuses_is_told_with_the_models_reason(write):
    rows = [{"prompt": ASKED, "response": ANSWERED}, {"prompt": "Who?", "response": ANSWERED}]
    _, refused = read(write(rows), refusal=lambda prompt, _: "no" if prompt == "Who?" else None)
    assert refused.problem == "the model cannot read it: no"
    assert refused.items == []
