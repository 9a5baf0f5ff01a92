"""An OpenAI-compatible endpoint before one or two servers: it admits, routes, counts and passes on."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web

from throttllem_env.live.admission import AdmissionHook, Gate, QueueFullError, admit_all
from throttllem_env.live.call import Call, read_call
from throttllem_env.live.deadline import Deadline
from throttllem_env.live.errors import error_response, openai_errors
from throttllem_env.live.ledger import Entry, Ledger, State
from throttllem_env.live.metrics import GatewayMetrics
from throttllem_env.live.relay import STOPPED, Relay
from throttllem_env.live.settings import GatewaySettings
from throttllem_env.live.upstreams import NoUpstreamError, Router

RETRY_AFTER_S = 1
KEEPALIVE_S = 2.0
"""Shorter than servers keep theirs, so that no request meets a connection that is just being closed."""
LOOK_UP_S = 5.0
"""How long an upstream may take to say whether it is well, or which models it has."""
GOODBYE_S = 2.0
"""How long clients that were cut off may take to be told."""


class Gateway:
    """The data path. It lives in one event loop; `app` is what a server runs.

    Args:
        settings: Addresses, keys, limits.
        admit: Asked before a queued request goes to an upstream.
        clock: Seconds, monotonic, for the ledger.
        number: Which number a request has in the books, where it brings one (a trace that is played);
            None counts on.

    Attributes:
        ledger: The books.
        router: Which upstream is active.
        gate: The queue.
        metrics: What Prometheus sees.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        admit: AdmissionHook = admit_all,
        clock: Callable[[], float] = time.monotonic,
        number: Callable[[web.Request], int | None] = lambda request: None,
    ) -> None:
        self._settings, self._number = settings, number
        self.router = Router(settings.upstreams)
        self.metrics = GatewayMetrics(self.router, settings.e2e_slo_s)
        self.ledger = Ledger(clock, self.metrics)
        self.gate = Gate(self.ledger, self.router, settings.max_running, settings.max_queued, admit)
        self._session: aiohttp.ClientSession
        self._relay: Relay
        self._tasks: set[asyncio.Task[object]] = set()
        self._answers: dict[Entry, Deadline] = {}
        self._draining = False

    def app(self) -> web.Application:
        """The application, with all its routes."""
        app = web.Application(middlewares=[openai_errors], client_max_size=self._settings.max_body_bytes)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics_page)
        app.cleanup_ctx.append(self._connected)
        return app

    async def _connected(self, app: web.Application) -> AsyncIterator[None]:
        """Hold connections to the upstreams for as long as the application runs."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout_s)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=["Accept-Encoding"]
        ) as self._session:
            self._relay = Relay(self._session, self.ledger, self.metrics)
            yield

    async def drain(self) -> int:
        """Refuse new requests, and let those that are here complete within the bound.

        Returns:
            How many did not, and were told so.
        """
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.drain_s)
        return await self.stop()

    async def stop(self) -> int:
        """Cut off whatever is running; returns how many requests that were."""
        self._draining = self._relay.stopping = True
        running = list(self._tasks)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=GOODBYE_S)
        return len(running)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        """A request for completions, from its first byte to its last."""
        if refusal := self._refusal(request):
            return refusal
        with self._tracked():
            try:
                return await self._read(request)
            except asyncio.CancelledError:
                if not self._relay.stopping:  # the client has left
                    raise
                return error_response(503, STOPPED, RETRY_AFTER_S)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        """Read what is asked for, and book it."""
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                body = await request.read()
            call = read_call(body)
        except TimeoutError:
            return error_response(408, "the request's body did not arrive in time")
        except ValueError as error:
            return error_response(400, str(error))
        self.metrics.received_bytes.inc(len(body))
        entry = self.ledger.arrive(call.prompt_tokens, self._number(request))
        with self.ledger.closing(entry):
            return await self._queued(request, call, entry)

    async def _queued(self, request: web.Request, call: Call, entry: Entry) -> web.StreamResponse:
        """Wait for admission, then have the active upstream answer."""
        deadline = Deadline(asyncio.get_running_loop().time() + self._settings.request_timeout_s)
        try:
            async with self.gate.passed(entry, deadline.at_s):
                with self._answered(entry, deadline):
                    return await self._relay.answer(request, call, entry, self._headers(request), deadline)
        except QueueFullError:
            status, why = 429, "the queue is full"
        except TimeoutError:
            status, why = 503, "the request waited too long in the queue"
        self.ledger.end(entry, State.REJECTED)
        return error_response(status, why, RETRY_AFTER_S)

    @contextmanager
    def _answered(self, entry: Entry, deadline: Deadline) -> Iterator[None]:
        """Know who waits for which upstream, so that its loss can be told."""
        self._answers[entry] = deadline
        try:
            yield
        finally:
            del self._answers[entry]

    def lose(self, url: str, why: str) -> int:
        """Tell everybody whom an upstream still serves that it is gone; new requests never get there.

        Args:
            url: Which; unknown ones have nobody.
            why: In words, for the clients.

        Returns:
            How many requests that were.
        """
        if self.router.knows(url):
            self.router.remove(url)
        lost = [deadline for entry, deadline in self._answers.items() if entry.instance == url]
        for deadline in lost:
            deadline.cut(502, why)
        return len(lost)

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Why a request is not even read, if so."""
        if not self._authorized(request):
            return error_response(401, "API key missing or wrong: expected Authorization: Bearer KEY")
        if self._draining:
            return error_response(503, "the gateway is shutting down", RETRY_AFTER_S)
        return None

    def _authorized(self, request: web.Request) -> bool:
        if self._settings.api_key is None:
            return True
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        # In constant time, so that the key cannot be found out byte by byte.
        return hmac.compare_digest(given, f"Bearer {self._settings.api_key}".encode())

    def _headers(self, request: web.Request) -> dict[str, str]:
        """Headers for the upstream; the gateway's own key never leaves it."""
        headers = {"Content-Type": "application/json"}
        if "X-Request-Id" in request.headers:
            headers["X-Request-Id"] = request.headers["X-Request-Id"]
        if self._settings.upstream_key is not None:
            headers["Authorization"] = f"Bearer {self._settings.upstream_key}"
        elif self._settings.api_key is None and "Authorization" in request.headers:
            headers["Authorization"] = request.headers["Authorization"]
        return headers

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """Know the task, so that a stop can wait for it or end it."""
        task = asyncio.current_task()
        assert task is not None, "handlers run in tasks"
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def _models(self, request: web.Request) -> web.Response:
        """The active upstream's models."""
        if refusal := self._refusal(request):
            return refusal
        return await self._looked_up(request)

    async def _health(self, request: web.Request) -> web.Response:
        """200 if the gateway takes requests and the active upstream is well."""
        if self._draining:
            return error_response(503, "the gateway is shutting down", RETRY_AFTER_S)
        return await self._looked_up(request)

    async def _looked_up(self, request: web.Request) -> web.Response:
        """What the active upstream says at the same path."""
        timeout = aiohttp.ClientTimeout(total=LOOK_UP_S)
        try:
            url = self.router.active.url + request.path
            async with self._session.get(url, headers=self._headers(request), timeout=timeout) as reply:
                body = await reply.read()
                headers = {"Content-Type": reply.headers.get("Content-Type", "application/json")}
                return web.Response(body=body, status=reply.status, headers=headers)
        except NoUpstreamError as error:
            return error_response(503, str(error), RETRY_AFTER_S)
        except TimeoutError:
            return error_response(503, f"the upstream did not answer within {LOOK_UP_S:g} s", RETRY_AFTER_S)
        except aiohttp.ClientError as error:
            return error_response(503, f"the upstream cannot be reached: {error}", RETRY_AFTER_S)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        page = self.metrics.page(self.ledger.running, self.ledger.queued)
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
