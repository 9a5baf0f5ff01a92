"""Traces of LLM requests: when they arrive, how long their prompts and outputs are.

This room loads published traces, generates synthetic ones, scales, splits, describes and
plots them. It imports nothing else of this project.

Example:
    >>> from throttllem_env.traces import generate
    >>> trace = generate("azure-conv-like", duration_s=600.0, seed=0).scaled_to_peak(8.0)
    >>> trace.peak_rate_rps()
    8.0
"""

from throttllem_env.traces.arrivals import poisson_arrivals
from throttllem_env.traces.errors import TraceError
from throttllem_env.traces.fetch import PUBLISHED_TRACES, PublishedTrace, fetch_trace
from throttllem_env.traces.fitted import LengthProfile, Profile, load_profile, sample_lengths
from throttllem_env.traces.lengths import OverLength, OverLengthCounts, limit_lengths
from throttllem_env.traces.loaders import read_trace
from throttllem_env.traces.names import load_trace, parse_spec, trace_names
from throttllem_env.traces.parquet import write_parquet
from throttllem_env.traces.plot import plot_trace
from throttllem_env.traces.splits import Split
from throttllem_env.traces.summary import LengthSummary, TraceSummary, describe
from throttllem_env.traces.synthetic import SYNTHETIC_PARAMETERS, generate
from throttllem_env.traces.trace import Trace

__all__ = [
    "PUBLISHED_TRACES",
    "SYNTHETIC_PARAMETERS",
    "LengthProfile",
    "LengthSummary",
    "OverLength",
    "OverLengthCounts",
    "Profile",
    "PublishedTrace",
    "Split",
    "Trace",
    "TraceError",
    "TraceSummary",
    "describe",
    "fetch_trace",
    "generate",
    "limit_lengths",
    "load_profile",
    "load_trace",
    "parse_spec",
    "plot_trace",
    "poisson_arrivals",
    "read_trace",
    "sample_lengths",
    "trace_names",
    "write_parquet",
]
