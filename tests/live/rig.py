"""A small server that speaks vLLM's dialect, and a gateway before it, all on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from throttllem_env.live.gateway import Gateway
from throttllem_env.live.server import listening
from throttllem_env.live.settings import GatewaySettings

SIGNATURE = {"system_fingerprint": "vllm-0.32.0"}
BOUND_S = 300.0
"""No test waits longer, whatever hangs and however busy the machine is."""


class FakeVllm:
    """An upstream: `max_tokens` tokens, one per iteration, in chunks of `tokens_per_chunk`.

    No stream begins before `gathers` of them are there. A request may carry `dies_after`: after so many
    chunks the connection breaks, or, with `fails_with`, the error is streamed as vLLM does.
    """

    def __init__(self, iteration_s: float = 0.0, tokens_per_chunk: int = 1, gathers: int = 0) -> None:
        self.iteration_s, self.tokens_per_chunk, self.gathers = iteration_s, tokens_per_chunk, gathers
        self.healthy = True
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.running = self.peak = self.completed = self.aborted = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/completions", self._serve)
        app.router.add_post("/v1/chat/completions", self._serve)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked.get("min_tokens", 0) > asked.get("max_tokens", 16):
            return web.json_response({"error": {"message": "min_tokens"}}, status=400)
        self.asked.append(asked)
        self.headers.append(dict(request.headers))
        if asked.get("max_tokens", 16) < 1:
            error = {"message": "max_tokens must be at least 1", "type": "BadRequestError", "code": 400}
            return web.json_response({"error": error}, status=400)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            answer = self._stream if asked.get("stream") else self._whole
            response = await answer(request, asked)
            self.completed += 1
        except (asyncio.CancelledError, ConnectionError):
            self.aborted += 1
            raise
        finally:
            self.running -= 1
        return response

    async def _whole(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        tokens = asked.get("max_tokens", 16)
        await asyncio.sleep(self.iteration_s * tokens)
        text = "".join(word(i) for i in range(tokens))
        choice = {"index": 0, "text": text, "finish_reason": "length"}
        return web.json_response(
            {"id": "cmpl-1", "choices": [choice], "usage": usage(prompt_tokens(asked), tokens)}
        )

    async def _stream(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        while self.peak < self.gathers:
            await asyncio.sleep(0.01)
        await response.prepare(request)
        for at, event in enumerate(events(asked, self.tokens_per_chunk)):
            if at == asked.get("dies_after"):
                return await self._die(request, response, asked.get("fails_with"))
            if self.iteration_s:
                await asyncio.sleep(self.iteration_s)
            await response.write(event)
        return response

    async def _die(
        self, request: web.Request, response: web.StreamResponse, message: str | None
    ) -> web.StreamResponse:
        if message is None:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        await response.write(sse({"error": {"message": message, "code": 500}}) + b"data: [DONE]\n\n")
        return response


def prompt_tokens(asked: dict[str, Any]) -> int:
    prompt = asked.get("prompt", "some chat")
    return len(prompt) if isinstance(prompt, list) else len(prompt.split())


def word(i: int) -> str:
    """Text that a careless gateway would stumble over."""
    return [f" w{i}", ' ,"usage":{"a":1}', "é\n\n", " data: [DONE]"][i % 4]


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def sse(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def events(asked: dict[str, Any], tokens_per_chunk: int = 1) -> list[bytes]:
    """What vLLM streams for a request: usage stands in chunks, and at the end, only where asked for."""
    options = asked.get("stream_options") or {}
    at_end = bool(options.get("include_usage"))
    continuous = at_end and bool(options.get("continuous_usage_stats"))
    chat, total, prompt = "messages" in asked, asked.get("max_tokens", 16), prompt_tokens(asked)
    base = {"id": "cmpl-1", "object": "chat.completion.chunk" if chat else "text_completion", "model": "tiny"}
    made = []
    if chat:
        first = base | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        made.append(sse(first | ({"usage": usage(prompt, 0)} if continuous else {})))
    for start in range(0, total, tokens_per_chunk):
        stop = min(start + tokens_per_chunk, total)
        text = "".join(word(i) for i in range(start, stop))
        choice = {"index": 0} | ({"delta": {"content": text}} if chat else {"text": text})
        choice["finish_reason"] = "length" if stop == total else None
        extra: dict[str, Any] = {"usage": usage(prompt, stop)} if continuous else {}
        if stop == total and not at_end:
            extra |= SIGNATURE
        made.append(sse(base | {"choices": [choice]} | extra))
    if at_end:
        made.append(sse(base | {"choices": [], "usage": usage(prompt, total)} | SIGNATURE))
    return [*made, b"data: [DONE]\n\n"]


@asynccontextmanager
async def serving(upstream: FakeVllm) -> AsyncIterator[str]:
    """Serve an upstream; yields its address."""
    runner = web.AppRunner(upstream.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Stage:
    """A client, a gateway, and one or more upstreams."""

    def __init__(self, url: str, gateway: Gateway, upstreams: list[FakeVllm], urls: list[str]) -> None:
        self.url, self.gateway, self.upstreams, self.upstream_urls = url, gateway, upstreams, urls
        self.upstream = upstreams[0] if upstreams else FakeVllm()
        self.session: ClientSession
        self.close_upstreams: Callable[[], Coroutine[Any, Any, None]]

    async def post(
        self, path: str = "/v1/completions", *, url: str | None = None, key: str | None = None, **body: Any
    ) -> tuple[int, bytes, Any]:
        """Send a request; gives status, body and headers."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        asked = request_body(**body)
        async with self.session.post((url or self.url) + path, json=asked, headers=headers) as reply:
            return reply.status, await reply.read(), reply.headers

    async def get(self, path: str, key: str | None = None) -> tuple[int, bytes]:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with self.session.get(self.url + path, headers=headers) as reply:
            return reply.status, await reply.read()

    async def metric(self, line: str) -> float:
        """The value of a sample, by its name and labels as they are written."""
        _, page = await self.get("/metrics")
        found = [row.rsplit(" ", 1)[1] for row in page.decode().splitlines() if row.startswith(line + " ")]
        assert len(found) == 1, f"{line}: {found}"
        return float(found[0])


