"""GPUs that nobody gave back: their controller was killed, and so was its guardian."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

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


@dataclass
class _Case:
    """A leftover GPU in our hands, and how it is being given back."""

    left: Leftover
    claim: int
    resetter: Resetter | None = None
    seen: bool = False

    def attempt(self) -> None:
        """Restore it; a driver that refuses is the end of it."""
        assert self.resetter is not None
        assert self.left.entry is not None
        try:
            self.seen = self.resetter.restore(self.left.entry.ward)
        except ResetError as error:
            self.left = replace(self.left, problem=str(error))


def restore(
    state: StateFolder,
    make: Callable[[Driver], Resetter] = make_resetter,
    doubt_s: float = 2.0,
    retry_s: float = 0.25,
) -> tuple[list[Leftover], list[Leftover]]:
    """Give back every GPU in the journal that nobody holds.

    Args:
        state: Where the journal lies.
        make: Opens a driver.
        doubt_s: How long a GPU is restored again and again while its clock does not show it.
        retry_s: How often.

    Returns:
        Those that were restored, and those that could not be, with the reason. Taken ones are in neither.
    """
    cases = [case for uuid in state.uuids() if (case := _take(state, uuid, make)) is not None]
    until_s = time.monotonic() + doubt_s
    while open_cases := [case for case in cases if not (case.seen or case.left.problem)]:
        for case in open_cases:
            case.attempt()
        if time.monotonic() >= until_s:
            break
        if not all(case.seen or case.left.problem for case in open_cases):
            time.sleep(retry_s)
    for case in cases:
        if not case.left.problem:
            state.remove(case.left.uuid)
        os.close(case.claim)
    found = [case.left for case in cases]
    return [left for left in found if not left.problem], [left for left in found if left.problem]


def _take(state: StateFolder, uuid: str, make: Callable[[Driver], Resetter]) -> _Case | None:
    """Take a leftover GPU; None if somebody has it, or has just given it back."""
    try:
        claim = state.claim(uuid)
    except GpuTakenError:
        return None
    entry = None
    try:
        entry = state.read(uuid)
        if entry is None:
            os.close(claim)
            return None
        resetter = make(entry.driver)
        resetter.adopt(entry.ward)
    except (StateError, ResetError, ValueError) as error:
        return _Case(Leftover(uuid, entry, str(error)), claim)
    return _Case(Leftover(uuid, entry), claim, resetter)
