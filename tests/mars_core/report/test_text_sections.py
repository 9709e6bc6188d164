"""The texts that a report shows are those of the round, are shown as they are, and cannot break the page."""

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.markdown import Markdown

from mars_core.report.text_sections import (
    CHARACTERS,
    DROPPED,
    ORIGINALS,
    PAIRS,
    RoundTexts,
    dropped,
    hardest,
    originals,
    quote,
)
from mars_core.report.wording import table

NAN = float("nan")


@pytest.fixture
def texts():
    """Original `a` was rewritten and has two synthetic pairs; `b` stands in for a pair that was not made."""
    return RoundTexts(
        round=2,
        originals=pd.DataFrame(
            {
                "pair_id": ["a", "b"],
                "prompt": ["Name a lark.", "Name a river."],
                "chosen": ["The skylark.", "The Loire."],
                "rejected": ["The sparrow.", "The Alps."],
                "margin": [-1.25, 0.5],
            }
        ),
        rewrites=pd.DataFrame(
            {
                "pair_id": ["a", "b"],
                "rewritten": ["rejected", "none"],
                "chosen": ["The skylark.", "The Loire."],
                "rejected": ["Any fish.", "The Alps."],
            }
        ),
        variants=pd.DataFrame(
            [
                ("a", "chosen", 1, "A skylark."),
                ("a", "chosen", 2, "Skylarks."),
                ("a", "rejected", 1, "A fish."),
            ],
            columns=["parent_id", "part", "variant", "text"],
        ),
        synthetic=pd.DataFrame(
            [
                ("r2-a-p0c1r0", "a", 0, 1, 0, -1.0, 0.25),
                ("r2-a-p0c2r1", "a", 0, 2, 1, -0.5, 0.75),
                ("r2-b-n0", "b", 0, 0, 0, 0.5, 0.625),
            ],
            columns=[
                "synthetic_id", "parent_id", "prompt_variant", "chosen_variant", "rejected_variant",
                "margin_before", "margin_after",
            ],
        ),
        dropped=dropped_rows(("meaning lost", "Fish swim.", 0.63), ("refusal", "I cannot help.", NAN)),
    )  # fmt: skip


def dropped_rows(*rows):
    """Dropped paraphrases of one response: reason, text, measured."""
    return pd.DataFrame(
        [("paraphrase_chosen", "a", "The skylark.", text, reason, value) for reason, text, value in rows],
        columns=["role", "pair_id", "source", "text", "reason", "number"],
    )


def cells(page):
    """The cells of a Markdown table, row after row, as a reader sees them."""
    tokens = Markdown(page).parsed
    return [
        "".join(child.content for child in cell.children)
        for place, cell in enumerate(tokens)
        if cell.type == "inline" and tokens[place - 1].type in ("td_open", "th_open")
    ]


def test_the_originals_shown_are_those_of_the_smallest_margin_that_have_pairs():
    margins = pd.DataFrame({"pair_id": ["d", "c", "b", "a"], "margin": [-2.0, 0.5, 0.5, 1.0]})
    for size in (1, 3, 4):
        some = (margins[start : start + size] for start in range(0, 4, size))
        assert hardest(some, [["a", "b"], ["c", "c"]]) == ["b", "c", "a"]


def test_no_more_originals_are_shown_than_a_page_can_take():
    margins = pd.DataFrame({"pair_id": [str(i) for i in range(50)], "margin": range(50)})
    assert hardest([margins], [margins["pair_id"]]) == ["0", "1", "2", "3", "4"][:ORIGINALS]


def test_no_original_is_shown_where_none_has_pairs():
    assert hardest([pd.DataFrame({"pair_id": ["a"], "margin": [0.0]})], []) == []


def test_a_text_stands_beside_its_rewrite_and_its_variants(texts):
    page = originals(texts)
    assert "### Original a: margin −1.250" in page
    assert cells(page[3]) == [
        "", "original", "rewritten", "variant 1", "variant 2",
        "prompt", "Name a lark.", "", "", "",
        "chosen", "The skylark.", "", "A skylark.", "Skylarks.",
        "rejected", "The sparrow.", "Any fish.", "A fish.", "",
    ]  # fmt: skip


def test_an_original_of_which_no_text_was_made_has_no_empty_columns(texts):
    assert cells(originals(texts)[6])[:2] == ["", "original"]
    assert len(cells(originals(texts)[6])) == 8


