"""What pairs are known by: what their texts mean, however they are written."""

import pytest

from mars_core.data.identity import meaning, pair_identity, prompt_place


@pytest.mark.parametrize(
    "text",
    [
        "what  is a lark",
        "What is a lark!",
        "what_is_a_lark?",
        "**What** is a *lark*?",
        "\N{INVERTED QUESTION MARK}WHAT is a\u00a0lark?!",
        "\uff37hat is a la\u200brk?",
        "- What is a lark? =",
    ],
    ids=["space", "exclamation", "underscore", "markdown", "marks", "unicode", "ends"],
)
def test_a_text_in_another_spelling_means_the_same(text):
    assert meaning(text) == meaning("What is a lark?")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 - 4", "3 + 4"),
        ("3-4", "34"),
        ("x < 5", "x > 5"),
        ("-5", "5"),
        ("a == b", "a = b"),
        ("\u2764", "!"),
    ],
    ids=["plus", "minus", "less", "sign", "equals", "no words"],
)
def test_what_computes_or_compares_makes_another_text(one, other):
    assert meaning(one) != meaning(other)


def test_a_pair_is_not_its_exchange():
    assert pair_identity("a", "b", "c") != pair_identity("a", "c", "b")


def test_the_place_of_a_prompt_takes_the_secret():
    assert prompt_place("What?", "one") == prompt_place("what", "one") != prompt_place("What?", "other")
