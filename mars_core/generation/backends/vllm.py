"""Texts from a model behind OpenAI-compatible servers, such as `vllm serve`.

All samples of a text are one request, so that the server computes its prompt once. Every sampling
field is sent, because servers apply a model's own defaults to those that are not. No seed is: it would not
reproduce a text in another batch, makes the server sample each request by itself, and ends vLLM on a CPU.
What was answered is kept in the store, never asked for twice; a further draw of a text is drawn anew.

What befalls a request:

- It goes to the server that has the most room left; `mars_core.generation.concurrency` says how much room
  each has. A server that refuses connections is left out, but for one request now and then.
- Lost connections, 429, 5xx and what else passes (408, 409, 425) are tried again after a random pause that
  grows, or after what the server asks for (Retry-After). A wrong key, address or model (401, 403, 404) ends
  the call. Any other 4xx is the request's own fault and fails at once.
- An answer that is no chat completion, or holds no text though it was not cut off, is asked for again, thrice
  in all.
- A request that hangs is tried once more, and that only if its server answered others meanwhile: a server
  that is merely slow is not asked for the same text twice. It hangs after `timeout_seconds`, or where others
  are answered after a multiple of what it could take at the slowest pace of late.
- A failure costs its request alone. Only when all servers refuse connections, for
  `patience_seconds`, the call ends.
"""

import asyncio
import email.utils
import logging
import math
import os
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Annotated, Any, Literal

import httpx
from pydantic import Field, JsonValue

from mars_core.config import Address, Configuration, Operational, Private
from mars_core.files import digest, sha256_of
from mars_core.generation import GenerationConfig
from mars_core.generation.backends.backend import Backend
from mars_core.generation.concurrency import ConcurrencyLimit
from mars_core.generation.instructions import ROLES, continues, ends_at
from mars_core.generation.interface import CUT_OFF, DECLINED, Answer, Enough, GenerationError, Request
from mars_core.model.checkpoints import content_of_checkpoint

logger = logging.getLogger(__name__)

Trouble = Literal["lost or refused", "malformed", "hung"]
TRIES: dict[Trouble, int] = {"lost or refused": 8, "malformed": 3, "hung": 2}
"""How often a request is sent, by what went wrong with it."""
CHECK_TRIES = 3
CONNECT_SECONDS = 10.0
LONGEST_PAUSE = 30.0
LEFT_OUT_SECONDS = 2.0
"""How long a server that refuses connections gets no request."""
PACE_OF = 32
"""The latest answers that tell how long one may take; with fewer, `timeout_seconds` alone counts."""
HANGS_AFTER = 5.0
"""How many times longer than the longest that it could take a request is waited for."""
LEAST_PATIENCE = 20.0
"""Seconds that are waited at least, for a server may stop for a moment."""
PASSING = {408, 409, 425, 429}
"""Statuses of a client's error that another try may not meet; so may it those of a server's, from 500 on."""
REFUSED = {400, 422}
"""Statuses by which servers refuse fields that they do not know, or values of these."""
NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Values without effect of the fields that a server would otherwise take from the model's own defaults."""
CONTINUED = {"add_generation_prompt": False, "continue_final_message": True}
"""Asks for the rest of a reply whose beginning is the last message; vLLM and others have these fields."""

Arrived = Callable[[tuple[int, Answer]], None]


def jittered(failures: int) -> float:
    """Seconds to wait after so many failures: random, so that those who failed together do not return so."""
    return random.uniform(0, min(LONGEST_PAUSE, 2.0**failures))


