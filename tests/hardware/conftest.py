"""Where the calibration figures are; tests without them skip, in CI they fail."""

import os
from pathlib import Path

import pytest

CALIBRATION = Path(__file__).parents[2].parent / "shared" / "calibration"


@pytest.fixture(scope="session")
def calibration() -> Path:
    """The folder with the calibration figures."""
    if not (CALIBRATION / "a800_decode_frequency.csv").is_file():
        message = f"{CALIBRATION.name} is not beside the repository: calibration is not checked"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return CALIBRATION
