"""Check types and imports on the installed wheel, as a user gets it.

mypy and import-linter look for files, so in the repository they miss the
folders that `pyproject.toml` maps into `throttllem_env`. Here the wheel is
unpacked into `build/lint`, and both run from an empty directory, where nothing
but the wheel can be found under that name.

Run it as `python scripts/lint.py`, with the `dev` extra installed.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "lint"
SITE = WORK / "site"
EMPTY = WORK / "empty"
PACKAGE = "throttllem_env"


def mapped_folders(pyproject: Path) -> dict[str, str]:
    """Read which folder of the repository holds which package.

    Args:
        pyproject: The project's `pyproject.toml`.

    Returns:
        Folder by dotted package name, as in `[tool.setuptools.package-dir]`.
    """
    config = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    folders: dict[str, str] = config["tool"]["setuptools"]["package-dir"]
    return folders


def count_modules(root: Path, folders: dict[str, str]) -> int:
    """Count the Python files in the repository that belong into the wheel.

    Args:
        root: The repository.
        folders: What `mapped_folders` returned.

    Returns:
        The number of `.py` files under all folders.
    """
    return sum(1 for folder in folders.values() for _ in (root / folder).rglob("*.py"))


def checked_files(report: str) -> int:
    """Read from mypy's last line how many files it checked.

    Args:
        report: What mypy printed.

    Returns:
        The number of files, 0 if mypy did not get so far.

    Examples:
        >>> checked_files("Success: no issues found in 41 source files")
        41
        >>> checked_files("Found 1 error in 1 file (checked 41 source files)")
        41
        >>> checked_files("mypy: can't find package 'throttllem_env'")
        0
    """
    match = re.search(r"(?:found in|checked) (\d+) source files?", report)
    return int(match.group(1)) if match else 0


def source_paths(report: str, folders: dict[str, str]) -> str:
    """Point messages about the unpacked wheel to the files to be edited.

    Args:
        report: What a tool printed.
        folders: What `mapped_folders` returned.

    Returns:
        The report with paths relative to the repository.
    """
    for package in sorted(folders, key=len, reverse=True):
        unpacked = SITE / package.replace(".", "/")
        report = report.replace(f"{unpacked}/", f"{folders[package]}/")
    return report.replace(f"{ROOT}/", "")


def install_wheel() -> None:
    """Build the wheel and unpack it, alone, into `SITE`.

    Raises:
        subprocess.CalledProcessError: If the build or the installation fails.
    """
    # A stale build folder would bring files into the wheel that are gone from the tree.
    for stale in (WORK, ROOT / "build" / "lib"):
        shutil.rmtree(stale, ignore_errors=True)
    EMPTY.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels = WORK / "wheel"
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, ROOT], check=True
    )
    wheel = next(wheels.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", SITE, wheel], check=True)


def run_tool(command: list[str]) -> tuple[int, str]:
    """Run a tool in the empty directory, with the wheel first on its path.

    Args:
        command: The command and its arguments.

    Returns:
        The exit status and what it printed.
    """
    env = os.environ | {"PYTHONPATH": str(SITE), "MYPYPATH": str(SITE)}
    done = subprocess.run(
        command, cwd=EMPTY, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def mypy_command(*what: str) -> list[str]:
    """Give the command that checks types strictly with the project's settings.

    Args:
        what: What to check: files, or `-p` and a package.

    Returns:
        The command and its arguments.
    """
    settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    # A folder of data files is no namespace package, and not to be counted.
    return [sys.executable, "-m", "mypy", "--strict", "--no-namespace-packages", *settings, *what]


def check_package_types(folders: dict[str, str]) -> bool:
    """Type-check the whole package and make sure that no file was left out.

    Args:
        folders: What `mapped_folders` returned.

    Returns:
        Whether every file was checked and found clean.
    """
    status, report = run_tool(mypy_command("-p", PACKAGE))
    print(source_paths(report, folders), end="")
    expected, checked = count_modules(ROOT, folders), checked_files(report)
    if checked != expected:
        print(f"mypy checked {checked} files, but {', '.join(folders.values())} hold {expected} .py files.")
        print("Is a package missing from [tool.setuptools] packages?")
    return status == 0 and checked == expected


def check_script_types(folders: dict[str, str]) -> bool:
    """Type-check the files in `scripts/`, each as a program of its own.

    Args:
        folders: What `mapped_folders` returned.

    Returns:
        Whether they are clean.
    """
    scripts = sorted(str(path) for path in (ROOT / "scripts").glob("*.py"))
    status, report = run_tool(mypy_command("--scripts-are-modules", *scripts))
    print(source_paths(report, folders), end="")
    return status == 0


def check_imports() -> bool:
    """Check that the rooms import one way only.

    Returns:
        Whether every contract in `[tool.importlinter]` is kept.
    """
    lint_imports = str(Path(sys.executable).with_name("lint-imports"))
    status, report = run_tool([lint_imports, "--no-logo", "--config", str(ROOT / "pyproject.toml")])
    print(report, end="")
    return status == 0


def main() -> int:
    """Run every check, also after one has failed.

    Returns:
        The exit status: 0 if all are clean.
    """
    folders = mapped_folders(ROOT / "pyproject.toml")
    install_wheel()
    clean = [check_package_types(folders), check_script_types(folders), check_imports()]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
