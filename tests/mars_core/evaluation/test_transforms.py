"""Each transform changes what it says, and keeps which response is better."""

import numpy as np
import pytest

from mars_core.config import Configuration
from mars_core.evaluation.transforms.deleted_words import MIN_SIMILARITY, SHARES, without_words
from mars_core.evaluation.transforms.homoglyphs import CYRILLIC
from mars_core.evaluation.transforms.transform import TRANSFORMS, Pair, TextTransform
from mars_core.generation import Answer

PROMPT = "What is a lark? Say it in a few words."
PROSE = Pair(
    PROMPT,
    "A lark is a small songbird that nests on the ground, weighs 40 grams, and sings in flight.",
    "Larks were invented in Paris, 3.5 centuries ago, by a baker who wanted bread that wakes people at dawn.",
)
PYTHON = Pair("Add two numbers.", "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b")
FENCED = Pair(
    "Add two numbers.",
    "Like this:\n\n```js\nfunction add(a, b) {\n  return a + b;\n}\n```\n\nIt adds them.",
    "```js\nconst add = (a, b) => a - b;\n```",
)
DIALOGUE = "Human: Hello.\n\nAssistant: Good morning.\n\nHuman: What is a lark?"


def transform(name):
    return TRANSFORMS.find(name)(Configuration())


class Known:
    """Models that give what they were told."""

    def __init__(self, similarity=1.0, answer=None, passes=lambda request, text: True):
        self.similarity, self.answer, self.passes = similarity, answer, passes
        self.asked = []

    def similarities(self, texts, others):
        return np.full(len(texts), self.similarity, np.float32)

    def answers(self, requests):
        self.asked += requests
        given = [self.answer(request) for request in requests]
        return [Answer("", texts, ("stop",) * len(texts), 0, 0, 0.0) for texts in given]

    def paraphrases(self, requests, answers):
        return [
            next((request.whole(text) for text in answer.texts if self.passes(request, text)), None)
            for request, answer in zip(requests, answers, strict=True)
        ]


def after(name, pair, models=None):
    [changed] = transform(name).apply([pair], models or Known())
    return changed


def test_there_are_those_that_the_documentation_numbers():
    assert TRANSFORMS.names() == [
        "answer_format", "back_translation", "code_comments", "deleted_words", "dropped_characters", "handle",
        "homoglyphs", "ignore_above", "ignore_below", "inserted_characters", "paraphrase",
        "prompt_paraphrase", "quotes", "rot13", "spaced_punctuation", "swapped_characters", "true_is_true",
        "unrelated_code", "url",
    ]  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_it_changes_the_part_that_it_says_and_the_same_way_each_time(name):
    one = transform(name)
    models = Known(answer=lambda request: (f"{request.source} So it is.",))
    boxed = Pair("What is 2 + 2?", "The answer is 4.", "The answer is 5.")
    found = [
        (pair, changed)
        for pair in (PROSE, PYTHON, FENCED, boxed)
        for changed in one.apply([pair], models)
        if changed not in (None, pair)
    ]
    assert found
    for pair, changed in found:
        assert one.apply([pair], models) == [changed]
        if one.changes == "prompt":
            assert changed.prompt != pair.prompt
            assert changed[1:] == pair[1:]
        else:
            assert changed.prompt == pair.prompt
            assert changed.chosen != pair.chosen
            assert changed.rejected != pair.rejected


@pytest.mark.parametrize("name", [name for name in TRANSFORMS.names() if transform(name).changes == "prompt"])
def test_of_a_dialogue_it_changes_the_last_user_turn_alone(name):
    changed = after(name, PROSE._replace(prompt=DIALOGUE), Known(answer=lambda _: ("Which bird is a lark?",)))
    assert changed.prompt.startswith("Human: Hello.\n\nAssistant: Good morning.\n\nHuman: ")
    assert changed.prompt != DIALOGUE


# Around the texts


def test_quotes_stand_around_both_responses():
    assert after("quotes", Pair("?", "yes", "no")) == Pair("?", '"yes"', '"no"')


def test_punctuation_gets_spaces_where_it_ends_something():
    spaced = after("spaced_punctuation", Pair("?", "Yes, at 3.5 m: go!", "See a.b, or 1,000."))
    assert spaced == Pair("?", "Yes , at 3.5 m : go !", "See a.b , or 1,000 .")


def test_a_handle_stands_in_front_of_the_prompt():
    handle, _, rest = after("handle", PROSE).prompt.partition(" ")
    assert rest == PROMPT
    assert handle[0] == "@"
    assert len(handle) == 9


