"""Requests that are longer than the served model can take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.errors import TraceError, nearest_hint
from throttllem_env.traces.trace import Trace

__all__ = ["OverLength", "OverLengthCounts", "limit_lengths"]

OverLength = Literal["clip", "drop", "reject"]


@dataclass(frozen=True, slots=True)
class OverLengthCounts:
    """What happened to requests over the model's limit; at most one count is not 0.

    Attributes:
        clipped: Requests that were shortened.
        dropped: Requests that were taken out of the trace.
        to_reject: Requests left as they are, which a server will refuse or stop at its limit.
    """

    clipped: int = 0
    dropped: int = 0
    to_reject: int = 0


def limit_lengths(
    trace: Trace, max_model_len: int, over_length: OverLength = "clip", *, output_room: int | None = None
) -> tuple[Trace, OverLengthCounts]:
    """Deal with requests whose prompt and output exceed a model's context.

    Args:
        trace: The requests.
        max_model_len: Most tokens of prompt plus output, at least 2.
        over_length: "clip" shortens the prompt to `max_model_len - output_room`, and the output
            to what is then left; "drop" removes the request, not the time it arrived in;
            "reject" leaves it to the server, which refuses prompts that fill the context and
            stops others at its limit.
        output_room: Tokens that a clipped prompt leaves for the output, the same for all
            requests: a prompt cut to fit its own output would give the output's length away.
            Default: a quarter of the context.

    Returns:
        The trace to serve, and how many requests were concerned.

    Raises:
        TraceError: If `max_model_len` or `over_length` is not valid.
    """
    _check_arguments(max_model_len, over_length)
    over = trace.prompt_tokens + trace.output_tokens > max_model_len
    count = int(over.sum())
    if over_length == "reject":
        return trace, OverLengthCounts(to_reject=count)
    if over_length == "drop":
        return _without(trace, over), OverLengthCounts(dropped=count)
    room = max(max_model_len // 4, 1) if output_room is None else output_room
    if not 1 <= room < max_model_len:
        raise TraceError.at(None, None, "output_room", room, f"from 1 to {max_model_len - 1} tokens")
    return _clipped(trace, over, max_model_len, room), OverLengthCounts(clipped=count)


def _clipped(trace: Trace, over: NDArray[np.bool_], max_model_len: int, room: int) -> Trace:
    shortest = np.minimum(trace.prompt_tokens, max_model_len - room)
    prompt_tokens = np.where(over, shortest, trace.prompt_tokens)
    output_tokens = np.minimum(trace.output_tokens, max_model_len - prompt_tokens)
    return replace(trace, prompt_tokens=prompt_tokens, output_tokens=output_tokens)


def _without(trace: Trace, over: NDArray[np.bool_]) -> Trace:
    kept = ~over
    return replace(
        trace,
        arrival_s=trace.arrival_s[kept],
        prompt_tokens=trace.prompt_tokens[kept],
        output_tokens=trace.output_tokens[kept],
    )


def _check_arguments(max_model_len: int, over_length: str) -> None:
    if max_model_len < 2:
        raise TraceError.at(None, None, "max_model_len", max_model_len, "at least 2 tokens")
    choices = get_args(OverLength)
    if over_length not in choices:
        accepted = f"one of {', '.join(choices)}{nearest_hint(str(over_length), choices)}"
        raise TraceError.at(None, None, "over_length", over_length, accepted)
