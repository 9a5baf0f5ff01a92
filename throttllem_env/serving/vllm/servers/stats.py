"""What an engine says of itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The state of an engine after an iteration, and totals since it started.

    Attributes:
        time_s: When it was said, CLOCK_MONOTONIC.
        running: Requests in the batch.
        waiting: Requests in the engine's queue.
        kv_usage: Share of the KV blocks in use, 0 to 1.
        iterations: Iterations so far that gave a token; None where `/metrics` was read, which does not say.
        prompt_tokens: Prompt tokens computed so far.
        generated_tokens: Output tokens so far.
        preemptions: How often a request lost its KV cache so far.
    """

    time_s: float
    running: int
    waiting: int
    kv_usage: float
    iterations: int | None
    prompt_tokens: int
    generated_tokens: int
    preemptions: int
