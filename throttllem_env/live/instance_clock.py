"""The clock of one instance: what was wanted last is pursued, one change at a time."""

import asyncio
from collections.abc import Callable, Collection, Sequence

from throttllem_env.gpu.actuator import ActuatorError, ClockRangeError
from throttllem_env.live.gpu_desk import GpuDesk


class InstanceClock:
    """Keeps the GPUs of an instance at the clock that was wanted last.

    A change takes milliseconds to seconds, and wishes come faster: those that are overtaken are never
    carried out. In a dry run (`GpuDesk.writes` is false) nothing is, and GPUs run at their own clock.

    Args:
        desk: Where GPUs are asked.
        gpus: The instance's.
        mhz: The clock wanted first, MHz.
        own_mhz: The clock of GPUs that nobody locks, MHz.
        on_trouble: Told why a change was not carried out on every GPU.

    Attributes:
        gpus: The instance's.
        wanted_mhz: The clock wanted last.
    """

    def __init__(
        self,
        desk: GpuDesk,
        gpus: Sequence[int],
        mhz: int,
        own_mhz: int,
        on_trouble: Callable[[str], None],
    ) -> None:
        self.gpus = tuple(gpus)
        self.wanted_mhz = mhz
        self._desk, self._own_mhz, self._on_trouble = desk, own_mhz, on_trouble
        self._locked_mhz: int | None = None
        self._pursuit: asyncio.Task[None] | None = None
        self.pursue()

    @property
    def target_mhz(self) -> int:
        """The clock that was really asked of the GPUs."""
        return self.wanted_mhz if self._desk.writes else self._own_mhz

    def want(self, mhz: int) -> bool:
        """Wish for a clock.

        Args:
            mhz: One of the scenario's clocks.

        Returns:
            Whether it is another one than before.
        """
        changed, self.wanted_mhz = mhz != self.wanted_mhz, mhz
        self.pursue()
        return changed

    def pursue(self) -> None:
        """Go on until the wish is carried out; where it was put off or failed, try again."""
        if self._desk.writes and (self._pursuit is None or self._pursuit.done()):
            self._pursuit = asyncio.create_task(self._pursued())

    def forget(self) -> None:
        """Somebody else has changed the clocks: set them anew."""
        self._locked_mhz = None
        self.pursue()

    async def _pursued(self) -> None:
        while self._locked_mhz != (mhz := self.wanted_mhz):
            done, trouble = await self._locked(mhz)
            self._locked_mhz = mhz if done else None
            if mhz != self.wanted_mhz:
                continue  # whatever else is wanted by now may do
            if trouble:
                self._on_trouble(trouble)
            if not done:
                return

    async def _locked(self, mhz: int) -> tuple[bool, str]:
        """Lock; returns whether it was done (it may be put off, against flapping), and what went wrong."""
        try:
            outcome = await self._desk.lock(self.gpus, mhz)
        except (ActuatorError, ClockRangeError) as error:
            return False, str(error)
        done = outcome.ok and (bool(outcome.took_s) or outcome.mhz == mhz)
        return done, "; ".join(str(error) for error in outcome.failed.values())

    async def release(self, keep: Collection[int] = ()) -> str:
        """Give the GPUs their normal clocks back.

        Args:
            keep: GPUs that somebody else has by now.

        Returns:
            What went wrong, if anything did.
        """
        if self._pursuit is not None:
            await asyncio.wait([self._pursuit])
        gpus = [gpu for gpu in self.gpus if gpu not in keep]
        if not self._desk.writes or not gpus:
            return ""
        try:
            outcome = await self._desk.reset(gpus)
        except ActuatorError as error:
            return str(error)
        return "; ".join(str(error) for error in outcome.failed.values())
