"""`name=value` options that may be repeated."""

from typing import Any


def pairs(name: str, given: list[str] | None) -> dict[str, Any]:
    """Names and values; values are read as YAML reads them.

    Args:
        name: What the option is called, for errors.
        given: What the user wrote.

    Raises:
        ValueError: One is no pair.

    Example:
        >>> pairs("option", ["load=0.5", "observation=compact"])
        {'load': 0.5, 'observation': 'compact'}
    """
    import yaml

    found: dict[str, Any] = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ValueError(f"{name} = {text!r}: expected name=value")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[key] = value
    return found
