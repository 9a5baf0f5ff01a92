"""Measure what a simulated request costs on this machine, and say what a large sweep would take.

    python scripts/plan_sweep.py --agents max-frequency,throttllem --backend simulator

The default plan is a month of Azure's traces of 2024 (44 million requests a week) for 1,000 configurations.
Runs are single-threaded, so every configuration takes one core; the cost is CPU time of this machine's cores.
"""

import argparse
from statistics import median

from throttllem_env.cli.console import output, progress_bar, table
from throttllem_env.evaluation.settings import Settings, split_agents
from throttllem_env.evaluation.sweeps.plan import WEEKS_PER_MONTH, Plan, mean_cost, measure


def main() -> None:
    """Measure, then print both tables."""
    given = parsed()
    settings = Settings(
        split_agents(given.agents),
        scenario=given.scenario,
        trace=given.trace,
        load=given.load,
        backend=given.backend,
        duration_s=given.duration,
    )
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=len(settings.agents) * given.repeats)
        costs = measure(settings, given.repeats, lambda: bar.advance(task))
    rows = [
        [
            cost.agent,
            f"{cost.requests}",
            f"{1e3 * median(cost.cpu_s):.3f}",
            f"{1e3 * min(cost.cpu_s):.3f} to {1e3 * max(cost.cpu_s):.3f}",
            f"{cost.file_bytes:.0f}",
        ]
        for cost in costs
    ]
    heads = ["agent", "requests", "CPU ms per request", "range", "file bytes per request"]
    where = f"{given.scenario}, trace {given.trace}, load {given.load:g}"
    output().print(table(heads, rows, f"\nCost on backend {given.backend}: {where}"))
    requests = given.requests_per_week * given.weeks
    plan = Plan(requests, given.configurations, *mean_cost(costs))
    print(title(plan))
    output().print(table(["cores", "wall hours"], walls(plan, given.cores)))


def title(plan: Plan) -> str:
    """The plan in one sentence."""
    return (
        f"\n{plan.configurations} configurations x {plan.requests / 1e6:.1f} million requests: "
        f"{plan.cpu_h:,.0f} CPU hours ({plan.run_h:,.1f} h per run), {plan.disk_gb:,.0f} GB of run files"
        " (next to nothing where a sweep keeps metrics only)"
    )


def walls(plan: Plan, cores: list[int]) -> list[list[str]]:
    """Rows of cores and hours."""
    return [[f"{count}", f"{plan.wall_h(count):,.1f}"] for count in cores]


def whole_numbers(text: str) -> list[int]:
    """Parse `a,b,c`."""
    return [int(part) for part in text.split(",")]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--agents", default="max-frequency,throttllem", help="controllers (default: %(default)s)")
    add("--backend", default="simulator", help="default: %(default)s")
    add("--scenario", default="llama2-13b-a100", help="default: %(default)s")
    add("--trace", default="azure-conv-like", help="default: %(default)s")
    add("--load", type=float, default=0.7, help="share of the rated load (default: %(default)s)")
    add("--duration", type=float, default=600.0, help="seconds served per run (default: %(default)s)")
    add("--repeats", type=int, default=3, help="runs per agent (default: %(default)s)")
    add("--requests-per-week", type=float, default=44e6, help="default: 44 million")
    add("--weeks", type=float, default=WEEKS_PER_MONTH, help="default: 30 days")
    add("--configurations", type=int, default=1000, help="default: %(default)s")
    add("--cores", type=whole_numbers, default=[1, 16, 64, 256, 1024], help="default: 1,16,64,256,1024")
    return parser.parse_args()


if __name__ == "__main__":
    main()