class VllmBackend(Backend):
    """Asks `config.model` at the addresses of `config.options`."""

    capabilities = frozenset({"chat", "server"})
    needs_model = True

    class Config(Configuration):
        """Where the servers are, and how they are asked."""

        extra_body: Annotated[dict[str, JsonValue], Private()] = Field(default_factory=dict)
        """Further fields of every request, as `{chat_template_kwargs: {enable_thinking: false}}`; null takes
        one away."""
        base_url: Annotated[Address | Annotated[tuple[Address, ...], Field(min_length=1)], Operational()] = (
            "http://127.0.0.1:8000/v1"
        )
        """Address of the server, up to and including its version, or a list of addresses of equal servers."""
        api_key_env: Annotated[str, Operational()] = "VLLM_API_KEY"
        """Environment variable that holds the servers' key; it may be unset."""
        concurrency: Annotated[int, Operational(), Field(ge=1)] = 128
        """Most requests in flight at once at each address; how many there are follows from the throughput."""
        timeout_seconds: Annotated[float, Operational(), Field(gt=0)] = 600.0
        """How long a server may take to answer one request."""
        patience_seconds: Annotated[float, Operational(), Field(ge=0)] = 90.0
        """How long all servers may refuse connections before generation stops with an error; one that the run
        launched has ended when it does, which stops it at once."""

        @property
        def addresses(self) -> tuple[str, ...]:
            """The servers' addresses, one or several."""
            return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    config: GenerationConfig
    options: Any

    def __init__(self, config: GenerationConfig, pause: Callable[[int], float] = jittered) -> None:
        """Ask as the section `generation` says; `pause` maps failures of a request to seconds."""
        super().__init__(config)
        self.options = config.options
        self.servers = [self._server(address) for address in self.options.addresses]
        self.pause = pause
        self.api_key = os.environ.get(self.options.api_key_env)
        self._checked = False

    def key(self, request: Request) -> str:
        """See `Backend.key`. The role's text counts beside the messages, which may hold a part of it."""
        asked = (request.role, request.text, request.n, request.draw, self.body(request))
        return digest(*asked, self._content) if self._content else digest(*asked)

    @cached_property
    def _content(self) -> str | None:
        """What a model of this machine counts by, for it may change under its name."""
        model = str(self.config.model)
        folder = Path(model).expanduser()
        if folder.is_dir():
            return sha256_of(folder)
        return content_of_checkpoint(model) if model.startswith("package://") else None

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `Backend.answers`. The requests run on an event loop in a thread of its own.

        Raises:
            GenerationError: nobody answers at any address, the key or the model is wrong, or the
                model has no chat template.
        """
        arrived: SimpleQueue[tuple[int, Answer] | None] = SimpleQueue()
        loop = asyncio.new_event_loop()
        exchange = Exchange(self, requests, arrived.put)
        work = loop.create_task(self._answer_all(exchange))
        work.add_done_callback(lambda _: arrived.put(None))
        thread = Thread(target=loop.run_until_complete, args=(asyncio.wait([work]),), daemon=True)
        thread.start()
        interruption: Enough | KeyboardInterrupt | None = None
        taken = 0
        try:
            while taken < len(requests) and (item := arrived.get()) is not None:
                taken += 1
                yield item
                loop.call_soon_threadsafe(exchange.take, len(requests))
            loop.call_soon_threadsafe(exchange.close)
            if taken == len(requests):
                arrived.get()
        except (Enough, KeyboardInterrupt) as error:
            interruption = error
        finally:
            loop.call_soon_threadsafe(work.cancel)
            thread.join()
            loop.close()
        if interruption is not None:
            while not arrived.empty():
                if (item := arrived.get()) is not None:
                    yield item
            raise interruption
        work.result()

    def check(self) -> None:
        """See `Backend.check`: also sends each server a small request with the fields of all others.

        Raises:
            GenerationError: as of `answers`, or a server refuses it: names the fields to leave out.
        """
        super().check()
        small = (Request(role, "What is a lark?", "A bird.", "A fish.", 1) for role in ROLES)
        bodies = {
            tuple(body): body for body in map(self.body, small)
        }  # roles differ in values, seldom in fields
        timeout = httpx.Timeout(self.options.timeout_seconds, connect=CONNECT_SECONDS)
        with httpx.Client(headers=self._headers, timeout=timeout) as client:
            for server in self.servers:
                for body in () if server.left_out_until else bodies.values():
                    self._try_fields(client, server.url, body)

    def _try_fields(self, client: httpx.Client, address: str, body: dict[str, Any]) -> None:
        refused, first = list[str](), ""
        while True:
            try:
                response = client.post(f"{address}/chat/completions", json=body)
            except httpx.HTTPError:  # the requests themselves are tried more than once
                return
            named = fields_named(response.text, body) if response.status_code in REFUSED else []
            if not named:
                break
            first = first or _reason(response)
            refused += named
            body = {name: value for name, value in body.items() if name not in named}
        if refused:
            keys = ", ".join(f"generation.options.extra_body.{name}=null" for name in refused)
            raise GenerationError(
                f"{address} refuses fields of the requests ({first}). Leave them out by {keys}; what the "
                "server asks for in their place is a key of generation.options.extra_body, too"
            )
        if hopeless := self.hopeless(address, response):
            raise GenerationError(hopeless)
        if response.status_code in REFUSED:
            raise GenerationError(f"{address} refuses even a small request: {_reason(response)}")

    def hopeless(self, address: str, response: httpx.Response) -> str | None:
        """Why a server refuses each request, if it does."""
        if response.status_code == 400 and "chat template" in response.text:
            return (
                f"the model {self.config.model} has no chat template, as base models do: serve an "
                "instruction-tuned model, or start the server with --chat-template. It said: "
                f"{response.text[:500]}"
            )
        if response.status_code in (401, 403, 404):
            return f"{address} answered {_reason(response)}; its key, address or model is not the right one"
        return None

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    @classmethod
    def of_launched(
        cls,
        config: GenerationConfig,
        addresses: Sequence[str],
        api_key: str,
        replaced_within: float = 0.0,
    ) -> "VllmBackend":
        """See `Backend.of_launched`; a server that refuses connections has ended."""
        urls = tuple(f"{address}/v1" for address in addresses)
        changed = {"base_url": urls, "patience_seconds": replaced_within}
        backend = cls(config.model_copy(update={"options": config.options.model_copy(update=changed)}))
        backend.api_key = api_key
        return backend

    def reach(self, addresses: Sequence[str]) -> None:
        """See `Backend.reach`; a server that stays keeps its limit. May be called from any thread."""
        known = {server.url: server for server in self.servers}
        self.servers = [known.get(url) or self._server(url) for url in (f"{one}/v1" for one in addresses)]

    def _server(self, url: str) -> "Server":
        return Server(url, ConcurrencyLimit(self.options.concurrency))

    def body(self, request: Request) -> dict[str, Any]:
        """What is sent for a request."""
        messages = self.config.instructions.messages(request)
        fields = {
            "model": self.config.model,
            "messages": list(messages),
            "n": request.n,
            **NEUTRAL,
            **self.config.sampling(request.role).model_dump(exclude={"max_growth"}),
            "max_tokens": self.config.max_tokens(request),
            **(CONTINUED if continues(messages) else {}),
            **({"stop": [mark]} if (mark := ends_at(messages)) else {}),
            **self.options.extra_body,
        }
        return {name: value for name, value in fields.items() if value is not None}

    async def _answer_all(self, exchange: "Exchange") -> None:
        async with httpx.AsyncClient(
            headers=self._headers,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),  # of a whole try, see `Exchange`
            limits=httpx.Limits(max_connections=None),
        ) as client:
            if not self._checked:  # later on they may be away for a while, as in the middle of a call
                await self._check_servers(client)
                self._checked = True
            try:
                await exchange.run(client)
            except* GenerationError as failures:
                raise failures.exceptions[0] from None

    async def _check_servers(self, client: httpx.AsyncClient) -> None:
        """Find a wrong address, key or model before anything is asked; note who does not answer.

        Raises:
            GenerationError: no server answers, or one that does cannot be used.
        """
        errors = await asyncio.gather(*(self._check(client, server) for server in self.servers))
        absent = [(server, error) for server, error in zip(self.servers, errors, strict=True) if error]
        if len(absent) == len(self.servers):
            addresses = ", ".join(self.options.addresses)
            raise GenerationError(
                f"no server answers at {addresses} ({absent[0][1]}): start one "
                f"(vllm serve {self.config.model}), set generation.options.base_url, or let the run start "
                "one with generation.launch={}"
            )
        for server, error in absent:
            logger.warning("No server answers at %s (%s); it is left out until it does", server.url, error)
            server.leave_out(asyncio.get_running_loop().time())

    async def _check(self, client: httpx.AsyncClient, server: "Server") -> str | None:
        """Ask a server for its models; why it did not answer, or None."""
        for failures in range(1, CHECK_TRIES + 1):
            try:
                response = await client.get(f"{server.url}/models", timeout=CONNECT_SECONDS)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if response.status_code < 500 and response.status_code != 429:
                    self._check_models(server.url, response)
                    server.left_out_until = 0.0
                    return None
                reason = f"HTTP {response.status_code}"
            if failures < CHECK_TRIES:
                await asyncio.sleep(self.pause(failures))
        return reason

    def _check_models(self, address: str, response: httpx.Response) -> None:
        if response.is_error:
            advice = (
                f"set the server's key in the environment variable {self.options.api_key_env}"
                if response.status_code in (401, 403)
                else "does generation.options.base_url end in the API's version, as in http://127.0.0.1:8000/v1?"
            )
            raise GenerationError(f"{address}/models answered HTTP {response.status_code}: {advice}")
        try:
            names = [entry["id"] for entry in response.json()["data"]]
        except (ValueError, LookupError, TypeError):
            raise GenerationError(f"{address}/models is no list of models: is it an OpenAI API?") from None
        if self.config.model not in names:
            raise GenerationError(
                f"{address} does not serve {self.config.model}; it serves {', '.join(names) or 'nothing'}: "
                "set generation.model"
            )


class Server:
    """One address: how much it may be asked at once, how much it is, and whether anybody is there."""

    def __init__(self, address: str, limit: ConcurrencyLimit) -> None:
        self.url = address.rstrip("/")
        self.limit = limit
        self.in_flight = 0
        self.answered = 0
        self.left_out_until = 0.0

    def room(self, now: float) -> float:
        """The share of its limit that is free; one that did not answer gets a single request to try it."""
        if self.left_out_until:
            return float(now >= self.left_out_until and self.in_flight == 0)
        return 1 - self.in_flight / self.limit.limit

    def leave_out(self, now: float) -> None:
        """Nobody is there."""
        self.left_out_until = now + LEFT_OUT_SECONDS


@dataclass(eq=False)
class Job:
    """A request on its way."""

    index: int
    request: Request
    started: float = field(default_factory=time.monotonic)
    failures: Counter[Trouble] = field(default_factory=Counter)
    retries: int = 0
    sent: float = 0.0
    """When the present try began, by the loop's clock."""
    patience: asyncio.Timeout | None = None
    """When it is given up."""


