"""What commands say when an extra of the package is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_serve() -> Iterator[None]:
    """Name the extra `serve` if what it brings cannot be imported."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is missing: pip install 'throttllem-env[serve]'") from None
