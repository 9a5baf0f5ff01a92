"""A dry run: reads everything, sets nothing."""

from collections.abc import Sequence

from throttllem_env.gpu.actuator import Actuator, GpuInfo, GpuReading, LockOutcome, snap_mhz


class ObserveActuator:
    """Another actuator with its hands tied.

    A lock succeeds and does nothing, so that a controller runs as it would; what it asked for is kept.

    Args:
        inner: Whose GPUs to read. It is closed together with this.

    Attributes:
        asked_mhz: The clock last asked for, by GPU; a reset takes it out.
    """

    name = "observe"
    writes = False

    def __init__(self, inner: Actuator) -> None:
        """Tie the hands of an actuator."""
        self._inner = inner
        self.asked_mhz: dict[int, int] = {}

    @property
    def gpus(self) -> tuple[GpuInfo, ...]:
        """The GPUs that are read."""
        return self._inner.gpus

    def lock(self, gpus: Sequence[int], mhz: int) -> LockOutcome:
        """Remember a wish; a clock that does not exist is refused all the same."""
        clocks = {info.index: info.clocks_mhz for info in self.gpus}
        snapped = {gpu: snap_mhz(mhz, clocks[gpu]) for gpu in gpus}
        self.asked_mhz.update(snapped)
        return LockOutcome(min(snapped.values(), default=mhz), dict.fromkeys(gpus, 0.0))

    def reset(self, gpus: Sequence[int]) -> LockOutcome:
        """Forget a wish."""
        for gpu in gpus:
            self.asked_mhz.pop(gpu, None)
        return LockOutcome(None, dict.fromkeys(gpus, 0.0))

    def read(self, gpu: int) -> GpuReading:
        """Read a GPU now; see `Actuator.read`."""
        return self._inner.read(gpu)

    def close(self) -> None:
        """Let go of the driver."""
        self._inner.close()
