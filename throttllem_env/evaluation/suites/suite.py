"""What a suite compares: agents, and cases that differ in scenario, trace, load, targets and predictor.

A suite is a YAML file. Shipped ones lie beside this file; whoever changes one bumps its version, and results
of different versions are not compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from throttllem_env.suggest import nearest
from throttllem_env.traces import PUBLISHED_TRACES

Positive = Annotated[float, Field(gt=0)]


class SuiteError(ValueError):
    """A suite that cannot be run; the message names the file, the field and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison of a suite.

    Attributes:
        scenario: Name of a shipped scenario, or path of a YAML file.
        trace: Name or path, as `throttllem trace` takes it.
        load: Share of the rated load of the largest size.
        slo_scale: Multiplies the latency SLOs.
        length_predictor: `learned`, `noisy-P` or `oracle`.
        agents: Who takes part besides the suite's own.
    """

    scenario: str
    trace: str
    load: float
    slo_scale: float
    length_predictor: str
    agents: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people and for folders; unlike that of every other case of a suite.

        Example:
            >>> Case("llama2-13b-a100", "azure-2023-conv", 0.5, 1.0, "learned").name
            'llama2-13b-a100 azure-2023-conv load 0.5 slo 1 learned'
        """
        trace = Path(self.trace).stem if Path(self.trace).suffix else self.trace
        scenario = Path(self.scenario).stem if Path(self.scenario).suffix else self.scenario
        return f"{scenario} {trace} load {self.load:g} slo {self.slo_scale:g} {self.length_predictor}"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Group(_Section):
    """Cases that are spanned by lists: each scenario with each trace, and so on.

    Attributes:
        scenarios: Scenarios.
        traces: Traces.
        loads: Loads.
        slo_scales: Factors on the latency SLOs.
        length_predictors: Length predictors.
        agents: Who takes part in these cases besides the suite's own.
    """

    scenarios: tuple[str, ...] = Field(min_length=1)
    traces: tuple[str, ...] = Field(min_length=1)
    loads: tuple[Positive, ...] = Field((1.0,), min_length=1)
    slo_scales: tuple[Positive, ...] = Field((1.0,), min_length=1)
    length_predictors: tuple[str, ...] = Field(("learned",), min_length=1)
    agents: tuple[str, ...] = ()

    def cases(self) -> Iterator[Case]:
        """All combinations, the last list running fastest."""
        lists = (self.scenarios, self.traces, self.loads, self.slo_scales, self.length_predictors)
        return (Case(*values, self.agents) for values in product(*lists))


class Suite(_Section):
    """A frozen set of comparisons.

    Attributes:
        name: Its name; the file's stem.
        version: Bumped whenever anything in it changes.
        description: One sentence for people.
        agents: Who takes part; savings are against the first.
        seeds: Replicas of each trace.
        split: Which blocks of the traces are served.
        duration_s: How much of each trace is served, seconds; None for all of it.
        groups: The cases.
    """

    name: str
    version: int = Field(ge=1)
    description: str
    agents: tuple[str, ...] = Field(min_length=1)
    seeds: int = Field(1, ge=1)
    split: str = "all"
    duration_s: Positive | None = None
    groups: tuple[Group, ...] = Field(min_length=1)

    @property
    def cases(self) -> tuple[Case, ...]:
        """All cases, each once, in order."""
        return tuple(dict.fromkeys(case for group in self.groups for case in group.cases()))


def suite_names() -> list[str]:
    """Names of the shipped suites."""
    shipped = files("throttllem_env.evaluation.suites")
    return sorted(Path(entry.name).stem for entry in shipped.iterdir() if entry.name.endswith(".yaml"))


def load_suite(name: str) -> Suite:
    """Load a suite.

    Args:
        name: A shipped one's, or the path of a YAML file.

    Raises:
        SuiteError: There is none, or it is wrong.
    """
    import yaml

    shipped = files("throttllem_env.evaluation.suites") / f"{name}.yaml"
    path: Any = Path(name) if name.endswith((".yaml", ".yml")) else shipped
    if not path.is_file():
        raise SuiteError(f"suite = {name!r}: unknown; {nearest(name, suite_names())}, or a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Suite.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"{name}: no YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SuiteError(f"{name}: {where}: {first['msg']}") from None


def locate_trace(trace: str, folder: Path | None) -> str:
    """Where a trace of a suite lies.

    Args:
        trace: As the suite names it.
        folder: Has published traces under their publishers' file names; None for the user's cache.

    Returns:
        The file in the folder if it is a published trace and there, else the trace as it was named.
    """
    published = PUBLISHED_TRACES.get(trace)
    if published and folder and (folder / published.filename).is_file():
        return str(folder / published.filename)
    return trace
