"""How long it takes until one can begin: imports and `--help`, each in a fresh process."""

import subprocess
import sys

from throttllem_env.evaluation.bench.figures import Figure, seconds

COMMANDS = {
    "python alone": ["-c", "pass"],
    "import throttllem_env": ["-c", "import throttllem_env"],
    "throttllem --help": ["-m", "throttllem_env", "--help"],
    "import and gym.make": [
        "-c",
        "import gymnasium; gymnasium.make('throttllem_env:ThrottLLeM/Serving-v0').reset(seed=0)",
    ],
}
"""What is started, by name. The last one takes compiled code from its cache and draws a first episode."""


def start_ups(repeats: int) -> list[Figure]:
    """Wall time of whole processes.

    Args:
        repeats: Starts of each; one before, not counted, fills the caches.

    Raises:
        subprocess.CalledProcessError: One failed.
    """
    return [
        Figure(name, "s", tuple(_start_s(command) for _ in range(repeats + 1))[1:], "a fresh process")
        for name, command in COMMANDS.items()
    ]


def _start_s(arguments: list[str]) -> float:
    command = [sys.executable, *arguments]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True))
