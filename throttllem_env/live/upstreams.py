"""Which server gets new requests, and which still has old ones."""

import asyncio


class NoUpstreamError(Exception):
    """No server takes new requests now."""


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

    Servers come and go while it runs. Between the loss of the active one and the next `switch` there is
    none, and new requests wait.

    Args:
        urls: Servers that are there from the start; the first is active.
    """

    def __init__(self, urls: tuple[str, ...] = ()) -> None:
        self._by_url = {url: Upstream(url) for url in urls}
        self._active = self._by_url[urls[0]] if urls else None

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """All of them, in the order in which they came."""
        return tuple(self._by_url.values())

    @property
    def ready(self) -> bool:
        """Whether some upstream takes new requests."""
        return self._active is not None

    @property
    def active(self) -> Upstream:
        """The upstream that takes new requests.

        Raises:
            NoUpstreamError: There is none now.
        """
        if self._active is None:
            raise NoUpstreamError("no server takes requests now")
        return self._active

    def is_active(self, upstream: Upstream) -> bool:
        """Whether this one takes new requests."""
        return upstream is self._active

    def add(self, url: str) -> Upstream:
        """Let another server be known; it gets requests once it is switched to.

        Args:
            url: Its scheme, host and port.

        Raises:
            ValueError: It is known already.
        """
        if url in self._by_url:
            raise ValueError(f"upstream = {url!r}: is there already")
        self._by_url[url] = upstream = Upstream(url)
        return upstream

    def remove(self, url: str) -> None:
        """Forget a server, lost or stopped. If it was active, nobody is until the next `switch`.

        What it still has is told by its connections, not by this.

        Args:
            url: Which.

        Raises:
            ValueError: There is none with this address.
        """
        gone = self.named(url)
        del self._by_url[url]
        if gone is self._active:
            self._active = None

    def take(self) -> Upstream:
        """The upstream for a new request, which it has from now on.

        Raises:
            NoUpstreamError: There is none now.
        """
        self.active.count(1)
        return self.active

    def switch(self, url: str | None) -> Upstream | None:
        """Make another upstream the active one.

        Args:
            url: Which; None for nobody: new requests wait.

        Returns:
            The one that was active until now, if there was one; `wait_idle` tells when it has drained.

        Raises:
            ValueError: If there is none with this address.
        """
        old, self._active = self._active, None if url is None else self.named(url)
        return old

    def switch_to_next(self) -> Upstream:
        """Make the next in the list the active one; returns it."""
        at = self.upstreams.index(self.active)
        self._active = self.upstreams[(at + 1) % len(self.upstreams)]
        return self._active

    def knows(self, url: str) -> bool:
        """Whether there is an upstream with this address."""
        return url in self._by_url

    def named(self, url: str) -> Upstream:
        """The upstream with this address.

        Raises:
            ValueError: There is none.
        """
        if url not in self._by_url:
            raise ValueError(f"upstream = {url!r}: valid: {', '.join(self._by_url) or 'none'}")
        return self._by_url[url]
