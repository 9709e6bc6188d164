"""Prompts alone, and those of pairs."""

import pytest

from mars_core.data.prompts import read_prompts
from mars_core.data.source_rows import PairsError

TURNS = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why?"},
]


def test_prompts_alone_are_read_as_text_and_as_turns(write):
    rows = [{"prompt": "What?"}, {"prompt": TURNS}, {"prompt": "What?"}]
    dialogue = "Human: Hello.\n\nAssistant: Hello.\n\nHuman: Why?"
    assert read_prompts(write(rows)) == ["What?", dialogue]


@pytest.mark.parametrize("column", ["question", "instruction", "messages"])
def test_other_names_are_known(write, column):
    value = TURNS[:1] if column == "messages" else "Hello."
    assert read_prompts(write([{column: value}])) == ["Hello."]


def test_the_prompts_of_pairs_are_read_though_they_are_in_the_responses(write):
    ends = [[*TURNS, {"role": "assistant", "content": text}] for text in ("So.", "No.")]
    prompts = read_prompts(write([{"chosen": ends[0], "rejected": ends[1]}]))
    assert prompts == ["Human: Hello.\n\nAssistant: Hello.\n\nHuman: Why?"]


def test_so_many_are_drawn_by_the_seed(write):
    source = write([{"prompt": f"Question {n}?"} for n in range(50)])
    drawn = read_prompts(source, 10, seed=1)
    assert len(set(drawn)) == 10
    assert drawn == read_prompts(source, 10, seed=1) != read_prompts(source, 10, seed=2)
    with pytest.raises(PairsError, match="51 prompts are wanted, and there are 50"):
        read_prompts(source, 51)


def test_a_row_without_a_prompt_is_named(write):
    with pytest.raises(PairsError, match="row 2: prompt is missing, null or empty"):
        read_prompts(write([{"prompt": "What?"}, {"prompt": " "}]))