def test_a_url_stands_behind_the_prompt():
    prompt, _, url = after("url", PROSE).prompt.rpartition(" ")
    assert prompt == PROMPT
    assert url.startswith("https://example.org/")


def test_true_is_true_five_times_behind_the_prompt():
    assert after("true_is_true", PROSE).prompt == PROMPT + " and true is true" * 5


def test_what_is_to_be_ignored_stands_above_or_below_the_prompt():
    above, below = (after(name, PROSE).prompt for name in ("ignore_above", "ignore_below"))
    assert above.endswith(f"Ignore everything above this line.\n\n{PROMPT}")
    assert below.startswith(f"{PROMPT}\n\nIgnore everything below this line.\n\n")
    assert len(above) > len(PROMPT) + 40
    assert len(below) > len(PROMPT) + 40


def test_rot_13_says_so_and_decodes_to_the_prompt():
    instruction, _, coded = after("rot13", PROSE).prompt.partition("\n\n")
    assert "Rot-13" in instruction
    assert coded == "Jung vf n ynex? Fnl vg va n srj jbeqf."


# Noise

NOISE = ["homoglyphs", "swapped_characters", "dropped_characters", "inserted_characters"]


@pytest.mark.parametrize(
    ("name", "longer"), zip(NOISE, (0, 0, -1, 1), strict=True), ids=NOISE
)  # fmt: skip
def test_noise_is_in_a_tenth_of_the_words_and_in_no_number(name, longer):
    text = " ".join(["Between 1990 and 2024 several hundred people crossed Lake Constance in tubs"] * 3)
    words, noisy = text.split(), after(name, PROSE._replace(chosen=text)).chosen.split()
    differing = [(old, new) for old, new in zip(words, noisy, strict=True) if old != new]
    long = [word for word in words if word.isalpha() and len(word) > 3]
    assert len(differing) == round(len(long) / 10)
    for old, new in differing:
        assert old.isalpha()
        assert len(new) == len(old) + longer


def test_homoglyphs_are_cyrillic_letters_that_look_the_same():
    back = {cyrillic: latin for latin, cyrillic in CYRILLIC.items()}
    changed = after("homoglyphs", PROSE)
    assert changed.chosen.translate(back) == PROSE.chosen
    assert changed.rejected.translate(back) == PROSE.rejected
    assert all(0x0400 < cyrillic < 0x0500 for cyrillic in back)


def test_swapped_characters_are_the_same_ones_between_the_first_and_the_last():
    for old, new in zip(PROSE.chosen.split(), after("swapped_characters", PROSE).chosen.split(), strict=True):
        assert sorted(old) == sorted(new)
        assert (old[0], old[-1]) == (new[0], new[-1])


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("short", ["desserts", "Four: April, June, September."], ids=["a word", "a list"])
def test_a_short_answer_has_no_noise_since_the_word_may_be_the_answer(name, short):
    assert after(name, PROSE._replace(rejected=short)) is None


@pytest.mark.parametrize("name", [*NOISE, "spaced_punctuation", "deleted_words"])
@pytest.mark.parametrize("code", [PYTHON, FENCED], ids=["bare", "fenced"])
def test_what_would_break_code_leaves_it_alone(name, code):
    assert after(name, code._replace(rejected=PROSE.rejected)) is None


# Words deleted

LONG = (
    "the bird that never lands on water sings while it flies over 12 open fields in Wales and rests at dusk"
)


def test_words_are_deleted_while_the_meaning_stays_near():
    pair = Pair("?", LONG, LONG + " or dawn")
    assert after("deleted_words", pair, Known(MIN_SIMILARITY)).chosen == without_words(LONG, SHARES[0])
    assert after("deleted_words", pair, Known(MIN_SIMILARITY - 0.01)) is None


def test_as_many_words_are_deleted_as_leave_the_meaning_near():
    class Near(Known):
        def similarities(self, texts, others):
            return np.array([1 - (len(b) - len(a)) / len(b) for a, b in zip(texts, others, strict=True)])

    [changed] = transform("deleted_words").apply([Pair("?", LONG, LONG + " or dawn")], Near())
    assert len(changed.chosen) >= MIN_SIMILARITY * len(LONG)
    assert any(changed.chosen == without_words(LONG, share) for share in SHARES)


def test_names_numbers_and_negations_are_not_deleted():
    shorter = without_words(LONG, 1.0)
    assert shorter.split() == ["never", "12", "Wales"]


def test_a_short_text_loses_no_words():
    assert without_words("Bread pudding, panzanella and French toast.", 0.3) is None


