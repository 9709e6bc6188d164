"""A judge's answers: what counts as a verdict, both orders, and what is missing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.alignment.judge import JudgeConfig, JudgeError, judge, question, verdict
from mars_core.alignment.judgements import Compared, read_judgements
from mars_core.alignment.win_rates import win_rates
from mars_core.config import ConfigError, validated
from mars_core.files import digest
from mars_core.generation import Answer, GenerationStore, Generator

COMPARED = [
    Compared(f"What is {number} plus one?", f"It is {number + 1}.", f"I would say {number}." * 3)
    for number in range(20)
]


class Judge:
    """Stands for a chat model that judges: `answers_with` makes its answer of the two that it is shown."""

    name = "chat"

    def __init__(self, answers_with, finish_reason="stop"):
        self.answers_with, self.finish_reason = answers_with, finish_reason
        self.asked = 0

    def key(self, request):
        return digest(request.role, request.prompt)

    def answers(self, requests):
        for index, request in enumerate(requests):
            self.asked += 1
            shown = re.findall(r"<response [AB]>\n(.*?)\n</response", request.prompt, re.DOTALL)
            texts = (self.answers_with(*shown),)
            yield index, Answer(self.key(request), texts, (self.finish_reason,), 90, 9, 0.0)

    def close(self):
        pass


def prefers_short(first, second):
    return f"It is to the point.\n\n**Verdict: {'A' if len(first) < len(second) else 'B'}**"


@pytest.fixture
def judged(tmp_path):
    """The table that a judge's answers give, by way of a store."""

    def run(backend, max_missing_share=0.5):
        with GenerationStore(tmp_path) as store:
            return judge(Generator(backend, store), COMPARED, max_missing_share)

    return run


@pytest.mark.parametrize(
    ("answer", "preference"),
    [
        ("A is right and short.\nVerdict: A", 1),
        ("verdict: b.", 0),
        ("**Verdict:** tie", 0.5),
        ("Verdict: A\n\nI repeat, verdict: A", 1),
        ("A", 1),
        ("Response B.", 0),
        ("[tie]", 0.5),
        ("A is the better one.", None),
        ("Verdict:\nB", 0),
        ("Verdict: A\nOn second thoughts:\nVerdict: B", None),
        ("Verdict: A or B", None),
        ("Verdict: A/B", None),
        ("Verdict: Although both are right …", None),
        ("Both.", None),
        ("", None),
        ("I cannot judge this.", None),
    ],
)
def test_a_verdict_is_what_the_judge_was_told_to_write_and_nothing_else(answer, preference):
    assert verdict(answer) == preference


@given(st.text(alphabet=st.characters(exclude_characters="vV")))
def test_no_answer_that_lacks_the_word_verdict_counts_unless_it_is_one_word(answer):
    assert verdict(answer) is None or len(re.findall(r"[a-z]+", answer.lower())) <= 2


def test_the_judge_is_shown_the_prompt_and_both_responses_whole():
    told = question("Why?\n\nHuman: And how?", "So.\n\nVerdict: A", "No.")
    assert "<prompt>\nWhy?\n\nHuman: And how?\n</prompt>" in told
    assert "<response A>\nSo.\n\nVerdict: A\n</response A>" in told
    assert "<response B>\nNo.\n</response B>" in told


def test_a_judge_that_looks_at_merit_gives_the_same_verdict_in_both_orders(judged):
    table = judged(Judge(prefers_short))
    assert len(table) == 2 * len(COMPARED)
    assert set(table["preference"]) == {1.0}
    assert set(table["shown_first"]) == {"response", "baseline"}
    assert table["answer"].str.contains("to the point").all()


def test_a_judge_that_looks_at_the_order_alone_wins_nobody_anything(judged, tmp_path):
    judged(Judge(lambda *_: "Verdict: A")).to_json(tmp_path / "it.jsonl", orient="records", lines=True)
    rates = win_rates(read_judgements(str(tmp_path / "it.jsonl")))
    assert rates.plain.value == 0.5
    assert rates.position.first_wins.value == 1
    assert rates.position.consistent.value == 0


def test_nonsense_in_a_fifth_of_the_answers_is_missing_and_moves_no_rate(judged, tmp_path):
    number = iter(range(1000))
    table = judged(Judge(lambda *two: prefers_short(*two) if next(number) % 5 else "Larks sing."))
    assert table["preference"].isna().sum() == len(table) / 5
    table.to_json(tmp_path / "it.jsonl", orient="records", lines=True)
    rates = win_rates(read_judgements(str(tmp_path / "it.jsonl")))
    assert (rates.plain.value, rates.if_missing_lost, rates.missing) == (1, 0.8, len(table) / 5)


def test_a_judge_that_hardly_ever_judges_is_an_error_that_shows_what_it_said(judged):
    with pytest.raises(JudgeError, match=r"40 of 40 answers of chat name no verdict.*\n.*'Larks sing.'"):
        judged(Judge(lambda *_: "Larks sing."))


def test_an_answer_that_was_cut_off_is_missing(judged):
    cut_off = judged(Judge(prefers_short, "length"), max_missing_share=1)
    assert cut_off["preference"].isna().all()


def test_what_a_judge_thinks_before_it_answers_is_no_verdict(judged):
    table = judged(Judge(lambda *_: "<think>First, verdict: A? No.</think>Verdict: B"))
    assert table["preference"].notna().all()


def test_no_answer_is_bought_twice(judged):
    first, second = Judge(prefers_short), Judge(prefers_short)
    judged(first)
    judged(second)
    assert (first.asked, second.asked) == (2 * len(COMPARED), 0)


def test_the_keys_of_a_judge_are_those_of_a_generator():
    config = validated(
        JudgeConfig, {"backend": "vllm", "model": "Qwen/Qwen3-8B", "max_missing_share": 0.2}, "it"
    )
    assert config.respond.temperature == 0.1
    with pytest.raises(ConfigError, match="max_missing_share"):
        validated(JudgeConfig, {"max_missing": 0.2}, "it")
