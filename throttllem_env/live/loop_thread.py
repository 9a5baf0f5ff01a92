"""An event loop in a thread, for those who call and wait."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

JOIN_S = 60.0


class LoopThread:
    """Runs an event loop beside the caller's thread, until it is closed.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def call(self, work: Coroutine[Any, Any, T], bound_s: float | None = None) -> T:
        """Have the loop do something, and wait. What interrupts the wait, as Ctrl-C does, ends the work.

        Args:
            work: What to do.
            bound_s: How long it may take, seconds.

        Raises:
            TimeoutError: It took longer.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(bound_s)
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End whatever still runs there, and the loop."""
        with_all = asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop)
        try:
            with_all.result(JOIN_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(JOIN_S)
            if not self._thread.is_alive():
                self._loop.close()

    async def _cancel_all(self) -> None:
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
