"""What a pool and who sends requests to its servers tell each other."""

from typing import Protocol

from throttllem_env.serving.vllm.servers.server import Server


class Traffic(Protocol):
    """Who sends requests to the servers; all calls come from the pool's event loop."""

    def switch(self, server: Server | None) -> None:
        """New requests go to this server from now on; None: there is none now, let them wait."""

    def in_flight(self, server: Server) -> int:
        """How many requests the server has and has not finished."""

    def lose(self, server: Server, why: str) -> None:
        """The server is gone: tell the clients of its requests (502)."""


class NoTraffic:
    """Nobody sends requests."""

    def switch(self, server: Server | None) -> None:
        """Nothing to switch."""

    def in_flight(self, server: Server) -> int:
        """None."""
        return 0

    def lose(self, server: Server, why: str) -> None:
        """Nobody to tell."""
