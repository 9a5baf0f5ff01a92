"""Run a trained policy, unchanged, on vLLM's own engine, and compare with the simulator.

    .venv-live/bin/python scripts/transfer_gap.py --traces DIR [--cases NAME:SECONDS,...]

Writes out/agents/transfer.json, which `scripts/train_agents.py evaluate` puts into docs/agents.md. Needs vLLM
(`make live` installs it); takes a minute or two per case. The first 25 minutes of code's test blocks have 31
requests, so that case is longer.
"""

import argparse
import logging
from pathlib import Path

from throttllem_env.suggest import nearest
from throttllem_env.training.study.contest import ContestCase
from throttllem_env.training.study.evaluate import test_cases
from throttllem_env.training.study.transfer import keep_transfer, transfer

CASES = "conv 0.5:420,conv 0.7:420,conv 1:300,code 0.7:2400"


def cases_of(text: str, traces: Path) -> list[tuple[ContestCase, float]]:
    """Parse `name:seconds,...`.

    Args:
        text: Names as `test_cases` has them, and how much of each is served.
        traces: Folder of the recorded traces.

    Raises:
        ValueError: There is no such case, or the time is no number above 0.
    """
    known = {case.name: case for case in test_cases(traces) if case.predictor == "learned"}
    found = []
    for part in text.split(","):
        name, _, seconds = part.partition(":")
        if name not in known:
            raise ValueError(f"case = {name!r}: unknown; {nearest(name, known)}")
        if not seconds.isdecimal() or int(seconds) == 0:
            raise ValueError(f"case = {part!r}: expected a name and whole seconds, such as conv 0.7:300")
        found.append((known[name], float(seconds)))
    return found


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the Azure traces of 2023")
    parser.add_argument("--agent", default="learned", help="default: %(default)s")
    parser.add_argument("--cases", default=CASES, help="name:seconds,...; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/agents"), help="default: %(default)s")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    try:
        cases = cases_of(arguments.cases, arguments.traces)
    except ValueError as error:
        parser.error(str(error))
    found = transfer(arguments.agent, cases, lambda text: print(text, flush=True))
    for one in found:
        ours, theirs = one.energy_j
        counts = f"late {one.late}, size changes {one.size_changes}"
        print(f"{one.case}: energy {100 * (theirs / ours - 1):+.4f} %, simulator and vLLM: {counts}")
    print(keep_transfer(found, arguments.agent, arguments.out))


if __name__ == "__main__":
    main()
