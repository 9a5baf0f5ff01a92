"""The control loop: asks a controller about live servers, and carries out what it says.

Whatever goes wrong in between (no true telemetry, a controller that fails, dawdles or asks for what cannot
be, GPUs that do not obey) leads to the safe state: the top clock, until all is well again. Requests are
served all the while.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from throttllem_env.controller import Controller, ControlPoints, next_control_s
from throttllem_env.controller.watchdog import Watchdog
from throttllem_env.controller.wrapper import layers
from throttllem_env.live.control_watch import ControlWatch
from throttllem_env.live.ledger import Ledger
from throttllem_env.live.node import Node
from throttllem_env.live.telemetry import Telemeter, TelemetryError
from throttllem_env.live.worker import Worker
from throttllem_env.types import Action, ObservationArray, Telemetry

Observer = Callable[[Telemetry], ObservationArray]
"""Turns telemetry into the observation that learned agents read."""


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """How a controller is asked.

    Attributes:
        points: At which control points; None for its own.
        answer_s: How long it may take to decide.
        trouble_s: How long GPUs that did not obey stay at the top clock before it is asked again.
        least_gap_s: Events that come closer together are one control point.
    """

    points: ControlPoints | None = None
    answer_s: float = 2.0
    trouble_s: float = 30.0
    least_gap_s: float = 0.005


class ControlLoop:
    """Decides about a node, at a controller's own control points.

    The controller runs in a thread of its own, so that its thoughts hold up no stream. Events while it thinks
    make one further control point.

    Args:
        controller: Who decides; it was reset.
        telemeter: Makes telemetry.
        node: What is controlled.
        ledger: The gateway's books, whose events are control points.
        settings: How it is asked.
        observer: Makes observations, for controllers that read them.
        watch: Told of everything, for people.

    Attributes:
        safe_reason: Why the safe state rules; empty while it does not.
    """

    def __init__(
        self,
        controller: Controller,
        telemeter: Telemeter,
        node: Node,
        ledger: Ledger,
        settings: ControlSettings | None = None,
        observer: Observer | None = None,
        watch: ControlWatch | None = None,
    ) -> None:
        self._controller, self._telemeter, self._node, self._ledger = controller, telemeter, node, ledger
        self._settings, self._observer = settings or ControlSettings(), observer
        self._watch = watch or ControlWatch()
        self._points = self._settings.points or controller.control_points
        self._event = asyncio.Event()
        self._thread = Worker("controller")
        self._answer: asyncio.Future[Action] | None = None
        self._hold_until_s = 0.0
        self._seen: tuple[ObservationArray | None, Telemetry] | None = None
        self.safe_reason = ""
        for layer in layers(controller):
            if isinstance(layer, Watchdog):
                layer.on_event = lambda event: self._watch.event(f"watchdog-{event.reason}", str(event))

    async def run(self) -> None:
        """Control until cancelled."""
        self._ledger.on_event = self._event.set
        self._node.on_trouble = self._on_trouble
        try:
            while True:
                await self.decide()
                await self._next_point()
        finally:
            self._ledger.on_event = lambda: None
            self._thread.end()

    async def _next_point(self) -> None:
        """Wait for the next control point: an event, where these count, or the end of the period."""
        started_s, period_s = self._ledger.now_s, self._controller.period_s
        wait_s = next_control_s(started_s, period_s) - started_s
        if self._points != "events":
            await asyncio.sleep(wait_s)
            return
        await asyncio.sleep(min(self._settings.least_gap_s, wait_s))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._event.wait()

    async def decide(self) -> None:
        """Ask once, and carry out the answer."""
        self._event.clear()
        try:
            telemetry = self._telemeter.take()
        except TelemetryError as error:
            self.to_safety(f"no telemetry: {error}")
            self._age()
            return
        started_s = time.perf_counter()
        try:
            action = await self._asked(telemetry)
            took_s = time.perf_counter() - started_s
            if self._ledger.now_s < self._hold_until_s:
                self._node.to_top()  # which may not have obeyed either
            else:
                self._node.apply(action)
                self._leave_safety()
        except Exception as error:  # whatever a controller raises, requests are served
            self.to_safety(f"{type(error).__name__}: {error}")
        else:
            self._watch.decided(telemetry, action, took_s)

    async def _asked(self, telemetry: Telemetry) -> Action:
        """The controller's answer.

        Raises:
            TimeoutError: It thinks for too long, about this telemetry or an earlier one.
        """
        if self._answer is not None and not self._answer.done():
            raise TimeoutError("the controller still thinks about an earlier control point")
        self._answer = answer = self._thread.call(self._act, telemetry)
        await asyncio.wait([answer], timeout=self._settings.answer_s)
        if not answer.done():
            raise TimeoutError(f"the controller did not decide within {self._settings.answer_s:g} s")
        return answer.result()

    def _act(self, telemetry: Telemetry) -> Action:
        """In the thread."""
        observation = self._observer(telemetry) if self._observer else None
        action = self._controller.act(observation, telemetry)
        self._seen = observation, telemetry
        self._watch.projected(telemetry)
        return action

    def _age(self) -> None:
        """Have a watchdog know how old the last telemetry is by now, so that it keeps its quiet time."""
        controller = self._controller
        idle = self._answer is None or self._answer.done()
        if isinstance(controller, Watchdog) and self._seen is not None and idle:
            observation, telemetry = self._seen
            age_s = self._ledger.now_s - telemetry.time_s
            self._answer = self._thread.call(
                partial(controller.act_aged, age_s=age_s), observation, telemetry
            )

    def _on_trouble(self, why: str) -> None:
        """GPUs did not obey: the agent's clock is not asked for again for a while."""
        self._hold_until_s = self._ledger.now_s + self._settings.trouble_s
        self.to_safety(f"a clock was not set: {why}")

    def to_safety(self, why: str) -> None:
        """Ask for the top clock everywhere, and say why.

        Args:
            why: For people.
        """
        if not self.safe_reason:
            self._watch.safe(why)
        self.safe_reason = why
        self._node.to_top()

    def _leave_safety(self) -> None:
        if self.safe_reason:
            self.safe_reason = ""
            self._watch.well()
