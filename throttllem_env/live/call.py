"""What a client asks for, as far as the gateway must know it."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """A request for completions.

    Attributes:
        body: What goes to the upstream.
        stream: Whether the answer comes in events.
        prompt_tokens: Tokens of the prompt where it is given as ids; None where it is text.
        shows_usage: The client asked for usage at the end of the stream.
        shows_continuous: The client asked for usage in every chunk.
    """

    body: bytes
    stream: bool
    prompt_tokens: int | None
    shows_usage: bool
    shows_continuous: bool


def read_call(body: bytes) -> Call:
    """Read a request, and have the upstream count the tokens of every chunk of a stream.

    Args:
        body: JSON, for /v1/completions or /v1/chat/completions.

    Raises:
        ValueError: If it is no JSON object.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is no valid JSON: {error}") from None
    if not isinstance(asked, dict):
        raise ValueError(f"the body is a JSON {type(asked).__name__}: expected an object")
    prompt_tokens, stream = _prompt_tokens(asked.get("prompt")), asked.get("stream") is True
    options = asked.get("stream_options") or {}
    if not stream or not isinstance(options, dict):  # the upstream says what is wrong with it
        return Call(body, stream, prompt_tokens, shows_usage=True, shows_continuous=True)
    usage = bool(options.get("include_usage"))
    continuous = usage and bool(options.get("continuous_usage_stats"))
    if not continuous:
        more = {"include_usage": True, "continuous_usage_stats": True}
        body = json.dumps(asked | {"stream_options": options | more}).encode()
    return Call(body, stream, prompt_tokens, usage, continuous)


def _prompt_tokens(prompt: Any) -> int | None:
    """Count token ids, of one prompt or of several; None for text."""
    if not isinstance(prompt, list) or not prompt:
        return None
    if isinstance(prompt[0], int):
        return len(prompt)
    return sum(map(len, prompt)) if all(isinstance(part, list) for part in prompt) else None
