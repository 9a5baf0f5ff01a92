"""The whole examination."""

import platform
from collections.abc import Sequence
from typing import Any

from throttllem_env.live.doctor import books, clocks
from throttllem_env.live.doctor.driver import examine_driver
from throttllem_env.live.doctor.findings import Finding, Report, Verdict
from throttllem_env.live.doctor.rights import examine_rights
from throttllem_env.live.doctor.surroundings import examine_ports, examine_vllm


def examine(
    ports: Sequence[int] | None = None,
    *,
    write: bool = False,
    reset: bool = False,
    restore_mhz: tuple[int, int] | None = None,
) -> Report:
    """Look at everything.

    Args:
        ports: Ports that must be free; None looks at the usual ones.
        write: Also measure how long a change of clocks takes, by making some.
        reset: First give back every GPU that was left behind.
        restore_mhz: What `write` gives GPUs back with; None for the driver's default.
    """
    found = books.clean() if reset else []
    found.append(_program())
    of_driver, gpus = examine_driver()
    found += of_driver
    facts: dict[str, Any] = {"gpus": gpus}
    if gpus:
        found.append(examine_rights())
        timing, measured = clocks.measure(restore_mhz) if write else (clocks.recall(gpus), {})
        found.append(timing)
        facts |= measured
    elif write:
        found.append(Finding(clocks.SUBJECT, Verdict.PROBLEM, "not measured: there is no GPU"))
    found += books.examine_books()
    found.append(examine_vllm())
    found += examine_ports(ports)
    return Report(found, facts)


def _program() -> Finding:
    from throttllem_env import __version__

    text = f"throttllem-env {__version__}, Python {platform.python_version()}, {platform.machine()}"
    return Finding("program", Verdict.GOOD, text)
