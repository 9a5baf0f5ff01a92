"""What scripts that train share: whom to train, and a line for each look at held-out requests."""

from collections.abc import Callable

from throttllem_env.training.report import Silent
from throttllem_env.training.validation import Validation


class Lines(Silent):
    """Prints a line for each look at held-out requests."""

    def __init__(self, label: str) -> None:
        """Name the training."""
        self._label = label

    def validated(self, found: Validation, best: Validation) -> None:
        """See `Reporter`."""
        worth = f"{-found.score:.4f}, best {-best.score:.4f}"
        print(
            f"{self._label}, {found.steps:,} steps: {found.saving:.1%} saved, "
            f"{found.slo_attainment:.2%} in time, {worth}",
            flush=True,
        )


def named_seeds(text: str, require: Callable[[str], object]) -> list[tuple[str, int]]:
    """Parse `name:seeds,name`, one seed where none is said.

    Args:
        text: What was given.
        require: Raises ValueError for a name that does not exist.

    Example:
        >>> named_seeds("a:3,b", str)
        [('a', 3), ('b', 1)]
    """
    pairs = []
    for part in text.split(","):
        name, _, seeds = part.partition(":")
        require(name)
        pairs.append((name, int(seeds or 1)))
    return pairs
