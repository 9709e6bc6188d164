import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.evaluation import contamination
from mars_core.evaluation.contamination import NEAR, WORDS, Measured, Texts

POEM = "the lark ascends at dawn above the field and sings until the evening falls on hill and hedge"
OTHER = "a loire boat carries wine and salt from the hills down to the grey atlantic every other week"
ANSWER = "It is a small brown bird of open country that sings while it flies up high."


def texts(**rows):
    """Rows by name, each a prompt and a response."""
    prompts, responses = zip(*rows.values(), strict=True)
    return Texts(list(rows), list(prompts), list(responses))


def contaminated_rows(measured, training):
    """The rows of one set."""
    return contamination.contaminated_rows({"set": Measured(measured.blocks())}, training.blocks())["set"]


def only(found):
    """The one line found, as a dictionary."""
    (line,) = found.to_dict("records")
    return line


def test_a_prompt_is_the_same_whatever_its_case_punctuation_and_spacing():
    measured = texts(a=("What is a  LARK?", ANSWER), b=("Name a river.", "The Loire."))
    found = only(contaminated_rows(measured, texts(z=("what is a lark", "A songbird."))))
    assert found == {"row": "a", "exact": True, "share": 1.0, "training_id": "z", "part": "prompt"}


def test_speakers_are_no_part_of_a_prompt():
    dialogue = "Human: What is a lark?\n\nAssistant: A bird.\n\nHuman: Does it sing?"
    found = contaminated_rows(
        texts(a=(dialogue, "Yes.")), texts(z=("What is a lark? A bird. Does it sing?", "No."))
    )
    assert found["exact"].tolist() == [True]


def test_a_long_response_is_contaminated_by_a_chosen_or_rejected_one_under_another_prompt():
    found = only(contaminated_rows(texts(a=("Lark?", ANSWER)), texts(z=("What sings?", ANSWER.upper()))))
    assert (found["part"], found["exact"]) == ("response", True)


def test_what_everybody_says_is_no_contamination():
    assert contaminated_rows(texts(a=("Lark?", "I don't know.")), texts(z=("River?", "I don't know."))).empty


def test_a_prompt_is_not_compared_with_responses():
    assert contaminated_rows(texts(a=(POEM, "Yes.")), texts(z=("Recite it.", POEM))).empty


@given(st.integers(0, 17))
def test_a_near_duplicate_has_at_least_the_stated_share_of_its_runs_in_one_training_text(kept):
    words = POEM.split()
    changed = " ".join([*words[:kept], *(["instead"] * (len(words) - kept))])
    found = contaminated_rows(texts(a=(POEM, "Yes.")), texts(x=(OTHER, "No."), z=(changed, "No.")))
    share = max(kept - WORDS + 1, 0) / (len(words) - WORDS + 1)
    assert len(found) == (share >= NEAR)
    if len(found):
        assert only(found) | {"share": pytest.approx(share), "training_id": "z", "exact": False} == only(
            found
        )


def test_a_training_text_that_goes_on_contaminates_and_one_that_stops_short_does_not():
    long, short = f"{POEM} {OTHER}", " ".join(POEM.split()[:12])
    assert only(contaminated_rows(texts(a=(POEM, "Yes.")), texts(z=(long, "No."))))["share"] == 1
    assert contaminated_rows(texts(a=(POEM, "Yes.")), texts(z=(short, "No."))).empty


def test_an_exact_repetition_of_one_part_goes_before_a_near_one_of_the_other():
    measured = texts(a=(POEM, ANSWER))
    training = Texts(["y", "z"], [f"{POEM} {OTHER}", "Lark?"], ["No.", ANSWER])
    assert only(contaminated_rows(measured, training))["training_id"] == "z"


def test_a_row_with_several_responses_is_found_once():
    measured = Texts(["a", "a"], [POEM, POEM], [ANSWER, "Yes."])
    assert len(contaminated_rows(measured, texts(z=(POEM, ANSWER)))) == 1


def test_each_set_has_the_rows_of_its_own_that_were_seen():
    sets = {
        "short": texts(a=("Lark?", "Yes.")),
        "poem": texts(b=("Lark?", ANSWER), c=(POEM, "No.")),
        "other": texts(d=(OTHER, "No.")),
    }
    ready = {name: Measured(rows.blocks()) for name, rows in sets.items()}
    training = texts(y=("Yes or no?", ANSWER), z=(POEM, "Yes."))
    found = contamination.contaminated_rows(ready, training.blocks())
    assert {name: sorted(rows["row"]) for name, rows in found.items()} == {
        "short": [], "poem": ["b", "c"], "other": [],
    }  # fmt: skip


def test_texts_in_many_blocks_are_found_as_in_one(monkeypatch):
    measured = texts(a=(POEM, "Yes."), b=(OTHER, "Yes."))
    training = Texts([*"vwxyz"], ["One?", OTHER + " still", "Two?", POEM + " still", "Three?"], ["No."] * 5)
    whole = contaminated_rows(measured, training)
    monkeypatch.setattr("mars_core.evaluation.contamination.BLOCK", 2)
    assert contaminated_rows(measured, training).equals(whole)
    assert dict(zip(whole["row"], whole["training_id"], strict=True)) == {"a": "y", "b": "w"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("请问今天下午北京的天气怎么样，需要带伞吗？", "请问今天下午北京的天气怎么样，需要带伞吗？谢谢"),
        ("Quelle est la prémière étoile que l'on voit après le coucher du soleil ?",) * 2,
    ],
    ids=["unspaced script", "accents composed and decomposed"],
)
def test_a_repeated_text_is_found_however_it_is_written(one, other):
    measured = texts(row=(unicodedata.normalize("NFC", one), "Yes."))
    training = texts(pair=(unicodedata.normalize("NFD", other), "No."))
    assert only(contaminated_rows(measured, training))["row"] == "row"
