"""The vLLM backend against a scripted server, which stands for a real one: that cannot run in unit tests."""

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mars_core.generation import GenerationConfig, GenerationError, Request
from mars_core.generation.backends.vllm import CONTINUED, NEUTRAL, TRIES, VllmBackend
from mars_core.generation.instructions import ROLES


def completion(*texts, reason="stop"):
    """A chat completion with one choice a text; a text may be (text, finish reason)."""
    choices = [text if isinstance(text, tuple) else (text, reason) for text in texts]
    return 200, {
        "choices": [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
            for index, (text, reason) in enumerate(choices)
        ],
        "usage": {"prompt_tokens": 30, "completion_tokens": 12},
    }


class ScriptedServer(ThreadingHTTPServer):
    """Answers chat requests by `script(number of the request, body)` → (status, JSON object or text)."""

    daemon_threads = True

    def __init__(self, script, models=("m",), models_status=200):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.models = models_status, {"data": [{"id": name} for name in models]}
        self.bodies, self.headers = [], []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    def handle_error(self, *_):
        """A client that has gone away is nothing to report."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(*(self.server.models if self.path == "/v1/models" else (404, "no")))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            number = len(self.server.bodies) - 1
            self.server.in_flight += 1
            self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        status, content = self.server.script(number, body)
        with self.server.lock:
            self.server.in_flight -= 1
        self.reply(status, content)

    def reply(self, status, content):
        if status is None:  # hang up
            self.close_connection = True
            return
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def serving(script, **options):
    server = ScriptedServer(script, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def backend(url, **options):
    config = GenerationConfig(backend="vllm", model="m", options={"base_url": url} | options)
    return VllmBackend(config, pause=lambda failures: 0.0)


def paraphrase(text="Larks sing in flight.", n=2, draw=0):
    return Request("paraphrase_chosen", "What is a lark?", text, "A fish.", n, draw)


def answer_to(server, request=None, **options):
    ((_, answer),) = backend(server.url, **options).answers([request or paraphrase()])
    return answer


def test_all_samples_come_from_one_request_that_says_everything():
    with serving(lambda *_: completion("In flight larks sing.", '"Larks sing as they fly."')) as server:
        request = paraphrase(draw=3)
        answer = answer_to(server, request, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert answer.texts == ("In flight larks sing.", '"Larks sing as they fly."')
    assert answer.finish_reasons == ("stop", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.error) == (30, 12, None)
    (body,) = server.bodies
    assert "Larks sing in flight." in body.pop("messages")[1]["content"]
    assert body == {
        "model": "m",
        "n": 2,
        **NEUTRAL,
        "temperature": 0.8,
        "top_p": 0.95,
        "max_tokens": 48,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_a_reply_whose_beginning_the_prompts_hold_is_asked_to_go_on(tmp_path):
    for role in ROLES:
        begun = "\n---\nOtherwise:" if role == "paraphrase_chosen" else ""
        (tmp_path / f"{role}.txt").write_text(
            f"Be brief.\n---\nSay it otherwise: ${role.partition('_')[2]}{begun}"
        )
    with serving(lambda *_: completion("one")) as server:
        config = GenerationConfig(
            backend="vllm", model="m", prompts=str(tmp_path), options={"base_url": server.url}
        )
        asking = VllmBackend(config)
        dict(asking.answers([paraphrase(), Request("rewrite_chosen", "p", "c", "r", 1)]))
    by_role = {body["messages"][-1]["role"]: body for body in server.bodies}
    assert by_role["assistant"]["messages"][-1]["content"] == "Otherwise:"
    sent = {role: [body.get(name) for name in CONTINUED] for role, body in by_role.items()}
    assert sent == {"assistant": [False, True], "user": [None, None]}


def test_the_key_of_the_server_is_sent_if_there_is_one(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(lambda *_: completion("a", "b")) as server:
        answer_to(server, api_key_env="MY_KEY")
        answer_to(server, api_key_env="NO_SUCH_KEY")
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer secret", None]


@pytest.mark.parametrize(
    "trouble", [(500, "oops"), (503, "starting"), (429, "slow down"), (408, "late"), (None, "")]
)
def test_passing_trouble_is_tried_again(trouble):
    with serving(lambda number, _: trouble if number < 2 else completion("one", "two")) as server:
        assert answer_to(server).texts == ("one", "two")
    assert len(server.bodies) == 3


def test_lasting_trouble_costs_the_request_alone():
    def script(_, body):
        return (
            (500, "out of memory") if "boom" in body["messages"][1]["content"] else completion("one", "two")
        )

    with serving(script) as server:
        answers = dict(backend(server.url).answers([paraphrase("boom"), paraphrase("fine")]))
    assert answers[0].error == "HTTP 500: out of memory"
    assert not answers[0].refused
    assert answers[0].texts == ()
    assert answers[1].texts == ("one", "two")
    assert len(server.bodies) == TRIES["lost or refused"] + 1


def test_a_request_that_is_at_fault_is_not_tried_again():
    with serving(lambda *_: (400, {"message": "maximum context length is 2048"})) as server:
        answer = answer_to(server)
    assert answer.error.startswith("HTTP 400: ")
    assert answer.refused
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "content",
    [
        "<html>gateway</html>",
        "",
        "[]",
        "null",
        {"choices": []},
        {"choices": [{"text": "no message"}]},
        {},
        completion(" ", None)[1],
        completion("one", reason=["stop"])[1],
        completion("one", reason=None)[1],
        completion("one")[1] | {"usage": {"prompt_tokens": "many"}},
        completion("one")[1] | {"usage": {"completion_tokens": float("inf")}},
        completion("one")[1] | {"usage": [30, 12]},
    ],
)
def test_a_malformed_answer_costs_its_request_alone(content):
    with serving(
        lambda number, body: (200, content) if body["n"] == 1 else completion("one", "two")
    ) as server:
        answers = dict(backend(server.url).answers([paraphrase(n=1), paraphrase(n=2)]))
    assert answers[0].error.startswith("malformed answer: ")
    assert answers[1].texts == ("one", "two")
    assert len(server.bodies) == TRIES["malformed"] + 1


def test_every_sample_is_kept_as_it_came_beside_its_finish_reason():
    samples = [(" A whole text.\n", "stop"), ("A text that is cu", "length"), ("  ", "stop"), (None, "stop")]
    with serving(lambda *_: completion(*samples)) as server:
        answer = answer_to(server)
    assert answer.texts == (" A whole text.\n", "A text that is cu", "  ", "")
    assert answer.finish_reasons == ("stop", "length", "stop", "stop")
    assert answer.error is None


@pytest.mark.parametrize(("tokens", "reason"), [(95, "stop"), (96, "length")])
def test_samples_that_took_all_tokens_were_cut_off_whatever_the_server_says(tokens, reason):
    reply = completion("Larks sing in", "Larks are")[1] | {"usage": {"completion_tokens": tokens}}
    with serving(lambda *_: (200, reply)) as server:
        answer = answer_to(server)
    assert server.bodies[0]["max_tokens"] == 48
    assert answer.finish_reasons == (reason, reason)


def test_tokens_that_come_as_text_are_counted():
    usage = {"prompt_tokens": "3", "completion_tokens": None}
    with serving(lambda *_: (200, completion("one", "two")[1] | {"usage": usage})) as server:
        answer = answer_to(server)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.error) == (3, 0, None)


def test_a_lone_surrogate_is_made_to_fit_into_a_file():
    with serving(lambda *_: completion("lark\ud800")) as server:
        assert answer_to(server).texts == ("lark?",)


def test_prompts_with_the_same_last_turn_have_keys_of_their_own():
    keys = {
        backend("http://127.0.0.1:1/v1").key(Request("paraphrase_prompt", prompt, "c", "r", n=2))
        for prompt in (
            "Human: A?\n\nAssistant: B.\n\nHuman: Why?",
            "Human: C?\n\nAssistant: D.\n\nHuman: Why?",
            "Why?",
        )
    }
    assert len(keys) == 3


def test_the_key_holds_what_shapes_a_text_and_not_where_it_came_from():
    def key(request=None, **settings):
        config = GenerationConfig(backend="vllm", **({"model": "m"} | settings))
        return VllmBackend(config).key(request or paraphrase())

    assert key() == key(options={"base_url": "http://elsewhere:9/v1", "concurrency": 1})
    others = [
        key(model="other"),
        key(paraphrase_chosen={"temperature": 0.7}),
        key(options={"extra_body": {"min_p": 0.1}}),
        key(paraphrase(n=3)),
        key(paraphrase(draw=1)),
    ]
    assert len({key(), *others}) == 6


def test_a_model_that_is_not_served_is_one_error_that_names_those_that_are():
    with (
        serving(lambda *_: completion("a"), models=("x/one", "x/two")) as server,
        pytest.raises(GenerationError, match="does not serve m; it serves x/one, x/two"),
    ):
        list(backend(server.url).answers([paraphrase()]))
    assert server.bodies == []


def test_an_address_where_nobody_answers_is_one_error_that_names_it():
    with serving(lambda *_: completion("a")) as server:
        url = server.url
    with pytest.raises(GenerationError, match=rf"no server answers at {url}.*vllm serve m"):
        list(backend(url).answers([paraphrase()]))


@pytest.mark.parametrize(("status", "advice"), [(401, "VLLM_API_KEY"), (404, r"options\.base_url")])
def test_a_server_that_lists_no_models_is_an_error_with_advice(status, advice):
    with (
        serving(lambda *_: completion("a"), models_status=status) as server,
        pytest.raises(GenerationError, match=rf"HTTP {status}: .*{advice}"),
    ):
        list(backend(server.url).answers([paraphrase()]))


@pytest.mark.parametrize("status", [401, 404])
def test_a_key_or_a_model_that_is_no_longer_right_ends_the_call(status):
    with (
        serving(lambda *_: (status, "no")) as server,
        pytest.raises(
            GenerationError, match=rf"HTTP {status}: no; its key, address or model is not the right one"
        ),
    ):
        list(backend(server.url).answers([paraphrase(str(number)) for number in range(20)]))


def test_between_two_calls_a_server_may_be_away_for_as_long_as_within_one():
    with serving(lambda *_: completion("a", "b")) as server:
        asking = backend(server.url, patience_seconds=0.5)
        list(asking.answers([paraphrase("one")]))
    said = r"nobody answers at .* any more; generation\.options\.patience_seconds"
    with pytest.raises(GenerationError, match=said):
        list(asking.answers([paraphrase("two")]))


def test_an_answer_that_thinking_used_up_is_cut_off_and_kept():
    with serving(lambda *_: completion(("", "length"), ("", "length"))) as server:
        answer = answer_to(server)
    assert (answer.error, answer.finish_reasons, answer.completion_tokens) == (None, ("length", "length"), 12)
    assert len(server.bodies) == 1


OPENAI = (400, {"error": {"message": "Unrecognized request arguments supplied: {}", "code": None}})
ONE_AT_A_TIME = (
    400,
    {"error": {"message": "Unsupported parameter: '{}'.", "param": "{}", "code": "unsupported_parameter"}},
)
EXTRA = (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "{}"], "input": -1}]})


def strict(refusal, unknown):
    """A server that refuses these fields, by the first one alone where it names one at a time."""

    def script(_, body):
        found = [name for name in body if name in unknown]
        if not found:
            return completion("one")
        named = ", ".join(found) if refusal is OPENAI else found[0]
        return refusal[0], json.dumps(refusal[1]).replace("{}", named)

    return script


@pytest.mark.parametrize("refusal", [OPENAI, ONE_AT_A_TIME, EXTRA], ids=["all", "one at a time", "422"])
def test_fields_that_a_server_refuses_are_found_by_a_small_request_with_the_keys_that_leave_them_out(refusal):
    unknown = ("top_k", "min_p", "repetition_penalty", "max_tokens")
    with serving(strict(refusal, unknown)) as server:
        with pytest.raises(GenerationError, match=f"refuses fields.*HTTP {refusal[0]}") as error:
            backend(server.url).check()
        for name in unknown:
            assert f"generation.options.extra_body.{name}=null" in str(error.value)
        left_out = dict.fromkeys(unknown) | {"max_completion_tokens": 99}
        backend(server.url, extra_body=left_out).check()
    assert server.bodies[-1]["max_completion_tokens"] == 99
    assert not set(unknown) & set(server.bodies[-1])


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (401, "no", "its key, address or model is not the right one"),
        (400, "no chat template is there", "m has no chat template"),
        (400, "this account is closed", "refuses even a small request: HTTP 400: this account is closed"),
    ],
)
def test_what_would_refuse_every_request_is_found_by_the_first(status, said, told):
    with (
        serving(lambda *_: (status, said)) as server,
        pytest.raises(GenerationError, match=told),
    ):
        backend(server.url).check()


@pytest.mark.parametrize("status", [429, 503])
def test_what_passes_is_left_to_the_requests_that_are_tried_again(status):
    with serving(lambda *_: (status, "later")) as server:
        backend(server.url).check()
    assert len(server.bodies) == 1


def test_a_base_model_is_an_error_that_says_so():
    message = {"message": "you must provide a chat template if the tokenizer does not define one."}
    with (
        serving(lambda *_: (400, message)) as server,
        pytest.raises(GenerationError, match="m has no chat template, as base models do"),
    ):
        list(backend(server.url).answers([paraphrase(str(number)) for number in range(20)]))


def test_many_requests_are_in_flight_at_once_and_never_more_than_allowed():
    def script(*_):
        time.sleep(0.02)
        return completion("one", "two")

    with serving(script) as server:
        requests = [paraphrase(f"{number} larks") for number in range(40)]
        answers = dict(backend(server.url, concurrency=8).answers(requests))
    assert sorted(answers) == list(range(40))
    assert 4 <= server.most_in_flight <= 8


def test_requests_that_are_added_while_answers_are_taken_are_answered_too():
    asked = [paraphrase("0 larks")]
    with serving(lambda *_: completion("one", "two")) as server:
        found = []
        for index, answer in backend(server.url).answers(asked):
            found.append((index, answer.error))
            asked += [paraphrase(f"{len(asked) + more} larks") for more in range(2) if len(asked) < 9]
    assert sorted(found) == [(index, None) for index in range(9)]
    assert len(server.bodies) == 9


def test_an_added_request_does_not_wait_for_those_under_way():
    release = threading.Event()

    def script(_, body):
        if "slow" in body["messages"][1]["content"]:
            release.wait(20)
        return completion("one", "two")

    asked = [paraphrase("slow"), paraphrase("quick")]
    with serving(script) as server:
        stream = backend(server.url).answers(asked)
        assert next(stream)[0] == 1
        asked.append(paraphrase("quick, too"))
        assert next(stream)[0] == 2
        release.set()
        assert [index for index, _ in stream] == [0]


def test_an_added_request_goes_before_those_that_nothing_has_been_sent_of():
    added = threading.Event()

    def script(_, body):
        if "second" in body["messages"][1]["content"]:
            added.wait(20)
        return completion("one", "two")

    asked = [paraphrase("first"), paraphrase("second"), paraphrase("third")]
    with serving(script) as server:
        stream = backend(server.url, concurrency=1).answers(asked)
        assert next(stream)[0] == 0
        asked.append(paraphrase("what follows from the first"))
        threading.Timer(0.3, added.set).start()
        assert [index for index, _ in stream] == [1, 3, 2]


def test_the_backend_of_a_launched_server_asks_there_with_the_key_of_that_server(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "of another server")
    config = GenerationConfig(
        backend="vllm", model="m", options={"base_url": "http://elsewhere:9/v1", "concurrency": 3}
    )
    with serving(lambda *_: completion("one", "two")) as server:
        launched = VllmBackend.of_launched(config, [server.url.removesuffix("/v1")], "its own")
        list(launched.answers([paraphrase()]))
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer its own"]
    assert launched.key(paraphrase()) == VllmBackend(config).key(paraphrase())


def is_event_loop(thread):
    return "run_until_complete" in thread.name


def test_closing_the_iterator_ends_what_is_under_way_at_once():
    release = threading.Event()

    def script(number, _):
        if number:
            release.wait(20)
        return completion("one", "two")

    with serving(script) as server:
        stream = backend(server.url, concurrency=4).answers([paraphrase(str(number)) for number in range(50)])
        next(stream)
        assert any(map(is_event_loop, threading.enumerate()))
        started = time.monotonic()
        stream.close()
        took = time.monotonic() - started
        assert not any(map(is_event_loop, threading.enumerate()))
        release.set()
    assert took < 2
    assert len(server.bodies) <= 6


def test_a_request_that_takes_too_long_fails_without_a_second_try():
    def script(*_):
        time.sleep(0.5)
        return completion("one", "two")

    with serving(script) as server:
        assert answer_to(server, timeout_seconds=0.1).error.startswith("ReadTimeout")
    assert len(server.bodies) == 1


ASK = """
import sys
from mars_core.generation import GenerationConfig, Request
backend = GenerationConfig(backend="vllm", model="m", options={"base_url": sys.argv[1]}).open()
list(backend.answers([Request("paraphrase_chosen", "p", "c", "r", 1)]))
"""


def test_an_interrupt_from_the_keyboard_ends_the_wait_at_once():
    asked, release = threading.Event(), threading.Event()

    def script(*_):
        asked.set()
        release.wait(20)
        return completion("one")

    with (
        serving(script) as server,
        subprocess.Popen(
            [sys.executable, "-c", ASK, server.url], stderr=subprocess.PIPE, text=True
        ) as asking,
    ):
        assert asked.wait(20)
        asking.send_signal(signal.SIGINT)
        _, said = asking.communicate(timeout=5)
        release.set()
    assert said.strip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "Larks "}, {"type": "text", "text": "sing."}]}, "Larks sing."),
        (
            {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Larks sing."}]},
            "Larks sing.",
        ),
        ({"content": None, "refusal": "That is not for me."}, "That is not for me."),
    ],
)
def test_content_in_parts_is_joined_and_a_refusal_beside_it_is_one(message, text):
    reply = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": completion("")[1]["usage"]}
    with serving(lambda *_: (200, reply)) as server:
        answer = answer_to(server, paraphrase(n=1))
    assert answer.texts == (text,)
    assert answer.finish_reasons == ("refusal" if message.get("refusal") else "stop",)
