"""What determines a result, as hashes: equal ones mean equal results."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from throttllem_env.scenario import Scenario
from throttllem_env.serving.names import BACKENDS, backend_type

PACKAGE = "throttllem_env"
ROOMS = ("traces", "agents", "baselines", "hardware", "prediction", "gpu", "serving", "controller", "envs")
"""Rooms that take part in every result, besides the package's own files and a part of `evaluation`. A backend
that stands elsewhere, such as the one over real servers in `live`, counts where it serves: see
`backend_identity`."""

RUNNERS = (
    "runner.py",
    "metrics.py",
    "compare.py",
    "projection_error.py",
    "sweeps/run_file.py",
    "reproduction/limits.py",
)
SUFFIXES = frozenset({".py", ".json", ".npz", ".yaml"})


def fingerprint(determines: Mapping[str, Any], source: str | None = None) -> str:
    """Hash of plain values and of the source.

    Args:
        determines: Everything else that determines a result.
        source: Digest of the source that takes part; None for all that takes part in runs.

    Returns:
        Twenty hexadecimal digits.
    """
    import numpy as np

    everything = {**determines, "source": source or source_digest(), "numpy": np.__version__}
    canonical = json.dumps(everything, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def scenario_identity(scenario: Scenario) -> dict[str, Any]:
    """The scenario with its hardware profile and M, as plain values."""
    from throttllem_env.hardware import load_profile
    from throttllem_env.prediction.ips import iteration_time

    return {
        "scenario": scenario.model_dump(mode="json"),
        "profile": asdict(load_profile(scenario.model, scenario.gpu)),
        "iteration_time": iteration_time(scenario).identity,
    }


def agent_identity(spec: str) -> dict[str, Any]:
    """A controller as it was named, with the source of one from elsewhere and the files it is given.

    Args:
        spec: As `throttllem compare` takes it.
    """
    from throttllem_env.controller import make_controller, split_wrappers
    from throttllem_env.controller.wrapper import layers

    sources = [_foreign_digest(type(layer).__module__) for layer in layers(make_controller(spec))]
    parts = ",".join(split_wrappers(spec)).replace(":", ",").split(",")
    values = [part.rpartition("=")[2] for part in parts]
    given = {value: file_digest(Path(value)) for value in values if Path(value).is_file()}
    return {"agent": spec, "source": " ".join(filter(None, sources)), "files": given}


def backend_identity(spec: str) -> str:
    """Digest of a backend's source, where that is in no room that counts anyway; empty elsewhere.

    Args:
        spec: As `throttllem compare` takes it, of a backend that exists.
    """
    name = spec.partition(":")[0]
    if name in BACKENDS:
        return ""
    package, _, inner = str(backend_type(name).__module__).partition(".")
    room = inner.partition(".")[0]
    if package != PACKAGE:
        return _foreign_digest(package)
    folder = Path(str(import_module(PACKAGE).__file__)).parent / room
    return "" if room in ROOMS else _digest(_sources(folder))


def _foreign_digest(module: str) -> str:
    """Digest of the outermost package that a module is in; empty for our own, which counts anyway."""
    top = import_module(module.partition(".")[0])
    if top.__name__ == PACKAGE or not top.__file__:
        return ""
    file = Path(top.__file__)
    return _digest(_sources(file.parent)) if file.name == "__init__.py" else file_digest(file)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; read once as long as the file stays as it is."""
    status = path.stat()
    return _content_digest(path.resolve(), status.st_mtime_ns, status.st_size)


@cache
def _content_digest(path: Path, _changed_ns: int, _size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def source_digest(rooms: tuple[str, ...] = ROOMS, own: tuple[str, ...] = RUNNERS) -> str:
    """SHA-256 over source and data of everything that takes part in a run, or in something else.

    Args:
        rooms: Which rooms do, besides the package's own files.
        own: Which files of `evaluation` do.
    """
    package = Path(str(import_module(PACKAGE).__file__)).parent
    evaluation = package / "evaluation"
    files = [(path.name, path) for path in sorted(package.glob("*.py"))]
    files += [(f"evaluation/{name}", evaluation / name) for name in own]
    for room in rooms:
        folder = Path(str(import_module(f"{PACKAGE}.{room}").__file__)).parent
        files += [(f"{room}/{name}", path) for name, path in _sources(folder)]
    return _digest(iter(files))


def _sources(folder: Path) -> Iterator[tuple[str, Path]]:
    """Source and data files below a folder, with their names in it, in a fixed order."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in SUFFIXES:
            yield path.relative_to(folder).as_posix(), path


def _digest(files: Iterator[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
