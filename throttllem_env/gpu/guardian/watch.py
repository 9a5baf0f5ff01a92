"""The guardian's watch over a controller: it listens, and gives GPUs back when it hears nothing any more."""

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from throttllem_env.gpu.guardian.resetters import ResetError, Resetter
from throttllem_env.gpu.guardian.rounds import Rounds
from throttllem_env.gpu.guardian.state import StateFolder, new_entry
from throttllem_env.gpu.guardian.ward import Driver, Ward
from throttllem_env.gpu.guardian.wire import receive, send


@dataclass(frozen=True)
class Orders:
    """What a guardian is told at its start.

    Attributes:
        controller_pid: Whom it watches.
        driver: What it resets through.
        silence_s: Without a message for so long, the controller counts as stopped.
        doubt_s: A driver may say yes and do nothing, so while no clock shows that a GPU is restored, it is
            restored again and again, for so long.
        patience_s: How long a driver may take over restoring a GPU before others are seen to.
        retry_s: Between tries to restore a GPU in the first minute; later ten times as long.
        give_up_s: How long it goes on trying once the controller is gone.
    """

    controller_pid: int
    driver: Driver
    silence_s: float = 1.0
    doubt_s: float = 2.0
    patience_s: float = 1.0
    retry_s: float = 0.25
    give_up_s: float = 600.0


@dataclass
class Debt:
    """A GPU that has yet to be restored.

    Attributes:
        since_s: From when on, `time.monotonic()`.
        next_s: When to try again.
        said: The last failure that was logged.
        yes_s: When the driver first said yes.
    """

    since_s: float
    next_s: float
    said: str = ""
    yes_s: float | None = None


