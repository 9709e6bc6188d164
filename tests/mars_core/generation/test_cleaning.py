import pytest

from mars_core.generation.cleaning import clean, is_refusal, is_task_talk


@pytest.mark.parametrize(
    "written",
    [
        "Larks sing in flight.",
        "  Larks sing in flight.\n",
        '"Larks sing in flight."',
        "“Larks sing in flight.”",
        "Here is a paraphrase:\n\nLarks sing in flight.",
        "Here's a reworded version of the message: Larks sing in flight.",
        'Sure! Here is the rewritten reply:\n"Larks sing in flight."',
        "Certainly, happy to help! Here's one possible rephrasing:\n\nLarks sing in flight.",
        "**Paraphrased text:** Larks sing in flight.",
        "Rewritten dispreferred reply:\n\nLarks sing in flight.",
        "<text>\nLarks sing in flight.\n</text>",
        "Assistant: Larks sing in flight.",
        "<think>\nThe user wants a paraphrase.\n</think>\n\nLarks sing in flight.",
        "The template has opened the reasoning.\n</think>\n\nLarks sing in flight.",
        "<text-2>\nLarks sing in flight.\n</text-2>",
        "Larks sing in flight.\n\n(Note: I kept the original meaning and changed the vocabulary.)",
        "Larks sing in flight.\n\nLet me know if you would like another paraphrase!",
    ],
)
def test_talk_about_the_task_is_taken_off(written):
    assert clean(written) == "Larks sing in flight."


@pytest.mark.parametrize(
    "text",
    [
        "Sure, here are some tips:\n\n1. Rise early.\n2. Listen.",
        'He said "hello" and she said "goodbye"',
        '"Hello," he said. "Goodbye," she said.',
        "Here is a list of birds that sing in flight:\n- larks\n- pipits",
        "The revised edition has three parts: one, two and three.",
        "Note: larks nest on the ground.\n\nNote that they sing at dawn.",
        "Let me know if that works for you.",
    ],
)
def test_a_text_that_only_looks_like_it_stays_as_it_is(text):
    assert clean(text) == text


def test_what_the_source_has_itself_stays():
    source = "Here is a paraphrase of your poem:\n\nThe lark ascends."
    assert clean(source, source) == source
    assert clean('"The lark ascends."', '"The lark rises."') == '"The lark ascends."'


@pytest.mark.parametrize(
    ("source", "paraphrase", "is_kept"),
    [
        ("Rewrite this in French: Larks sing.", "Reword this in French: Larks sing.", True),
        ("Rewrite this in French: Larks sing.", "Here is what I want rewritten: Larks sing.", False),
        ("Edit: He go to school by the bus.", "Rewrite: He go to school by bus.", False),
        ("Fix my essay: Larks sing.", "Here is my essay, which I want rewritten: Larks sing.", False),
        ("Larks sing, don't they?", "Paraphrase: Do larks sing?", False),
    ],
)
def test_the_request_in_a_prompt_is_kept_or_its_paraphrase_is_dropped(source, paraphrase, is_kept):
    """An editing task without its instruction would be no prompt any more."""
    assert clean(paraphrase, source, introduced=False) == paraphrase
    assert is_task_talk(paraphrase, source) is not is_kept


def test_a_lone_surrogate_is_replaced():
    assert clean("lark\ud800").encode() == b"lark?"


def test_a_degenerate_answer_is_cleaned_in_no_time():
    assert clean("a" + "\n" * 20_000 + "b").startswith("a")


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with this request.",
        "Sorry, I cannot do that.",
        "Unfortunately, I am unable to reword this text.",
        "I cannot fulfill your request.",
        "I won't provide instructions for that.",
        "I'm not able to paraphrase this.",
    ],
)
def test_refusals_are_recognised(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that you are unwell. Rest and drink a lot.",
        "I can help you with that!",
        "You can't do that in January.",
        "Sorry for the delay: the answer is 4.",
    ],
)
def test_other_texts_are_no_refusals(text):
    assert not is_refusal(text)
