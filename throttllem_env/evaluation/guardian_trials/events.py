"""What can happen to a controller and its guardian, and how long the GPUs wait for it to be mended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from throttllem_env.evaluation.guardian_trials.controllers import PATIENCE_S
from throttllem_env.evaluation.guardian_trials.stage import FAILING, Stage


def controller_killed(stage: Stage) -> float:
    """SIGKILL of the controller.

    Returns:
        From then, or the end of a fault with which no reset has an effect, until all GPUs are restored,
        seconds.
    """
    begin_s = time.monotonic()
    stage.kill(stage.pid)
    return _wait_out(stage, begin_s)


def controller_stopped(stage: Stage) -> float:
    """SIGSTOP of the controller; later it goes on, and is killed.

    Returns:
        The longer of both waits, seconds.
    """
    stopped_s = _wait_out(stage, stage.stop(stage.pid))
    os.kill(stage.pid, signal.SIGCONT)
    time.sleep(stage.rng.random() * 0.3)
    return max(stopped_s, controller_killed(stage))


def guardian_killed(stage: Stage) -> float:
    """SIGKILL of the guardian; the controller, which restores and starts another one, is killed later.

    Returns:
        The longer of both waits, seconds.
    """
    begin_s = time.monotonic()
    for pid in stage.guardians():
        os.kill(pid, signal.SIGKILL)
    stage.source.hear(stage.pid, "the guardian was lost")
    noticed_s = time.monotonic() - begin_s
    stage.end_fault()
    stage.wait(stage.looked_after, "another guardian")  # until there is one, an operator would have to come
    time.sleep(stage.rng.random())
    return max(noticed_s, controller_killed(stage))


def both_killed(stage: Stage) -> float:
    """SIGKILL of guardian and controller, neither of which can help the other; then an operator comes.

    Returns:
        How long `throttllem doctor --reset` takes, seconds.
    """
    os.kill(stage.pid, signal.SIGSTOP)
    for pid in stage.guardians():
        stage.kill(pid)
    stage.kill(stage.pid)
    stage.end_fault()
    begin_s = time.monotonic()
    reset_leftovers(stage)
    return stage.await_restored() - begin_s


def reset_leftovers(stage: Stage) -> None:
    """Run the command that an operator runs."""
    subprocess.run(
        [sys.executable, "-m", "throttllem_env", "doctor", "--reset", "--json"],
        env={**stage.environment, "THROTTLLEM_STATE_DIR": str(stage.folder)},
        stdout=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        check=False,
    )


def _wait_out(stage: Stage, begin_s: float) -> float:
    """How long it takes from a moment, or from the end of the fault, until all GPUs are restored."""
    stage.end_fault()
    if stage.fault & FAILING:
        begin_s = time.monotonic()
    return stage.await_restored() - begin_s


EVENTS: dict[str, Callable[[Stage], float]] = {
    "controller killed": controller_killed,
    "controller stopped": controller_stopped,
    "guardian killed": guardian_killed,
    "both killed": both_killed,
}
