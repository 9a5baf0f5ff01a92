"""The simulators against vLLM's own engine, and real servers in real time against both: by their results."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from throttllem_env.evaluation.document import Section, Table, percent

REALTIME, STACK = "realtime-gap.json", "full-stack.json"
DIFFERENCES = ("iterations that differ", "requests that differ", "energies differ")


def engine_section(page: Path) -> Section:
    """What `scripts/engine_gap.py` found, summed up.

    Args:
        page: Its page, `engine.md`.

    Raises:
        ValueError: The page has no table of a release.
    """
    text = page.read_text(encoding="utf-8")
    releases = re.split(r"^## (vLLM [\d.]+)$", text, flags=re.MULTILINE)[1:]
    rows = [
        _summed(release, list(_table(part)))
        for release, part in zip(releases[::2], releases[1::2], strict=True)
    ]
    if not rows:
        raise ValueError(f"{page}: has no section of a release of vLLM; scripts/engine_gap.py writes them")
    return Section(
        "vLLM's own engine",
        "The simulators schedule as vLLM does: iteration by iteration, on both Azure traces at 50, 90 and "
        "120 % of rated load, under KV exhaustion, and while sizes change. [engine.md](engine.md) has every "
        "case, how it is compared, and the command (`scripts/engine_gap.py`).",
        [
            Table(
                "The engine in virtual time against the reference simulator, all cases of a release:",
                ["engine", "cases", "requests", "iterations", "preemptions", *DIFFERENCES],
                rows,
            )
        ],
    )


def _table(part: str) -> Iterator[dict[str, str]]:
    """Rows of the table in a part of the page, by their heads."""
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    for row in lines[1:]:
        yield dict(zip(lines[0], row, strict=True))


def _summed(release: str, cases: list[dict[str, str]]) -> list[str]:
    def total(name: str) -> str:
        return f"{sum(int(case[name].replace(',', '')) for case in cases):,}"

    counted = [total(name) for name in ("requests", "iterations", "preemptions", *DIFFERENCES[:2])]
    differ = sum(case[DIFFERENCES[2]] != "no" for case in cases)
    return [release, str(len(cases)), *counted, f"in {differ} cases" if differ else "no"]


def live_section(measurements: Path) -> Section | None:
    """What `scripts/realtime_gap.py` and `scripts/full_stack.py` measured.

    Args:
        measurements: Folder with their files; None without any.
    """
    tables: list[Table] = []
    if (file := measurements / REALTIME).exists():
        tables += _realtime(json.loads(file.read_text(encoding="utf-8")))
    if (file := measurements / STACK).exists():
        tables += _stack(json.loads(file.read_text(encoding="utf-8")))
    if not tables:
        return None
    return Section(
        "Real servers in real time",
        "vLLM's servers as processes on emulated GPUs, behind the gateway, loaded over HTTP, under "
        "`throttllem`. In virtual time vLLM's engine serves the same requests at the clocks that the GPUs "
        "had and the sizes that were asked for. Real time has HTTP, the gateway, and two cores that all of "
        "it shares: TTFT shows that, E2E hardly. Everything is in `docs/measurements/`.",
        tables,
    )


def _realtime(found: dict[str, Any]) -> list[Table]:
    kept, sizes = found["conservation"], found["size_changes"]
    changes = ", ".join(f"to {each['size']} at {each['asked_s']:.0f} s" for each in sizes) or "none"
    caption = (
        f"`{found['command']}` ({found['date']}, {found['cores']} cores): {kept['requests']:,} requests, "
        f"{kept['client_tokens']:,} tokens, {found['busiest_tokens_per_s']:,.0f} per second at most; "
        f"{kept['lost']} lost, {kept['duplicated']} twice, {kept['incomplete']} incomplete, "
        f"{kept['unaccounted_tokens']} tokens that engines and clients count differently; "
        f"{found['clock_changes']:,} clock changes, changes of size: {changes}; "
        f"energy {found['energy']['gap']:+.1%}.{_agents_own(found)}"
    )
    rows = [
        [
            f"{kind.upper()} {share}",
            *(f"{1e3 * row[name]:,.1f}" for name in ("live_s", "virtual_s")),
            _signed(row),
        ]
        for kind, of_kind in found["latency"].items()
        for share, row in of_kind.items()
    ]
    clocks = [
        [
            f"{row['mean_mhz']:.0f}",
            f"{row['tokens']:,}",
            *(f"{1e3 * tbt_s:.1f}" for tbt_s in row["tbt_s"][:2]),
        ]
        for row in found["tbt_by_clock"]
    ]
    return [
        Table(caption, ["ms", "real time", "virtual time", "gap"], rows),
        Table(
            "Times between tokens by the clock of the active instance, means:",
            ["clock, MHz", "tokens", "real time, ms", "virtual time, ms"],
            clocks,
        ),
    ]


def _agents_own(found: dict[str, Any]) -> str:
    """How far the agent's own run in virtual time is; nothing if there was none."""
    if "agents_own" not in found:
        return ""
    own = found["agents_own"]
    gaps = ", ".join(f"{share} {row['gap']:+.1%}" for share, row in own["latency"]["e2e"].items())
    return f" Against the agent's own decisions in virtual time: E2E {gaps}, energy {own['energy_gap']:+.1%}."


def _signed(row: dict[str, float]) -> str:
    return f"{'+' if row['gap'] >= 0 else '-'}{percent(abs(row['gap']))}"


def _stack(found: dict[str, Any]) -> list[Table]:
    clocks, after = found["clocks"], found["after_sigkill"]
    energy = ", ".join(f"{name.replace('_', ' ')} {row['gap']:+.2%}" for name, row in found["energy"].items())
    caption = (
        f"The same over pynvml and a double of NVML's library, `{found['command']}` ({found['date']}): "
        f"{found['completed']:,} of {found['requests']:,} requests complete; "
        f"{clocks['locks_carried_out']:,} locks; GPUs at the clock asked for at {clocks['followed']:,} of "
        f"{clocks['moments']:,} moments; energy read through NVML against the executors' account: {energy}; "
        f"after SIGKILL every GPU at its restore setting in {after['restored_s']:.2f} s, no process left "
        f"after {after['no_process_left_s']:.2f} s."
    )
    rows = [
        [
            f"{row['mhz']:.0f}",
            f"{row['tokens']:,.0f}",
            f"{1e3 * row['tbt_s']:.1f}",
            f"{1e3 * row['iteration_s']:.1f}",
        ]
        for row in found["tbt_by_clock"]
    ]
    return [
        Table(caption, ["clock, MHz", "tokens", "TBT at the gateway, ms", "iteration on the GPU, ms"], rows)
    ]
