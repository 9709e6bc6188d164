from dataclasses import replace

import pytest

from mars_core.generation import (
    GenerationConfig,
    GenerationCounts,
    GenerationError,
    GenerationStore,
    Generator,
    Request,
)
from mars_core.generation.backends.rules import RulesBackend
from mars_core.generation.generator import GIVE_UP_AFTER
from mars_core.generation.interface import Enough


class Watched(RulesBackend):
    """The rules, with a record of what was asked and failures on demand (`fails` maps text to error)."""

    def __init__(self, fails=None):
        super().__init__(GenerationConfig())
        self.asked = []
        self.shown = []
        """How many requests there were at each answer."""
        self.fails = fails or {}
        self.closed = False

    def answers(self, requests):
        try:
            for index, answer in super().answers(requests):
                self.asked.append(requests[index].text)
                self.shown.append(len(requests))
                if error := self.fails.get(requests[index].text):
                    answer = replace(answer, texts=(), finish_reasons=(), error=error)
                    answer = replace(answer, refused=error.startswith("HTTP 400"))
                yield index, replace(answer, prompt_tokens=10, completion_tokens=3)
        finally:
            self.closed = True


def paraphrase(text, n=2, draw=0):
    return Request("paraphrase_chosen", "What is a lark?", text, "A fish.", n, draw)


@pytest.fixture
def store(tmp_path):
    with GenerationStore(tmp_path) as store:
        yield store


def test_answers_come_in_the_order_of_the_requests(store):
    requests = [paraphrase(f"There are {count} larks in the big tree.") for count in (3, 1, 2)]
    answers = Generator(Watched(), store).generate(requests)
    for request, answer in zip(requests, answers, strict=True):
        assert len(answer.texts) == 2
        assert all(request.text.split()[2] in text for text in answer.texts)


def test_what_the_store_has_is_not_sent_again(store):
    texts = ["A lark is a small bird.", "Larks usually sing in flight."]
    first = Generator(Watched(), store).generate([paraphrase(text) for text in texts])
    backend = Watched()
    generator = Generator(backend, store)
    requests = [paraphrase("It cannot swim."), *map(paraphrase, texts)]
    assert generator.generate(requests)[1:] == first
    assert backend.asked == ["It cannot swim."]
    assert (generator.counts.requests, generator.counts.sent, generator.counts.cached) == (3, 1, 2)


def test_what_another_process_stored_meanwhile_is_not_sent(store, tmp_path):
    with GenerationStore(tmp_path) as other:
        Generator(Watched(), other).generate([paraphrase("A lark is a small bird.")])
    backend = Watched()
    Generator(backend, store).generate([paraphrase("A lark is a small bird.")])
    assert backend.asked == []


def test_identical_requests_are_sent_once_and_all_answered(store):
    backend = Watched()
    generator = Generator(backend, store)
    done = []
    same = paraphrase("A lark is a small bird.")
    answers = generator.generate(
        [same, paraphrase("It cannot swim."), same], lambda: done.append(generator.counts.requests)
    )
    assert len(backend.asked) == 2
    assert answers[0] == answers[2]
    assert len(done) == 3
    assert (generator.counts.requests, generator.counts.sent, generator.counts.cached) == (3, 2, 1)


def test_another_draw_or_number_of_samples_is_another_request(store):
    backend = Watched()
    text = "A lark is a small bird that usually sings in flight."
    Generator(backend, store).generate([paraphrase(text), paraphrase(text, draw=1), paraphrase(text, n=3)])
    assert len(backend.asked) == 3


def test_few_failures_are_handed_back_and_asked_again_next_time(store):
    requests = [paraphrase(f"There are {count} larks.") for count in range(20)]
    generator = Generator(Watched(fails={"There are 7 larks.": "HTTP 400: too long"}), store)
    answers = generator.generate(requests)
    assert [index for index, answer in enumerate(answers) if answer.error] == [7]
    assert generator.counts.failed == 1
    assert (generator.counts.prompt_tokens, generator.counts.completion_tokens) == (200, 60)
    backend = Watched()
    assert all(answer.error is None for answer in Generator(backend, store).generate(requests))
    assert backend.asked == ["There are 7 larks."]


