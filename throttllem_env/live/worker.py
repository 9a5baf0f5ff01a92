"""A thread for calls that may take long, or never come back: nobody has to wait for it."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """One daemon thread that makes calls, one after another.

    `ThreadPoolExecutor` does the same, but a process that ends waits for its threads, and a driver or a
    controller may hang.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def call(self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Have the thread make a call; from an event loop.

        Args:
            function: What to call.
            arguments: Of it.

        Returns:
            Its result or its error. Nobody needs to look at it.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        answer.add_done_callback(_seen)

        def made() -> None:
            try:
                result = function(*arguments)
            except Exception as error:
                _tell(loop, answer, partial(answer.set_exception, error))
            else:
                _tell(loop, answer, partial(answer.set_result, result))

        self._calls.put(made)
        return answer

    def end(self) -> None:
        """Let the thread end once it has made the calls that are waiting."""
        self._calls.put(None)


def _seen(answer: "asyncio.Future[Any]") -> None:
    """An error that nobody awaits is no matter: who has given up waiting has said so."""
    if not answer.cancelled():
        answer.exception()


def _tell(loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[Any]", settle: Callable[[], None]) -> None:
    """Settle an answer in its loop, if both are still there."""

    def settled() -> None:
        if not answer.done():
            settle()

    with suppress(RuntimeError):  # the loop may be closed
        loop.call_soon_threadsafe(settled)