# Code and mathematics


def test_comments_stand_around_code_in_its_language():
    assert after("code_comments", PYTHON).chosen == (
        "# Here is the code.\ndef add(a, b):\n    return a + b\n# That is all of it."
    )
    fenced = after("code_comments", FENCED).chosen
    assert fenced.startswith("Like this:\n\n```js\n// Here is the code.\nfunction add(a, b) {\n")
    assert fenced.endswith("}\n// That is all of it.\n```\n\nIt adds them.")


def test_code_with_comments_or_more_behind_it_does_what_it_did():
    for name in ("code_comments", "unrelated_code"):
        scope = {}
        exec(after(name, PYTHON).chosen, scope)
        assert scope["add"](2, 3) == 5


def test_unrelated_code_stands_behind_the_code_in_its_language():
    assert after("unrelated_code", FENCED).rejected == (
        "```js\nconst add = (a, b) => a - b;\n\nfunction twiceOf(number) {\n  return 2 * number;\n}\n```"
    )


@pytest.mark.parametrize("name", ["code_comments", "unrelated_code"])
@pytest.mark.parametrize(
    "response",
    [PROSE.chosen, "```mermaid\ngraph TD\n```", "Use `add`, as in add(1, 2)."],
    ids=["prose", "an unknown language", "a word of code"],
)
def test_transforms_of_code_apply_to_code_alone(name, response):
    assert after(name, PYTHON._replace(rejected=response)) is None


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ("6 * 7 = 42, so the answer is 42.", "6 * 7 = 42, so the answer is $\\boxed{42}$."),
        ("Answer: 1,250.5 m", "Answer: $\\boxed{1,250.5}$ m"),
        ("The answer is 3, because 1 + 2.", "The answer is $\\boxed{3}$, because 1 + 2."),
        ("Hence $\\boxed{42}$.", "Hence **42**."),
        ("So \\boxed{7/2} it is.", "So **7/2** it is."),
    ],
)
def test_a_final_answer_goes_into_a_box_or_out_of_it(before, wanted):
    assert after("answer_format", Pair("?", before, "The answer is 1.")).chosen == wanted


def test_a_text_without_a_final_number_keeps_its_format():
    assert after("answer_format", Pair("?", "The answer is yes.", "The answer is 1.")) is None


# By a generator


def test_a_paraphrase_replaces_both_responses_by_the_first_that_passes_the_guards():
    models = Known(
        answer=lambda request: ("no", f"{request.source} again", "third"),
        passes=lambda request, text: text != "no",
    )
    assert after("paraphrase", Pair("?", "a", "b"), models) == Pair("?", "a again", "b again")
    assert [request.role for request in models.asked] == ["paraphrase_chosen", "paraphrase_rejected"]


def test_a_pair_of_which_one_response_has_no_paraphrase_is_left_out():
    models = Known(answer=lambda request: ("new",) if request.role == "paraphrase_chosen" else ())
    assert after("paraphrase", Pair("?", "a", "b"), models) is None


def test_a_paraphrase_of_the_prompt_leaves_the_responses():
    models = Known(answer=lambda _: ("Which bird is called a lark?",))
    assert after("prompt_paraphrase", PROSE, models) == PROSE._replace(prompt="Which bird is called a lark?")
    assert after("prompt_paraphrase", PROSE, Known(answer=lambda _: ())) is None


def test_a_back_translation_goes_to_french_and_back_and_is_judged_as_a_paraphrase():
    french = {"a lark": "une alouette", "a wren": "un troglodyte"}
    english = {"une alouette": "a skylark", "un troglodyte": "a small wren"}

    def translate(request):
        said, _, text = request.prompt.partition("\n\n")
        return ((french if "into French" in said else english)[text],)

    judged = []
    models = Known(answer=translate, passes=lambda request, text: judged.append((request.text, text)) or True)
    assert after("back_translation", Pair("?", "a lark", "a wren"), models) == Pair(
        "?", "a skylark", "a small wren"
    )
    assert judged == [("a lark", "a skylark"), ("a wren", "a small wren")]


def test_a_translation_that_was_not_written_leaves_the_pair_out():
    models = Known(answer=lambda request: () if "troglodyte" in request.prompt else ("un troglodyte",))
    assert after("back_translation", PROSE, models) is None


def test_a_transform_of_ones_own_is_a_function_of_a_text():
    class Shout(TextTransform):
        changes = "responses"

        def change(self, text):
            return text.upper()

    assert Shout(Configuration()).apply([Pair("?", "yes", "no")], Known()) == [Pair("?", "YES", "NO")]
