"""Calls spread over processes of this machine or over a cluster; all end with it, also when interrupted.

One joblib loop serves both: a thread per worker hands out calls and takes results as they come. What differs
is the place, where a thread has its calls made. A worker that dies takes one call along and no other.
"""

import os
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from throttllem_env.evaluation.sweeps.place import LostWorkerError, Place

if TYPE_CHECKING:
    from joblib.externals.loky import ProcessPoolExecutor

T = TypeVar("T")

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""Threads within a worker would compete with the other workers."""


class Here:
    """This process: one call after another."""

    jobs = 1
    shared_memory = True
    description = ""

    def call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """Make one call."""
        return function(*arguments)

    def share(self, value: T) -> T:
        """Nothing to do."""
        return value

    def close(self) -> None:
        """Nothing to end."""


class Processes:
    """Processes of this machine, each in a pool of its own: one that dies would break a common pool."""

    shared_memory = True
    description = ""

    def __init__(self, jobs: int) -> None:
        """Prepare; processes start with their first call.

        Args:
            jobs: How many.
        """
        self.jobs = jobs
        self._pools = [_pool() for _ in range(jobs)]
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(jobs):
            self._free.put(number)

    def call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """Make one call in a process that is free."""
        from concurrent.futures.process import BrokenProcessPool

        number = self._free.get()
        try:
            result: T = self._pools[number].submit(function, *arguments).result()
        except BrokenProcessPool as error:
            self._pools[number] = _pool()
            raise LostWorkerError(f"the worker process died: {_exit_codes(error)}") from None
        finally:
            self._free.put(number)
        return result

    def share(self, value: T) -> T:
        """Nothing to do: every call brings its arguments."""
        return value

    def close(self) -> None:
        """Kill all processes."""
        for pool in self._pools:
            pool.shutdown(wait=True, kill_workers=True)


def _pool() -> "ProcessPoolExecutor":
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(max_workers=1, initializer=_ignore_interrupts, env=ONE_THREAD)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group; the parent alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _exit_codes(error: Exception) -> str:
    """What loky says about the end of a process, such as SIGKILL(-9)."""
    found = str(error).rpartition("{")[2].partition("}")[0]
    return found or "no exit code"


@contextmanager
def open_place(jobs: int | None = None, cluster: str | None = None) -> Iterator[Place]:
    """Workers for as long as the context lasts.

    Args:
        jobs: Calls at once; None for one, or for all cores of the cluster.
        cluster: None for this machine, or as `Settings` has it.

    Raises:
        ValueError: No such cluster, or none that can be used.
    """
    place: Place
    if cluster is not None:
        from throttllem_env.evaluation.sweeps.cluster import connect

        place = connect(cluster, jobs)
    else:
        place = Here() if jobs in (None, 1) else Processes(jobs or os.cpu_count() or 1)
    try:
        yield place
    finally:
        place.close()


def stream(
    place: Place, function: Callable[..., T], calls: Sequence[tuple[Any, ...]]
) -> Generator[tuple[int, T | LostWorkerError], None, None]:
    """Call a function with many argument tuples and give results as they come.

    Args:
        place: Where.
        function: What to call; must be importable by its name. An error of its own ends everything.
        calls: Its arguments, one tuple per call, started in this order.

    Yields:
        Which call, and what it returned or that its worker died. Closing it calls off what is left.
    """
    from joblib import Parallel, delayed

    work = (delayed(_placed)(place, index, function, arguments) for index, arguments in enumerate(calls))
    results = Parallel(
        n_jobs=max(min(place.jobs, len(calls)), 1),
        backend="threading",
        return_as="generator_unordered",
        batch_size=1,
        # More would be taken from `calls` and wait in a thread's stead.
        pre_dispatch="n_jobs",
    )(work)
    try:
        # Not `yield from`, which would close it before the warning is off.
        for result in results:  # noqa: UP028
            yield result
    finally:
        with warnings.catch_warnings():
            # joblib warns of work that is called off, which whoever interrupted it knows.
            warnings.simplefilter("ignore")
            results.close()


def _placed(
    place: Place, index: int, function: Callable[..., T], arguments: tuple[Any, ...]
) -> tuple[int, T | LostWorkerError]:
    try:
        return index, place.call(function, arguments)
    except LostWorkerError as death:
        return index, death


def run_parallel(function: Callable[..., T], calls: Iterable[tuple[Any, ...]], jobs: int) -> list[T]:
    """Call a function with many argument tuples, in processes when there are jobs for it.

    Args:
        function: What to call; must be importable by its name.
        calls: Its arguments, one tuple per call.
        jobs: Calls at once; 1 stays in this process.

    Returns:
        What the calls returned, in their order.

    Raises:
        LostWorkerError: One did; no further call is started.
    """
    work = list(calls)
    found: dict[int, T] = {}
    with open_place(min(jobs, max(len(work), 1))) as place, closing(stream(place, function, work)) as results:
        for index, result in results:
            if isinstance(result, LostWorkerError):
                raise result
            found[index] = result
    return [found[index] for index in range(len(work))]
