"""Why a GPU's clock is what it is, in plain names.

Bits as in NVML's `nvmlClocksEventReasons` (nvml.h, release 550 and later).
"""

from collections.abc import Iterable

NAMES = {
    0x001: "idle",
    0x002: "clocks-setting",
    0x004: "power-cap",
    0x008: "hw-slowdown",
    0x010: "sync-boost",
    0x020: "sw-thermal",
    0x040: "hw-thermal",
    0x080: "hw-power-brake",
    0x100: "display",
    0x200: "board-limit",
    0x400: "reliability",
}

EXPLANATIONS = {
    "idle": "nothing runs on the GPU",
    "clocks-setting": "application clocks are set",
    "power-cap": "the power limit is reached",
    "hw-slowdown": "the hardware halves the clock or worse: heat, or an external power brake",
    "sync-boost": "other GPUs of a sync-boost group hold it back",
    "sw-thermal": "the driver lowers the clock because of heat",
    "hw-thermal": "the hardware lowers the clock because of heat",
    "hw-power-brake": "the power supply asks the hardware to slow down",
    "display": "display clocks are set",
    "board-limit": "the board's own limits",
    "reliability": "limits of voltage",
}


def reason_names(bits: int) -> frozenset[str]:
    """Translate NVML's bits.

    Args:
        bits: What `nvmlDeviceGetCurrentClocksEventReasons` says.

    Returns:
        A name for each bit; one that is new to us is named by its value.

    Examples:
        >>> sorted(reason_names(0x44))
        ['hw-thermal', 'power-cap']
        >>> sorted(reason_names(0x8001))
        ['0x8000', 'idle']
    """
    single = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return frozenset(NAMES.get(bit, hex(bit)) for bit in single)


def describe_reasons(reasons: Iterable[str]) -> str:
    """Put reasons into words.

    Args:
        reasons: Names as from `reason_names`.

    Returns:
        A list for people; empty without reasons.

    Examples:
        >>> describe_reasons({"power-cap", "0x8000"})
        '0x8000, power-cap (the power limit is reached)'
    """
    ordered = sorted(reasons)
    return ", ".join(f"{name} ({EXPLANATIONS[name]})" if name in EXPLANATIONS else name for name in ordered)
