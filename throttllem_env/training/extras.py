"""What makes a training more than reward and learner, each an option."""

from dataclasses import dataclass


def _require(name: str, value: float, accepted: str, *, valid: bool) -> None:
    if not valid:
        raise ValueError(f"{name} = {value}: must be {accepted}")


@dataclass(frozen=True, slots=True)
class Lagrangian:
    """Hold a share of late requests by dual ascent, instead of a fixed price of lateness.

    The price of a late request in the reward rises while more than `late_share` of those that arrive are
    late, and falls otherwise: log price += rate x (late / arrived - late_share) / late_share, at most one
    `rate` up or down per update.

    Attributes:
        late_share: Share of requests that may be late, above 0 and below 1.
        rate: Step of the ascent.
        first: Price at the start; 10 is the environment's own weight of violations.
        least: The price never falls below.
        most: Nor does it rise above.
    """

    late_share: float = 0.005
    rate: float = 0.05
    first: float = 10.0
    least: float = 0.1
    most: float = 1000.0

    def __post_init__(self) -> None:
        share = self.late_share
        _require("lagrangian late_share", share, "above 0 and below 1", valid=0 < share < 1)
        _require("lagrangian rate", self.rate, "above 0", valid=self.rate > 0)
        in_order = 0 < self.least <= self.first <= self.most
        _require("lagrangian first", self.first, f"from {self.least} to {self.most}", valid=in_order)


@dataclass(frozen=True, slots=True)
class Residual:
    """Move around the choice of a reference controller.

    Attributes:
        reference: As `make_controller` takes it.
    """

    reference: str = "throttllem"


@dataclass(frozen=True, slots=True)
class Imitation:
    """Begin with what another controller does.

    Attributes:
        teacher: As `make_controller` takes it.
        steps: Steps of single environments that it is watched for.
        epochs: How often each step is learned from.
    """

    teacher: str = "throttllem"
    steps: int = 20_000
    epochs: int = 5

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("epochs", self.epochs)):
            _require(f"imitation {name}", value, "at least 1", valid=value >= 1)


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Loads that replace each other as a training goes on.

    Attributes:
        loads: Peak loads in order, each for an equal share of the training.
    """

    loads: tuple[float, ...]

    def __post_init__(self) -> None:
        _require("curriculum loads", len(self.loads), "at least one", valid=bool(self.loads))
        for load in self.loads:
            _require("curriculum load", load, "a number above 0", valid=0 < load < float("inf"))

    def load(self, share: float) -> float:
        """The load when a share of the training, in [0, 1), is done."""
        return self.loads[min(int(share * len(self.loads)), len(self.loads) - 1)]


@dataclass(frozen=True, slots=True)
class Randomisation:
    """Let every environment serve something else, and draw that anew for every segment of the training.

    Attributes:
        conv: Path or name of a recorded chat trace; empty for draws of one like it.
        code: The same for code completion.
        loads: Lowest and highest peak load, as shares of the training's.
        held_out: What policies are chosen on: family (`conv`, `code`, `bursty`) and load, as a share of the
            training's; validation blocks of what is recorded.
    """

    conv: str = ""
    code: str = ""
    loads: tuple[float, float] = (0.4, 1.05)
    held_out: tuple[tuple[str, float], ...] = (
        ("conv", 0.5),
        ("conv", 0.7),
        ("conv", 1.0),
        ("code", 0.7),
        ("bursty", 0.7),
    )

    def __post_init__(self) -> None:
        low, high = self.loads
        _require("randomisation loads", low, f"above 0 and at most {high}", valid=0 < low <= high)
        _require("randomisation held_out", len(self.held_out), "at least one", valid=bool(self.held_out))
