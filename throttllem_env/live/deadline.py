"""Until when an answer may take: a time, or the moment at which its server is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TIMED_OUT = "the answer took longer than the gateway allows"


class Deadline:
    """The deadline of one request.

    Args:
        at_s: By the event loop's clock.

    Attributes:
        at_s: By the event loop's clock.
        status: What the client is told once it has passed.
        why: In words.
    """

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s
        self.status, self.why = 504, TIMED_OUT
        self._timeout: asyncio.Timeout | None = None

    @asynccontextmanager
    async def bound(self) -> AsyncIterator[None]:
        """The block ends with TimeoutError once the deadline has passed."""
        async with asyncio.timeout_at(self.at_s) as self._timeout:
            yield

    def cut(self, status: int, why: str) -> None:
        """It passes now.

        Args:
            status: What the client is told.
            why: In words.
        """
        self.at_s = asyncio.get_running_loop().time()
        self.status, self.why = status, why
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(self.at_s)
