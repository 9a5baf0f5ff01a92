"""What a pool of servers tells the gateway: where new requests go, and who is lost."""

from collections.abc import Iterable
from typing import Protocol

from throttllem_env.live.gateway import Gateway


class ServerAt(Protocol):
    """A server as far as traffic goes."""

    @property
    def url(self) -> str:
        """Its scheme, host and port."""
        ...


class GatewayTraffic:
    """Sends the gateway's requests where the pool says; it is the pool's `Traffic`.

    Args:
        gateway: Whose requests.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def switch(self, server: ServerAt | None) -> None:
        """New requests, those in the queue too, go to this server; None lets them wait."""
        router = self._gateway.router
        if server is not None and not router.knows(server.url):
            router.add(server.url)
        router.switch(None if server is None else server.url)
        self._gateway.gate.retry()
        self._gateway.ledger.on_event()

    def in_flight(self, server: ServerAt) -> int:
        """How many requests the server has."""
        router = self._gateway.router
        return router.named(server.url).in_flight if router.knows(server.url) else 0

    def lose(self, server: ServerAt, why: str) -> None:
        """The clients of its requests are told."""
        self._gateway.lose(server.url, why)
        self._gateway.ledger.on_event()

    def keep(self, servers: Iterable[ServerAt]) -> None:
        """Forget servers that have drained and are no more.

        Args:
            servers: Those that there are.
        """
        router = self._gateway.router
        there = {server.url for server in servers}
        for upstream in router.upstreams:
            if upstream.url not in there and not upstream.in_flight:
                router.remove(upstream.url)
