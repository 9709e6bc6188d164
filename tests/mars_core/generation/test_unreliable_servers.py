"""The client against servers that fail in every known way, over real connections."""

import asyncio
import hashlib
import json
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

from mars_core.generation import GenerationConfig, GenerationError, GenerationStore, Generator, Request
from mars_core.generation.backends import vllm
from mars_core.generation.backends.vllm import VllmBackend
from mars_core.generation.concurrency import START
from mars_core.method.augmentation import AugmentationConfig, Parent, augment
from mars_core.method.guards import Guards, GuardsConfig

SHARES = {"500": 0.05, "429": 0.02, "hang": 0.01, "empty": 0.01, "cut": 0.01, "not JSON": 0.01}
REQUESTS = 500
BUDGET = 500
TIMEOUT_SECONDS = 2.0


def completion(text, reason="stop"):
    return {
        "choices": [{"message": {"content": text}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 12},
    }


class Server:
    """An OpenAI-compatible server of one asyncio loop; `behave(text, try)` names what befalls a request."""

    def __init__(self, behave=lambda text, number: "answer", seconds=0.0):
        self.behave = behave
        self.seconds = seconds
        self.tries = Counter()
        self.answered = set()
        self.sent_again = []
        self.behaviours = Counter()
        self.in_flight = self.most_in_flight = 0
        self.began = []

    async def handle(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self.respond(head, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def respond(self, head, reader, writer):
        if head.startswith(b"GET"):
            write(writer, 200, json.dumps({"data": [{"id": "m"}]}))
            return
        length = next(
            int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        asked = json.loads(await reader.readexactly(length))["messages"][1]["content"]
        self.began.append(time.monotonic())
        if asked in self.answered:
            self.sent_again.append(asked)
        self.tries[asked] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        behaviour = self.behave(asked, self.tries[asked])
        self.behaviours[behaviour] += 1
        try:
            await asyncio.sleep(self.seconds(asked) if callable(self.seconds) else self.seconds)
            if behaviour == "hang":
                await reader.read()  # until the client has gone
                raise ConnectionError
        finally:
            self.in_flight -= 1
        if behaviour in ("answer", "cut"):
            self.answered.add(asked)
        status, content = {
            "answer": (200, completion("Larks sing.")),
            "cut": (200, completion("Larks si", "length")),
            "empty": (200, completion("")),
            "not JSON": (200, None),
            "500": (500, "oops"),
            "429": (429, "slow down"),
        }[behaviour]
        write(writer, status, json.dumps(content) if content else "<html>")


def write(writer, status, content):
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n"
    writer.write((head + ("Retry-After: 0.2\r\n" if status == 429 else "") + "\r\n" + content).encode())


@contextmanager
def serving(server, port=0):
    """Run a server on a loop in a thread; closing drops its connections, as a killed one does."""
    loop, started = asyncio.new_event_loop(), threading.Event()

    async def run():
        listening = await asyncio.start_server(server.handle, "127.0.0.1", port)
        server.port = listening.sockets[0].getsockname()[1]
        server.url = f"http://127.0.0.1:{server.port}/v1"
        server.stop = asyncio.Event()
        started.set()
        await server.stop.wait()
        listening.close()
        handling = asyncio.all_tasks() - {asyncio.current_task()}
        for task in handling:
            task.cancel()
        await asyncio.gather(*handling)
        await asyncio.sleep(0)  # in which the connections are closed

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(5)
    server.end = lambda: loop.call_soon_threadsafe(server.stop.set)
    try:
        yield server
    finally:
        if thread.is_alive():
            server.end()
        thread.join()
        loop.close()


def requests(count, start=0):
    return [
        Request("paraphrase_chosen", "What is a lark?", f"Lark {number} sings.", "A fish.", 1)
        for number in range(start, start + count)
    ]


def backend(*urls, **options):
    config = GenerationConfig(backend="vllm", model="m", options={"base_url": urls} | options)
    return VllmBackend(config, pause=lambda failures: 0.02 * failures)


def unreliably_served(server):
    """A backend with so little in flight that only what hangs times out, on a busy machine too."""
    return backend(server.url, timeout_seconds=TIMEOUT_SECONDS, concurrency=32)


def unreliable(text, number):
    """The same for the same text and try in every run."""
    chance = int(hashlib.sha256(f"{text} {number}".encode()).hexdigest(), 16) % 10_000 / 10_000
    for behaviour, share in SHARES.items():
        if (chance := chance - share) < 0:
            return behaviour
    return "answer"


def test_requests_to_an_unreliable_server_end_answered_or_accounted_for(tmp_path):
    asked = requests(REQUESTS)
    with serving(Server(unreliable, seconds=0.002)) as server, GenerationStore(tmp_path) as store:
        generator = Generator(unreliably_served(server), store)
        answers = generator.generate(asked)
        failed = [request for request, answer in zip(asked, answers, strict=True) if answer.error]
        counts = generator.counts
        assert set(server.behaviours) == {"answer", *SHARES}
        assert len(store) == len(server.answered) == REQUESTS - len(failed)
        assert (counts.sent, counts.failed) == (REQUESTS, len(failed))
        assert counts.retries >= server.tries.total() - REQUESTS > 25
        cut = [answer.finish_reasons for answer in answers].count(("length",))
        assert 0 < cut <= server.behaviours["cut"]
        tries = server.tries.total()
        again = generator.generate(asked)
        assert server.tries.total() - tries <= 8 * len(failed)
        assert server.sent_again == []
    assert all(new == old for old, new in zip(answers, again, strict=True) if old.error is None)


class SameMeaning:
    """An embedder for which all texts mean the same."""

    texts_cut = 0

    def distances(self, texts, others):
        return np.zeros(len(texts), dtype=np.float32)


def test_a_budget_of_requests_to_an_unreliable_server_is_spent_or_accounted_for(tmp_path):
    def spend(generator):
        parents = [
            Parent(f"{row}", "What is it?", f"Lark {row} sings.", f"Fish {row} swims.", 1)
            for row in range(BUDGET)
        ]
        made = augment(parents, generator, Guards(GuardsConfig(), SameMeaning()), AugmentationConfig())
        return made.pairs, made.shortfall

    with serving(Server(unreliable, seconds=0.002)) as server, GenerationStore(tmp_path) as store:
        asking = unreliably_served(server)
        first = Generator(asking, store)
        pairs, shortfall = spend(first)
        assert set(server.behaviours) == {"answer", *SHARES}
        assert first.counts.requests > BUDGET  # those that were cut off are drawn again
        assert len(pairs) + shortfall == BUDGET
        assert shortfall < BUDGET / 100
        stored = len(store)
        again = Generator(asking, store)
        pairs, shortfall = spend(again)
        assert len(pairs) + shortfall == BUDGET
        assert again.counts.cached >= BUDGET - first.counts.failed
        assert again.counts.sent == len(store) - stored + again.counts.failed


def test_servers_share_the_requests_by_their_load():
    quick, slow = Server(seconds=0.01), Server(seconds=0.05)
    with serving(quick), serving(slow):
        answers = dict(backend(quick.url, slow.url, concurrency=4).answers(requests(120)))
    assert not any(answer.error for answer in answers.values())
    assert quick.most_in_flight == slow.most_in_flight == 4
    assert quick.tries.total() > 2 * slow.tries.total() > 0


def test_a_server_that_was_never_there_is_left_out_while_another_lives():
    with serving(Server()) as dead:
        pass
    with serving(Server()) as living:
        answers = dict(backend(dead.url, living.url).answers(requests(50)))
    assert not any(answer.error for answer in answers.values())
    assert living.tries.total() == 50


def test_a_server_that_dies_and_returns_costs_no_request(monkeypatch):
    monkeypatch.setattr(vllm, "LEFT_OUT_SECONDS", 0.1)
    with serving(Server(seconds=0.01)) as living:
        with serving(Server(seconds=0.01)) as dying:
            asking = backend(living.url, dying.url, concurrency=4)
            stream = asking.answers(requests(400))
            answers = dict(next(stream) for _ in range(40))
            dying.end()
        with serving(Server(seconds=0.01), dying.port) as returned:
            answers |= dict(stream)
    assert len(answers) == 400
    assert not any(answer.error for answer in answers.values())
    assert returned.tries.total() > 20


def test_servers_that_come_and_go_in_the_middle_of_a_call_cost_no_request():
    with serving(Server(seconds=0.01)) as staying, serving(Server(seconds=0.01)) as coming:
        with serving(Server(seconds=0.01)) as going:
            asking = backend(going.url, staying.url, concurrency=4)
            stream = asking.answers(requests(400))
            answers = dict(next(stream) for _ in range(40))
            going.end()
            asking.reach([server.url.removesuffix("/v1") for server in (staying, coming)])
        answers |= dict(stream)
    assert len(answers) == 400
    assert not any(answer.error for answer in answers.values())
    assert coming.tries.total() > 20


def test_a_call_ends_when_no_server_is_left_and_none_comes():
    with serving(Server(seconds=0.01)) as server:
        asking = backend(server.url, concurrency=4)
        stream = asking.answers(requests(400))
        next(stream)
        asking.reach([])
        with pytest.raises(GenerationError, match="no server is left"):
            list(stream)


def test_when_all_servers_have_gone_the_call_ends_and_what_was_answered_is_stored(monkeypatch, tmp_path):
    monkeypatch.setattr(vllm, "LEFT_OUT_SECONDS", 0.05)
    with GenerationStore(tmp_path) as store:
        with serving(Server(seconds=0.01)) as server:
            generator = Generator(backend(server.url, concurrency=4, patience_seconds=0.3), store)

            def end_at_fifty():
                if generator.counts.sent == 50:
                    server.end()

            with pytest.raises(GenerationError, match=rf"nobody answers at {server.url} any more"):
                generator.generate(requests(400), end_at_fifty)
        assert generator.counts.requests == generator.counts.sent == len(store) >= 50
        with serving(Server(), server.port) as returned:
            assert not any(answer.error for answer in generator.generate(requests(400)))
        assert not returned.tries.keys() & server.answered


def test_what_arrived_before_an_interruption_is_stored_though_nobody_had_looked_at_it(tmp_path):
    with serving(Server()) as server, GenerationStore(tmp_path) as store:
        generator = Generator(backend(server.url), store)

        def interrupt_late():
            deadline = time.monotonic() + 5
            while server.tries.total() < 30 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.3)  # in which the last answers arrive
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            generator.generate(requests(30), interrupt_late)
        assert len(store) == generator.counts.sent == 30


def test_retry_after_is_waited_for():
    with serving(Server(lambda text, number: "429" if number == 1 else "answer")) as server:
        ((_, answer),) = backend(server.url).answers(requests(1))
    assert (answer.error, answer.retries) == (None, 1)
    assert server.began[1] - server.began[0] >= 0.2


def test_a_request_that_hangs_is_tried_once_more_and_no_oftener():
    def behave(text, _):
        return "hang" if text.count("Lark 7 ") else "answer"

    with serving(Server(behave, seconds=0.01)) as server:
        answers = dict(backend(server.url, timeout_seconds=0.3, concurrency=4).answers(requests(100)))
    assert [index for index, answer in answers.items() if answer.error] == [7]
    assert re.fullmatch(r"ReadTimeout: no answer within 0\.3\d* s", answers[7].error)
    assert [count for count in server.tries.values() if count > 1] in ([], [2])


@pytest.fixture
def impatient(monkeypatch):
    """Few answers tell the pace, and little more than what a request could take is waited."""
    monkeypatch.setattr(vllm, "PACE_OF", 8)
    monkeypatch.setattr(vllm, "HANGS_AFTER", 2.0)
    monkeypatch.setattr(vllm, "LEAST_PATIENCE", 0.5)


def test_a_request_that_hangs_is_given_up_by_the_pace_of_the_others(impatient):
    def behave(text, _):
        return "hang" if text.count("Lark 7 ") else "answer"

    with serving(Server(behave, seconds=0.01)) as server:
        started = time.monotonic()
        answers = dict(backend(server.url, timeout_seconds=600, concurrency=4).answers(requests(100)))
        took = time.monotonic() - started
    assert [index for index, answer in answers.items() if answer.error] == [7]
    assert answers[7].error.startswith("ReadTimeout: no answer within ")
    assert took < 60


def test_a_request_that_is_only_slow_for_its_length_is_waited_for(impatient):
    """Of 12 tokens each short one takes a twentieth of a second: a text of 512 may take two."""
    long = Request("paraphrase_chosen", "What is a lark?", "Larks sing. " * 200, "A fish.", 1)
    with serving(Server(seconds=lambda text: 2.0 if len(text) > 2000 else 0.05)) as server:
        asking = backend(server.url, timeout_seconds=600, concurrency=4)
        answers = dict(asking.answers([long, *requests(60)]))
    assert asking.config.max_tokens(long) == 512
    assert not any(answer.error for answer in answers.values())
    assert server.tries.total() == 61


def test_as_long_as_few_answers_tell_the_pace_the_configured_timeout_counts(monkeypatch):
    monkeypatch.setattr(vllm, "HANGS_AFTER", 0.0)
    monkeypatch.setattr(vllm, "LEAST_PATIENCE", 0.01)
    few = vllm.PACE_OF - 2
    with serving(Server(seconds=lambda text: 0.6 if "Lark 0 " in text else 0.0)) as server:
        answers = dict(backend(server.url, timeout_seconds=30).answers(requests(few)))
    assert not any(answer.error for answer in answers.values())


def test_an_answer_in_the_moment_in_which_another_request_is_given_up_ends_neither():
    async def both():
        exchange = vllm.Exchange(backend("http://127.0.0.1:1/v1"), requests(1), print)
        job = vllm.Job(0, exchange.requests[0])

        async def hang():
            async with asyncio.timeout(0) as job.patience:
                exchange.in_flight.add(job)
                await asyncio.sleep(60)

        hanging = asyncio.create_task(hang())
        while not (job.patience and job.patience.expired()):
            await asyncio.sleep(0)
        job.sent = -1e9  # by the pace of the answer that comes now it had been given up long ago
        assert not hanging.done()
        exchange._shorten_patience()
        await hanging

    with pytest.raises(TimeoutError):
        asyncio.run(both())


def test_a_server_that_is_too_slow_for_all_is_not_asked_twice_and_ever_less_at_once():
    asking = None
    with serving(Server(seconds=5)) as server:
        asking = backend(server.url, timeout_seconds=0.05)
        answers = dict(asking.answers(requests(100)))
    assert all(answer.error for answer in answers.values())
    assert max(server.tries.values()) == 1
    assert asking.servers[0].limit.limit <= START // 4


def test_a_server_that_refuses_beyond_its_capacity_is_asked_for_less_and_all_is_answered():
    def behave(*_):
        return "429" if server.in_flight > 10 else "answer"

    with serving(Server(behave, seconds=0.01)) as server:
        answers = dict(backend(server.url).answers(requests(400)))
    assert not any(answer.error for answer in answers.values())
    assert server.behaviours["429"] < server.behaviours["answer"]
