"""Settings of the whole test suite."""

import os
from importlib.util import find_spec

import pytest
from hypothesis import settings

# A slow or busy machine is no failure: what must be fast is measured elsewhere, as ratios.
settings.register_profile("throttllem", deadline=None)
# Where every example starts engines.
settings.register_profile("live", deadline=None, max_examples=4)
settings.load_profile("throttllem")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What vLLM's own dependencies warn of is not ours to mend."""
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of a real engine are skipped where there is none, but never on CI."""
    if item.get_closest_marker("live") and find_spec("vllm") is None:
        reason = "vLLM is not installed here; `make live` installs it and runs this"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
