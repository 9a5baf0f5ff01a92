"""A trace played open-loop over HTTP: every request leaves at its time, whatever became of the others."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from throttllem_env.live.settings import base_url, is_loopback
from throttllem_env.live.sse import EventSplitter, StreamMeter
from throttllem_env.traces import Trace

LOWEST_TOKEN_ID = 10
"""Ids below are often special tokens."""
VOCABULARY = 500
"""Every model has token ids up to here, the one of emulated servers too; their number changes no time."""
PATH = "/v1/completions"


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """Where a trace is played, and how.

    Attributes:
        url: An OpenAI-compatible server, `http://host:port`.
        model: Its name there; None asks the server.
        api_key: What to present; None presents nothing.
        vocabulary: Prompts are random token ids below this.
        seed: Of those ids.
        timeout_s: For one request.
        allow_remote: Load may go to other machines too.
        request_ids: What the X-Request-Id of every request begins with; its number in the trace follows.
            None lets the server choose.

    Raises:
        ValueError: If a value cannot be; it names the field and what would be valid.
    """

    url: str
    model: str | None = None
    api_key: str | None = None
    vocabulary: int = VOCABULARY
    seed: int = 0
    timeout_s: float = 600.0
    allow_remote: bool = False
    request_ids: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", base_url("url", self.url))
        host = urlsplit(self.url).hostname or ""
        if not (self.allow_remote or is_loopback(host)):
            raise ValueError(f"url = {self.url!r} is another machine: load goes there only with allow_remote")
        if self.vocabulary <= LOWEST_TOKEN_ID:
            raise ValueError(f"vocabulary = {self.vocabulary}: expected more than {LOWEST_TOKEN_ID}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s = {self.timeout_s}: expected a number above 0")

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        key = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        return {"Content-Type": "application/json"} | key


@dataclass(slots=True)
class ReplayRecord:
    """What became of one request. Latencies count from when it was due, not from when it left.

    Attributes:
        request_id: Its place in the trace.
        due_s: When it was due, seconds since the start.
        lateness_s: How much later the replayer sent it.
        prompt_tokens: Tokens of its prompt.
        output_tokens: Tokens asked for.
        status: HTTP status; 0 if none came.
        error: What went wrong; empty if nothing did.
        received_tokens: Tokens that came, by the server's count.
        ttft_s: Due to first token; None without any.
        e2e_s: Due to last token; None unless it completed.
        gaps_s: Times between tokens, one per token but the first.
    """

    request_id: int
    due_s: float
    lateness_s: float
    prompt_tokens: int
    output_tokens: int
    status: int = 0
    error: str = "unfinished"
    received_tokens: int = 0
    ttft_s: float | None = None
    e2e_s: float | None = None
    gaps_s: list[float] = field(default_factory=list, repr=False)

    @property
    def completed(self) -> bool:
        """Whether all its tokens came."""
        return not self.error

    def count(self, tokens: int, at_s: float, last_s: float | None) -> None:
        """Enter how many tokens there are by now.

        Args:
            tokens: Tokens so far.
            at_s: Now, seconds since the start.
            last_s: When the tokens before came; None before the first.
        """
        new = tokens - self.received_tokens
        if last_s is None:
            self.ttft_s = at_s - self.due_s
            self.gaps_s += [0.0] * (new - 1)  # they came together
        else:
            self.gaps_s += [(at_s - last_s) / new] * new
        self.received_tokens = tokens


async def replay(
    trace: Trace,
    settings: ReplaySettings,
    on_done: Callable[[ReplayRecord], None] = lambda record: None,
    *,
    start_s: float | None = None,
    records: list[ReplayRecord] | None = None,
) -> list[ReplayRecord]:
    """Play a trace to its end, and wait for the last answer or its timeout.

    Args:
        trace: When which request leaves; output lengths are the recorded ones.
        settings: Where and how.
        on_done: Told of each request when it has ended.
        start_s: When the trace's time began, by the event loop's clock; None for now.
        records: Filled as requests leave, for whoever wants to look before the end.

    Returns:
        One record per request, in the order of the trace.

    Raises:
        OSError: If the server cannot be reached at the start, or names no model.
    """
    async with _connections(settings) as session:
        model = settings.model or await _first_model(session, settings.url)
        player = _Player(session, settings, on_done, start_s, [] if records is None else records)
        rng = np.random.default_rng(settings.seed)
        async with asyncio.TaskGroup() as sent:
            for i in range(len(trace)):
                prompt, output = int(trace.prompt_tokens[i]), int(trace.output_tokens[i])
                # Made before it is due, so that making it makes nothing late.
                body = _body(model, rng.integers(LOWEST_TOKEN_ID, settings.vocabulary, prompt), output)
                due_s = float(trace.arrival_s[i])
                await player.sleep_until(due_s)
                record = ReplayRecord(i, due_s, 0.0, prompt, output)
                player.records.append(record)
                sent.create_task(player.play(record, body))
    return player.records


class _Player:
    """Sends requests and follows their answers, on one clock that starts with it."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: ReplaySettings,
        on_done: Callable[[ReplayRecord], None],
        start_s: float | None,
        records: list[ReplayRecord],
    ) -> None:
        self._session, self._settings, self._on_done = session, settings, on_done
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time() if start_s is None else start_s
        self.records = records

    @property
    def now_s(self) -> float:
        return self._loop.time() - self._start_s

    async def sleep_until(self, at_s: float) -> None:
        # Zero too: requests that are due at once must not keep the loop from sending them.
        await asyncio.sleep(max(0.0, at_s - self.now_s))

    async def play(self, record: ReplayRecord, body: bytes) -> None:
        record.lateness_s = self.now_s - record.due_s
        prefix = self._settings.request_ids
        headers = None if prefix is None else {"X-Request-Id": f"{prefix}{record.request_id}"}
        try:
            async with (
                asyncio.timeout(self._settings.timeout_s),
                self._session.post(self._settings.url + PATH, data=body, headers=headers) as reply,
            ):
                record.status = reply.status
                await self._follow(record, reply)
        except TimeoutError:
            record.error = f"not complete within {self._settings.timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            record.error = f"{type(error).__name__}: {error}"
        self._on_done(record)

    async def _follow(self, record: ReplayRecord, reply: aiohttp.ClientResponse) -> None:
        if reply.status != 200:
            record.error = _message(await reply.read())
            return
        meter, splitter, last_s = StreamMeter(shows_usage=True, shows_continuous=True), EventSplitter(), None
        async for data in reply.content.iter_any():
            for event in splitter.feed(data):
                meter.read(event)
            if meter.generated_tokens > record.received_tokens:
                at_s = self.now_s
                record.count(meter.generated_tokens, at_s, last_s)
                last_s = at_s
        _conclude(record, meter, last_s)


