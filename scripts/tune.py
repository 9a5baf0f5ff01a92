"""Choose the parameters of rules on the blocks of a trace that are meant for it.

    python scripts/tune.py static  --trace TRACE [--load 1.0]       # train blocks
    python scripts/tune.py margins --trace TRACE [--loads 0.5,1.0]  # validation blocks
    python scripts/tune.py energy  --trace TRACE [--split train]    # train and validation blocks
    python scripts/tune.py rivals  --trace TRACE [--rivals pid,...] # train and validation blocks
    python scripts/tune.py static  --trace TRACE --hindsight        # whole trace: a yardstick, no choice

`static` finds the static clock of least energy that attains the SLOs. `margins` finds the deadline margin
and the autoscaler's headroom of `throttllem`: among those that attain the SLOs at every load, the least
energy summed over the loads, relative to the top clock. `energy` holds candidates of `throttllem-energy` to
`throttllem` over loads, length predictors and SLO scales: the best is no worse in the most cases (no more
energy, no more violations), then of least energy. `rivals` sweeps the parameters of each strategy in
`baselines/` on train blocks and lets validation blocks decide between the best three; runs are kept in a
folder, and the same command goes on where it stopped. But for `--hindsight`, nothing looks at test blocks.
"""

import argparse
import itertools
import math
import sys
from pathlib import Path

from throttllem_env.agents.energy_autoscaler import HEADROOM, HYSTERESIS, PATIENCE
from throttllem_env.agents.throttllem_energy import DOUBT, HASTE, MARGIN, TOLERANCE
from throttllem_env.evaluation.compare import Comparison, compare
from throttllem_env.evaluation.metrics import Metrics
from throttllem_env.evaluation.settings import Settings
from throttllem_env.scenario import load_scenario
from throttllem_env.suggest import nearest

MARGINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
HEADROOMS = (0.1, 0.2)
LOADS = (0.5, 0.7, 0.9, 1.0)


RIVALS: dict[str, dict[str, tuple[float, ...]]] = {
    "autoscale-rate": {"target": (0.8, 0.9, 1.0), "stabilise_s": (60, 300)},
    "biscale": {"share": (0.75, 0.85, 0.95)},
    "dynamollm": {"share": (0.75, 0.85, 0.95), "size_s": (120, 300), "headroom": (0.0, 0.2)},
    "greenllm": {"share": (0.85, 1.0), "tail": (50, 95)},
    "pid": {"setpoint": (0.75, 0.85, 0.95), "gain": (0.2, 0.6), "integral_s": (5, 20)},
    "power-cap": {"cap_w": (150, 160, 170, 180, 190, 200, 210)},
    "voltana": {"share": (0.75, 0.85, 0.95)},
}
"""What is tried for each rival that has something to tune."""

FINALISTS = 3
"""Candidates that go from train to validation blocks."""

REFERENCE = "throttllem"
PLURALS = {"hysteresis": "hystereses"}

UNKNOWN_LATE = 1_000_000
"""Stands for the late requests of a run that failed: more than any trace has."""


def run(
    arguments: argparse.Namespace,
    agents: list[str],
    split: str,
    load: float,
    length_predictor: str | None = None,
    slo_scale: float = 1.0,
    out: Path | None = None,
) -> Comparison:
    """Run agents on some blocks; the first is the top clock, which savings refer to.

    A run that fails is told of on stderr, and its agent counts as one that attains nothing.
    """
    comparison = compare(
        Settings(
            agents=("max-frequency", *agents),
            scenario=arguments.scenario,
            trace=arguments.trace,
            load=load,
            slo_scale=slo_scale,
            length_predictor=length_predictor or arguments.length_predictor,
            split=split,
            jobs=arguments.jobs,
            out=out,
        )
    )
    for failure in comparison.failures:
        print(f"error: {failure.agent}, {split} blocks, load {load:g}: {failure.error}", file=sys.stderr)
    return comparison


def metrics_of(comparison: Comparison, agent: str) -> Metrics | None:
    """The figures of the only run of an agent; None if it failed."""
    runs = comparison.of(agent)
    return runs[0].result.metrics if runs else None


def outcome(comparison: Comparison, agent: str, base: str = "max-frequency") -> tuple[float, float, bool]:
    """Energy relative to the top clock, attainment, and whether the SLOs are attained.

    Without a run to tell of, or one to compare it with: infinite energy, and nothing attained.
    """
    top, metrics = metrics_of(comparison, base), metrics_of(comparison, agent)
    if top is None or metrics is None:
        return math.inf, 0.0, False
    relative = float(metrics["energy_j"]) / float(top["energy_j"])
    return relative, float(metrics["slo_attainment"]), bool(metrics["slo_attained"])


