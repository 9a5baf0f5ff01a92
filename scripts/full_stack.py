r"""The full stack over NVML: `throttllem serve`, vLLM on emulated GPUs, pynvml over a double of its library.

    python scripts/full_stack.py --trace ../shared/traces/AzureLLMInferenceTrace_conv.csv --load 0.5 \
        --duration 300 --out docs/measurements/full-stack.json

The controller locks clocks through pynvml, the library changes them in a mapped file, vLLM's executor goes
by them and writes its energy there, and pynvml reads that back: all real but the silicon. In the end the
service is killed. Needs vLLM (`make live` makes an environment), gcc, and two cores that are idle; takes a
minute more than the trace. Exits with status 1 where something does not hold.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from nvml_double import load_double

from throttllem_env.cli.console import output, text_table
from throttllem_env.evaluation.full_stack.run import Stack, document, run
from throttllem_env.evaluation.realtime.host import made_by, write_measurement
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.workload import prepare_workload

ENERGY_GAP = 0.01


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Run it once."""
    scenario = load_scenario(given.scenario)
    workload = prepare_workload(given.trace, scenario, load=given.load, duration_s=given.duration)
    with tempfile.TemporaryDirectory(prefix="stack-") as name:
        folder = Path(name)
        (folder / "nvml").mkdir()
        double = load_double().NvmlDouble(folder / "nvml")
        stack = Stack(scenario, workload.trace, given.agent, folder, double.environment)
        return document(stack, run(stack))


def show(found: dict[str, Any]) -> None:
    """Print tables."""
    rows = [
        [
            f"{row['mhz']:.0f}",
            f"{row['tokens']:,.0f}",
            f"{1e3 * row['tbt_s']:.1f}",
            f"{1e3 * row['iteration_s']:.1f}",
        ]
        for row in found["tbt_by_clock"]
    ]
    console = output()
    console.print(text_table(["MHz", "tokens", "TBT, ms", "iteration, ms"], rows))
    console.print(json.dumps({key: value for key, value in found.items() if key != "tbt_by_clock"}, indent=1))


def wrong(found: dict[str, Any]) -> list[str]:
    """What does not hold."""
    clocks = found["clocks"]
    held = {
        "requests": found["completed"] == found["requests"],
        "clocks": clocks["followed"] == clocks["moments"] > 0,
        "energy": all(abs(each["gap"]) <= ENERGY_GAP for each in found["energy"].values()),
        "restored": found["after_sigkill"]["restored_s"] <= 2.0,
    }
    return [name for name, holds in held.items() if not holds]


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", default="azure-conv-like", help="a trace, by file or name")
    parser.add_argument("--duration", type=float, default=300.0, help="seconds of it (default: 300)")
    parser.add_argument("--load", type=float, default=0.5, help="share of the rated load (default: 0.5)")
    parser.add_argument("--scenario", default="llama2-13b-a100")
    parser.add_argument("--agent", default="throttllem")
    parser.add_argument("--out", type=Path, help="file for the results, JSON")
    given = parser.parse_args()
    found = made_by("scripts/full_stack.py", given.load) | measured(given)
    show(found)
    write_measurement(found, given.out)
    for name in wrong(found):
        print(f"does not hold: {name}", file=sys.stderr)
    return 1 if wrong(found) else 0


if __name__ == "__main__":
    sys.exit(main())
