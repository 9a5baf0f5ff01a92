"""How kernels are compiled: by numba, once per installation, kept on disk.

numba notices that a file changed, but not that a function which it calls in another file did. Hence the
convention that kernels live in folders named `kernels/`, and the cache's folder is named by a hash of all
of them (and of this file): whenever one changes, everything is compiled anew.

Importing a module that uses `compiled` imports numba: do so where kernels are run, not before.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_NAME = "throttllem-env"
_config_lock = Lock()


def compiled(function: Kernel) -> Kernel:
    """Compile a kernel when it is first called, or take it from the cache.

    Floats behave as in Python (no fastmath), but a division by zero gives inf or nan. The interpreter's
    lock is released while a kernel runs.

    Args:
        function: Works on numbers and NumPy arrays, and stands in a folder named `kernels`.

    Example:
        >>> from throttllem_env.compiled import compiled
        >>> def double(x: float) -> float:
        ...     return 2 * x
        >>> compiled(double)(1.5)  # doctest: +SKIP
        3.0
    """
    return _jitted(function)


def inlined(function: Kernel) -> Kernel:
    """Compile a kernel that allocates nothing, and make it part of every kernel that calls it.

    Small functions that hand a dozen arrays to one another cost nothing then: no argument is copied, and no
    array's references are counted (which takes most of the time otherwise). Not for recursion.

    Args:
        function: As for `compiled`; it makes no arrays.
    """
    # `_nrt` is not public: should numba lose it, this fails loudly at import, and leaving it out is right.
    return _jitted(function, _nrt=False, forceinline=True)


def opening(function: Kernel) -> Kernel:
    """Write a kernel that makes arrays out of addresses into every kernel that calls it.

    What it makes may hold records, which compiled functions cannot return; so it is written in, not called.

    Args:
        function: As for `compiled`; called by one that is `compiled`, which hands the arrays on to those
            that are `inlined`.
    """
    return _jitted(function, inline="always")


def _jitted(function: Kernel, **options: bool | str) -> Kernel:
    numba: Any = import_module("numba")
    with _own_cache(numba.config):
        kernel: Kernel = numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    return kernel


@contextmanager
def _own_cache(config: Any) -> Iterator[None]:
    """Numba reads its cache folder when it decorates; other users of numba shall find their own."""
    with _config_lock:
        before, config.CACHE_DIR = config.CACHE_DIR, str(cache_folder(config.CACHE_DIR))
        try:
            yield
        finally:
            config.CACHE_DIR = before


@cache
def cache_folder(preferred: str = "") -> Path:
    """Where compiled kernels lie; made if it does not exist.

    Args:
        preferred: A folder for all caches of numba (NUMBA_CACHE_DIR); empty for the user's cache folder.

    Returns:
        A folder that this user may write to: under a temporary one where the wanted one is not.
    """
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    wanted = Path(preferred or user_cache) / _NAME / sources_hash()
    if _made_usable(wanted):
        return wanted
    spare = Path(tempfile.gettempdir()) / f"{_NAME}-{os.getuid()}" / sources_hash()
    return spare if _made_usable(spare) else Path(tempfile.mkdtemp(prefix=_NAME))


def _made_usable(folder: Path) -> bool:
    """Make a folder unless it exists; it must be ours, since numba runs what it finds there."""
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ours = folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK)
    except OSError:
        return False
    if new and ours and sys.stderr.isatty():
        print("compiling the simulator, once per installation (a minute) ...", file=sys.stderr)
    return ours


@cache
def sources_hash() -> str:
    """A name for the state of all kernels: changes with any of them, and with numba."""
    import numba

    root = Path(__file__).parent
    digest = hashlib.sha256(numba.__version__.encode())
    for path in [Path(__file__), *sorted(root.glob("**/kernels/**/*.py"))]:
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
