"""The guardian's process; `Guardian.start` runs this file by its path.

By its path, so that the packages around it are not executed: they load Gymnasium, NumPy and pydantic, of
which a guardian needs nothing, and each of which could keep it from starting.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    for name, folder in (
        ("throttllem_env", here.parent.parent),
        ("throttllem_env.gpu", here.parent),
        ("throttllem_env.gpu.guardian", here),
    ):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules.setdefault(name, package)

from throttllem_env.gpu.guardian.resetters import ResetError, make_resetter
from throttllem_env.gpu.guardian.state import StateFolder
from throttllem_env.gpu.guardian.ward import Driver
from throttllem_env.gpu.guardian.watch import Orders, Watch
from throttllem_env.gpu.guardian.wire import send

# Ctrl-C is for the controller; a service manager sends SIGTERM to every process of the service, and the
# guardian's work begins when the controller has obeyed.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE)


def log(line: str) -> None:
    """Write a line with the time; stderr is the log file. A full disk stops nothing."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    with suppress(OSError):
        os.write(2, f"{when} guardian {os.getpid()}: {line}\n".encode())


def main(text: str) -> int:
    """Watch over the controller that started this process.

    Args:
        text: JSON: `channel`, `state`, `driver`, and the other fields of `Orders`.

    Returns:
        Exit status: 0 when every GPU was given back.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # only root may; the last process that a full memory should cost
        Path("/proc/self/oom_score_adj").write_text("-900", encoding="ascii")
    told = json.loads(text)
    channel = socket.socket(fileno=told.pop("channel"))
    state, driver = StateFolder(Path(told.pop("state"))), Driver.from_plain(told.pop("driver"))
    try:
        resetter = make_resetter(driver)
    except (ResetError, ValueError) as error:
        log(f"cannot reset GPUs: {error}")
        send(channel, {"refused": str(error)})
        return 1
    watch = Watch(channel, state, resetter, Orders(driver=driver, **told), log)
    log(f"watches over process {told['controller_pid']}")
    send(channel, {"ready": os.getpid()})
    try:
        done = watch.run()
    except Exception as error:  # of our own making: GPUs come first all the same
        log(f"failed: {error!r}")
        done = watch.finish()
    log("is done" if done else "leaves GPUs behind: run throttllem doctor --reset")
    return 0 if done else 1


if __name__ == "__main__":
    status = main(sys.argv[1])
    # A thread may hang in the driver for ever: there is nothing to tidy up that waits for it.
    os._exit(status)
