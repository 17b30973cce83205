"""Files of hypersequence up to 0.10, read with the same suspicion as our own.

Both layouts begin with the batches: packed structures of one array a field, whole batches only. What follows is

* 0.9: the marker ``@@FSEQ@@`` and JSON to the end of the file;
* 0.10: JSON compressed with gzip, its length and ``HSQ2``, both as big-endian 32-bit numbers.
"""

from __future__ import annotations

import re
import zlib
from typing import Any, NoReturn, cast

import numpy as np
import xxhash

from . import strictjson
from .elements import dtype_from_name
from .errors import FormatError, HyperSequenceError
from .schema import Field, Schema
from .stored import Read, StoredFile

_MARKER = b"@@FSEQ@@"
_TRAILER_MAGIC = b"HSQ2"
# 0.9 itself looks at the last 1,024 bytes only; its own files with much user metadata need more.
_MARKER_SEARCH_NBYTES = 1 << 20
_MAX_META_NBYTES = 64 << 20
_SAMPLE_NBYTES = 64 << 10
_TYPE = re.compile(r"([<>|=])([biufcSUMm])([1-9]\d{0,8}|0)(?:\[(\d{0,9})([A-Za-z]{1,2})\])?", re.ASCII)
_NAMES = {"i": "int{}", "u": "uint{}", "f": "float{}", "c": "complex{}"}


def looks_legacy(read: Read, file_nbytes: int) -> bool:
    """Whether the end of a file is that of hypersequence 0.9 or 0.10."""
    tail_nbytes = min(file_nbytes, _MARKER_SEARCH_NBYTES)
    tail = read(file_nbytes - tail_nbytes, tail_nbytes)
    return tail[-4:] == _TRAILER_MAGIC or _MARKER in tail


def describe_legacy_file(read: Read, file_nbytes: int, path: str) -> StoredFile:
    """Validate the metadata of a file of hypersequence 0.9 or 0.10.

    Raises:
        FormatError: Rules L1 to L5 of SPEC.md.
    """
    if read(max(0, file_nbytes - 4), 4) == _TRAILER_MAGIC:
        version, meta_bytes, data_nbytes = "0.10", *_compressed_meta(read, file_nbytes, path)
    else:
        version, meta_bytes, data_nbytes = "0.9", *_marked_meta(read, file_nbytes, path)
    try:
        given = strictjson.decode(meta_bytes, allow_nan=True)
    except ValueError as error:
        _fail(path, "L2", f"its metadata are not valid JSON ({str(error)[:100]})")
    if not isinstance(given, dict):
        _fail(path, "L2", "its metadata are no JSON object")
    meta = cast("dict[str, Any]", given)
    n_batches, batch_size, n_inputs, n_outputs = (
        _count(meta, name, path) for name in ("records", "batch_size", "no_inputs", "no_outputs")
    )
    members = _members(meta, batch_size, n_inputs + n_outputs, path)
    fields = [field for field, _ in members]
    stride = batch_size * sum(field.nbytes for field in fields)
    if n_batches * batch_size * max(field.extent for field in fields) >= 1 << 63:
        _fail(path, "L5", f"{n_batches} batches of {batch_size} are more records than can be addressed")
    if n_batches * stride != data_nbytes:
        _fail(
            path,
            "L5",
            f"{data_nbytes} bytes of data where {n_batches} batches take {n_batches * stride}: the file was cut or "
            "added to, and its numbers would be wrong",
        )
    try:
        schema = Schema(tuple(fields[:n_inputs]), tuple(fields[n_inputs:]) or None)
    except HyperSequenceError as error:
        _fail(path, "L3", str(error))
    user_meta = meta.get("usermeta", {})
    if not isinstance(user_meta, dict):
        _fail(path, "L2", "its user metadata are no JSON object")
    ends = np.cumsum([0, *(batch_size * field.nbytes for field in fields)]).tolist()
    return StoredFile(
        version=version,
        schema=schema,
        n_records=n_batches * batch_size,
        batch_size=batch_size,
        block_records=batch_size,
        n_blocks=n_batches,
        first_block=0,
        stride=max(1, stride),
        column_offsets=tuple(ends[:-1]),
        stored_dtypes=tuple(dtype for _, dtype in members),
        file_id=bytes(16),
        created_ns=None,
        digest=_digest(read, meta_bytes, data_nbytes),
        read_meta=lambda _read: cast("dict[str, Any]", user_meta),
    )


