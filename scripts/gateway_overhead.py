"""What the gateway adds to TTFT and TBT: the same load directly and through it, at the same time.

    python scripts/gateway_overhead.py --direct http://127.0.0.1:8001 --through http://127.0.0.1:8000

Run it on a machine that is otherwise idle, and look at `lateness` first: where it is not small, the figures
tell of the machine. Needs `pip install 'throttllem-env[serve]'`.
"""

import argparse
import asyncio

import numpy as np

from throttllem_env.live.replay import ReplayRecord, ReplaySettings, replay
from throttllem_env.live.replay_report import report
from throttllem_env.traces import Trace


def staggered(streams: int, prompt_tokens: int, output_tokens: int, span_s: float, seed: int) -> Trace:
    """Streams that begin at random moments of a span.

    Args:
        streams: How many.
        prompt_tokens: Of each.
        output_tokens: Of each.
        span_s: Seconds in which they begin.
        seed: Of the moments.
    """
    arrival_s = np.sort(np.random.default_rng(seed).uniform(0.0, span_s, streams))
    return Trace(arrival_s, np.full(streams, prompt_tokens), np.full(streams, output_tokens))


async def both_ways(trace: Trace, urls: tuple[str, str], vocabulary: int) -> list[list[ReplayRecord]]:
    """Play a trace to two addresses at once; returns the records of each."""
    settings = [ReplaySettings(url, vocabulary=vocabulary) for url in urls]
    return await asyncio.gather(*(replay(trace, one) for one in settings))


def mean_gap_s(records: list[ReplayRecord]) -> float:
    """Mean time between tokens, weighted by tokens, seconds."""
    return float(np.mean([gap_s for record in records for gap_s in record.gaps_s]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--direct", required=True, help="the upstream")
    parser.add_argument("--through", required=True, help="the gateway before it")
    parser.add_argument("--streams", type=int, default=50, help="each way (default: 50)")
    parser.add_argument("--prompt", type=int, default=500, help="tokens of each prompt (default: 500)")
    parser.add_argument("--output", type=int, default=200, help="tokens of each answer (default: 200)")
    parser.add_argument("--span", type=float, default=4.0, help="seconds in which they begin (default: 4)")
    parser.add_argument("--vocabulary", type=int, default=500, help="token ids below this (default: 500)")
    given = parser.parse_args()
    trace = staggered(given.streams, given.prompt, given.output, given.span, seed=0)
    runs = asyncio.run(both_ways(trace, (given.direct, given.through), given.vocabulary))
    for way, records in zip(("direct", "through"), runs, strict=True):
        figures = report(records)
        p50_ms = {name: f"{1e3 * values[0]:.2f}" for name, values in figures.latencies_s.items()}
        print(f"{way}: {figures.completed} of {figures.requests} completed; p50 in ms: {p50_ms}")
    direct, through = (report(records).latencies_s["TTFT"][0] for records in runs)
    print(f"the gateway adds {1e3 * (through - direct):.2f} ms to TTFT p50", end=" ")
    print(f"and {mean_gap_s(runs[1]) / mean_gap_s(runs[0]) - 1:+.2%} to the mean TBT")


if __name__ == "__main__":
    main()
