from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.generation import Answer, Request
from mars_core.generation.instructions import Prompts
from mars_core.method.guards import (
    SHOWN,
    Guards,
    GuardsConfig,
    flips_order,
    is_copy,
    length_ratio,
    repeats,
    screen,
)
from mars_core.method.semantics import Embedder, SemanticsConfig

PROMPT = "What is a lark, and where does it sing? I have never seen one."
CHOSEN = (
    "A lark is a small songbird. It sings while it flies, high above the fields where it builds its nest."
)
REJECTED = "A lark is some kind of bird. I think it sings now and then, but I would not know where that is."
OTHER = "Larks are little birds that sing in flight, far above the meadows in which their nests are hidden."
REFUSAL = "I'm sorry, but I can't help with that."
GERMAN = "Lerchen sind kleine Vögel, die im Flug singen, hoch über den Wiesen, in denen ihre Nester liegen."


def answer(*texts, finish_reason="stop"):
    return Answer("key", texts, (finish_reason,) * len(texts), 0, 0, 0.0)


def request(role="paraphrase_chosen", prompt=PROMPT, chosen=CHOSEN):
    return Request(role, prompt, chosen, REJECTED, 5)


def reason(text, finish_reason="stop", config=None, **changes):
    """Why a text is dropped, or None."""
    judged = screen(request(**changes), answer(text, finish_reason=finish_reason), config or GuardsConfig())
    fault = next(judged)[1]
    return fault and fault.reason


def test_a_good_paraphrase_passes_and_what_stood_around_it_is_gone():
    raw = f"Sure! Here is the reworded reply:\n\n{OTHER}"
    assert list(screen(request(), answer(raw), GuardsConfig())) == [(OTHER, None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("<think>\nThe user wants", "talk about the task"),
        ("I have rephrased it for you without changing the meaning. " + OTHER, "talk about the task"),
        (f"Version 1: {OTHER}\n\nVersion 2: {OTHER}", "several versions"),
        (f"{OTHER}<|im_end|>\n<|im_start|>user\nThank you!", "markup"),
        ("Das darf ich leider nicht umformulieren.", "refusal"),
        ("Larks sing in flight, they say. It is so. Larks sing in flight, they say!", "repetition"),
        (f"{OTHER} This stays close to the original text.", "talk about the task"),
        (REFUSAL, "refusal"),
        (f"{OTHER}\n\nHuman: Thank you!", "another turn"),
        (CHOSEN, "copy"),
        (CHOSEN.upper().replace(".", " !"), "copy"),
        (OTHER + " They eat insects and seeds." * 8, "length"),
        (GERMAN, "language"),
        (OTHER, None),
    ],
    ids=lambda value: None if value is None else str(value)[:24],
)
def test_the_first_guard_that_a_text_fails_names_the_reason(text, expected):
    assert reason(text) == expected


@pytest.mark.parametrize("finish_reason", ["length", "abort", "content_filter"])
def test_a_text_that_did_not_end_by_itself_is_cut_off_however_good_it_looks(finish_reason):
    assert reason(OTHER, finish_reason) == "cut off"


def test_a_rewrite_that_ended_at_its_limit_keeps_its_whole_sentences():
    cut = f"{OTHER} They eat ins"
    judged = screen(request("rewrite_rejected"), answer(cut, finish_reason="length"), GuardsConfig())
    assert list(judged) == [(OTHER, None)]
    assert reason("Larks are little birds that", "length", role="rewrite_rejected") == "cut off"
    assert reason(cut, "abort", role="rewrite_rejected") == "cut off"
    assert reason(cut, "length") == "cut off"
    assert reason("Yes. Larks are", "length", role="rewrite_chosen", chosen=CHOSEN * 5) == "length"


def test_what_the_source_has_itself_is_no_fault():
    assert reason("Sorry, I cannot help you with that request.", chosen=REFUSAL) is None
    quoted = "He asked:\n\nHuman: Who sings?\n\nAssistant: The lark sings, of course."
    assert (
        reason("Somebody wanted to know:\n\nHuman: What sings?\n\nAssistant: Larks do.", chosen=quoted)
        is None
    )
    assert (
        reason(GERMAN, chosen="Die Lerche ist ein kleiner Singvogel. Sie singt im Flug über den Feldern.")
        is None
    )


def test_short_texts_are_judged_neither_by_length_nor_by_language():
    assert reason("Oui, bien sûr.", chosen="Yes.") is None
    assert reason("Yes, that is so, as far as I can tell from here.", chosen="Yes.") is None
    assert reason("Yes. " + OTHER * 3, chosen="Yes.") == "length"


def test_a_rewrite_may_change_its_length_more_than_a_paraphrase():
    long = OTHER + "".join(
        f" They eat {food} in summer." for food in ("ants", "flies", "seeds", "oats", "rye")
    )
    assert reason(long) == "length"
    assert reason(long, role="rewrite_chosen") is None


