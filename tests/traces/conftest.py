"""Where the tests of this room find the published traces."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_traces() -> Path:
    """Folder with the published traces, beside the repository; only outside CI may it be missing."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "traces"
    if not folder.is_dir():
        reason = f"no published traces at {folder}"
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