def tune_static(arguments: argparse.Namespace) -> None:
    """Sweep the static clock on the train blocks or, in hindsight, on the whole trace."""
    scenario = load_scenario(arguments.scenario)
    clocks = [mhz for mhz in scenario.gpu_spec.clocks_mhz if mhz >= arguments.from_mhz][:: arguments.every]
    agents = {f"static-frequency:mhz={mhz}": mhz for mhz in clocks}
    comparison = run(arguments, list(agents), "all" if arguments.hindsight else "train", arguments.load)
    print("| clock MHz | energy / top clock | SLO attainment | attained |\n|---:|---:|---:|---|")
    attained = {}
    for agent, mhz in agents.items():
        energy, attainment, ok = outcome(comparison, agent)
        print(f"| {mhz} | {energy:.4f} | {attainment:.4f} | {'yes' if ok else 'no'} |")
        if ok:
            attained[mhz] = energy
    best = min(attained, key=lambda mhz: attained[mhz]) if attained else scenario.top_mhz
    how = "in hindsight" if arguments.hindsight else "on train blocks"
    print(f"\nTUNED {how} at load {arguments.load}: {best} MHz")


def tune_margins(arguments: argparse.Namespace) -> None:
    """Sweep deadline margin and headroom on the validation blocks."""
    agents = [
        f"throttllem:margin={margin},headroom={headroom}"
        for margin, headroom in itertools.product(MARGINS, arguments.headrooms)
    ]
    attained = tabulate(arguments, agents, "validation")
    best = min(attained, key=lambda agent: attained[agent]) if attained else "none attains the SLOs"
    print(f"\nBest: {best}")


def tabulate(
    arguments: argparse.Namespace, agents: list[str], split: str, folder: Path | None = None
) -> dict[str, float]:
    """Run agents at every load and print a table.

    Args:
        arguments: The command line.
        agents: Candidates.
        split: Which blocks.
        folder: Where runs are kept; None to keep none.

    Returns:
        Energy summed over the loads, relative to the top clock, of those that attain the SLOs at all of them.
    """
    rows = {
        load: run(arguments, agents, split, load, out=folder / f"{split}-{load:g}" if folder else None)
        for load in arguments.loads
    }
    head = " | ".join(f"load {load:g}: energy, attainment" for load in arguments.loads)
    print(f"| agent, {split} blocks | {head} | sum |\n|---|{'---|' * (len(arguments.loads) + 1)}")
    attained = {}
    for agent in agents:
        found = [outcome(rows[load], agent) for load in arguments.loads]
        total = sum(energy for energy, _, _ in found)
        cells = " | ".join(f"{e:.4f}, {a:.4f}{'' if ok else ' (missed)'}" for e, a, ok in found)
        print(f"| {agent} | {cells} | {total:.4f} |", flush=True)
        if all(ok for *_, ok in found):
            attained[agent] = total
    return attained


def tune_rivals(arguments: argparse.Namespace) -> None:
    """Sweep each rival on train blocks; validation blocks decide between the best."""
    for rival in arguments.rivals:
        if rival not in RIVALS:
            raise SystemExit(f"rivals: {rival!r}: {nearest(rival, RIVALS)}")
    for rival in arguments.rivals:
        agents = candidates(rival)
        found = tabulate(arguments, agents, "train", arguments.out)
        finalists = sorted(found, key=lambda agent: found[agent])[:FINALISTS]
        if finalists:
            decided = tabulate(arguments, finalists, "validation", arguments.out)
            best = min(
                decided, key=lambda agent: decided[agent], default="none attains the SLOs on validation"
            )
        else:
            best = "none attains the SLOs on train blocks"
        print(f"\nTUNED {rival}: {best}\n", flush=True)


def candidates(rival: str) -> list[str]:
    """All combinations of what is tried for a rival."""
    names_of = list(RIVALS[rival])
    return [
        f"{rival}:" + ",".join(f"{n}={v:g}" for n, v in zip(names_of, values, strict=True))
        for values in itertools.product(*RIVALS[rival].values())
    ]


def duel(comparison: Comparison, agent: str) -> tuple[float, int]:
    """Energy relative to the reference's, and how many more requests are late."""
    theirs, ours = metrics_of(comparison, REFERENCE), metrics_of(comparison, agent)
    if theirs is None or ours is None:
        return math.inf, UNKNOWN_LATE
    relative = float(ours["energy_j"]) / float(theirs["energy_j"])
    return relative, int(ours["slo_violations"]) - int(theirs["slo_violations"])


