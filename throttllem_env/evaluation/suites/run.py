"""Run all cases of a suite; interrupted, it goes on where it stopped."""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from throttllem_env.evaluation.bound.distance import bounded
from throttllem_env.evaluation.compare import Comparison, check, compare_in
from throttllem_env.evaluation.output import write_outputs
from throttllem_env.evaluation.results import results
from throttllem_env.evaluation.settings import Settings
from throttllem_env.evaluation.suites.suite import Case, Suite, locate_trace
from throttllem_env.evaluation.sweeps.place import Place
from throttllem_env.evaluation.sweeps.workers import open_place

Notify = Callable[[str], None]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came out of one case.

    Attributes:
        case: The case.
        folder: Has its results, plots and TensorBoard events.
        document: The content of its `results.json`.
    """

    case: Case
    folder: Path
    document: dict[str, Any]


def run_suite(
    suite: Suite,
    out: Path,
    *,
    traces: Path | None = None,
    agents: tuple[str, ...] = (),
    jobs: int | None = None,
    cluster: str | None = None,
    fresh: bool = False,
    bound_s: float | None = None,
    notify: Notify = lambda _: None,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[CaseResult]:
    """Run a suite, case by case; while one runs, the results of the one before are written.

    All cases are checked before the first is run. Every run is kept in `out` under the hash of what
    determines it, so the same call later runs only what is missing.

    Args:
        suite: Which.
        out: A folder for each case is made in it.
        traces: Folder with published traces; None for the user's cache.
        agents: Further agents that take part.
        jobs: Runs at once; see `Settings`.
        cluster: Where; see `Settings`.
        fresh: Run again what is there.
        bound_s: Seconds of search for the best schedule of each case; None for what was found earlier.
        notify: Told in a line what a person wants to know.
        on_case: Told how many cases are done, of how many.

    Yields:
        Each case's results, when they are written.

    Raises:
        ValueError: A case or an agent is wrong; names the field, the value and what is valid.
    """
    all_settings = [
        _settings(suite, case, out, traces, agents, (jobs, cluster, fresh)) for case in suite.cases
    ]
    scenarios = [check(settings) for settings in all_settings]
    with open_place(jobs, cluster) as place, ThreadPoolExecutor(1) as writer:
        if place.description:
            notify(place.description)
        written = (
            writer.submit(
                _written, compare_in(place, settings, scenario, None, lambda _: None), bound_s, place
            )
            for settings, scenario in zip(all_settings, scenarios, strict=True)
        )
        for done, (case, (document, folder)) in enumerate(
            zip(suite.cases, (future.result() for future in _one_behind(written)), strict=True), start=1
        ):
            yield CaseResult(case, folder, document)
            on_case(done, len(all_settings))


def _one_behind(items: Iterable[T]) -> Iterator[T]:
    """The same items, each only when the next one has been taken."""
    held = list[T]()
    for item in items:
        yield from held
        held = [item]
    yield from held


def _written(comparison: Comparison, bound_s: float | None, place: Place) -> tuple[dict[str, Any], Path]:
    """What is written of a case, and where."""
    folder, document = comparison.settings.out, results(comparison)
    assert folder is not None
    document = bounded(comparison, document, bound_s, place=place)
    write_outputs(comparison, document, folder)
    return document, folder


def _settings(
    suite: Suite,
    case: Case,
    out: Path,
    traces: Path | None,
    agents: tuple[str, ...],
    how: tuple[int | None, str | None, bool],
) -> Settings:
    jobs, cluster, fresh = how
    return Settings(
        agents=tuple(dict.fromkeys((*suite.agents, *case.agents, *agents))),
        scenario=case.scenario,
        trace=locate_trace(case.trace, traces),
        seeds=suite.seeds,
        load=case.load,
        slo_scale=case.slo_scale,
        length_predictor=case.length_predictor,
        split=suite.split,
        duration_s=suite.duration_s,
        jobs=jobs,
        out=out / re.sub(r"[^\w.=-]+", "_", case.name),
        cluster=cluster,
        fresh=fresh,
    )
