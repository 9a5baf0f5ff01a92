r"""Real vLLM servers in real time, on emulated GPUs, against the same run in virtual time.

    python scripts/realtime_gap.py --trace ../shared/traces/AzureLLMInferenceTrace_conv.csv --load 0.5 \
        --duration 600 --out docs/measurements/realtime-gap.json

The trace goes over HTTP through the gateway to vLLM's servers, while an agent sets clocks and sizes. Then
vLLM's own engine serves it again, in virtual time, with the same actions at the same times, and once more
with the agent's own decisions there. Needs vLLM (`make live` makes an environment), and two cores that are
idle; takes as long as the trace, and two minutes. Exits with status 1 where anything is lost, or E2E is 5 %
off.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from throttllem_env.cli.console import output, text_table
from throttllem_env.evaluation.realtime.gap import document, worst_gap
from throttllem_env.evaluation.realtime.host import made_by, write_measurement
from throttllem_env.evaluation.realtime.play import Order, serve_again, serve_itself, serve_live
from throttllem_env.live.backend import LiveBackend
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.workload import prepare_workload

ALLOWED_GAP = 0.05


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Serve thrice, and compare."""
    scenario = load_scenario(given.scenario)
    workload = prepare_workload(given.trace, scenario, load=given.load, duration_s=given.duration)
    sizes = tuple((float(at), int(size)) for at, size in (told.split(":") for told in given.size))
    order = Order(scenario, workload, given.agent, sizes)
    with tempfile.TemporaryDirectory(prefix="realtime-") as folder:
        backend = LiveBackend(scenario, folder=folder, say=lambda line: print(line, file=sys.stderr))
        try:
            live = serve_live(order, backend)
        finally:
            backend.close()
    print("in virtual time ...", file=sys.stderr)
    again = serve_again(order, live, given.virtual)
    itself = serve_itself(order, live, given.virtual)
    return document(order, live, again, itself)


def show(found: dict[str, Any]) -> None:
    """Print tables."""
    rows = [
        [f"{kind.upper()} {share}", f"{row['live_s']:.3f}", f"{row['virtual_s']:.3f}", f"{row['gap']:+.1%}"]
        for kind, of_kind in found["latency"].items()
        for share, row in of_kind.items()
    ]
    console = output()
    console.print(text_table(["seconds", "real time", "virtual time", "gap"], rows))
    rows = [
        [f"{row['mean_mhz']:.0f}", f"{row['tokens']:,}", *(f"{1e3 * value:.1f}" for value in row["tbt_s"])]
        for row in found["tbt_by_clock"]
    ]
    console.print(text_table(["MHz", "tokens", "TBT, ms", "virtual", "agent's own"], rows))
    console.print(json.dumps({key: found[key] for key in ("conservation", "timekeeping", "energy")}))


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", default="azure-conv-like", help="a trace, by file or name")
    parser.add_argument("--duration", type=float, default=600.0, help="seconds of it (default: 600)")
    parser.add_argument("--load", type=float, default=0.5, help="share of the rated load (default: 0.5)")
    parser.add_argument("--scenario", default="llama2-13b-a100")
    parser.add_argument("--agent", default="throttllem")
    parser.add_argument(
        "--size", action="append", default=[], metavar="SECONDS:SIZE", help="a size that the agent is told"
    )
    parser.add_argument("--virtual", default="vllm-emulated", help="the backend in virtual time")
    parser.add_argument("--out", type=Path, help="file for the results, JSON")
    given = parser.parse_args()
    found = made_by("scripts/realtime_gap.py", given.load) | measured(given)
    show(found)
    write_measurement(found, given.out)
    kept = found["conservation"]
    wrong = [name for name in ("lost", "duplicated", "incomplete", "unaccounted_tokens") if kept[name]]
    gap = worst_gap(found["latency"])
    return 1 if wrong or gap > ALLOWED_GAP else 0


if __name__ == "__main__":
    sys.exit(main())
