"""Keys come from files: on a command line, everybody on the machine could read them."""

from pathlib import Path


def read_key(option: str, path: Path | None) -> str | None:
    """The key in a file, without the line's end.

    Args:
        option: What to call it in an error.
        path: The file; None for no key.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is empty or has several lines.
    """
    if path is None:
        return None
    key = path.read_text(encoding="utf-8").strip()
    if not key or "\n" in key:
        raise ValueError(f"{option} = {path}: expected one line, the key")
    return key
