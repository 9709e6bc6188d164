import pytest

from mars_core.generation.cleaning import (
    clean,
    has_markup,
    is_several_versions,
    is_task_talk,
    whole_sentences,
    without_tokens,
)


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
        "/think>\nLarks sing in flight.",
        "<text-2>\nLarks sing in flight.\n</text-2>",
        "Larks sing in flight.\n\n(Note: I kept the original meaning and changed the vocabulary.)",
        "Larks sing in flight.\n\nLet me know if you would like another paraphrase!",
        "Here you go: Larks sing in flight. Let me know if you need anything else!",
        "Sure!\n\nLarks sing in flight.\n\nI hope this helps! Feel free to ask for more.",
        "Of course. Here's my take on it:\nLarks sing in flight.",
        "Okay, here is how I would put it: Larks sing in flight.",
        "How about this:\n\nLarks sing in flight.\n\nWould you like me to make it shorter?",
        "Klar! Hier ist der Text in anderen Worten:\n\nLarks sing in flight.\n\nIch hoffe, das hilft!",
        "Voici une reformulation :\nLarks sing in flight.\nN'hésitez pas à me le dire.",
        "当然！以下是改写后的文本：\nLarks sing in flight.",
        "Larks sing in flight.\n\n**Changes made:**\n- I swapped the verb.\n- I cut a word.",
        "1. Larks sing in flight.",
        "```\nLarks sing in flight.\n```",
        "```text\nLarks sing in flight.\n```",
        '```json\n{"paraphrase": "Larks sing in flight."}\n```',
        '{"text": "Larks sing in flight."}',
        '{"original": "A lark sings.", "rewritten_text": "Larks sing in flight.", "notes": "shorter"}',
        '["Larks sing in flight."]',
        '"Larks sing in \\u0066light."',
        "<answer>Larks sing in flight.</answer>",
        "### Response:\nLarks sing in flight.",
        "<|im_start|>assistant\nLarks sing in flight.<|im_end|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\nLarks sing in flight.<|eot_id|>",
        "<start_of_turn>model\nLarks sing in flight.<end_of_turn>\n<eos>",
        "Larks sing in flight. </s>",
        "[INST] Larks sing in flight. [/INST]",
        "Larks sing in flight.<｜end▁of▁sentence｜>",
        "<|channel|>analysis<|message|>They want a paraphrase.<|end|><|start|>assistant"
        "<|channel|>final<|message|>Larks sing in flight.<|return|>",
        "[THINK]They want a paraphrase.[/THINK]Larks sing in flight.",
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
        "You can tell me about it. Do you want to let me know what it is?",
        "Sure, why not?",
        "1. Rise early.\n2. Listen.",
        "Larks sing, and `print()` shows it:\n\n```python\nprint(1)\n```",
    ],
)
def test_a_text_that_only_looks_like_it_stays_as_it_is(text):
    assert clean(text) == text


def test_what_the_source_has_itself_stays():
    source = "Here is a paraphrase of your poem:\n\nThe lark ascends."
    assert clean(source, source) == source
    assert clean('"The lark ascends."', '"The lark rises."') == '"The lark ascends."'
    polite = "Sure! Larks sing.\n\nLet me know if you need more."
    assert clean(polite, "Sure. A lark sings.\n\nLet me know if that is not enough.") == polite
    coded = "```\nprint(2)\n```"
    assert clean(coded, "```\nprint(1)\n```") == coded
    assert clean('{"lark": "sings"}', '{"lark": "flies"}') == '{"lark": "sings"}'


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


@pytest.mark.parametrize(
    "written",
    [
        "That's an excellent answer - more specific and to the point. Consider a month's costs.",
        "Consider a month's costs. Here's the revised answer: pay the debt first.",
        "You could give a more specific answer that includes a bit of context.",
    ],
)
def test_talk_about_an_answer_is_told_from_an_answer(written):
    assert is_task_talk(written, "Pay the debt first.")
    assert not is_task_talk(written, written)
    assert not is_task_talk("That's a great question. Pay the debt first.", "Pay the debt first.")


def test_a_lone_surrogate_is_replaced():
    assert clean("lark\ud800").encode() == b"lark?"


def test_a_degenerate_answer_is_cleaned_in_no_time():
    assert clean("a" + "\n" * 20_000 + "b").startswith("a")


@pytest.mark.parametrize(
    "text",
    [
        "Larks sing.<|im_end|>\n<|im_start|>user\nThank you!",
        "```\nLarks sing.",
        "```\nLarks sing.\n```\nThis is shorter.",
        'This is it: {"paraphrase": "Larks sing."}',
        'This is it: {"original": "A lark sings.", "rewritten_text": "Larks sing."}',
        '{"paraphrase": "Larks si',
        '{"version_1": "Larks sing.", "version_2": "A lark sings."}',
        '["Larks sing.", "A lark sings."]',
    ],
)
def test_markup_that_cannot_be_taken_off_is_found_unless_the_source_has_it(text):
    assert has_markup(clean(text))
    assert not has_markup(clean(text, text), text)


@pytest.mark.parametrize(
    "text",
    [
        "1. Larks sing.\n2. A lark sings.",
        "Version 1: Larks sing.\n\nVersion 2: A lark sings.",
        "**Option A**\nLarks sing.\n\n**Option B**\nA lark sings.",
        "Variante 1: Larks sing.",
        "Larks sing.\n\nOr:\n\nA lark sings.",
    ],
)
def test_a_choice_of_versions_is_found_unless_the_source_is_a_list(text):
    assert is_several_versions(text, "A lark is singing.")
    assert not is_several_versions(text, text)


@pytest.mark.parametrize(
    "text", ["Take a break. Or two.", "Option A is better.", "Version 2 was built in 1921."]
)
def test_a_text_about_versions_is_none(text):
    assert not is_several_versions(text, "Larks sing.")


def test_a_rewrite_may_be_a_list_unless_each_item_is_a_whole_answer():
    source = "You should rise early, listen, and never give up, for larks are small and far away."
    tips = "1. Rise early.\n2. Listen.\n3. Be patient."
    assert not is_several_versions(tips, source, paraphrase=False)
    assert is_several_versions(tips, source)
    answers = f"1. {source}\n2. {source}"
    assert is_several_versions(answers, source, paraphrase=False)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Larks sing. They nest on the gro", "Larks sing."),
        ("Larks sing. They nest on the ground.", "Larks sing."),
        ('He said: "Larks sing." They ne', 'He said: "Larks sing."'),
        ("Larks sing in flight, and they", ""),
        ("Rise early. Then:\n1. Listen to e.g. lar", "Rise early."),
        ("Larks sing.\n\n- They nest\n- They bree", "Larks sing."),
        ("云雀在飞行中歌唱。它们在地上筑", "云雀在飞行中歌唱。"),
    ],
)
def test_of_a_text_that_was_cut_off_the_whole_sentences_stay(text, whole):
    assert whole_sentences(text) == whole


def test_a_response_keeps_all_but_reasoning_and_control_tokens():
    written = "<think>\nHm.\n</think>\nSure! Here you go: 4. Let me know if you need more.<|eot_id|>"
    assert without_tokens(written) == "Sure! Here you go: 4. Let me know if you need more."