class Watch:
    """One controller's GPUs, from the first intent until the last of them is restored."""

    def __init__(
        self,
        channel: socket.socket,
        state: StateFolder,
        resetter: Resetter,
        orders: Orders,
        log: Callable[[str], None],
    ) -> None:
        """Begin with no GPU.

        Args:
            channel: The guardian's end.
            state: Where the journal lies.
            resetter: Restores a GPU.
            orders: Whom to watch, and how patiently.
            log: Takes one line at a time.
        """
        self._channel = channel
        self._state = state
        self._resetter = resetter
        self._rounds = Rounds(resetter, orders.patience_s)
        self._orders = orders
        self._log = log
        self._wards: dict[str, Ward] = {}
        self._locks: dict[str, int] = {}
        self._owed: dict[str, Debt] = {}
        self._leaving: set[str] = set()  # forgotten once they are restored
        self._heard_s = time.monotonic()
        self._silent = False
        self._gone_s: float | None = None

    def run(self) -> bool:
        """Watch until the controller is gone and every GPU is restored.

        Returns:
            Whether every GPU is; if not, the journal has the others.
        """
        poller, parent = select.poll(), _open_process(self._orders.controller_pid)
        poller.register(self._channel, select.POLLIN)
        if parent is not None:
            poller.register(parent, select.POLLIN)
        while self._gone_s is None:
            ready = {fd for fd, _ in poller.poll(self._wait_ms())}
            if self._channel.fileno() in ready:
                self._hear()
            if parent in ready:
                self._lose_controller("exited or was killed")
            self._check_silence()
            self._pay()
        return self.finish()

    def finish(self) -> bool:
        """Restore what is left, whoever is there to talk to, for as long as it may take; see `run`."""
        self._lose_controller("is left to itself")
        begin_s = time.monotonic()
        while self._wards:
            self._pay()
            if time.monotonic() - begin_s > self._orders.give_up_s:
                self._log(f"gives up after {self._orders.give_up_s:g} s on {self._names(self._wards)}")
                return False
            if self._owed:
                next_s = min(debt.next_s for debt in self._owed.values())
                time.sleep(max(0.001, next_s - time.monotonic()))
        return True

    def _wait_ms(self) -> float:
        """How long to listen before something else is due."""
        due_s = [debt.next_s for debt in self._owed.values()]
        if self._wards and not self._silent:
            due_s.append(self._heard_s + self._orders.silence_s)
        return max(0.0, (min(due_s) - time.monotonic()) * 1e3 + 1) if due_s else 60_000.0

    def _hear(self) -> None:
        """Take every message that has come."""
        while self._gone_s is None:
            try:
                found = receive(self._channel, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if found is None:
                self._lose_controller("closed its end of the channel, or was killed")
                return
            self._notice_return()
            self._answer(*found)

    def _answer(self, message: dict[str, Any], files: list[int]) -> None:
        """Do what a message says, and say what became of it; nothing that it says stops the guardian."""
        try:
            answer = self._obey(message, files)
        except (KeyError, TypeError, ValueError) as error:
            answer = {"refused": f"{message}: {error!r}"}
        for fd in set(files) - set(self._locks.values()):
            os.close(fd)
        self._heard_s = time.monotonic()  # who waits for an answer sends no heartbeats
        with suppress(OSError):
            send(self._channel, {"to": message.get("id")} | answer)

    def _obey(self, message: dict[str, Any], files: list[int]) -> dict[str, Any]:
        """Do what a message says."""
        match message["do"]:
            case "beat":
                return {}
            case "intend":
                return self._intend([Ward.from_plain(plain) for plain in message["wards"]], files)
            case "release":
                return {"failed": self._release(message["uuids"])}
            case "drop":
                for uuid in set(message["uuids"]) & self._wards.keys():
                    self._log(f"lets go of {self._wards[uuid]}, which was never locked")
                    self._forget(uuid)
                return {}
            case "end":
                failed = self._release(list(self._wards))
                self._gone_s = time.monotonic()
                return {"failed": failed}
            case other:
                return {"refused": f"do = {other!r}: expected beat, intend, release, drop or end"}

    def _intend(self, wards: list[Ward], files: list[int]) -> dict[str, Any]:
        """Take GPUs into care: what is acknowledged here will be restored whatever happens."""
        locks = dict(zip((ward.uuid for ward in wards), files, strict=True))
        try:
            for ward in wards:
                self._resetter.adopt(ward)
                self._state.write(new_entry(ward, self._orders.driver, self._orders.controller_pid))
        except (OSError, ResetError) as error:
            for uuid in locks.keys() - self._wards.keys():
                self._state.remove(uuid)
            self._log(f"refused to look after {self._names(locks)}: {error}")
            return {"refused": str(error)}
        for ward in wards:
            if ward.uuid in self._locks:
                os.close(self._locks[ward.uuid])
            self._wards[ward.uuid], self._locks[ward.uuid] = ward, locks[ward.uuid]
            self._leaving.discard(ward.uuid)
            self._owed.pop(ward.uuid, None)
            self._log(f"looks after {ward}: to be given back with {ward.setting}")
        return {}

    def _release(self, uuids: list[str]) -> dict[str, str]:
        """Restore GPUs and forget them; those that fail stay owed."""
        known = [uuid for uuid in uuids if uuid in self._wards]
        self._leaving.update(known)
        self._owe(known)
        self._pay()
        return {uuid: self._owed[uuid].said for uuid in known if uuid in self._owed and self._owed[uuid].said}

    def _owe(self, uuids: list[str]) -> None:
        """Restore these as soon as possible."""
        now_s = time.monotonic()
        for uuid in uuids:
            self._owed[uuid] = Debt(now_s, now_s)

    def _pay(self) -> None:
        """Restore what is due."""
        now_s = time.monotonic()
        due = [uuid for uuid, debt in self._owed.items() if debt.next_s <= now_s]
        if not due:
            return
        for uuid, found in self._rounds.attempt(self._wards[uuid] for uuid in due).items():
            if found.failure:
                self._defer(uuid, found.failure)
            elif found.seen or self._believes(uuid):
                self._settle(uuid)

    def _believes(self, uuid: str) -> bool:
        """A driver said yes, and the clock says nothing: is it to be believed by now?"""
        debt, now_s = self._owed[uuid], time.monotonic()
        if debt.yes_s is None:
            debt.yes_s = now_s
            ward = self._wards[uuid]
            took_ms = (now_s - debt.since_s) * 1e3
            self._log(f"gave back {ward} with {ward.setting}, after {took_ms:.0f} ms; does so until it shows")
        debt.said = ""
        debt.next_s = now_s + self._orders.retry_s
        return now_s - debt.yes_s >= self._orders.doubt_s

    def _settle(self, uuid: str) -> None:
        """A GPU is restored."""
        ward, debt = self._wards[uuid], self._owed.pop(uuid)
        took_ms = (time.monotonic() - debt.since_s) * 1e3
        self._log(f"gave back {ward} with {ward.setting}, after {took_ms:.0f} ms")
        if uuid in self._leaving:
            self._forget(uuid)

    def _forget(self, uuid: str) -> None:
        """A GPU is no longer in care."""
        self._leaving.discard(uuid)
        self._owed.pop(uuid, None)
        self._state.remove(uuid)
        del self._wards[uuid]
        os.close(self._locks.pop(uuid))

    def _defer(self, uuid: str, failure: str) -> None:
        """A GPU could not be restored: say so once, and try again soon."""
        debt = self._owed[uuid]
        if failure != debt.said:
            self._log(f"cannot give back {failure}; goes on trying")
            debt.said = failure
        now_s = time.monotonic()
        patience = 1 if now_s - debt.since_s < 60 else 10
        debt.next_s = now_s + self._orders.retry_s * patience

    def _check_silence(self) -> None:
        """A controller that does not speak may be stopped: its GPUs must not wait for it."""
        if self._silent or not self._wards or self._gone_s is not None:
            return
        if self._is_overdue():
            self._hear()  # it may have been the guardian that was kept from running
        if self._is_overdue() and self._gone_s is None:
            self._silent = True
            self._log(f"has heard nothing from the controller for {self._orders.silence_s:g} s")
            self._owe(list(self._wards))

    def _is_overdue(self) -> bool:
        return time.monotonic() - self._heard_s > self._orders.silence_s

    def _notice_return(self) -> None:
        """A controller that speaks again is in charge again, and is told what happened meanwhile."""
        self._heard_s = time.monotonic()
        if self._silent:
            self._silent = False
            self._owed = {uuid: debt for uuid, debt in self._owed.items() if uuid in self._leaving}
            self._log("hears from the controller again")
            with suppress(OSError):
                send(self._channel, {"lapsed": sorted(self._wards)})

    def _lose_controller(self, how: str) -> None:
        """The controller is gone for good."""
        if self._gone_s is not None:
            return
        self._gone_s = time.monotonic()
        if self._wards:
            self._log(f"the controller (pid {self._orders.controller_pid}) {how}: {self._names(self._wards)}")
            self._leaving.update(self._wards)
            self._owe(list(self._wards))

    def _names(self, uuids: Any) -> str:
        return ", ".join(str(self._wards.get(uuid, uuid)) for uuid in uuids)


def _open_process(pid: int) -> int | None:
    """Something that becomes readable when the parent ends, even if its children keep the channel open."""
    if os.getppid() != pid:
        return None  # it is gone already, and the channel says so
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or a sandbox: the channel and the heartbeats remain
        return None