def test_too_many_failures_raise_with_reasons_after_the_rest_is_stored(store):
    fails = {f"There are {count} larks.": "ConnectError: refused" for count in range(1, 9)}
    fails["There are 1 larks."] = "HTTP 400: too long"
    generator = Generator(Watched(fails), store, max_failed_share=0.1)
    requests = [paraphrase(f"There are {count} larks.") for count in range(20)]
    with pytest.raises(GenerationError, match=r"8 of 20 .* 7 × ConnectError, 1 × HTTP 400.*too long"):
        generator.generate(requests)
    assert len(store) == 12


def test_a_share_of_failures_at_the_limit_is_let_pass(store):
    fails = {f"There are {count} larks.": "HTTP 400: no" for count in range(6)}
    generator = Generator(Watched(fails), store, max_failed_share=0.1)
    assert len(generator.generate([paraphrase(f"There are {count} larks.") for count in range(60)])) == 60


def test_a_share_of_failures_that_was_let_pass_is_let_pass_again_when_the_rest_is_stored(store):
    fails = {f"There are {count} larks.": "HTTP 400: too long" for count in range(6)}
    requests = [paraphrase(f"There are {count} larks.") for count in range(60)]
    for _ in range(2):
        answers = Generator(Watched(fails), store, max_failed_share=0.1).generate(requests)
        assert sum(answer.error is not None for answer in answers) == 6


def test_one_malformed_answer_in_a_small_late_call_does_not_end_a_run(store):
    generator = Generator(Watched({"There are 1 larks.": "not JSON"}), store, max_failed_share=0.05)
    assert generator.generate([paraphrase("There are 1 larks.")])[0].error == "not JSON"


def test_failures_add_up_over_the_calls_of_a_step(store):
    fails = {f"There are {count} larks.": "HTTP 400: no" for count in range(6)}
    generator = Generator(Watched(fails), store, max_failed_share=0.05)
    for count in range(5):
        generator.generate([paraphrase(f"There are {count} larks.")])
    with pytest.raises(GenerationError, match="6 of 6"):
        generator.generate([paraphrase("There are 5 larks.")])


def test_a_request_that_fails_twice_has_failed_once_and_one_that_recovers_has_not(store):
    request = paraphrase("There are 7 larks.")
    generator = Generator(backend := Watched({request.text: "HTTP 500: overloaded"}), store)
    generator.generate([request])
    generator.generate([request])
    assert (generator.counts.sent, generator.counts.failed) == (2, 1)
    backend.fails.clear()
    generator.generate([request])
    assert (generator.counts.sent, generator.counts.failed) == (3, 0)


def test_a_dead_server_is_not_asked_to_the_end(store):
    requests = [paraphrase(f"There are {count} larks.") for count in range(3 * GIVE_UP_AFTER)]
    backend = Watched({request.text: "ConnectError: refused" for request in requests})
    with pytest.raises(GenerationError, match="ConnectError"):
        Generator(backend, store).generate(requests)
    assert len(backend.asked) == GIVE_UP_AFTER
    assert backend.closed


def test_where_nothing_but_failures_comes_for_long_a_call_ends_whatever_share_they_are(store, monkeypatch):
    monkeypatch.setattr("mars_core.generation.generator.GIVE_UP_SECONDS", 0.0)
    requests = [paraphrase(f"There are {count} larks.") for count in range(5 * GIVE_UP_AFTER)]
    backend = Watched({request.text: "HTTP 502: bad gateway" for request in requests[GIVE_UP_AFTER:]})
    with pytest.raises(GenerationError, match=r"100 of 200 requests failed, nothing else for 0 minutes"):
        Generator(backend, store, max_failed_share=1).generate(requests)
    assert len(backend.asked) == 2 * GIVE_UP_AFTER


