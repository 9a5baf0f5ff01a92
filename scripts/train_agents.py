"""Train the agents of docs/agents.md and hold them to the reference on requests that they have not seen.

    python scripts/train_agents.py train    --traces DIR [--recipes searched:5,searched-fine:5] [--jobs 2]
    python scripts/train_agents.py evaluate --traces DIR

Trainings and runs that are there already are not made again, and a training that was cut off goes on.
"""

import argparse
from pathlib import Path

from throttllem_env.training.algorithms import train
from throttllem_env.training.report import Silent
from throttllem_env.training.study.recipes import require_recipe, settings_of


class Lines(Silent):
    """A line for each look at held-out requests."""

    def __init__(self, label: str) -> None:
        """Name the training."""
        self._label = label

    def validated(self, found: object, best: object) -> None:
        """See `Reporter`."""
        print(f"{self._label}: {found}", flush=True)


def recipes(text: str) -> list[tuple[str, int]]:
    """Parse `name:seeds,name:seeds`."""
    pairs = []
    for part in text.split(","):
        name, _, seeds = part.partition(":")
        require_recipe(name)
        pairs.append((name, int(seeds or 1)))
    return pairs


def train_all(arguments: argparse.Namespace) -> None:
    """Train every recipe for every seed."""
    for name, seeds in arguments.recipes:
        for seed in range(arguments.first_seed, seeds):
            settings = settings_of(name, seed, arguments.scenario, arguments.traces, arguments.out)
            outcome = train(settings, Lines(f"{name} {seed}"))
            print(f"{name} seed {seed}: {outcome.best}", flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "evaluate"))
    parser.add_argument("--traces", type=Path, required=True, help="folder with the Azure traces of 2023")
    parser.add_argument("--scenario", default="llama2-13b-a100", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/agents"), help="default: %(default)s")
    parser.add_argument(
        "--recipes", type=recipes, default="searched:5,searched-fine:5", help="name:seeds,..."
    )
    parser.add_argument("--first-seed", type=int, default=0, help="leave out those below")
    arguments = parser.parse_args()
    {"train": train_all}[arguments.what](arguments)


if __name__ == "__main__":
    main()
