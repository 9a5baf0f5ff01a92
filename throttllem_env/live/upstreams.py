"""Which server gets new requests, and which still has old ones."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Upstream:
    """A server and how many requests it has.

    Args:
        url: Its scheme, host and port.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Count a request for as long as the block lasts."""
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Return once it has no request."""
        await self._idle.wait()


class Router:
    """New requests go to the active upstream; the others finish what they have.

    Args:
        urls: One or more; the first is active.
    """

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.upstreams = tuple(Upstream(url) for url in urls)
        self.active = self.upstreams[0]

    def switch(self, url: str) -> Upstream:
        """Make another upstream the active one.

        Args:
            url: Which.

        Returns:
            The one that was active until now; `wait_idle` tells when it has drained.

        Raises:
            ValueError: If there is none with this address.
        """
        found = next((upstream for upstream in self.upstreams if upstream.url == url), None)
        if found is None:
            raise ValueError(f"upstream = {url!r}: valid: {', '.join(u.url for u in self.upstreams)}")
        old, self.active = self.active, found
        return old

    def switch_to_next(self) -> Upstream:
        """Make the next in the list the active one; returns it."""
        at = self.upstreams.index(self.active)
        self.active = self.upstreams[(at + 1) % len(self.upstreams)]
        return self.active
