"""Settings of the whole test suite."""

import os
import shutil
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

# A slow or busy machine is no failure: what must be fast is measured elsewhere, as ratios. Examples are the
# same in every run: what one draw in a thousand would find fails whoever searches for it, and nobody else.
settings.register_profile(
    "throttllem", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("throttllem"), derandomize=False)
# Where every example starts engines.
settings.register_profile("live", settings.get_profile("throttllem"), max_examples=4)
settings.load_profile("throttllem")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What vLLM's own dependencies warn of is not ours to mend.

    Raises:
        UsageError: `make live`, which looks for the marker in a file's text, would not find a live test.
    """
    live = [item for item in items if item.get_closest_marker("live")]
    for path in {item.path for item in live}:
        if "mark.live" not in path.read_text(encoding="utf-8"):
            raise pytest.UsageError(f"{path}: has live tests; name pytest.mark.live in it, for `make live`")
    for item in live:
        item.add_marker(pytest.mark.filterwarnings("ignore"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of a real engine are skipped where there is none, but never on CI."""
    if item.get_closest_marker("live") and find_spec("vllm") is None:
        reason = "vLLM is not installed here; `make live` installs it and runs this"
        skip_unless_ci(reason)


def skip_unless_ci(reason: str) -> NoReturn:
    """Skip a test; on CI, where everything is at hand, fail."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_traces() -> Path:
    """Folder with the published traces, beside the repository; only outside CI may it be missing."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "traces"
    if not folder.is_dir():
        skip_unless_ci(f"no published traces at {folder}")
    return folder


@pytest.fixture(scope="session")
def nvml_double(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """NVML's test double, compiled for this session; `tests/gpu/double.py` says what it can."""
    if shutil.which("gcc") is None:
        skip_unless_ci("no gcc to build NVML's test double with")
    spec = spec_from_file_location("nvml_double", Path(__file__).parent / "gpu" / "double.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.NvmlDouble(tmp_path_factory.mktemp("nvml"))
