"""Many calls, whose results are kept as they come: interrupted work goes on where it stopped.

A call is known by a key: the hash of everything that determines its result (`identity.py`). Results lie in
one file each. The process that started the sweep writes them, so workers need no disk in common with it.
"""

import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from throttllem_env.evaluation.sweeps.place import LostWorkerError, Place
from throttllem_env.evaluation.sweeps.workers import stream

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """A call without a result.

    Attributes:
        error: Kind and message, on one line.
        traceback: Where it came from; empty when its worker died.
    """

    error: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Shelf(Generic[T]):
    """A folder with one file per result.

    Attributes:
        folder: The folder.
        suffix: Ending of the files.
        dump: A result as bytes.
        load: The same back; raises ValueError or KeyError for bytes that are none.
    """

    folder: Path
    suffix: str
    dump: Callable[[T], bytes]
    load: Callable[[bytes], T]

    def path(self, key: str) -> Path:
        """Where the result of a key is or will be."""
        return self.folder / f"{key}{self.suffix}"

    def find(self, key: str) -> T | None:
        """The result of a key; None if there is none, or none that can be read."""
        try:
            return self.load(self.path(key).read_bytes())
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def keep(self, key: str, result: T) -> None:
        """Write a result; another process sees all of it or nothing."""
        path = self.path(key)
        partial = path.with_suffix(".partial")
        partial.write_bytes(self.dump(result))
        partial.replace(path)


def sweep(
    place: Place,
    function: Callable[..., T],
    calls: Mapping[str, tuple[Any, ...]],
    shelf: Shelf[T] | None = None,
    *,
    fresh: bool = False,
    on_start: Callable[[set[str]], None] = lambda _: None,
    on_result: Callable[[str], None] = lambda _: None,
) -> dict[str, T | Failed]:
    """Make all calls that have no result yet; one that fails leaves the others alone.

    Args:
        place: Where calls are made.
        function: What to call; must be importable by its name.
        calls: Its arguments by key, started in this order.
        shelf: Where results are and will be kept; None to keep nothing.
        fresh: Make calls again whose results are there.
        on_start: Told which keys have a result already.
        on_result: Told the key of every call that has ended.

    Returns:
        Results, or why there is none, by key, in the order of the calls.
    """
    done: dict[str, T | Failed] = {}
    if shelf:
        shelf.folder.mkdir(parents=True, exist_ok=True)
        found = {} if fresh else {key: shelf.find(key) for key in calls}
        done = {key: result for key, result in found.items() if result is not None}
    on_start(set(done))
    missing = [key for key in calls if key not in done]
    with closing(stream(place, _guarded, [(function, *calls[key]) for key in missing])) as results:
        for index, ended in results:
            key, result = missing[index], Failed(str(ended)) if isinstance(ended, LostWorkerError) else ended
            if shelf and not isinstance(result, Failed):
                shelf.keep(key, result)
            done[key] = result
            on_result(key)
    return {key: done[key] for key in calls}


def _guarded(function: Callable[..., T], *arguments: Any) -> T | Failed:
    """One call; an error becomes a result, so that it takes no other call along."""
    try:
        return function(*arguments)
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return Failed(message, traceback.format_exc())
