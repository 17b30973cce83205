"""From NumPy's arrays to PyTorch's tensors."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch

from ...errors import ArgumentError
from ...sequence import HyperSequence
from ..arrays import refuse_types

#: Types that NumPy has from ml_dtypes: as what they cross over, and what PyTorch calls them.
_CROSSING: dict[np.dtype[Any], tuple[type, torch.dtype]] = {
    np.dtype(getattr(ml_dtypes, name)): (np.uint16 if name == "bfloat16" else np.uint8, getattr(torch, name))
    for name in (
        *("bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
        *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
}


def tensor_of(array: Any) -> torch.Tensor:
    """An array as a tensor over the same memory; over a copy where the array is read-only or runs backwards.

    PyTorch has no read-only tensors: a tensor over a file's mapping could be written to, which ends the process.
    Tensors, and what PyTorch makes one of by itself, may come from ``map``.

    Raises:
        ArgumentError: PyTorch has no such type.
    """
    return tensors_of(array, None)[0]


def tensors_of(array: Any, size: int | None) -> list[torch.Tensor]:
    """As :func:`tensor_of`, for batches of ``size`` records that lie together (``None`` for a single one).

    The array is cut and not the tensor, since PyTorch takes longer for that.
    """
    if isinstance(array, np.generic):  # a record of a single number
        array = np.array(array)
    if not isinstance(array, np.ndarray):
        try:
            return [torch.as_tensor(array)]
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"map(...) gave {array!r:.80}, of which PyTorch makes no tensor: {error}") from error
    if not array.flags.writeable or any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()
    crossing = _CROSSING.get(array.dtype)
    if crossing is not None:
        return [tensor.view(crossing[1]) for tensor in tensors_of(array.view(crossing[0]), size)]
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    try:
        if size is None:
            return [torch.from_numpy(array)]
        return [torch.from_numpy(array[start : start + size]) for start in range(0, len(array), size)]
    except TypeError as error:
        raise ArgumentError(
            f"PyTorch has no elements of type {array.dtype}; leave the field out with fields(...), or convert it with "
            "map(...)"
        ) from error


def check_types(sequence: HyperSequence) -> None:
    """Refuse fields that have no counterpart in PyTorch.

    Raises:
        ArgumentError: There is one.
    """
    refuse_types(sequence, "PyTorch", _reason)


def _reason(dtype: np.dtype[Any]) -> str | None:
    refused = dtype.kind in "mMSU" or (dtype.kind == "V" and dtype not in _CROSSING)
    return "" if refused else None