def test_each_synthetic_pair_has_its_margins_before_and_after_the_fit(texts):
    of_a, of_b = originals(texts)[4::3]
    assert "Synthetic pairs: 2; new texts: 3." in of_a
    assert "chosen 1 (−1.000 → 0.250), chosen 2 + rejected 1 (−0.500 → 0.750)." in of_a
    assert "the original again (0.500 → 0.625)." in of_b


def test_of_many_synthetic_pairs_the_others_are_counted(texts):
    many = pd.concat([texts.synthetic[:1]] * (PAIRS + 3))
    [*_, of_a] = originals(RoundTexts(2, texts.originals[:1], texts.rewrites, texts.variants, many, None))
    assert of_a.count("→") == PAIRS + 1
    assert of_a.endswith("and 3 more.")


def test_a_dropped_text_stands_beside_its_source_with_the_reason_and_what_was_measured(texts):
    assert cells(dropped(texts)[-1])[4:] == [
        "meaning lost (cosine similarity 0.63)", "paraphrase of chosen, a", "The skylark.", "Fish swim.",
        "refusal", "paraphrase of chosen, a", "The skylark.", "I cannot help.",
    ]  # fmt: skip


def shown_of(texts, rows):
    return dropped(RoundTexts(2, texts.originals, texts.rewrites, texts.variants, texts.synthetic, rows))


def test_every_reason_is_shown_before_any_is_shown_again(texts):
    copies = [("copy", f"copy {i}", 0.99) for i in range(20)]
    page = shown_of(texts, dropped_rows(*copies, ("refusal", "I cannot.", NAN), ("empty", "", NAN)))[-1]
    reasons = [reason.partition(" (")[0] for reason in cells(page)[4::4]]
    assert reasons == ["copy"] * (DROPPED - 2) + ["empty", "refusal"]


def test_the_order_in_which_texts_were_dropped_does_not_show(texts):
    rows = dropped_rows(*[("copy", f"copy {i}", 0.99) for i in range(20)], ("refusal", "I cannot.", NAN))
    assert shown_of(texts, rows) == shown_of(texts, rows[::-1])


@pytest.mark.parametrize("rows", [None, dropped_rows()], ids=["no table", "no rows"])
def test_where_no_dropped_texts_are_known_there_is_no_section_of_them(texts, rows):
    assert shown_of(texts, rows) == []


SIGNS = st.sampled_from("\\`*_[]()<>&|~$!#-+=:/.;\"' \n\tab1é")
READABLE = st.characters(exclude_categories=["Cc", "Cs"])


@given(st.text(SIGNS | READABLE, max_size=CHARACTERS // 3).filter(str.split))
@example("| a | b |\n| --- | --- |")
@example("```\n<script>alert(1)</script>\n```")
@example("[link](javascript:alert(1)) ![image](x.png) &lt; \\| \\\\| **bold** ~~struck~~ www.a.org")
def test_a_text_is_shown_as_it_is_and_cannot_break_out_of_its_cell(text):
    page = table(["", "text", "after"], [["x", quote(text), "end"]], align="---")
    inline = [token for token in Markdown(f"{page}\n\nlast").parsed if token.type == "inline"]
    assert [token.content for token in inline[3:4] + inline[5:]] == ["x", "end", "last"]
    assert {child.type for child in inline[4].children} == {"text"}
    shown = "".join(child.content for child in inline[4].children)
    assert shown.replace("↵", "").split() == text.replace("↵", "").split()


def test_a_control_character_does_not_reach_the_page():
    assert quote("a\0b\x1b[31mc") == "a\ufffdb\ufffd\\[31mc"


def test_an_address_in_a_text_is_not_spelled_as_a_link():
    assert "://" not in quote("See https://example.org/a_b")
    assert "www." not in quote("See WWW.example.org or www.example.org").lower()


def test_of_a_long_text_the_beginning_and_the_end_are_shown():
    shown = quote(f"It begins {'so on ' * 10_000}and ends.")
    assert shown.startswith("It begins so on")
    assert " … " in shown
    assert shown.endswith("and ends.")
    assert len(shown) <= CHARACTERS + 3


def test_lines_are_marked_and_an_empty_text_is_said_to_be_empty():
    assert quote("One.\n\nTwo.") == "One. ↵ Two."
    assert quote(" \n") == "*empty*"
