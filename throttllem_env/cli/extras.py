"""What commands say when an extra of the package is not installed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Name an extra if what it brings cannot be imported.

    Args:
        extra: Its name.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is missing: pip install 'throttllem-env[{extra}]'") from None


def needs_serve() -> AbstractContextManager[None]:
    """Name the extra `serve` if what it brings cannot be imported."""
    return needs("serve")
