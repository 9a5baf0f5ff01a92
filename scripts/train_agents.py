"""Train the agents of docs/agents.md and hold them to the reference on requests that they have not seen.

    python scripts/train_agents.py train    --traces DIR [--recipes searched:5,searched-thrifty:5]
    python scripts/train_agents.py evaluate --traces DIR [--recipes ...] [--replicas 3] [--jobs 2]
    python scripts/train_agents.py ship     --traces DIR

`evaluate` writes docs/agents.md, `ship` puts the policies that did best on held-out requests into the
package. Trainings and runs that are there already are not made again, and a training that was cut off goes
on.
"""

import argparse
from pathlib import Path

from throttllem_env.training.algorithms import train
from throttllem_env.training.study.command_line import Lines, named_seeds
from throttllem_env.training.study.evaluate import evaluate
from throttllem_env.training.study.learning import first_policy
from throttllem_env.training.study.recipes import require_recipe, settings_of
from throttllem_env.training.study.ship import ship


def recipes(text: str) -> list[tuple[str, int]]:
    """Parse `name:seeds,name`."""
    return named_seeds(text, require_recipe)


def train_all(arguments: argparse.Namespace) -> None:
    """Train every recipe for every seed."""
    for name, seeds in arguments.recipes:
        for seed in range(arguments.first_seed, seeds):
            first = first_policy(arguments.out, name)
            settings = settings_of(name, seed, arguments.scenario, arguments.traces, arguments.out, first)
            train(settings, Lines(f"{name}, seed {seed}"))


def evaluate_all(arguments: argparse.Namespace) -> None:
    """Hold all that is trained to the reference, and write the page."""
    for path in evaluate(
        arguments.recipes,
        arguments.traces,
        arguments.out,
        arguments.docs,
        replicas=arguments.replicas,
        jobs=arguments.jobs,
        notify=lambda text: print(text, flush=True),
    ):
        print(path)


def ship_best(arguments: argparse.Namespace) -> None:
    """Put the best policies into the package."""
    for path in ship(arguments.recipes, arguments.scenario, arguments.out):
        print(path)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "evaluate", "ship"))
    parser.add_argument("--traces", type=Path, required=True, help="folder with the Azure traces of 2023")
    parser.add_argument("--scenario", default="llama2-13b-a100", help="train, ship; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/agents"), help="default: %(default)s")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="default: %(default)s")
    parser.add_argument(
        "--recipes",
        type=recipes,
        default="searched:5,searched-fine:1,searched-thrifty:5,searched-thrifty-fine:1",
        help="name:seeds,...; default: %(default)s",
    )
    parser.add_argument("--first-seed", type=int, default=0, help="train: leave out seeds below it")
    parser.add_argument("--replicas", type=int, default=3, help="evaluate: default %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="evaluate: default %(default)s")
    arguments = parser.parse_args()
    {"train": train_all, "evaluate": evaluate_all, "ship": ship_best}[arguments.what](arguments)


if __name__ == "__main__":
    main()
