"""Who goes to the upstream and who waits: first come, first served."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from throttllem_env.live.ledger import Entry, Ledger

AdmissionHook = Callable[[Ledger, Entry], bool]
"""Asked with the books and the head of the queue; False lets it, and all behind it, wait."""


class QueueFullError(Exception):
    """There is no room to wait in."""


def admit_all(ledger: Ledger, entry: Entry) -> bool:
    """The hook that lets everybody in."""
    return True


class Gate:
    """A queue before the upstream.

    The head is tried at every arrival, at every completion, and when `retry` is called. Nobody waits
    while nothing is running, whatever the hook says: there would be no completion to wait for.

    Args:
        ledger: The books that the hook is shown.
        max_running: Requests beyond the gate at once.
        max_queued: Requests before it at once.
        admit: The hook.
    """

    def __init__(
        self, ledger: Ledger, max_running: int, max_queued: int, admit: AdmissionHook = admit_all
    ) -> None:
        self._ledger, self._admit = ledger, admit
        self._max_running, self._max_queued = max_running, max_queued
        self._queue: deque[tuple[Entry, asyncio.Future[None]]] = deque()
        self._inside = 0

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
            self._inside -= 1
            self.retry()

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
            self._inside -= 1
        elif place in self._queue:
            self._queue.remove(place)
        self.retry()

    def retry(self) -> None:
        """Admit from the head of the queue as long as it may pass."""
        while self._queue and self._may_pass(self._queue[0][0]):
            _, admitted = self._queue.popleft()
            if not admitted.done():  # cancelled, and about to leave by itself
                self._inside += 1
                admitted.set_result(None)

    def _may_pass(self, head: Entry) -> bool:
        if self._inside >= self._max_running:
            return False
        return not self._inside or self._admit(self._ledger, head)
