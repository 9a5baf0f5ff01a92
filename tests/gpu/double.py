"""NVML's test double: built with gcc, loaded by real pynvml.

`environment` is for a process of its own, which loads the double as it would load the driver's library.
`patched` is for the test's own process: the library goes by another name there, so that nobody else who
looks for a driver in this process finds it.

Neither is for a process that runs vLLM: it would take the double for CUDA.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml_double") / "nvml_double.c"
STATE = "NVML_DOUBLE"
"""The environment variable that names the file of emulated GPUs."""


class NvmlDouble:
    """The compiled library.

    Attributes:
        folder: Where `libnvidia-ml.so.1` lies; for LD_LIBRARY_PATH.
    """

    def __init__(self, folder: Path) -> None:
        """Compile it.

        Args:
            folder: Where to; must be there.

        Raises:
            FileNotFoundError: There is no gcc.
            subprocess.CalledProcessError: gcc refused.
        """
        self.folder = folder
        self._private = folder / "private" / "throttllem-nvml-double.so"
        self._private.parent.mkdir()
        flags = ["-shared", "-fPIC", "-O2", "-pthread", "-fvisibility=hidden"]
        for path, name in ((folder / "libnvidia-ml.so.1", "libnvidia-ml.so.1"), (self._private, "private")):
            command = ["gcc", *flags, f"-Wl,-soname,{name}", str(SOURCE), "-o", str(path)]
            subprocess.run(command, check=True, timeout=120)

    def environment(self, state: Path) -> dict[str, str]:
        """Variables of a process that shall see the GPUs in a file.

        Args:
            state: A file that `DeviceFile.create` made.
        """
        before = os.environ.get("LD_LIBRARY_PATH")
        folders = str(self.folder) if not before else f"{self.folder}:{before}"
        return os.environ | {STATE: str(state), "LD_LIBRARY_PATH": folders}

    def run(
        self, state: Path, code: str, *args: str, env: Mapping[str, str] | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code in a process that sees the GPUs in a file.

        Args:
            state: The file.
            code: The program; it gets `args` in `sys.argv`.
            args: Its arguments.
            env: Further variables.
            timeout_s: When to give up, seconds.

        Returns:
            The finished process with its output; the status is not checked.
        """
        command = [sys.executable, "-c", code, *args]
        variables = self.environment(state) | dict(env or {})
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    @contextmanager
    def patched(self, state: Path) -> Iterator[None]:
        """Let pynvml in this process see the GPUs in a file, for the length of a block.

        Args:
            state: The file.
        """
        import pynvml

        library, functions = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)
        before = os.environ.get(STATE)
        pynvml.nvmlLib = ctypes.CDLL(str(self._private))
        pynvml._nvmlGetFunctionPointer_cache.clear()
        os.environ[STATE] = str(state)
        try:
            yield
        finally:
            self._shut_down(pynvml.nvmlLib)
            pynvml.nvmlLib = library
            pynvml._nvmlGetFunctionPointer_cache.clear()
            pynvml._nvmlGetFunctionPointer_cache.update(functions)
            os.environ.pop(STATE)
            if before is not None:
                os.environ[STATE] = before

    @staticmethod
    def _shut_down(library: ctypes.CDLL) -> None:
        """Undo every initialisation that a test left behind."""
        while library.nvmlShutdown() == 0:
            pass

    def layout(self) -> dict[str, int]:
        """Offsets of the fields of the mapped file, as C has them; `header` and `gpu` are sizes."""
        library, name = ctypes.CDLL(str(self._private)), ctypes.create_string_buffer(64)
        found: dict[str, int] = {}
        while (offset := library.double_layout(len(found), name, 64)) >= 0:
            found[name.value.decode()] = offset
        return found