def test_a_prompt_gets_its_earlier_turns_back():
    prompt = "Human: Larks?\n\nAssistant: Birds.\n\nHuman: And where is it that they sing?"
    judged = screen(
        request("paraphrase_prompt", prompt), answer("In which places do they sing?"), GuardsConfig()
    )
    assert list(judged) == [
        ("Human: Larks?\n\nAssistant: Birds.\n\nHuman: In which places do they sing?", None)
    ]


@pytest.mark.parametrize(
    "prompt", [PROMPT, "Human: Larks?\n\nAssistant: Birds.\n\nHuman: And where do they sing?"]
)
def test_a_reworded_prompt_that_answers_itself_is_dropped(prompt):
    answered = "Could you tell me where it is that larks sing?\n\nAssistant: Above the fields."
    assert reason(answered, role="paraphrase_prompt", prompt=prompt) == "another turn"


@pytest.mark.parametrize(
    ("switched_off", "text", "finish_reason"),
    [
        ({"cut_off": False}, OTHER, "length"),
        ({"refusals": False, "max_length_ratio": 9}, REFUSAL, "stop"),
        ({"task_talk": False}, f"{OTHER} That is the original text.", "stop"),
        ({"task_talk": False}, f"Yes. <|im_end|> {OTHER}", "stop"),
        ({"task_talk": False}, f"Version 1: {OTHER}", "stop"),
        ({"repetition": False}, "Larks sing in flight, they say. Larks sing in flight, they say.", "stop"),
        ({"language": False}, GERMAN, "stop"),
        ({"max_word_overlap": 1}, CHOSEN.replace("small", "little"), "stop"),
        ({"max_length_ratio": 9, "repetition": False}, OTHER + " They eat insects and seeds." * 8, "stop"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value[:20],
)
def test_each_guard_can_be_loosened(switched_off, text, finish_reason):
    tight = GuardsConfig(max_word_overlap=0.9)
    assert reason(text, finish_reason, tight) is not None
    assert reason(text, finish_reason, GuardsConfig(**switched_off)) is None


def test_drops_are_counted_by_reason_and_seconds_by_kind_of_guard():
    guards = Guards(GuardsConfig(), embedder=None)
    kept = guards.samples("a", request(), answer(OTHER, REFUSAL, CHOSEN, REFUSAL))
    assert [sample.text for sample in kept] == [OTHER]
    assert guards.dropped == {"refusal": 2, "copy": 1}
    assert guards.reasons() == "2 × refusal, 1 × copy"
    figures = guards.metrics("augmentation")
    assert figures["augmentation/dropped/refusal"] == 2
    assert figures["augmentation/guards/seconds"] == figures["augmentation/guards/texts_seconds"] > 0


def bought(*texts, tokens):
    return replace(answer(*texts), completion_tokens=tokens)


def test_a_sample_names_its_pair_and_its_answer_and_has_its_share_of_the_tokens():
    guards = Guards(GuardsConfig(), embedder=None)
    short, long = "Larks are birds that sing in flight.", OTHER
    kept = guards.samples("a", request(), bought(short, long, tokens=100))
    assert [(sample.pair_id, sample.request, sample.key) for sample in kept] == 2 * [("a", request(), "key")]
    assert kept[1].tokens / kept[0].tokens == pytest.approx((len(long) + 1) / (len(short) + 1))
    assert sum(sample.tokens for sample in kept) == pytest.approx(100)


def test_tokens_that_were_paid_for_dropped_texts_are_counted_by_reason():
    guards = Guards(GuardsConfig(), embedder=None)
    (sample,) = guards.samples("a", request(), bought(OTHER, REFUSAL, CHOSEN, REFUSAL, tokens=100))
    guards.drop("meaning lost", sample, 0.5)
    metrics = guards.metrics("augmentation")
    reasons = ("refusal", "copy", "meaning lost")
    paid = {reason: metrics[f"augmentation/dropped_tokens/{reason}"] for reason in reasons}
    assert sum(paid.values()) == pytest.approx(100)
    assert paid["meaning lost"] == sample.tokens
    assert paid["refusal"] / paid["copy"] == pytest.approx(2 * (len(REFUSAL) + 1) / (len(CHOSEN) + 1))


def test_dropped_texts_are_shown_with_their_reason_and_what_was_measured():
    guards = Guards(GuardsConfig(), embedder=None)
    (sample,) = guards.samples("a", request(), answer(OTHER, REFUSAL))
    guards.drop("meaning lost", sample, 0.5)
    rows = [tuple(row) for row in guards.shown().itertuples(index=False)]
    role = "paraphrase_chosen"
    assert rows[0] == (role, "a", CHOSEN, OTHER, "meaning lost", 0.5)
    assert rows[1][:5] == (role, "a", CHOSEN, REFUSAL, "refusal")
    assert np.isnan(rows[1][5])


def test_nothing_that_was_dropped_is_a_table_of_the_same_columns():
    guards = Guards(GuardsConfig(), embedder=None)
    empty = guards.shown()
    guards.samples("a", request(), answer(REFUSAL))
    assert len(empty) == 0
    assert (empty.dtypes == guards.shown().dtypes).all()


@given(
    st.permutations([(f"pair-{number}", text) for number in range(2 * SHOWN) for text in (REFUSAL, CHOSEN)])
)
def test_which_dropped_texts_are_shown_does_not_depend_on_the_order_in_which_they_came(order):
    def shown(arrived):
        guards = Guards(GuardsConfig(), embedder=None)
        for pair_id, text in arrived:
            guards.samples(pair_id, request(), answer(text))
        return guards.shown()

    table = shown(order)
    pd.testing.assert_frame_equal(table, shown(sorted(order)))
    assert table["reason"].value_counts().to_dict() == {"copy": SHOWN, "refusal": SHOWN}


def test_texts_that_the_embedder_cuts_are_counted_and_told_once(caplog):
    guards = Guards(GuardsConfig(), Embedder(SemanticsConfig()))
    assert guards.metrics("augmentation")["augmentation/guards/texts_cut"] == 0
    for _ in range(2):
        guards.distances([CHOSEN], [OTHER * 100])
    assert guards.metrics("augmentation")["augmentation/guards/texts_cut"] == 2
    told = "Some generated texts, or their sources, are longer than the embedder reads"
    assert [record.message for record in caplog.records].count(told) == 1


# The measures


@given(st.text(), st.text())
def test_a_copy_is_one_in_both_directions_and_every_text_is_one_of_itself(a, b):
    assert is_copy(a, b, 1.0) == is_copy(b, a, 1.0)
    assert is_copy(a, a, 1.0)
    assert is_copy(f" {a}\n", a, 1.0)


def test_a_text_without_words_is_a_copy_of_itself_alone():
    assert is_copy("?!", "?!", 0.97)
    assert not is_copy("?!", "…", 0.97)


@given(st.text(), st.text())
def test_a_length_ratio_is_symmetric_and_at_least_one(a, b):
    assert length_ratio(a, b) == length_ratio(b, a) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "Larks sing in flight. They are small. LARKS sing, in flight!",
        "It is very " + "very " * 9 + "small.",
        "He sings and sings " * 4,
        "云雀在飞行中为我们大家不停地放声歌唱。它们很小。云雀在飞行中为我们大家不停地放声歌唱。",
    ],
)
def test_a_text_that_says_the_same_again_is_dropped_unless_its_source_does_too(text):
    source = "Larks sing a long song while they fly, high above all fields."
    config = GuardsConfig(max_length_ratio=9, max_word_overlap=1, language=False)
    assert reason(text, chosen=source, config=config) == "repetition"
    assert reason(text, chosen=f"{source} {source}", config=config) is None


