"""What the guardian is told about a GPU: how to find it, and how to give it back."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

# Also the stem of a file, so nothing that leads elsewhere.
UUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Ward:
    """A GPU whose clock may be locked.

    Attributes:
        uuid: The driver's name for it.
        index: The driver's index of it.
        restore_mhz: Lowest and highest clock to lock it to when it is given back; None for the driver's
            default.

    Raises:
        ValueError: The UUID cannot be one, or the clocks are in the wrong order.
    """

    uuid: str
    index: int
    restore_mhz: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not UUID.fullmatch(self.uuid):
            raise ValueError(f"uuid = {self.uuid!r}: expected letters, digits, dots and dashes")
        if self.restore_mhz is not None:
            low, high = self.restore_mhz
            if not 0 < low <= high:
                raise ValueError(f"restore_mhz = {low},{high}: expected MIN,MAX with 0 < MIN <= MAX")

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> "Ward":
        """Read what `plain` gave.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is of another type.
            ValueError: A field's value cannot be.
        """
        clocks = data["restore_mhz"]
        return cls(
            str(data["uuid"]),
            int(data["index"]),
            None if clocks is None else (int(clocks[0]), int(clocks[1])),
        )

    def __str__(self) -> str:
        """For people."""
        return f"GPU {self.index} ({self.uuid})"

    @property
    def setting(self) -> str:
        """What it is given back with, for people."""
        return "the driver's default" if self.restore_mhz is None else "{}-{} MHz".format(*self.restore_mhz)


@dataclass(frozen=True)
class Driver:
    """How to reach the GPUs: what the guardian can reset them through.

    Attributes:
        kind: `nvml`, `zeusd` or `emulated`.
        path: The daemon's socket, or the file of emulated GPUs.
    """

    kind: str = "nvml"
    path: str | None = field(default=None)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> "Driver":
        """Read what `plain` gave.

        Raises:
            KeyError: A field is missing.
        """
        return cls(str(data["kind"]), None if data["path"] is None else str(data["path"]))
