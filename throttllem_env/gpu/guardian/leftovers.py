"""GPUs that nobody gave back: their controller was killed, and so was its guardian."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from throttllem_env.gpu.guardian.resetters import ResetError, Resetter, make_resetter
from throttllem_env.gpu.guardian.state import Entry, GpuTakenError, StateError, StateFolder
from throttllem_env.gpu.guardian.ward import Driver


@dataclass(frozen=True)
class Leftover:
    """A GPU in the journal.

    Attributes:
        uuid: Which.
        entry: What the journal says; None if it cannot be read.
        problem: Why it cannot be read, or why it could not be restored; empty otherwise.
        taken: Whether its controller or guardian is there: then it is none of ours.
    """

    uuid: str
    entry: Entry | None
    problem: str = ""
    taken: bool = False


def find(state: StateFolder) -> list[Leftover]:
    """What the journal holds, without touching a GPU."""
    return [_look_up(state, uuid) for uuid in state.uuids()]


def _look_up(state: StateFolder, uuid: str) -> Leftover:
    taken = state.taken(uuid)
    try:
        return Leftover(uuid, state.read(uuid), taken=taken)
    except StateError as error:
        return Leftover(uuid, None, str(error), taken)


def restore(
    state: StateFolder, make: Callable[[Driver], Resetter] = make_resetter
) -> tuple[list[Leftover], list[Leftover]]:
    """Give back every GPU in the journal that nobody holds.

    Args:
        state: Where the journal lies.
        make: Opens a driver.

    Returns:
        Those that were restored, and those that could not be, with the reason. Taken ones are in neither.
    """
    restored, failed = [], []
    for uuid in state.uuids():
        try:
            claim = state.claim(uuid)
        except GpuTakenError:
            continue
        try:
            left = _restore(state, uuid, make)
        finally:
            os.close(claim)
        if left is not None:
            (failed if left.problem else restored).append(left)
    return restored, failed


def _restore(state: StateFolder, uuid: str, make: Callable[[Driver], Resetter]) -> Leftover | None:
    """Give one back, whose lock is held; None if somebody else just did."""
    entry = None
    try:
        entry = state.read(uuid)
        if entry is None:
            return None
        resetter = make(entry.driver)
        resetter.adopt(entry.ward)
        resetter.restore(entry.ward)
    except (StateError, ResetError, ValueError) as error:
        return Leftover(uuid, entry, str(error))
    state.remove(uuid)
    return Leftover(uuid, entry)
