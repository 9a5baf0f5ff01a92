"""Run a trained policy, unchanged, on vLLM's own engine, and compare with the simulator.

    .venv-live/bin/python scripts/transfer_gap.py --traces DIR [--seconds 300]

Writes out/agents/transfer.json, which `scripts/train_agents.py evaluate` puts into docs/agents.md. Needs vLLM
(`make live` installs it); takes a minute or two per case.
"""

import argparse
import logging
from pathlib import Path

from throttllem_env.training.study.evaluate import test_cases
from throttllem_env.training.study.transfer import keep_transfer, transfer


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder with the Azure traces of 2023")
    parser.add_argument("--agent", default="learned", help="default: %(default)s")
    parser.add_argument("--cases", default="conv 0.5,conv 0.7,conv 1", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=300.0, help="of each case; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/agents"), help="default: %(default)s")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    wanted = arguments.cases.split(",")
    cases = [c for c in test_cases(arguments.traces) if c.name in wanted and c.predictor == "learned"]
    if len(cases) != len(wanted):
        known = ", ".join(dict.fromkeys(case.name for case in test_cases(arguments.traces)))
        parser.error(f"--cases {arguments.cases}: each must be one of {known}")
    found = transfer(arguments.agent, cases, arguments.seconds, lambda text: print(text, flush=True))
    for one in found:
        ours, theirs = one.energy_j
        print(f"{one.case}: energy {100 * (theirs / ours - 1):+.4f} %, late {one.late[0]} and {one.late[1]}")
    print(keep_transfer(found, arguments.agent, arguments.out))


if __name__ == "__main__":
    main()
