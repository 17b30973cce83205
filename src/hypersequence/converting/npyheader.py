"""What stands at the beginning of an array in NumPy's format."""

from __future__ import annotations

import io
from typing import IO, Any

import numpy as np

from ..errors import ArgumentError
from ..schema import Field


class NpyHeader:
    """Read from a stream, which then stands where the values begin.

    Raises:
        ValueError: No array is there.

    Attributes:
        shape: The array's.
        fortran: Whether its values lie in Fortran's order, where that makes a difference.
        dtype: As it stands in the file, perhaps big-endian.
        nbytes: How long the header is.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
            # Differs from 2.0 where members of structured types have names beyond Latin-1, which are no records.
            (3, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"version {version[0]}.{version[1]} of the format is not known")
        found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(stream)
        self.shape, fortran, self.dtype = found
        if min(self.shape, default=0) < 0 or self.dtype.subdtype is not None:
            raise ValueError(f"it has {self.dtype} in the shape {self.shape}")
        self.fortran = bool(fortran) and len(self.shape) > 1
        self.nbytes = stream.tell()


def refuse_unknown(name: str, field: Field) -> None:
    """Refuse a type that NumPy's format does not have.

    Raises:
        ArgumentError: It is of ``ml_dtypes``.
    """
    if field.dtype.kind == "V" or field.dtype.isbuiltin == 2:
        raise ArgumentError(
            f"{name}: NumPy's files know no {field.type_name}; map() it to float32 and save() that first"
        )


def npy_header(field: Field, shape: tuple[int, ...]) -> bytes:
    """The header of an array of so many values of a field's type."""
    stream = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(field.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()
