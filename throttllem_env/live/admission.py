"""Who goes to the upstream and who waits: first come, first served."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from throttllem_env.live.ledger import Entry, Ledger
from throttllem_env.live.upstreams import Router, Upstream

AdmissionHook = Callable[[Ledger, Entry], bool]
"""Asked with the books and the head of the queue; False lets it, and all behind it, wait."""


class QueueFullError(Exception):
    """There is no room to wait in."""


def admit_all(ledger: Ledger, entry: Entry) -> bool:
    """The hook that lets everybody in."""
    return True


class Gate:
    """A queue before the upstreams.

    The head is tried at every arrival, at every completion, and when `retry` is called. Nobody waits
    while nothing is running at the active upstream, whatever the hook says (it is asked all the same, and may
    mark the request): there would be no completion to wait for. While no upstream is active everybody waits.
    Who is admitted stands in the books as running at once, so that the hook sees him when it is asked
    for the next.

    Args:
        ledger: The books.
        router: Whose active upstream the admitted are sent to.
        max_running: Requests at the active upstream at once.
        max_queued: Requests before it at once.
        admit: The hook.
    """

    def __init__(
        self,
        ledger: Ledger,
        router: Router,
        max_running: int,
        max_queued: int,
        admit: AdmissionHook = admit_all,
    ) -> None:
        self._ledger, self._router, self._admit = ledger, router, admit
        self._max_running, self._max_queued = max_running, max_queued
        self._queue: deque[tuple[Entry, asyncio.Future[None]]] = deque()
        self._inside: dict[Entry, Upstream] = {}

    @asynccontextmanager
    async def passed(self, entry: Entry, deadline_s: float) -> AsyncIterator[None]:
        """Wait for admission; the block runs beyond the gate.

        Args:
            entry: The request.
            deadline_s: Until when to wait, by the event loop's clock.

        Raises:
            QueueFullError: If the request would have to wait and has no room to.
            TimeoutError: If it was not admitted in time.
        """
        async with asyncio.timeout_at(deadline_s):
            await self._enter(entry)
        try:
            yield
        finally:
            self._leave(entry)

    async def _enter(self, entry: Entry) -> None:
        place = (entry, asyncio.get_running_loop().create_future())
        self._queue.append(place)
        self.retry()
        if not place[1].done() and len(self._queue) > self._max_queued:
            self._queue.remove(place)
            raise QueueFullError
        try:
            await place[1]
        except BaseException:
            self._give_up(place)
            raise

    def _give_up(self, place: tuple[Entry, asyncio.Future[None]]) -> None:
        """Leave the queue, or the inside if admission came at the same moment."""
        if not place[1].cancelled():
            self._leave(place[0])
        elif place in self._queue:
            self._queue.remove(place)
            self.retry()

    def retry(self) -> None:
        """Admit from the head of the queue as long as it may pass."""
        while self._queue and self._may_pass(self._queue[0][0]):
            entry, admitted = self._queue.popleft()
            if not admitted.done():  # else cancelled, and about to leave by itself
                self._pass(entry)
                admitted.set_result(None)

    def _pass(self, entry: Entry) -> None:
        self._inside[entry] = upstream = self._router.take()
        self._ledger.start(entry, upstream.url)

    def _leave(self, entry: Entry) -> None:
        """Close what `_pass` opened, then try the next: the hook sees true books."""
        self._ledger.abort(entry)
        self._inside.pop(entry).count(-1)
        self.retry()

    def _may_pass(self, head: Entry) -> bool:
        if not self._router.ready:
            return False
        running = self._router.active.in_flight
        if running >= self._max_running:
            return False
        return self._admit(self._ledger, head) or not running
