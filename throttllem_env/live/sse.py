"""Server-sent events as vLLM streams them: cut into events, counted, and shown as the client asked.

Every chunk carries how many tokens there are so far, because the gateway asks for that. Chunks are
never counted as tokens: one may hold several, or none.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

BOUNDARY = re.compile(rb"\r?\n\r?\n")
DONE = b"[DONE]"
USAGE_KEY = b',"usage":'
_DECODER = json.JSONDecoder()


class EventSplitter:
    r"""Cuts a byte stream into events, each with the blank line that ends it.

    Example:
        >>> splitter = EventSplitter()
        >>> list(splitter.feed(b"data: a\n\ndata:"))
        [b'data: a\n\n']
        >>> list(splitter.feed(b" b\n\n"))
        [b'data: b\n\n']
    """

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give every event that is complete now."""
        self.rest += data
        start = 0
        for match in BOUNDARY.finditer(self.rest):
            yield self.rest[start : match.end()]
            start = match.end()
        self.rest = self.rest[start:]


class StreamMeter:
    """Counts the tokens of one stream, and takes out of it what the client did not ask for.

    Args:
        shows_usage: The client asked for a usage chunk at the end.
        shows_continuous: The client asked for usage in every chunk.

    Attributes:
        prompt_tokens: None until the upstream has said.
        generated_tokens: So far, over all choices.
        done: The stream has ended as it should.
        failed: The upstream reported an error, or gave up.
    """

    def __init__(self, *, shows_usage: bool, shows_continuous: bool) -> None:
        self._shows_usage, self._shows_continuous = shows_usage, shows_continuous
        self._by_choice: dict[int, int] = {}
        self._held = b""
        self.prompt_tokens: int | None = None
        self.generated_tokens = 0
        self.done = self.failed = False

    def read(self, event: bytes) -> bytes:
        """Count an event, and give what the client sees now, which may be nothing."""
        data = event.strip()
        payload = _loads(data[5:]) if data.startswith(b"data:") else None
        if payload is None:
            self.done = self.done or data[5:].strip() == DONE
            return self.release() + event
        choices = payload.get("choices") or []
        self._count(choices, payload.get("usage") or {})
        ends = [choice.get("finish_reason") for choice in choices]
        self.failed = self.failed or "abort" in ends or "error" in payload
        if "usage" not in payload or self._shows_continuous:
            return self.release() + event
        if not choices:
            return self.release() + event if self._shows_usage else self.release(payload)
        shown = self.release() + without_usage(event, payload)
        if self._shows_usage or not any(ends):
            return shown
        self._held = shown
        return b""

    def release(self, last: dict[str, Any] | None = None) -> bytes:
        """Give what was held back: a choice's end, until it is known what comes after it.

        vLLM signs the last chunk of a stream with its fingerprint. Asked for usage, that is the usage
        chunk; a client that did not ask for one finds the signature where it would have been.

        Args:
            last: The usage chunk, which the client does not see.
        """
        held, self._held = self._held, b""
        signature = (last or {}).get("system_fingerprint")
        end = held.rfind(b"}")
        if signature is None or end < 0:
            return held
        return held[:end] + b',"system_fingerprint":' + json.dumps(signature).encode() + held[end:]

    def _count(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> None:
        if not usage:
            return
        self.prompt_tokens = usage.get("prompt_tokens", self.prompt_tokens)
        tokens = usage.get("completion_tokens", 0)
        if not choices:  # the last chunk's usage is over all choices
            self.generated_tokens = max(tokens, self.generated_tokens)
            return
        for choice in choices:
            self._by_choice[choice.get("index", 0)] = tokens
        self.generated_tokens = sum(self._by_choice.values())


def without_usage(event: bytes, payload: dict[str, Any]) -> bytes:
    r"""Take the usage out of an event, and leave every other byte as it is.

    Args:
        event: A whole event.
        payload: Its JSON, parsed, with a key "usage".

    Example:
        >>> without_usage(b'data: {"a":1,"usage":{"total_tokens":3},"b":2}\n\n', {})
        b'data: {"a":1,"b":2}\n\n'
    """
    # Quotes inside a JSON string are escaped, so this never finds the model's own words.
    start = event.rfind(USAGE_KEY)
    if start >= 0:
        text = event[start + len(USAGE_KEY) :].decode()
        try:
            _, end = _DECODER.raw_decode(text)
        except ValueError:  # blanks before the value: not vLLM's way of writing
            pass
        else:
            return event[:start] + text[end:].encode()
    kept = {key: value for key, value in payload.items() if key != "usage"}
    return b"data: " + json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _loads(data: bytes) -> dict[str, Any] | None:
    try:
        payload = json.loads(data)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None