def _digest(read: Read, meta_bytes: bytes, data_nbytes: int) -> bytes:
    """Tells most files from others: these have no checksums, so metadata and the two ends of the data must do."""
    hasher = xxhash.xxh3_128(meta_bytes)
    hasher.update(read(0, min(data_nbytes, _SAMPLE_NBYTES)))
    hasher.update(read(max(0, data_nbytes - _SAMPLE_NBYTES), min(data_nbytes, _SAMPLE_NBYTES)))
    return hasher.digest()


def _fail(path: str, rule: str, message: str) -> NoReturn:
    raise FormatError(f"{path}: a file of hypersequence 0.x, but {message} [rule {rule}]", path=path, rule=rule)


def _compressed_meta(read: Read, file_nbytes: int, path: str) -> tuple[bytes, int]:
    nbytes = int.from_bytes(read(max(0, file_nbytes - 8), 4), "big")
    start = file_nbytes - 8 - nbytes
    if not 0 < nbytes <= _MAX_META_NBYTES or start < 0:
        _fail(path, "L1", f"its metadata of {nbytes} bytes do not fit a file of {file_nbytes}")
    inflater = zlib.decompressobj(wbits=31)
    try:
        meta = inflater.decompress(read(start, nbytes), _MAX_META_NBYTES)
    except zlib.error as error:
        _fail(path, "L1", f"its metadata do not decompress ({error})")
    if not inflater.eof or inflater.unused_data:
        _fail(path, "L1", f"its metadata are cut off, followed by more, or larger than {_MAX_META_NBYTES} bytes")
    return meta, start


def _marked_meta(read: Read, file_nbytes: int, path: str) -> tuple[bytes, int]:
    tail_nbytes = min(file_nbytes, _MARKER_SEARCH_NBYTES)
    tail = read(file_nbytes - tail_nbytes, tail_nbytes)
    at = tail.rfind(_MARKER)
    if at < 0:
        _fail(path, "L1", f"its marker {_MARKER.decode()} is missing")
    return tail[at + len(_MARKER) :], file_nbytes - tail_nbytes + at


def _count(meta: dict[str, Any], name: str, path: str) -> int:
    value = meta.get(name)
    smallest = 1 if name in ("batch_size", "no_inputs") else 0
    if type(value) is not int or not smallest <= value < 1 << 62:
        _fail(path, "L2", f"its {name} is {str(value)[:40]!r}")
    return value


def _members(meta: dict[str, Any], batch_size: int, expected: int, path: str) -> list[tuple[Field, np.dtype[Any]]]:
    given = meta.get("dtype")
    if not isinstance(given, list) or len(cast("list[Any]", given)) != expected:
        _fail(path, "L3", f"its types do not describe {expected} fields")
    members: list[tuple[Field, np.dtype[Any]]] = []
    for member in cast("list[Any]", given):
        entry: list[Any] = cast("list[Any]", member) if isinstance(member, list) else []
        shape: Any = entry[2] if len(entry) == 3 else None
        if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in cast("list[Any]", shape)):
            _fail(path, "L3", f"a field is described as {str(cast('object', member))[:80]}")
        dims = cast("list[int]", shape)
        if dims[:1] != [batch_size]:
            _fail(path, "L3", f"a field of shape {str(dims)[:80]} is no batch of {batch_size}")
        members.append(_field(entry[1], dims[1:], path))
    return members


def _field(type_string: Any, shape: list[int], path: str) -> tuple[Field, np.dtype[Any]]:
    """A field and its dtype as stored; the string is taken apart here and never reaches NumPy's own parser."""
    match = _TYPE.fullmatch(type_string) if isinstance(type_string, str) else None
    if match is None:
        _fail(path, "L4", f"the element type {str(type_string)[:40]!r} is not known or not safe")
    order, kind, digits, count, unit = match.groups()
    size = int(digits)
    if unit is not None and kind not in "mM":
        name = ""
    elif kind in "SU":
        name = f"{kind}{size}"
    elif kind in "mM":
        name = f"{'datetime64' if kind == 'M' else 'timedelta64'}[{count or ''}{unit}]" if size == 8 else ""
    elif kind == "b":
        name = "bool" if type_string == "|b1" else ""
    else:
        name = _NAMES.get(kind, "{}").format(size * 8)
    try:
        field = Field(name, shape) if dtype_from_name(name) is not None else None
    except HyperSequenceError:
        field = None
    if field is None:
        _fail(path, "L4", f"the element type {type_string!r} of shape {str(shape)[:80]} cannot be read")
    return field, field.dtype.newbyteorder(">") if order == ">" else field.dtype
