"""Arrays handed to kernels by address: a record per tuple of arrays, and arrays of such records.

Taking an array from Python costs a kernel about a tenth of a microsecond, and a node has sixteen. A kernel
that is given one address of a table of addresses takes any number of nodes, whose arrays may differ in
length, at no cost. Whoever keeps such a table keeps the arrays as well: an address keeps nothing alive.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic


def _pointer(_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


pointer: Any = intrinsic(_pointer)
"""A `void *` from an integer; for kernels only."""

carray: Any = import_module("numba").carray
"""The array of a shape and type at a pointer."""


def address_dtype(**dimensions: int) -> "np.dtype[np.void]":
    """A record of addresses: for each array `name` its address, and its shape as `name_0`, `name_1`, ...

    Args:
        **dimensions: How many dimensions each array has.

    Example:
        >>> address_dtype(times=1, table=2).names
        ('times', 'times_0', 'table', 'table_0', 'table_1')
    """
    names: list[str] = []
    for name, count in dimensions.items():
        names += _fields(name, count)
    return np.dtype([(name, np.int64) for name in names])


def address_of(array: Any) -> int:
    """Where a contiguous array, or a record in one, lies in memory.

    Raises:
        ValueError: The array is not contiguous.
    """
    if isinstance(array, np.void):
        return int(np.frombuffer(array, np.uint8).ctypes.data)
    if not array.flags.c_contiguous:
        raise ValueError(f"array of shape {array.shape} and strides {array.strides}: must be contiguous")
    return int(array.ctypes.data)


def addresses(name: str, array: Any) -> Iterable[tuple[str, int]]:
    """The fields of an `address_dtype` that tell of one array; a record counts as an array of one.

    Raises:
        ValueError: The array is not contiguous.
    """
    shape = (1,) if isinstance(array, np.void) else array.shape
    return zip(_fields(name, len(shape)), (address_of(array), *shape), strict=True)


@cache
def _fields(name: str, dimensions: int) -> tuple[str, ...]:
    return (name, *(f"{name}_{axis}" for axis in range(dimensions)))


def addresses_of(arrays: Iterable[Any]) -> tuple[int, ...]:
    """The fields of an `address_dtype`.

    Args:
        arrays: In the order of its fields; a record counts as an array of one.

    Raises:
        ValueError: An array is not contiguous.
    """
    found: list[int] = []
    for array in arrays:
        shape = (1,) if isinstance(array, np.void) else array.shape
        found += [address_of(array), *shape]
    return tuple(found)


Addresses = Any
"""A record of an `address_dtype`; its fields are attributes, which NumPy's types do not know."""