def _conclude(record: ReplayRecord, meter: StreamMeter, last_s: float | None) -> None:
    """Say whether an answer that has ended is whole."""
    if meter.failed or not meter.done:
        record.error = "the server broke off"
    elif record.received_tokens != record.output_tokens:
        record.error = f"{record.received_tokens} tokens came, {record.output_tokens} were asked for"
    elif last_s is not None:
        record.error, record.e2e_s = "", last_s - record.due_s


def _message(body: bytes) -> str:
    """What a server says is wrong."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace")


def _body(model: str, prompt: Any, output_tokens: int) -> bytes:
    """A request that stops at its length and nowhere else."""
    asked = {
        "model": model,
        "prompt": prompt.tolist(),
        "max_tokens": output_tokens,
        "min_tokens": output_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    return json.dumps(asked).encode()


@asynccontextmanager
async def _connections(settings: ReplaySettings) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=settings.headers
    ) as session:
        yield session


async def _first_model(session: aiohttp.ClientSession, url: str) -> str:
    """The name of the model that a server has."""
    timeout = aiohttp.ClientTimeout(total=10.0)
    try:
        async with session.get(f"{url}/v1/models", timeout=timeout) as reply:
            listed = await reply.json()
            if reply.status != 200:
                raise OSError(f"{url}/v1/models: status {reply.status}: {listed}")
            return str(listed["data"][0]["id"])
    except (aiohttp.ClientError, TimeoutError) as error:
        raise OSError(f"{url} cannot be reached: {type(error).__name__}: {error}") from None
    except (ValueError, LookupError, TypeError):
        raise OSError(f"{url}/v1/models names no model: give its name") from None
