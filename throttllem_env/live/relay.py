"""One request to an upstream, and its answer back to the client: byte for byte, and counted."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
from aiohttp import web

from throttllem_env.live.call import Call
from throttllem_env.live.deadline import Deadline
from throttllem_env.live.errors import error_event, error_response
from throttllem_env.live.ledger import Entry, Ledger, State
from throttllem_env.live.metrics import GatewayMetrics
from throttllem_env.live.sse import EventSplitter, StreamMeter

PASSED_HEADERS = ("Content-Type", "Retry-After", "X-Request-Id", "Cache-Control")
LOST = "the upstream went away before the answer was complete"
STOPPED = "the gateway was stopped before the answer was complete"


class UpstreamLostError(Exception):
    """An upstream went away in the middle of an answer."""


class Relay:
    """Passes answers on.

    Args:
        session: Connections to the upstreams.
        ledger: The books in which tokens and outcomes are entered.
        metrics: Where bytes are counted.

    Attributes:
        stopping: Set before running answers are cancelled, so that clients are told why.
    """

    def __init__(self, session: aiohttp.ClientSession, ledger: Ledger, metrics: GatewayMetrics) -> None:
        self._session, self._ledger, self._metrics = session, ledger, metrics
        self.stopping = False

    async def answer(
        self,
        request: web.Request,
        call: Call,
        entry: Entry,
        headers: dict[str, str],
        deadline: Deadline,
    ) -> web.StreamResponse:
        """Have the upstream of an entry answer a client.

        A client that goes away cancels this, which closes the connection to the upstream; vLLM then
        aborts the request.

        Args:
            request: The client's.
            call: What it asks for.
            entry: Its place in the books, with the upstream's address.
            headers: For the upstream.
            deadline: Until when.
        """
        url = entry.instance + request.path
        try:
            async with deadline.bound():
                reply = await self._session.post(url, data=call.body, headers=headers)
        except TimeoutError:
            return error_response(deadline.status, deadline.why)
        except aiohttp.ClientError as error:
            return error_response(502, f"the upstream cannot be reached: {error}")
        try:
            if reply.status == 200 and reply.content_type == "text/event-stream":
                return await self._stream(request, call, entry, reply, deadline)
            return await self._whole(entry, reply, deadline)
        finally:
            # Back into the pool if it was read to its end; else closed, and that aborts it upstream.
            reply.release()

    async def _whole(self, entry: Entry, reply: aiohttp.ClientResponse, deadline: Deadline) -> web.Response:
        """Pass on an answer that comes in one piece: a completion or an error."""
        try:
            async with deadline.bound():
                body = await reply.read()
        except TimeoutError:
            return error_response(deadline.status, deadline.why)
        except aiohttp.ClientError:
            return error_response(502, LOST)
        if reply.status < 400:
            self._count_whole(entry, body)
            self._ledger.end(entry, State.FINISHED)
        elif reply.status < 500:
            self._ledger.end(entry, State.REJECTED)
        self._metrics.sent_bytes.inc(len(body))
        return web.Response(body=body, status=reply.status, headers=_passed(reply))

    def _count_whole(self, entry: Entry, body: bytes) -> None:
        """Enter the usage of an answer, if it has one."""
        with suppress(ValueError, TypeError, KeyError):
            usage = json.loads(body)["usage"]
            self._ledger.count(entry, usage["completion_tokens"], usage["prompt_tokens"])

    async def _stream(
        self,
        request: web.Request,
        call: Call,
        entry: Entry,
        reply: aiohttp.ClientResponse,
        deadline: Deadline,
    ) -> web.StreamResponse:
        """Pass on a stream; whatever goes wrong in its middle, the client is told in an event."""
        response = web.StreamResponse(headers=_passed(reply))
        await response.prepare(request)
        meter = StreamMeter(shows_usage=call.shows_usage, shows_continuous=call.shows_continuous)
        try:
            async with deadline.bound():
                await self._pass_events(entry, reply, response, meter)
        except TimeoutError:
            await _tell(response, deadline.status, deadline.why)
        except UpstreamLostError:
            await _tell(response, 502, LOST)
        except ConnectionError:  # the client's: nobody is left to be told
            return response
        except asyncio.CancelledError:
            if not self.stopping:
                raise
            await _tell(response, 503, STOPPED)
        if meter.done and not meter.failed:
            self._ledger.end(entry, State.FINISHED)
        return response

    async def _pass_events(
        self,
        entry: Entry,
        reply: aiohttp.ClientResponse,
        response: web.StreamResponse,
        meter: StreamMeter,
    ) -> None:
        splitter = EventSplitter()
        async for data in _pieces(reply):
            shown = b"".join([meter.read(event) for event in splitter.feed(data)])
            self._ledger.count(entry, meter.generated_tokens, meter.prompt_tokens)
            if shown:
                self._metrics.sent_bytes.inc(len(shown))
                await response.write(shown)
        if not meter.done:
            raise UpstreamLostError


async def _pieces(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The bytes of an answer as they come."""
    try:
        async for data in reply.content.iter_any():
            yield data
    except aiohttp.ClientError as error:
        raise UpstreamLostError from error


def _passed(reply: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: reply.headers[name] for name in PASSED_HEADERS if name in reply.headers}


async def _tell(response: web.StreamResponse, status: int, message: str) -> None:
    """Say in the middle of a stream what went wrong; no [DONE] follows, for it is not done."""
    with suppress(ConnectionError):
        await response.write(error_event(status, message))