class Exchange:
    """The requests of one call on their way, on one event loop; there may come more of them."""

    def __init__(self, backend: VllmBackend, requests: Sequence[Request], arrived: Arrived) -> None:
        self.backend = backend
        self.requests = requests
        self.arrived = arrived
        self.known = len(requests)
        self.fresh = deque(range(self.known))
        self.due: deque[Job] = deque()
        self.in_flight: set[Job] = set()
        self.pausing = 0
        self.unanswered = self.known
        self.closed = False
        self.changed = asyncio.Event()
        self.gone_since: float | None = None
        self.pace: deque[float] = deque(maxlen=PACE_OF)
        """Seconds for each token of a sample, of the latest answers."""
        for server in backend.servers:
            server.in_flight = 0

    def take(self, known: int) -> None:
        """Take in the requests that were appended since: there are so many now.

        They follow from answers, and others may follow from theirs, so they go before those that nothing
        has been sent of: what takes several answers in a row would else be left over at the end.
        """
        if known > self.known:
            self.fresh.extendleft(reversed(range(self.known, known)))
            self.unanswered += known - self.known
            self.known = known
            self.changed.set()

    def close(self) -> None:
        """No more requests come."""
        self.closed = True
        self.changed.set()

    async def run(self, client: httpx.AsyncClient) -> None:
        """Send everything, as servers have room, until everything is answered and nothing more comes."""
        self.client, self.loop = client, asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tries:
            while self.unanswered or not self.closed:
                now = self.loop.time()
                servers = self.backend.servers  # they may be others in the next pass
                if not servers:
                    raise GenerationError("no server is left, and none comes")
                server = max(servers, key=lambda server: server.room(now))
                job = self._next() if server.room(now) > 0 else None
                if job is not None:
                    server.in_flight += 1
                    tries.create_task(self._try(job, server))
                    continue
                if self.unanswered and all(server.left_out_until for server in servers):
                    self._give_up_if_gone(now)
                self.changed.clear()
                await self.changed.wait()

    def _next(self) -> Job | None:
        """The next request to send; no fresh one while as many as may be in flight wait for another try."""
        if self.due:
            return self.due.popleft()
        if self.fresh and self.pausing < self.backend.options.concurrency:
            index = self.fresh.popleft()
            return Job(index, self.requests[index])
        return None

    async def _try(self, job: Job, server: Server) -> None:
        answered_before = server.answered
        body = self.backend.body(job.request)
        job.sent = self.loop.time()
        try:
            async with asyncio.timeout(self._patience(job)) as job.patience:
                self.in_flight.add(job)
                response = await self.client.post(f"{server.url}/chat/completions", json=body)
            self._lives(server)
            response.raise_for_status()
            completion = response.json()
            samples, usage = _samples(completion), completion.get("usage") or {}
            tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            if tokens[1] >= len(samples) * _limit(body):  # some servers call that a stop
                samples = [(text, "length" if reason == "stop" else reason) for text, reason in samples]
        except httpx.HTTPStatusError as error:
            self._refused(job, server, error.response)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            self._left_out(job, server)
        except TimeoutError:
            server.limit.overloaded(self.loop.time())
            reason = f"ReadTimeout: no answer within {self.loop.time() - job.sent:.3g} s"
            if server.answered > answered_before:
                self._again(job, "hung", reason)
            else:
                self._arrive(job, error=reason)
        except httpx.HTTPError as error:
            self._again(job, "lost or refused", f"{type(error).__name__}: {error}")
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            self._again(job, "malformed", f"malformed answer: {type(error).__name__}: {error}")
        else:
            server.answered += 1
            self.in_flight.discard(job)
            self.pace.append((self.loop.time() - job.sent) * job.request.n / max(tokens[1], 1))
            self._shorten_patience()
            server.limit.answered(self.loop.time(), sum(tokens), waiting=bool(self.fresh or self.due))
            self._arrive(job, samples, tokens, body)
        finally:
            server.in_flight -= 1
            self.in_flight.discard(job)
            self.changed.set()

    def _patience(self, job: Job) -> float:
        """Seconds after which a try hangs: a multiple of the longest it could take at the pace of late."""
        most: float = self.backend.options.timeout_seconds
        if len(self.pace) < PACE_OF:
            return most
        longest = self.backend.config.max_tokens(job.request) * max(self.pace)
        return min(most, max(LEAST_PATIENCE, HANGS_AFTER * longest))

    def _shorten_patience(self) -> None:
        """Give up what is in flight as early as if it had been sent with what is known now."""
        for job in self.in_flight:
            until = job.sent + self._patience(job)
            if job.patience and not job.patience.expired() and until < (job.patience.when() or 0):
                job.patience.reschedule(until)

    def _refused(self, job: Job, server: Server, response: httpx.Response) -> None:
        status, reason = response.status_code, _reason(response)
        if hopeless := self.backend.hopeless(server.url, response):
            raise GenerationError(hopeless)
        if status in PASSING or status >= 500:
            server.limit.overloaded(self.loop.time())
            wanted = min(_retry_after(response), self.backend.options.timeout_seconds)
            self._again(job, "lost or refused", reason, wanted)
        else:
            self._arrive(job, error=reason, refused=True)

    def _again(self, job: Job, trouble: Trouble, reason: str, pause: float = 0.0) -> None:
        """Let a request wait and be sent again, unless it was sent often enough; then it has failed."""
        job.failures[trouble] += 1
        if job.failures[trouble] >= TRIES[trouble]:
            self._arrive(job, error=reason)
            return
        job.retries += 1
        self.pausing += 1

        def come_due() -> None:
            self.pausing -= 1
            self.due.append(job)
            self.changed.set()

        self.loop.call_later(max(pause, self.backend.pause(job.failures.total())), come_due)

    def _left_out(self, job: Job, server: Server) -> None:
        """Nobody is at the address: that is not the request's fault, another server may have it at once."""
        if not server.left_out_until:
            logger.warning("Nobody answers at %s any more; it is left out until it does", server.url)
        server.leave_out(self.loop.time())
        self.loop.call_at(server.left_out_until + 0.01, self.changed.set)  # timers may run a little early
        job.retries += 1
        self.due.append(job)

    def _lives(self, server: Server) -> None:
        self.gone_since = None
        server.left_out_until = 0.0

    def _give_up_if_gone(self, now: float) -> None:
        self.gone_since = self.gone_since or now
        patience = self.backend.options.patience_seconds
        if now - self.gone_since >= patience:
            raise GenerationError(
                f"nobody answers at {', '.join(server.url for server in self.backend.servers)} any more; "
                f"generation.options.patience_seconds is {patience:g}. What was answered before is in the "
                "store: start the server and the run again"
            )

    def _arrive(
        self,
        job: Job,
        samples: Sequence[tuple[str, str]] = (),
        tokens: tuple[int, int] = (0, 0),
        body: dict[str, Any] | None = None,
        error: str | None = None,
        refused: bool = False,
    ) -> None:
        """Hand over an answer, or with `error` the end of a request that got none."""
        sent = dict(body or {})
        answer = Answer(
            key=self.backend.key(job.request),
            texts=tuple(text for text, _ in samples),
            finish_reasons=tuple(reason for _, reason in samples),
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            seconds=time.monotonic() - job.started,
            error=error,
            refused=refused,
            retries=job.retries,
            messages=tuple(sent.pop("messages", ())),
            sampling=sent,
        )
        self.unanswered -= 1
        self.arrived((job.index, answer))


