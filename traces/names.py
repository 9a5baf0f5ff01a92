"""From what a user writes after `--trace` to a trace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from throttllem_env.traces.errors import TraceError, nearest_hint
from throttllem_env.traces.fetch import PUBLISHED_TRACES, cached_trace
from throttllem_env.traces.loaders import read_trace
from throttllem_env.traces.synthetic import SYNTHETIC_PARAMETERS, generate
from throttllem_env.traces.trace import Trace

__all__ = ["load_trace", "parse_spec", "trace_names"]

_FILE_SUFFIXES: Final = frozenset({".csv", ".json", ".jsonl", ".parquet", ".pq"})
_TRUTH: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def load_trace(spec: str | Path, *, seed: int = 0, drop_failed: bool = False) -> Trace:
    """Load or generate the trace that a name or path stands for.

    Args:
        spec: A file's path (its format is recognised by content; `PATH:drop_failed=true`
            is `drop_failed`); a synthetic name such as `azure-conv-like` or
            `poisson:rate_rps=5,lengths=code` (`duration_s` and `seed` may be given too);
            or a fetched one, `azure-2023-conv` or `azure-2023-code`.
        seed: Seed of a synthetic trace, unless the name has its own.
        drop_failed: Leave out requests that a file marks as failed; else they are an error.

    Returns:
        The trace.

    Raises:
        TraceError: If the name is unknown (with the nearest valid one), a parameter or
            the file is bad, or the trace has not been fetched.
    """
    if isinstance(spec, Path) or Path(spec).is_file():
        return read_trace(spec, drop_failed=drop_failed)[0]
    name, parameters = parse_spec(spec)
    if name in SYNTHETIC_PARAMETERS:
        return _generated(name, parameters, seed)
    path = cached_trace(name) if name in PUBLISHED_TRACES else _as_file(spec, name)
    return read_trace(path, drop_failed=_only_drop_failed(name, parameters, drop_failed))[0]


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Take `name:key=value,key=value` apart.

    Args:
        spec: A name, with or without parameters.

    Returns:
        The name and the parameters as text.

    Raises:
        TraceError: If a parameter is not `key=value` or comes twice.
    """
    name, _, tail = spec.partition(":") if "=" not in spec.partition(":")[0] else (spec, "", "")
    if tail and not re.match(r"[A-Za-z_]\w*=", tail):
        # A colon in a path stays part of it, unless key=value follows the last one.
        name, _, tail = spec.rpartition(":") if re.search(r":[A-Za-z_]\w*=[^:/]*$", spec) else (spec, "", "")
    parameters: dict[str, str] = {}
    for part in tail.split(",") if tail else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value) or key in parameters:
            raise TraceError.at(None, None, f"parameter of {name}", part, "key=value, each key once")
        parameters[key] = value
    return name, parameters


def trace_names() -> list[str]:
    """Return the names that `load_trace` knows: synthetic ones first, then published ones."""
    return [*SYNTHETIC_PARAMETERS, *PUBLISHED_TRACES]


def _generated(name: str, parameters: dict[str, str], seed: int) -> Trace:
    own = dict(parameters)
    duration_s = _number(name, "duration_s", own.pop("duration_s", "3600"))
    chosen_seed = _number(name, "seed", own.pop("seed", str(seed)))
    if not chosen_seed.is_integer():
        raise TraceError.at(None, None, f"{name}: seed", chosen_seed, "a whole number of at least 0")
    return generate(name, duration_s, int(chosen_seed), **own)


def _number(name: str, key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise TraceError.at(None, None, f"{name}: {key}", text, "a number") from error


def _only_drop_failed(name: str, parameters: dict[str, str], default: bool) -> bool:
    for key in parameters:
        if key != "drop_failed":
            accepted = f"drop_failed only{nearest_hint(key, ['drop_failed'])}"
            raise TraceError.at(None, None, f"{name}: parameter", key, accepted)
    text = parameters.get("drop_failed", str(default)).lower()
    if text not in _TRUTH:
        raise TraceError.at(None, None, f"{name}: drop_failed", text, "true or false")
    return _TRUTH[text]


def _as_file(spec: str, name: str) -> Path:
    """Return the path that a spec means, if it looks like one; else the name is unknown."""
    path = Path(name)
    if path.suffix.lower() in _FILE_SUFFIXES or len(path.parts) > 1 or path.exists():
        return path
    names = trace_names()
    accepted = f"a file, or one of {', '.join(names)}{nearest_hint(name, names)}"
    raise TraceError.at(None, None, "trace", spec, accepted)
