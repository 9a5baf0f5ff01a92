"""Work spread over processes, which all end with it, also when interrupted."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def run_parallel(function: Callable[..., T], calls: Iterable[tuple[Any, ...]], jobs: int) -> list[T]:
    """Call a function with many argument tuples, in processes when there are jobs for it.

    Args:
        function: What to call; must be importable by its name.
        calls: Its arguments, one tuple per call.
        jobs: Calls at once; 1 stays in this process.

    Returns:
        What the calls returned, in their order.
    """
    from joblib import Parallel, delayed

    work = [delayed(_call)(function, arguments, os.getpid()) for arguments in calls]
    jobs = min(jobs, max(len(work), 1))
    with _workers(jobs):
        done: list[T] = Parallel(n_jobs=jobs)(work)
    return done


def _call(function: Callable[..., T], arguments: tuple[Any, ...], parent_pid: int) -> T:
    if os.getpid() != parent_pid:
        # Ctrl-C reaches the whole process group; the parent alone answers it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return function(*arguments)


@contextmanager
def _workers(jobs: int) -> Iterator[None]:
    """Leave no worker process behind, above all not when interrupted."""
    if jobs == 1:
        yield
        return
    from joblib import parallel_config
    from joblib.externals.loky import get_reusable_executor

    try:
        # Threads within a worker would compete with the other workers.
        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
