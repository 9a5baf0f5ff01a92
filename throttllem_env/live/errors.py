"""Errors as OpenAI's clients expect them."""

import json
from typing import Any

from aiohttp import web


def error_body(status: int, message: str) -> dict[str, Any]:
    """The body of an error.

    Args:
        status: HTTP status.
        message: What is wrong, and what would be valid.
    """
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def error_response(status: int, message: str, retry_after_s: int | None = None) -> web.Response:
    """A whole error response.

    Args:
        status: HTTP status.
        message: What is wrong, and what would be valid.
        retry_after_s: When to try again, seconds.
    """
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.json_response(error_body(status, message), status=status, headers=headers)


def error_event(status: int, message: str) -> bytes:
    """An error in the middle of a stream, where it is too late for a status."""
    return b"data: " + json.dumps(error_body(status, message)).encode() + b"\n\n"


@web.middleware
async def openai_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Give aiohttp's own errors (404, 405, 413) the same form."""
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return error_response(error.status, f"{request.method} {request.path}: {error.reason}")
    return response
