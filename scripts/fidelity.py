"""Write docs/fidelity.md: every hardware model against every data set that it can be held to.

    python scripts/fidelity.py --calibration ../shared/calibration

Needs `pip install 'throttllem-env[fit]'`; takes about a minute.
"""

import argparse
from pathlib import Path

from throttllem_env.evaluation.fidelity.page import write_fidelity


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--calibration", type=Path, required=True, help="folder with the calibration CSV files"
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where to write (default: docs)")
    arguments = parser.parse_args()
    for path in write_fidelity(arguments.calibration, arguments.docs):
        print(path)


if __name__ == "__main__":
    main()
