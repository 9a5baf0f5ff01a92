"""What MkDocs does not do by itself: reference pages from the code, and pages that the menu does not name.

MkDocs calls `on_startup`, `on_config` and `on_files` (hooks in `mkdocs.yml`); `make docs` runs it.
"""

import shutil
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "docs" / "throttllem_env"
API = {
    "types": "What controllers see and say",
    "slo": "Targets",
    "scenario": "Scenarios",
    "traces": "Traces",
    "controller": "Controllers",
    "controller.watchdog": "The watchdog",
    "prediction": "Prediction",
    "serving.backend": "Backends",
    "envs": "Environments",
    "gpu": "Clocks and energy of GPUs",
    "evaluation.compare": "Comparisons",
    "evaluation.results": "results.json",
    "evaluation.suites": "Suites",
    "evaluation.report": "Reports",
}
"""Modules with a page of their own, and its title."""

RESULTS = {
    "agents.md": "python scripts/train_agents.py evaluate --traces DIR",
    "leaderboard.md": "throttllem compare --suite paper --leaderboard docs/leaderboard.md",
}
"""Pages that a long computation writes, and its command; other pages link to them."""

NAMES = {str: "text", int: "whole number", float: "number"}

INTRODUCTION = """\
# Scenario reference

A scenario says what is served, on what, for whom, and how it may be controlled. It is a YAML file;
`throttllem scenarios` lists those that are shipped, `throttllem scenarios show NAME` explains one.
This page is made from the schema, `throttllem_env/scenario.py`.
How to write one for other hardware: [Add a GPU or a model](hardware.md).
"""


def on_startup(command: str, dirty: bool) -> None:
    """Make the folder that mkdocstrings looks into: at its start it drops those that are not there."""
    SOURCE.parent.mkdir(parents=True, exist_ok=True)


def on_config(config: Any) -> Any:
    """Lay the package out as it is installed: three of its folders stand elsewhere in the repository."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders: dict[str, str] = pyproject["tool"]["setuptools"]["package-dir"]
    for package in sorted(folders):
        modules = shutil.ignore_patterns("__pycache__", "*.npz", "*.json")
        shutil.copytree(ROOT / folders[package], SOURCE.parent.joinpath(*package.split(".")), ignore=modules)
    config.nav.append({"API": [f"api/{module}.md" for module in API]})
    _list_the_rest(config)
    return config


def _list_the_rest(config: Any) -> None:
    """Pages that the menu does not name, such as new ones, stand at its end."""
    named = {page for part in config.nav for pages in part.values() for page in pages}
    pages = (path.name for path in sorted(Path(config.docs_dir).glob("*.md")))
    rest = sorted({*pages, *RESULTS} - named)
    if rest:
        config.nav.append({"More": rest})


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code."""
    from mkdocs.structure.files import File

    made = {"scenarios.md": scenario_reference(), **dict(api_pages()), **dict(not_yet_made(config.docs_dir))}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def api_pages() -> Iterator[tuple[str, str]]:
    """A page for each module, by file name; its docstrings fill it."""
    for module, title in API.items():
        yield f"api/{module}.md", f"# {title}\n\n::: throttllem_env.{module}\n"


def not_yet_made(docs: str) -> Iterator[tuple[str, str]]:
    """What stands in the place of results that nobody has computed for this version."""
    for name, command in RESULTS.items():
        if not (Path(docs) / name).is_file():
            title = Path(name).stem.title()
            yield name, f"# {title}\n\nNot computed for this version. `{command}` does it.\n"


def scenario_reference() -> str:
    """The page about scenarios' fields."""
    from throttllem_env.scenario import Scenario, scenario_names

    lines = [INTRODUCTION]
    for prefix, section in sections(Scenario):
        lines += [f"## `{prefix.rstrip('.')}`" if prefix else "## Fields", "", summary_of(section), ""]
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in field_rows(section, prefix)]
        lines.append("")
    lines += ["## Shipped scenarios", "", *(f"- `{name}`" for name in scenario_names()), ""]
    return "\n".join(lines)


def sections(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A pydantic model and those inside it, with what stands before their fields' names."""
    yield prefix, model
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from sections(field.annotation, f"{prefix}{name}.")


def field_rows(model: Any, prefix: str = "") -> Iterator[list[str]]:
    """Name, type, default and meaning of every field of a model."""
    from throttllem_env.cli.scenarios import attribute_meanings

    meanings = attribute_meanings(model.__doc__ or "")
    for name, field in model.model_fields.items():
        nested = hasattr(field.annotation, "model_fields")
        kind = f"see [`{prefix}{name}`](#{prefix.replace('.', '')}{name})" if nested else kind_of(field)
        default = "" if nested else _default(field)
        cells = (f"`{prefix}{name}`", kind, default, meanings[name])
        yield [cell.replace("|", "\\|") for cell in cells]


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    return f"`{field.default}`" if field.default not in (None, "", {}) else "not set"


def kind_of(field: Any) -> str:
    """A field's type and limits, for people."""
    return "".join((_kind(field.annotation), *(f", {limit}" for limit in _limits(field.metadata))))


def _kind(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin is typing.Annotated:
        limits = [limit for field in inner[1:] for limit in _limits(field.metadata)]
        return f"{_kind(inner[0])} {', '.join(limits)}".strip()
    if origin is tuple:
        return f"list of {_kind(inner[0])}s"
    if origin is dict:
        return f"{_kind(inner[1])}, by {_kind(inner[0])}"
    if inner:  # something, or None
        return _kind(inner[0])
    return NAMES.get(kind, str(kind.__name__))


def _limits(metadata: Any) -> Iterator[str]:
    for rule in metadata:
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            if getattr(rule, name, None) is not None:
                yield f"{sign} {getattr(rule, name):g}"


def summary_of(model: Any) -> str:
    """What a model is, from its docstring."""
    return (model.__doc__ or "").strip().splitlines()[0]