def tune_energy(arguments: argparse.Namespace) -> None:
    """Hold candidates of the energy controller to the reference, case by case."""
    parameters = ("margin", "haste", "doubt", "tolerance", "headroom", "hysteresis", "patience")
    grid = itertools.product(*(getattr(arguments, PLURALS.get(name, f"{name}s")) for name in parameters))
    agents = [
        "throttllem-energy:" + ",".join(f"{n}={v:g}" for n, v in zip(parameters, values, strict=True))
        for values in grid
    ]
    cases = list(itertools.product(arguments.loads, arguments.predictors, arguments.scales))
    found: dict[str, list[tuple[float, int]]] = {agent: [] for agent in agents}
    for load, lengths, scale in cases:
        comparison = run(arguments, [REFERENCE, *agents], arguments.split, load, lengths, scale)
        for agent in agents:
            found[agent].append(duel(comparison, agent))
            relative, more_late = found[agent][-1]
            print(f"{load:g} {lengths} x{scale:g} {agent}: {relative:.4f}, {more_late:+d}", flush=True)
    print("\n| agent | no worse | energy / throttllem: mean, worst | late: sum, worst |\n|---|---|---|---|")
    for agent in sorted(agents, key=lambda one: standing(found[one])):
        energies, late = zip(*found[agent], strict=True)
        cells = f"{sum(energies) / len(cases):.4f}, {max(energies):.4f} | {sum(late):+d}, {max(late):+d}"
        print(f"| {agent} | {-standing(found[agent])[0]:.0f} of {len(cases)} | {cells} |")


def standing(duels: list[tuple[float, int]]) -> tuple[float, float]:
    """Sorts candidates: cases in which they are no worse, then energy."""
    no_worse = sum(relative <= 1 and more_late <= 0 for relative, more_late in duels)
    return -no_worse, sum(relative for relative, _ in duels)


def numbers(text: str) -> tuple[float, ...]:
    """Parse `a,b,c`."""
    return tuple(float(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Parse `a,b,c` as text."""
    return tuple(text.split(","))


def main() -> None:
    """Parse the command line and tune."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("static", "margins", "energy", "rivals"))
    parser.add_argument("--scenario", default="llama2-13b-a100", help="scenario (default: %(default)s)")
    parser.add_argument("--trace", required=True, help="trace to tune on: a path or a name")
    parser.add_argument("--length-predictor", default="learned", help="default: %(default)s")
    parser.add_argument("--load", type=float, default=1.0, help="static: share of the rated load")
    parser.add_argument("--from-mhz", type=int, default=600, help="static: lowest clock tried")
    parser.add_argument("--every", type=int, default=2, help="static: try every so many clocks")
    parser.add_argument("--hindsight", action="store_true", help="static: sweep the whole trace")
    parser.add_argument("--rivals", type=names, default=tuple(RIVALS), help="rivals: pid,voltana,...")
    parser.add_argument("--out", type=Path, default=Path("out/tune"), help="rivals: where runs are kept")
    parser.add_argument("--loads", type=numbers, default=LOADS, help="margins, energy, rivals: 0.5,...")
    parser.add_argument("--headrooms", type=numbers, help="margins, energy: 0.1,0.2,...")
    energy = parser.add_argument_group("energy: the cases, and the values to combine")
    energy.add_argument("--split", choices=("train", "validation"), default="train")
    energy.add_argument("--predictors", type=names, default=("oracle", "noisy-30", "learned"))
    energy.add_argument("--scales", type=numbers, default=(0.75, 1.0, 1.5), help="factors on the SLOs")
    energy.add_argument("--margins", type=numbers, default=(MARGIN,))
    energy.add_argument("--hastes", type=numbers, default=(HASTE,))
    energy.add_argument("--doubts", type=numbers, default=(DOUBT,))
    energy.add_argument("--tolerances", type=numbers, default=(TOLERANCE,))
    energy.add_argument("--hystereses", type=numbers, default=(HYSTERESIS,))
    energy.add_argument("--patiences", type=numbers, default=(PATIENCE,))
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.headrooms is None:
        arguments.headrooms = (HEADROOM,) if arguments.what == "energy" else HEADROOMS
    tune = {"static": tune_static, "margins": tune_margins, "energy": tune_energy, "rivals": tune_rivals}
    tune[arguments.what](arguments)


if __name__ == "__main__":
    main()