def fields_named(said: str, body: Mapping[str, Any]) -> list[str]:
    """The fields of a request that a server's refusal names; model and messages are in every request.

    >>> fields_named("Unrecognized request argument supplied: top_k", {"top_k": -1, "top_p": 1.0})
    ['top_k']
    """
    return [
        name
        for name in body
        if name not in ("model", "messages") and re.search(rf"(?<![\w\\]){re.escape(name)}(?!\w)", said)
    ]


def _limit(body: Mapping[str, Any]) -> float:
    """The most tokens of a sample that a request asks for."""
    limits = (body.get(name) for name in ("max_tokens", "max_completion_tokens"))
    return min((limit for limit in limits if isinstance(limit, int)), default=math.inf)


def _reason(response: httpx.Response) -> str:
    return f"HTTP {response.status_code}: {response.text[:500]}"


def _retry_after(response: httpx.Response) -> float:
    """Seconds that a server asks to wait, given as such or as a date; 0 where it does not say."""
    said = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return 0.0


def _samples(completion: dict[str, Any]) -> list[tuple[str, str]]:
    """(text, finish reason) of every sample, in a form that fits into a file.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is not formed like a chat completion, or
            holds no text at all.
    """
    samples = [_sample(choice["message"], choice["finish_reason"]) for choice in completion["choices"]]
    if not any(text.strip() or reason in CUT_OFF for text, reason in samples):
        raise ValueError("it holds no text")
    if not all(isinstance(reason, str) for _, reason in samples):
        raise ValueError("a finish_reason is no text")
    return [(text.encode("utf-8", "replace").decode(), reason) for text, reason in samples]


def _sample(message: dict[str, Any], finish_reason: str) -> tuple[str, str]:
    """(text, finish reason) of a message whose content is a text or a list of parts, or that declines.

    Of the parts the texts count: others hold what the model thought, or a sound.
    """
    content = message["content"] or ""
    if not content and message.get("refusal"):
        return message["refusal"], DECLINED
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part["type"] in ("text", "output_text"))
    return content, finish_reason