@pytest.mark.parametrize("sign", [None, "HTTP 400: too long"])
def test_an_answer_or_a_refusal_between_failures_is_a_sign_of_life(store, monkeypatch, sign):
    monkeypatch.setattr("mars_core.generation.generator.GIVE_UP_SECONDS", 0.0)
    requests = [paraphrase(f"There are {count} larks.") for count in range(5 * GIVE_UP_AFTER)]
    fails = {
        request.text: "HTTP 502: bad gateway" if number % GIVE_UP_AFTER else sign
        for number, request in enumerate(requests)
    }
    backend = Watched(fails)
    Generator(backend, store, max_failed_share=1).generate(requests)
    assert len(backend.asked) == len(requests)


def test_an_interruption_loses_no_answer_and_closes_the_backend(store):
    backend = Watched()

    def interrupt():
        if len(store) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Generator(backend, store).generate(
            [paraphrase(f"{count} larks sing.") for count in range(9)], interrupt
        )
    assert len(store) == 3
    assert backend.closed


def test_counts_hold_at_every_answer_and_can_be_taken_step_by_step(store):
    generator = Generator(Watched(), store)
    seen = []

    def look():
        counts = generator.counts
        assert counts.requests == counts.sent + counts.cached
        seen.append((counts.sent, counts.completion_tokens, counts.seconds))

    generator.generate([paraphrase(f"There are {count} larks.") for count in range(4)], look)
    assert [(sent, tokens) for sent, tokens, _ in seen] == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert 0 < seen[0][2] <= seen[-1][2] <= generator.counts.seconds
    afresh = generator.afresh()
    assert (afresh.backend, afresh.store) == (generator.backend, generator.store)
    assert afresh.counts == GenerationCounts()
    afresh.generate([paraphrase("No lark.")])
    assert (generator.counts.sent, afresh.counts.sent) == (4, 1)


def test_counts_become_metrics_of_their_section(store):
    generator = Generator(Watched(), store)
    for _ in range(2):
        generator.generate([paraphrase("A lark is a small bird.")])
    metrics = generator.counts.metrics("rewriting")
    assert metrics.pop("rewriting/seconds") == generator.counts.seconds
    assert metrics == {
        "rewriting/requests": 2.0,
        "rewriting/sent": 1.0,
        "rewriting/cached": 1.0,
        "rewriting/failed": 0.0,
        "rewriting/retries": 0.0,
        "rewriting/prompt_tokens": 10.0,
        "rewriting/completion_tokens": 3.0,
    }


def test_offline_the_store_alone_answers(store):
    requests = [paraphrase(f"There are {count} larks.") for count in range(4)]
    answers = Generator(Watched(), store).generate(requests)
    backend = Watched()
    offline = Generator(backend, store, offline=True)
    assert offline.generate(requests) == answers
    missing = [paraphrase("No lark.", draw=1), Request("rewrite_chosen", "p", "Yes, a lark.", "No.", 2)]
    with pytest.raises(GenerationError) as error:
        offline.generate([*requests, *missing])
    for said in (
        "2 requests (1 × paraphrase_chosen, 1 × rewrite_chosen)",
        "draw 1: 'No lark.'",
        store.folder,
    ):
        assert str(said) in str(error.value)
    assert backend.asked == []


# Conversations


def counted_down(arrived):
    """The next draw of each text, as long as its topic says."""
    for left, request, _ in arrived:
        if left:
            yield left - 1, replace(request, draw=request.draw + 1)


def test_what_follows_from_an_answer_is_asked_until_nothing_follows(store):
    generator = Generator(Watched(), store)
    generator.converse([(left, paraphrase(f"There are {left} larks.")) for left in (2, 0)], counted_down)
    assert len(store) == generator.counts.requests == 4
    assert all(generator.has(paraphrase("There are 2 larks.", draw=draw)) for draw in range(3))


