"""Fit the shipped hardware profiles to a folder of calibration figures.

    python scripts/fit_hardware.py --calibration ../shared/calibration

Writes `throttllem_env/hardware/profiles/MODEL_GPU.yaml` for every model and GPU that fit each other:
coefficients, where each comes from, what had to be assumed, and mean absolute relative errors, in sample and
held out (kernel times: five random folds; against the clock: each clock; H100 prefill power: each prompt
length; H100 decode power: each model). Needs `pip install 'throttllem-env[fit]'`; takes half a minute.
"""

import argparse
from pathlib import Path

import yaml

from throttllem_env.hardware.fitting.profiles import ProfileBuilder
from throttllem_env.hardware.specs import GPUS, MODELS

PROFILES = Path(__file__).resolve().parents[1] / "throttllem_env" / "hardware" / "profiles"


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--calibration", type=Path, required=True, help="folder with the calibration CSV files"
    )
    parser.add_argument(
        "--out", type=Path, default=PROFILES, help="folder for the profiles (default: shipped)"
    )
    arguments = parser.parse_args()
    builder = ProfileBuilder(arguments.calibration)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        for gpu in GPUS:
            profile = builder.build(model, gpu)
            if profile:
                path = arguments.out / f"{profile['name']}.yaml"
                path.write_text(yaml.safe_dump(profile, sort_keys=False, width=100), encoding="utf-8")
                print(f"{path}: sizes {sorted(profile['latency'])}")
    print(yaml.safe_dump(profile["errors"] if profile else {}, sort_keys=False))


if __name__ == "__main__":
    main()
