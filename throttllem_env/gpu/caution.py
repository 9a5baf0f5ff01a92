"""How careful `SafeActuator` is."""

from dataclasses import dataclass, field

from throttllem_env.gpu.flapping import Steadiness


@dataclass(frozen=True)
class Caution:
    """How careful to be.

    Attributes:
        steadiness: Against flapping.
        retries: Further tries after a change that failed or did not take.
        tolerance_mhz: How far a clock under load may be from its lock.
        settle_s: Time after a change in which the clock is not judged, seconds.
        strikes: Readings in a row that must be off before a change counts as not taken.
        quiet_s: How long the safe state lasts, seconds.
        restore_mhz: What a reset locks, if it is not the driver's default: a clock up to its highest is
            nobody else's lock.
        force: Override locks that somebody else seems to hold.
    """

    steadiness: Steadiness = field(default_factory=Steadiness)
    retries: int = 2
    tolerance_mhz: int = 30
    settle_s: float = 0.5
    strikes: int = 2
    quiet_s: float = 60.0
    restore_mhz: tuple[int, int] | None = None
    force: bool = False
