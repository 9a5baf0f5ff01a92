"""Policies as JSON files: weights by name, so that a person can read them and nothing in them is executed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from throttllem_env.agents.supervising.supervision import OUTPUTS, PARAMETERS, TIMES, WEIGHTS, Policies
from throttllem_env.controller import ControllerError
from throttllem_env.suggest import nearest
from throttllem_env.types import FloatArray

FORMAT: Final = 2
DIGITS: Final = 6
"""Weights are written with so many decimals."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy as it is stored.

    Attributes:
        scenario: Name of the scenario that it was trained on.
        parameters: float64[PARAMETERS], see `Policies.of`.
        card: Where it comes from: data, seeds, results, command.
    """

    scenario: str
    parameters: FloatArray
    card: Mapping[str, Any]

    @property
    def policies(self) -> Policies:
        """The policy, as one of one."""
        return Policies.of(self.parameters[None])

    def save(self, path: Path) -> None:
        """Write the file.

        Args:
            path: Where; its folder is made.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        weights, at = {}, 0
        for output, names in OUTPUTS.items():
            values = self.parameters[at : at + len(names)].tolist()
            weights[output] = {name: round(value, DIGITS) for name, value in zip(names, values, strict=True)}
            at += len(names)
        document = {
            "format": FORMAT,
            "scenario": self.scenario,
            "weights": weights,
            "log_times": {
                name: round(float(value), DIGITS)
                for name, value in zip(TIMES, self.parameters[WEIGHTS:], strict=True)
            },
            "card": self.card,
        }
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "PolicyFile":
        """Read a file.

        Args:
            path: What `save` wrote.

        Raises:
            ControllerError: No such file, or one that is not a policy of this version.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ControllerError(f"policy = {str(path)!r}: cannot be read: {error}") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            found = document.get("format") if isinstance(document, dict) else type(document).__name__
            raise ControllerError(f"policy = {str(path)!r}: format = {found!r}: must be {FORMAT}")
        return cls(str(document.get("scenario")), _parameters(path, document), document.get("card", {}))


def _parameters(path: Path, document: Mapping[str, Any]) -> FloatArray:
    """The weights in order.

    Raises:
        ControllerError: A weight is missing or is no number.
    """
    weights, times = document.get("weights", {}), document.get("log_times", {})
    found = [
        _number(path, f"weights.{output}.{name}", weights.get(output, {}).get(name))
        for output, names in OUTPUTS.items()
        for name in names
    ]
    found += [_number(path, f"log_times.{name}", times.get(name)) for name in TIMES]
    assert len(found) == PARAMETERS
    return np.array(found)


def _number(path: Path, field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ControllerError(f"policy = {str(path)!r}: {field} = {value!r}: must be a finite number")
    return float(value)


AIMS: Final[dict[str, str]] = {
    "punctual": "late no more often than throttllem",
    "thrifty": "the least energy that holds the SLOs",
}
"""What shipped policies were trained for."""


def shipped_scenarios(aim: str) -> list[str]:
    """Scenarios that a policy is shipped for.

    Args:
        aim: One of `AIMS`.
    """
    folder = policy_folder() / require_aim(aim)
    return sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json"))


def require_aim(aim: str) -> str:
    """The aim.

    Raises:
        ControllerError: There is none of this name; the message says which there are.
    """
    if aim not in AIMS:
        raise ControllerError(f"learned: aim = {aim!r}: unknown; {nearest(aim, AIMS)}")
    return aim


def policy_folder() -> Path:
    """Where shipped policies lie, in a folder for each aim."""
    return Path(str(files("throttllem_env.agents.supervising"))) / "policies"


def shipped_policy(scenario: str, aim: str = "punctual") -> PolicyFile:
    """The policy that is shipped for a scenario.

    Args:
        scenario: Its name.
        aim: One of `AIMS`.

    Raises:
        ControllerError: There is none; the message names those there are.
    """
    known = shipped_scenarios(aim)
    if scenario not in known:
        raise ControllerError(
            f"learned: scenario = {scenario!r}: no {aim} policy is shipped for it; "
            f"{nearest(scenario, known)}; give another with learned:policy=PATH, or train one with "
            "throttllem train --algo cma-es"
        )
    return PolicyFile.load(policy_folder() / aim / f"{scenario}.json")
