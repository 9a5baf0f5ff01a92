"""What a training says while it runs, and at its end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from throttllem_env.training.validation import Validation


class Reporter(Protocol):
    """Told how far a training is; does nothing else to it."""

    def advanced(self, steps: int) -> None:
        """So many steps of single environments are done."""
        ...

    def validated(self, found: Validation, best: Validation) -> None:
        """A policy was evaluated on held-out requests; the best one so far."""
        ...

    def note(self, text: str) -> None:
        """A line for a person."""
        ...


class Silent:
    """Says nothing."""

    def advanced(self, steps: int) -> None:
        """See `Reporter`."""

    def validated(self, found: Validation, best: Validation) -> None:
        """See `Reporter`."""

    def note(self, text: str) -> None:
        """See `Reporter`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a training.

    Attributes:
        model: The policy that was best on held-out requests: what `--agents` takes.
        steps: Steps done; fewer than asked for where it stopped early.
        best: How the policy did there.
        stopped_early: Whether it stopped early.
    """

    model: Path
    steps: int
    best: Validation
    stopped_early: bool
