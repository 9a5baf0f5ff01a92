"""Which server gets new requests, and which still has old ones."""

import asyncio


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

    def count(self, change: int) -> None:
        """Count a request that comes (1) or goes (-1)."""
        self.in_flight += change
        if self.in_flight:
            self._idle.clear()
        else:
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

    def take(self) -> Upstream:
        """The upstream for a new request, which it has from now on."""
        self.active.count(1)
        return self.active

    def give_back(self, url: str) -> None:
        """Say that a request has left the upstream that `take` named."""
        self._named(url).count(-1)

    def switch(self, url: str) -> Upstream:
        """Make another upstream the active one.

        Args:
            url: Which.

        Returns:
            The one that was active until now; `wait_idle` tells when it has drained.

        Raises:
            ValueError: If there is none with this address.
        """
        old, self.active = self.active, self._named(url)
        return old

    def switch_to_next(self) -> Upstream:
        """Make the next in the list the active one; returns it."""
        at = self.upstreams.index(self.active)
        self.active = self.upstreams[(at + 1) % len(self.upstreams)]
        return self.active

    def _named(self, url: str) -> Upstream:
        for upstream in self.upstreams:
            if upstream.url == url:
                return upstream
        raise ValueError(f"upstream = {url!r}: valid: {', '.join(u.url for u in self.upstreams)}")
