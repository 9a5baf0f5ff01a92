"""The GPUs of a node, asked in a thread of their own: drivers may take their time, an event loop may not."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from throttllem_env.gpu.actuator import ActuatorError, GpuInfo, GpuReading, LockOutcome
from throttllem_env.live.worker import Worker

SAMPLE_S = 0.1
"""How often GPUs are read."""


class Driven(Protocol):
    """An `Actuator`, as far as it is asked for here; `SafeActuator` is one, too."""

    @property
    def writes(self) -> bool:
        """Whether it ever changes anything; False for a dry run."""
        ...

    @property
    def gpus(self) -> tuple[GpuInfo, ...]:
        """The GPUs that it was opened for."""
        ...

    def lock(self, gpus: Sequence[int], mhz: int) -> LockOutcome:
        """Lock the clocks of some GPUs."""
        ...

    def reset(self, gpus: Sequence[int]) -> LockOutcome:
        """Give GPUs their normal clocks back."""
        ...

    def read(self, gpu: int) -> GpuReading:
        """Read a GPU now."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


@runtime_checkable
class Checking(Protocol):
    """An actuator that looks whether clocks took, such as `SafeActuator`."""

    def check(self) -> Sequence[GpuReading]:
        """Read all GPUs, judge their clocks, and do what must be done."""
        ...


class GpuDesk:
    """One thread that talks to a driver; whoever wants something of it waits in line.

    Args:
        actuator: Locks and reads.
        say: Told in a line what a GPU refuses, once until it changes.

    Attributes:
        actuator: Locks and reads; only this thread may call it.
        readings: The latest of every GPU that was read.
    """

    def __init__(self, actuator: Driven, say: Callable[[str], None] = lambda line: None) -> None:
        self.actuator = actuator
        self.readings: dict[int, GpuReading] = {}
        self._say = say
        self._troubles: dict[int, str] = {}
        self._thread = Worker("gpus")

    @property
    def writes(self) -> bool:
        """Whether clocks are really set; False for a dry run."""
        return self.actuator.writes

    async def look(self) -> None:
        """Read all GPUs; an actuator that can also judges whether their clocks took."""
        if isinstance(self.actuator, Checking):
            for reading in await self._thread.call(self.actuator.check):
                self.readings[reading.gpu] = reading
        else:
            await self.read([info.index for info in self.actuator.gpus])

    async def read(self, gpus: Sequence[int]) -> None:
        """Read some GPUs now. One that cannot be read keeps its old reading, which ages."""
        read, refused = await self._thread.call(self._read, tuple(gpus))
        self.readings.update(read)
        for gpu in gpus:
            trouble = refused.get(gpu, "")
            if trouble != self._troubles.get(gpu, ""):
                self._say(f"GPU {gpu} cannot be read: {trouble}" if trouble else f"GPU {gpu} is read again")
            self._troubles[gpu] = trouble

    def _read(self, gpus: tuple[int, ...]) -> tuple[dict[int, GpuReading], dict[int, str]]:
        """In the thread: readings, and what was refused."""
        read, refused = {}, {}
        for gpu in gpus:
            try:
                read[gpu] = self.actuator.read(gpu)
            except ActuatorError as error:
                refused[gpu] = str(error)
        return read, refused

    async def lock(self, gpus: Sequence[int], mhz: int) -> LockOutcome:
        """Lock the clocks of some GPUs, and read them back.

        Raises:
            ActuatorError: The driver is not there for one of them.
            ClockRangeError: The clock is outside some GPU's range.
        """
        outcome = await self._thread.call(self.actuator.lock, tuple(gpus), mhz)
        await self.read(gpus)
        return outcome

    async def reset(self, gpus: Sequence[int]) -> LockOutcome:
        """Give GPUs their normal clocks back.

        Raises:
            ActuatorError: The driver is not there for one of them.
        """
        return await self._thread.call(self.actuator.reset, tuple(gpus))

    async def close(self) -> None:
        """End the thread, and let go of the driver."""
        await self._thread.call(self.actuator.close)
        self._thread.end()