def test_what_follows_from_an_answer_is_asked_before_the_last_answer_is_there(store):
    backend = Watched()
    first = [(1, paraphrase(f"There are {count} larks.")) for count in range(200)]
    Generator(backend, store).converse(first, counted_down)
    assert len(backend.asked) == 400
    assert backend.shown[0] == 200
    assert max(shown for number, shown in enumerate(backend.shown) if number < 200) > 200


def test_what_the_store_has_is_replied_to_before_anything_is_sent(store):
    stored = [paraphrase(f"There are {count} larks.") for count in range(3)]
    Generator(Watched(), store).generate(stored)
    backend, heard = Watched(), []

    def hear(arrived):
        heard.extend((request.text, len(backend.asked)) for _, request, _ in arrived)
        return ()

    Generator(backend, store).converse(
        [(None, paraphrase("No lark.")), *((None, one) for one in stored)], hear
    )
    assert sorted(heard[:3]) == [(request.text, 0) for request in stored]
    assert heard[3:] == [("No lark.", 1)]


def test_a_request_that_is_under_way_is_not_sent_again_and_its_answer_serves_both(store):
    backend, heard = Watched(), []
    same = paraphrase("A lark is a small bird.")
    others = [("other", paraphrase(f"There are {count} larks.")) for count in range(9)]

    def ask_for_the_same(arrived):
        heard.extend(topic for topic, request, _ in arrived if request == same)
        return [("later", same) for topic, request, _ in arrived if request == others[0][1]]

    Generator(backend, store).converse([*others, ("first", same)], ask_for_the_same)
    assert backend.asked.count(same.text) == 1
    assert sorted(heard) == ["first", "later"]


def test_a_request_that_failed_can_be_asked_again_in_the_same_conversation(store):
    request = paraphrase("There are 7 larks.")
    backend, errors = Watched({request.text: "HTTP 500: overloaded"}), []

    def again(arrived):
        for _, _, answer in arrived:
            errors.append(answer.error)
            backend.fails.clear()
            if answer.error:
                yield None, request

    generator = Generator(backend, store)
    generator.converse([(None, request)], again)
    assert errors == ["HTTP 500: overloaded", None]
    assert (generator.counts.sent, generator.counts.failed) == (2, 0)


def test_offline_what_follows_from_a_stored_answer_must_be_stored_too(store):
    Generator(Watched(), store).generate([paraphrase("No lark.")])
    with pytest.raises(GenerationError, match=r"draw 1: 'No lark\.'"):
        Generator(Watched(), store, offline=True).converse([(1, paraphrase("No lark."))], counted_down)


class Forgetful(Watched):
    """Answers what it was asked at first, and nothing that is added."""

    def answers(self, requests):
        yield from super().answers(list(requests))


def test_a_backend_that_leaves_requests_unanswered_ends_the_call(store):
    def ask_once_more(arrived):
        return [(None, paraphrase("Larks sing.", draw=1)) for _, request, _ in arrived if request.draw == 0]

    with pytest.raises(GenerationError, match="ended with 1 requests unanswered"):
        Generator(Forgetful(), store).converse([(None, paraphrase("Larks sing."))], ask_once_more)


class LateSuccesses(Watched):
    """Fails of the first requests; what had arrived when it is given up would excuse the failures."""

    def answers(self, requests):
        found = list(super().answers(requests))
        failing = GIVE_UP_AFTER + 10
        try:
            for index, answer in found[:failing]:
                yield index, replace(answer, texts=(), finish_reasons=(), error="HTTP 500: down")
        except Enough:
            yield from found[failing:]
            raise


def test_a_call_that_gave_up_fails_whatever_had_arrived_by_then(store):
    requests = [paraphrase(f"Larks sing {number} songs.") for number in range(2_000)]
    with pytest.raises(GenerationError, match="requests failed"):
        Generator(LateSuccesses(), store).generate(requests)
