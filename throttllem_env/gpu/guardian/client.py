"""The controller's side of its guardian."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throttllem_env.gpu.guardian import leftovers, wire
from throttllem_env.gpu.guardian.state import StateFolder, default_folder
from throttllem_env.gpu.guardian.ward import Driver, Ward

PROGRAM = Path(__file__).with_name("__main__.py")


class GuardianError(OSError):
    """There is no guardian, or it will not look after a GPU: no clock may be locked."""


def _no_report(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class GuardianSettings:
    """How a guardian is run.

    Attributes:
        driver: What it resets through.
        folder: Where journal, locks and log lie; None for `default_folder()`.
        beat_s: Between heartbeats.
        silence_s: Without one for so long, the guardian restores every GPU.
        doubt_s: How long a GPU is restored again and again while its clock does not show it.
        patience_s: How long a driver may take over restoring a GPU before others are seen to.
        retry_s: Between tries to restore a GPU.
        give_up_s: How long it tries once the controller is gone.
        start_s: How long it may take to start.
        claim_s: How long another guardian may take to let go of a GPU.
        answer_s: How long it may take to answer.
    """

    driver: Driver
    folder: Path | None = None
    beat_s: float = 0.1
    silence_s: float = 1.0
    doubt_s: float = 2.0
    patience_s: float = 1.0
    retry_s: float = 0.25
    give_up_s: float = 600.0
    start_s: float = 60.0
    claim_s: float = 5.0
    answer_s: float = 10.0

    @property
    def state_path(self) -> Path:
        """Where the books lie, absolute: the guardian stands in another folder."""
        return (self.folder or default_folder()).absolute()


class Guardian:
    """A running guardian, and the heartbeats to it.

    Use it as a context manager, or close it. Methods may be called from any thread.

    Attributes:
        pid: The guardian's process.
        lapses: How often it has restored all GPUs because this process did not get to run.
        on_lapse: Called after that, by a thread of this object.
        on_lost: Called when the guardian is gone, by a thread of this object: clocks must be restored.
    """

    def __init__(self, settings: GuardianSettings, *, report: Callable[[str], None] = _no_report) -> None:
        """Start a guardian and wait until it can reset GPUs.

        Args:
            settings: How it is run.
            report: Takes a line for the operator's log.

        Raises:
            GuardianError: It did not start; the message says why.
            StateError: The state folder cannot be trusted.
        """
        self._settings = settings
        self._report = report
        self._turn = threading.RLock()
        self._claims: dict[str, int] = {}
        self._asked = 0
        self._ended: dict[str, str] | None = None
        self._closed = threading.Event()
        self._lost = False
        self._unanswered_s: float | None = None
        self.lapses = 0
        self.on_lost: Callable[[], None] | None = None
        self.on_lapse: Callable[[], None] | None = None
        self._state = StateFolder(settings.state_path)
        self._clean_up()
        self._process, self._channel = self._start()
        self.pid = self._process.pid
        self._heart = threading.Thread(target=self._beat, name="guardian-heartbeat", daemon=True)
        self._heart.start()

    def _clean_up(self) -> None:
        """Give back what an earlier guardian could not, since it was killed too."""
        restored, failed = leftovers.restore(self._state)
        for left in restored:
            self._report(f"gave back GPU {left.uuid}, which an earlier controller had left behind")
        for left in failed:
            self._report(f"GPU {left.uuid} was left behind by an earlier controller: {left.problem}")

    def _start(self) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        """Start the process, hand it its end of the channel, and wait for its first word."""
        ours, theirs = wire.pair()
        told = {
            "channel": theirs.fileno(),
            "state": str(self._state.path),
            "controller_pid": os.getpid(),
            "driver": self._settings.driver.plain(),
            "silence_s": self._settings.silence_s,
            "doubt_s": self._settings.doubt_s,
            "patience_s": self._settings.patience_s,
            "retry_s": self._settings.retry_s,
            "give_up_s": self._settings.give_up_s,
        }
        log = self._state.open_log()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM), json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        finally:
            theirs.close()
            os.close(log)
        try:
            self._await_ready(ours)
        except BaseException:
            ours.close()
            self._state.close()
            _leave_alone(process)
            raise
        return process, ours

    def _await_ready(self, channel: socket.socket) -> None:
        channel.settimeout(self._settings.start_s)
        try:
            found = wire.receive(channel)
        except TimeoutError:
            raise GuardianError(f"the guardian did not start within {self._settings.start_s:g} s") from None
        if found is None:
            raise GuardianError(f"the guardian did not start: see {self._state.path / 'guardian.log'}")
        if "refused" in found[0]:
            raise GuardianError(f"the guardian cannot reset GPUs: {found[0]['refused']}")
        channel.settimeout(self._settings.answer_s)

    @property
    def alive(self) -> bool:
        """Whether it is there and would act."""
        return not self._lost and not self._closed.is_set()

    @property
    def uuids(self) -> frozenset[str]:
        """The GPUs in its care."""
        return frozenset(self._claims)

    def intend(self, wards: Sequence[Ward]) -> None:
        """Say which GPUs are going to be locked, before any is.

        Returns once the guardian has written it down.

        Raises:
            GuardianError: It did not take them into its care: none of them may be locked.
            GpuTakenError: Somebody else controls one of them.
            StateError: The state folder cannot be trusted.
        """
        claims: dict[str, int] = {}
        try:
            for ward in wards:
                if ward.uuid not in self._claims:  # not in turn: it may take a while, and hearts must beat
                    claims[ward.uuid] = self._state.claim(ward.uuid, self._settings.claim_s)
            files = [(claims | self._claims)[ward.uuid] for ward in wards]
            with self._turn:
                self._ask({"do": "intend", "wards": [ward.plain() for ward in wards]}, files)
                self._claims |= claims
        except BaseException:
            for fd in claims.values():
                os.close(fd)
            raise

    def release(self, uuids: Collection[str]) -> dict[str, str]:
        """Have GPUs restored, and let go of them.

        Returns:
            What went wrong, by UUID. The guardian goes on trying; these stay in its care, and so does a GPU
            whose clock does not show yet that it is restored.

        Raises:
            GuardianError: It is gone.
        """
        with self._turn:
            answer = self._ask({"do": "release", "uuids": sorted(uuids)})
            failed: dict[str, str] = answer["failed"]
            for uuid in set(uuids) & self._claims.keys() - failed.keys():
                os.close(self._claims.pop(uuid))
            return failed

    def drop(self, uuids: Collection[str]) -> None:
        """Let go of GPUs whose driver refused every lock: there is nothing to restore.

        Raises:
            GuardianError: The guardian is gone.
        """
        with self._turn:
            self._ask({"do": "drop", "uuids": sorted(uuids)})
            for uuid in set(uuids) & self._claims.keys():
                os.close(self._claims.pop(uuid))

    def forget(self, uuids: Collection[str]) -> None:
        """Take GPUs out of the journal that were restored without this guardian, since it is gone."""
        with self._turn:
            for uuid in set(uuids) & self._claims.keys():
                self._state.remove(uuid)
                os.close(self._claims.pop(uuid))

    def end(self) -> dict[str, str]:
        """Have every GPU restored; the guardian ends after that.

        Returns:
            What could not be restored yet, by UUID: the guardian stays until it is, or gives up.

        Raises:
            GuardianError: It is gone. The GPUs are still in the hands of this process.
        """
        with self._turn:
            if self._ended is None:
                self._ended = self._ask({"do": "end"})["failed"]
            return self._ended

    def close(self) -> dict[str, str]:
        """Have every GPU restored, the guardian ended, and let go of them.

        Returns:
            As `end`; if the guardian is gone, every GPU in its care: they stay in the journal.
        """
        if self._closed.is_set():
            return {}
        with self._turn:
            try:
                failed = self.end()
            except GuardianError as error:
                failed = {uuid: str(error) for uuid in self._claims}
            self._closed.set()
            self._channel.close()
            for fd in self._claims.values():
                os.close(fd)
            self._claims.clear()
            self._state.close()
        if not self._lost:  # else the thread may be calling somebody who waits for this
            self._heart.join()
        self._reap(failed)
        return failed

    def _reap(self, failed: dict[str, str]) -> None:
        """See the process off, or leave it to its work."""
        if failed and not self._lost:
            self._report(f"the guardian (pid {self.pid}) goes on trying: {'; '.join(failed.values())}")
            _leave_alone(self._process)
            return
        try:
            self._process.wait(self._settings.answer_s)
        except subprocess.TimeoutExpired:
            self._report(f"the guardian (pid {self.pid}) does not end; it is left to itself")
            _leave_alone(self._process)

    def __enter__(self) -> "Guardian":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, message: dict[str, Any], files: list[int] | None = None) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        with self._turn:
            if not self.alive:
                raise GuardianError("the guardian is gone")
            self._asked += 1
            try:
                wire.send(self._channel, message | {"id": self._asked}, files)
                answer = self._await_answer(self._asked)
            except OSError as error:
                self._lose()
                raise GuardianError(f"the guardian does not answer: {error}") from error
        if "refused" in answer:
            raise GuardianError(f"the guardian refused: {answer['refused']}")
        return answer

    def _await_answer(self, number: int) -> dict[str, Any]:
        """Wait for the answer to a request; raises an OSError when there will be none."""
        until_s = time.monotonic() + self._settings.answer_s
        while time.monotonic() < until_s:
            found = wire.receive(self._channel)
            if found is None:
                raise ConnectionResetError("it is gone")
            if found[0].get("to") == number:
                return found[0]
            self._note(found[0])
        raise TimeoutError(f"nothing for {self._settings.answer_s:g} s")

    def _note(self, message: dict[str, Any]) -> None:
        """Take in what the guardian says unasked, answers to heartbeats among it."""
        self._unanswered_s = None
        if "lapsed" in message:
            self.lapses += 1
            silence_s = self._settings.silence_s
            self._report(
                f"this process did not run for {silence_s:g} s: the guardian has restored all clocks"
            )

    def _beat(self) -> None:
        """Show that this process lives, and see that the guardian does."""
        lapses = 0
        while self.alive and not self._closed.wait(self._settings.beat_s):
            with self._turn:
                if self._ended is not None:
                    return
                if not self._exchange():
                    self._lose()
            if self.lapses > lapses and self.on_lapse is not None:
                self.on_lapse()
            lapses = self.lapses
        if self._lost and self.on_lost is not None:
            self.on_lost()

    def _exchange(self) -> bool:
        """Take in what has come, and send a heartbeat; gives whether the guardian is there."""
        if not self.alive:  # another thread has found out meanwhile
            return False
        try:
            while select.select([self._channel], [], [], 0)[0]:
                found = wire.receive(self._channel)
                if found is None:
                    return False
                self._note(found[0])
            now_s = time.monotonic()
            if self._unanswered_s is None:
                self._unanswered_s = now_s
            wire.send(self._channel, {"do": "beat"})
        except OSError:
            return False
        return now_s - self._unanswered_s < self._settings.answer_s

    def _lose(self) -> None:
        """The guardian is gone or stopped: whoever uses it must restore the clocks."""
        if self.alive:
            self._lost = True
            self._report(f"the guardian (pid {self.pid}) is gone")
            self._process.kill()  # one that only stands still must not act on old orders later


def _leave_alone(process: "subprocess.Popen[bytes]") -> None:
    """Let a process end when it will; somebody must wait for it all the same, or it stays as a zombie."""

    def reap() -> None:
        with suppress(OSError):
            process.wait()

    threading.Thread(target=reap, name="guardian-reaper", daemon=True).start()