@pytest.mark.parametrize(
    "text",
    [
        "Ha, ha, ha, ha! That is so funny.",
        "Rise early. Listen. Rise early.",
        "Larks sing.\n\nLarks sing well.",
    ],
)
def test_short_words_and_sentences_may_come_again(text):
    assert not repeats(text)


finite = st.floats(-1e3, 1e3, width=32)


@given(finite, finite, finite, finite, st.floats(0, 10, width=32))
def test_a_rewrite_that_leaves_the_margin_as_it_was_or_raises_it_never_flips_the_order(
    chosen, rejected, better, worse, tolerance
):
    better, worse = abs(better), -abs(worse)
    before, after = chosen - rejected, (chosen + better) - (rejected + worse)
    kept = flips_order([before], [after], tolerance + 1e-3)
    assert not kept.any()


def test_the_order_is_flipped_beyond_the_tolerance_only():
    new_rejected = np.array([0.9, 1.0, 1.1, 1.2])
    right = flips_order(np.ones(4), np.ones(4) - new_rejected, 0.15)
    assert right.tolist() == [False, False, False, True]
    misranked = flips_order(-np.ones(4), -new_rejected, 0.15)
    assert misranked.tolist() == [False, False, False, True]


def test_a_text_that_repeats_what_the_model_was_told_is_talk_about_the_task():
    told = Prompts.read("small")
    guards = Guards(GuardsConfig(), None, prompts=told)
    [sentence] = told.sentences("paraphrase_chosen")
    assert guards.samples("p", request(), answer(f"{OTHER}\n\n{sentence}", OTHER))[0].text == OTHER
    assert guards.dropped == {"talk about the task": 1}
