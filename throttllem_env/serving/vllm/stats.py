"""What an engine says of itself, and how it is sent: one datagram per iteration, all of it totals.

A datagram that is lost costs nothing but freshness, since the next one holds the same totals.
"""

import struct
from dataclasses import dataclass

STATS_SOCKET = "THROTTLLEM_STATS_SOCKET"
"""Path of the socket that a server's engine tells; without it the plugin does nothing."""

STATS_NAME = "THROTTLLEM_STATS_NAME"
"""The server's number."""

FORMAT = struct.Struct("<4sIdIId5Q")
MAGIC = b"TLS1"


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The state of an engine after an iteration, and totals since it started.

    Attributes:
        time_s: When it was said, CLOCK_MONOTONIC.
        running: Requests in the batch.
        waiting: Requests in the engine's queue.
        kv_usage: Share of the KV blocks in use, 0 to 1.
        iterations: Iterations so far; those that gave no token are not among them where `/metrics` was read.
        prompt_tokens: Tokens so far of prompts that were computed to their end.
        generated_tokens: Output tokens so far.
        preemptions: How often a request lost its KV cache so far.
        dropped: Messages that could not be sent so far.
    """

    time_s: float
    running: int
    waiting: int
    kv_usage: float
    iterations: int
    prompt_tokens: int
    generated_tokens: int
    preemptions: int
    dropped: int = 0

    def tokens_per_iteration(self, before: "EngineStats") -> float:
        """Output tokens per iteration since an earlier state; 0 if there was no iteration."""
        iterations = self.iterations - before.iterations
        return (self.generated_tokens - before.generated_tokens) / iterations if iterations > 0 else 0.0

    def packed(self, server: int) -> bytes:
        """As a datagram of a server."""
        gauges = (self.time_s, self.running, self.waiting, self.kv_usage)
        totals = (self.iterations, self.prompt_tokens, self.generated_tokens, self.preemptions, self.dropped)
        return FORMAT.pack(MAGIC, server, *gauges, *totals)

    @classmethod
    def unpacked(cls, datagram: bytes) -> "tuple[int, EngineStats]":
        """Server and state that a datagram holds.

        Raises:
            ValueError: It is none of ours.
        """
        try:
            magic, server, *values = FORMAT.unpack(datagram)
        except struct.error as error:
            raise ValueError(f"no engine's statistics: {error}") from None
        if magic != MAGIC:
            raise ValueError(f"no engine's statistics: begins with {magic!r}, not {MAGIC!r}")
        return server, cls(*values)
