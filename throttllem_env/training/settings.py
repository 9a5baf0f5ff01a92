"""What a training is told, whichever learner it uses."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from throttllem_env.training.algorithms import ALGORITHMS, require_algorithm
from throttllem_env.training.extras import Curriculum, Imitation, Lagrangian, Randomisation, Residual

EVALUATIONS = 20
"""How often a training is evaluated, unless it is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What `throttllem train` takes.

    Attributes:
        algo: One of `ALGORITHMS`.
        steps: Steps of single environments.
        out: Folder of the training.
        scenario: Name of a shipped scenario, or path of a YAML file.
        trace: As `throttllem trace` takes it. Of a recorded one, the train blocks are trained on.
        validation_trace: What policies are chosen on: its validation blocks; None for `trace`.
        seed: Seeds everything that is random.
        load: Peak load as a share of the rated load.
        slo_scale: Multiplies the latency SLOs.
        length_predictor: `learned`, `noisy-P` or `oracle`.
        env_id: Environment; None for the one that fits the learner.
        options: Further fields of `EnvOptions`.
        hyperparameters: Values that replace those of the learner's YAML.
        hyperparameter_file: Another YAML, in rl-zoo's layout; None for the shipped one.
        checkpoint_steps: Steps between checkpoints, each with an evaluation; None for a twentieth of all.
        patience: Evaluations without a better one after which training stops; None to never stop early.
        lagrangian: Hold a share of late requests by a price that is learned, or None.
        residual: Move around a reference's choice, or None.
        imitation: Begin by imitating a controller, or None.
        curriculum: Loads by share of the training, or None.
        randomisation: Serve something else in every environment, or None for one trace at one load.
        reward_weights: Weights of energy and violations with the vector reward of `MOServing-v0`, or None.
        fresh: Begin anew, even if the folder holds a training that could go on.

    Raises:
        ValueError: A value that is not valid; the message says what is.
    """

    algo: str
    steps: int
    out: Path
    scenario: str = "llama2-13b-a100"
    trace: str = "azure-conv-like"
    validation_trace: str | None = None
    seed: int = 0
    load: float = 1.0
    slo_scale: float = 1.0
    length_predictor: str = "learned"
    env_id: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    hyperparameter_file: Path | None = None
    checkpoint_steps: int | None = None
    patience: int | None = None
    lagrangian: Lagrangian | None = None
    residual: Residual | None = None
    imitation: Imitation | None = None
    curriculum: Curriculum | None = None
    randomisation: Randomisation | None = None
    reward_weights: tuple[float, float] | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        require_algorithm(self.algo)
        for name in ("steps", "checkpoint_steps", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value}: must be a whole number of at least 1")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}: must be a whole number of at least 0")
        for name in ("load", "slo_scale"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} = {value}: must be a finite number above 0")

    @property
    def environment(self) -> str:
        """The environment's id."""
        return self.env_id or ALGORITHMS[self.algo].env_id

    @property
    def segment_steps(self) -> int:
        """Steps between checkpoints."""
        return self.checkpoint_steps or max(1, -(-self.steps // EVALUATIONS))

    def refuse(self, names: Iterable[str]) -> None:
        """Refuse settings that the learner does not take.

        Args:
            names: Fields that must be left out.

        Raises:
            ValueError: One of them was given.
        """
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: {self.algo} does not take it; leave it out"
                )

    def plain(self) -> dict[str, Any]:
        """All that determines the training, as plain values."""
        left_out = {"out", "fresh"}
        found = {name: value for name, value in asdict(self).items() if name not in left_out}
        return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}
