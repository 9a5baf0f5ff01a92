"""Profile every engine of the shipped scenarios, fit M to it, and ship the tables.

    python scripts/fit_ips.py

Runs `throttllem profile` and `throttllem fit` for each model on each GPU and copies the tables to
`throttllem_env/prediction/ips/tables/`, from where forecasts take them. To be run again whenever
`scripts/fit_hardware.py` has changed a profile; takes up to ten minutes on two cores and goes on where it was
interrupted. Needs `pip install 'throttllem-env[fit]'`.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from throttllem_env.scenario import Scenario, load_scenario, scenario_names

TABLES = Path(__file__).resolve().parents[1] / "throttllem_env" / "prediction" / "ips" / "tables"


def engines() -> list[Scenario]:
    """Of each model on each GPU, the shipped scenario with the most sizes."""
    by_engine: dict[tuple[str, str], Scenario] = {}
    for scenario in map(load_scenario, scenario_names()):
        key = (scenario.model, scenario.gpu)
        if key not in by_engine or len(scenario.sizes) > len(by_engine[key].sizes):
            by_engine[key] = scenario
    return list(by_engine.values())


def throttllem(*arguments: object) -> None:
    """Run our own command line, with its progress bars."""
    subprocess.run([sys.executable, "-m", "throttllem_env", *map(str, arguments)], check=True)


def main() -> None:
    """Profile, fit, copy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/ips"), help="profiles and models")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    TABLES.mkdir(exist_ok=True)
    for scenario in engines():
        profile, model = arguments.out / f"{scenario.name}.parquet", arguments.out / scenario.name
        if not profile.exists():
            throttllem("profile", "--scenario", scenario.name, "--out", profile, "--jobs", arguments.jobs)
        throttllem("fit", profile, "--out", model)
        shutil.copyfile(model / "table.npz", TABLES / f"{scenario.model}_{scenario.gpu}.npz")


if __name__ == "__main__":
    main()