def request_body(**body: Any) -> dict[str, Any]:
    """A streaming request of token ids, unless something else is said."""
    asked: dict[str, Any] = {"model": "tiny", "stream": True, "max_tokens": 4} | body
    if "messages" not in asked:
        asked.setdefault("prompt", [5, 6, 7])
    return {key: value for key, value in asked.items() if value is not None}


@asynccontextmanager
async def stage(
    *upstreams: FakeVllm, admit: Callable[..., bool] | None = None, **settings: Any
) -> AsyncIterator[Stage]:
    """Put a gateway before upstreams (one, if none is given)."""
    async with AsyncExitStack() as below:
        servers = list(upstreams) or [FakeVllm()]
        urls = [await below.enter_async_context(serving(server)) for server in servers]
        hook = {} if admit is None else {"admit": admit}
        gateway = Gateway(GatewaySettings(tuple(urls), port=0, **settings), **hook)
        async with fronted(gateway, servers, urls) as made:
            made.close_upstreams = below.aclose
            yield made


@asynccontextmanager
async def fronted(
    gateway: Gateway, servers: list[FakeVllm] | None = None, urls: list[str] | None = None
) -> AsyncIterator[Stage]:
    """Put a client before a gateway."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(gateway, "127.0.0.1", 0))
        made = Stage(url, gateway, servers or [], urls or [])
        timeout = ClientTimeout(total=BOUND_S)
        made.session = await stack.enter_async_context(
            ClientSession(connector=TCPConnector(limit=0), timeout=timeout)
        )
        yield made


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds, and fail if it does not within some minutes."""
    until_s = asyncio.get_running_loop().time() + 0.8 * BOUND_S
    while not condition():
        if asyncio.get_running_loop().time() > until_s:
            pytest.fail(f"not within {0.8 * BOUND_S:g} s: {what}")
        await asyncio.sleep(0.01)


def run(scene: Coroutine[Any, Any, None]) -> None:
    """Run a scene in a loop of its own, bounded in time."""

    async def bounded() -> None:
        async with asyncio.timeout(BOUND_S):
            await scene

    asyncio.run(bounded())
