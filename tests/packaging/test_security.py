"""What docs/security.md claims about the code as a whole, and that each of its claims has a test."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("throttllem_env", "agents", "baselines", "traces", "scripts")
GIVEN_AWAY = {"throttllem_env/serving/vllm/servers/stats_socket.py"}
"""Where a file of ours is given to the user whose servers write to it."""
UNPICKLED = {"agents/learned/foreign.py"}
"""Where pickles are loaded, behind the user's flag `trust=yes`."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the code: file, dotted name, node."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield str(path.relative_to(ROOT)), ast.unparse(node.func), node


CALLS = list(calls())


def keyword(node: ast.Call, name: str) -> str:
    return next((ast.unparse(word.value) for word in node.keywords if word.arg == name), "")


def named(pattern: str) -> list[tuple[str, str, ast.Call]]:
    return [call for call in CALLS if re.fullmatch(pattern, call[1])]


def test_the_search_finds_calls() -> None:
    assert len(CALLS) > 5_000
    assert named(r"subprocess\.Popen")
    assert named(r"np\.load")


def test_no_shell_is_called() -> None:
    shells = r"os\.(system|popen|spawn\w*|exec\w*)|subprocess\.get(status)?output|commands\.\w+|pty\.spawn"
    assert not [(file, name) for file, name, _ in named(shells)]
    assert not [(file, name) for file, name, node in CALLS if keyword(node, "shell") not in ("", "False")]


def test_nobody_is_made_root() -> None:
    raised = r"os\.(setuid|seteuid|setreuid|setresuid|setgid|chown|lchown)|shutil\.chown"
    assert {file for file, _, _ in named(raised)} <= GIVEN_AWAY
    programs = [
        (file, word.value)
        for file, _, node in named(r"(subprocess\.)?(run|Popen|check_call|check_output)")
        for word in ast.walk(node)
        if isinstance(word, ast.Constant) and word.value in ("sudo", "su", "doas", "pkexec", "setpriv")
    ]
    assert not programs


def test_no_pickle_is_loaded_unasked() -> None:
    loaders = r"(c?[pP]ickle|cloudpickle|dill|marshal|shelve|jsonpickle)\.(loads?|open|Unpickler)"
    others = r"joblib\.load|(pd|pandas)\.read_pickle"
    assert {file for file, _, _ in named(f"{loaders}|{others}")} <= UNPICKLED


def test_arrays_are_loaded_without_pickles() -> None:
    unsafe = [
        file for file, _, node in named(r"(np|numpy)\.load") if keyword(node, "allow_pickle") != "False"
    ]
    assert not unsafe


def test_weights_are_loaded_without_pickles() -> None:
    unsafe = [file for file, _, node in named(r"torch\.load") if keyword(node, "weights_only") != "True"]
    assert set(unsafe) <= UNPICKLED


def test_yaml_is_loaded_safely() -> None:
    loads = {name for _, name, _ in named(r"yaml\.\w*load\w*")}
    assert loads == {"yaml.safe_load"}


def test_no_text_is_run_as_code() -> None:
    assert not [(file, name) for file, name, _ in named(r"eval|exec|compile|__import__")]


def claims() -> list[str]:
    """Tests that the threat model names, as `file::test`."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", text)


@pytest.mark.parametrize("claim", claims())
def test_a_test_that_the_threat_model_names_is_there(claim: str) -> None:
    file, _, name = claim.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_claim_of_the_threat_model_has_a_test() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    claimed = text.partition("## How long")[0]
    rows = [line for line in claimed.splitlines() if re.match(r"\| (?!claim)", line)]
    assert len(rows) > 15
    assert not [row for row in rows if "::" not in row]
