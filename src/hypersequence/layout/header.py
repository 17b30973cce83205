"""The header: magic, version, flags, geometry, schema. Written first and never rewritten."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, cast

from .. import strictjson
from ..elements import dtype_from_name
from ..errors import ArgumentError, RecordError
from ..schema import ROLES, Field, Schema, name_problem
from .checks import MAX_U63, align, crc32, decode_json, fail

MAGIC = b"\x89HSQ\r\n\x1a\n"
VERSION = 3
HEADER_PAGE_NBYTES = 4096
MAX_HEADER_NBYTES = 16 << 20
_KNOWN_REQUIRED_FLAGS = 0
_FIXED = struct.Struct("<8sHHIQQ16sqQQQII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself before its first block.

    ``schema_json`` are the bytes of the schema as they stand in the file, which another writer may have spaced and
    ordered differently; ``created_ns`` counts from 1970-01-01 UTC.
    """

    schema: Schema
    schema_json: bytes
    batch_size: int
    block_records: int
    stride: int
    file_id: bytes
    created_ns: int
    nbytes: int
    crc: int


def _encode_schema(schema: Schema) -> bytes:
    """The schema as we write it."""

    def fields(structure: Any) -> Any:
        def one(field: Field) -> dict[str, Any]:
            return {"type": field.type_name, "shape": list(field.shape)}

        if isinstance(structure, Field):
            return {"kind": "single", "fields": [one(structure)]}
        if isinstance(structure, tuple):
            return {"kind": "tuple", "fields": [one(field) for field in cast("tuple[Field, ...]", structure)]}
        named = cast("dict[str, Field]", structure)
        return {"kind": "dict", "fields": [{"name": name, **one(field)} for name, field in named.items()]}

    roles = {role: getattr(schema, role) for role in ROLES}
    return strictjson.encode({role: fields(structure) for role, structure in roles.items() if structure is not None})


def encode_header(
    schema: Schema, batch_size: int, block_records: int, stride: int, file_id: bytes, created_ns: int
) -> bytes:
    """The bytes of a header, a whole number of 4096-byte pages."""
    text = _encode_schema(schema)
    nbytes = align(_FIXED.size + len(text) + _CRC.size, HEADER_PAGE_NBYTES)
    fixed = _FIXED.pack(
        MAGIC, VERSION, 0, nbytes, 0, 0, file_id, created_ns, batch_size, block_records, stride, len(text), 0
    )
    body = fixed + text
    body += bytes(nbytes - len(body) - _CRC.size)
    return body + _CRC.pack(crc32(body))


def header_padding(data: bytes) -> bytes:
    """The bytes of a whole header that nothing is stored in."""
    n_text = _FIXED.unpack_from(data)[11]
    return data[_FIXED.size + n_text : -_CRC.size]


def header_nbytes(data: bytes, path: str) -> int:
    """How long the header is that begins with these bytes (one page of them, or what the file has).

    Raises:
        FormatError: Rules H1 to H4.
    """
    if data[: len(MAGIC)] != MAGIC:
        found = f"begins with {data[:8]!r} instead of {MAGIC!r}" if data else "is empty"
        fail(path, "H1", f"not an .hsq file: it {found}")
    if len(data) < HEADER_PAGE_NBYTES:
        fail(path, "H2", f"only {len(data)} bytes: the header is cut off; copy or download the file again")
    _, version, _, nbytes, *_ = _FIXED.unpack_from(data)
    if version != VERSION:
        fail(
            path,
            "H3",
            f"format version {version}; this release reads version {VERSION}; upgrade hypersequence",
            unsupported=True,
        )
    if not HEADER_PAGE_NBYTES <= nbytes <= MAX_HEADER_NBYTES or nbytes % HEADER_PAGE_NBYTES:
        fail(path, "H4", f"the header claims {nbytes} bytes, which is no multiple of 4096 up to {MAX_HEADER_NBYTES}")
    return nbytes


def parse_header(data: bytes, path: str) -> Header:
    """A header from all of its bytes.

    Raises:
        FormatError: Rules H1 to H9.
    """
    nbytes = header_nbytes(data, path)
    if len(data) < nbytes:
        fail(path, "H2", f"the header is cut off after {len(data)} of {nbytes} bytes")
    (crc,) = _CRC.unpack_from(data, nbytes - _CRC.size)
    if crc != crc32(data[: nbytes - _CRC.size]):
        fail(path, "H6", "the header is damaged (CRC-32 differs)")
    _, _, _, _, required, _, file_id, created_ns, *sizes, n_text, spare = _FIXED.unpack_from(data)
    batch_size, block_records, stride = sizes
    unknown = required & ~_KNOWN_REQUIRED_FLAGS
    if unknown:
        bits = ", ".join(str(bit) for bit in range(64) if unknown >> bit & 1)
        fail(path, "H5", f"needs features that this release does not know (flag bits {bits})", unsupported=True)
    if _FIXED.size + n_text + _CRC.size > nbytes:
        fail(path, "H7", f"the schema of {n_text} bytes does not fit the header of {nbytes}")
    if spare:
        fail(path, "H7", f"the header's reserved word is {spare:#x}, not 0")
    text = data[_FIXED.size : _FIXED.size + n_text]
    schema = _parse_schema(decode_json(text, path, "H8", "schema"), path)
    if not 1 <= batch_size <= MAX_U63 or not 1 <= block_records <= MAX_U63 or block_records % batch_size:
        fail(path, "H7", f"blocks of {block_records} records are no whole number of batches of {batch_size}")
    if stride % 64 or not schema.record_nbytes * block_records < stride <= MAX_U63:
        fail(path, "H7", f"a block stride of {stride} cannot hold {block_records} records")
    return Header(schema, text, batch_size, block_records, stride, file_id, created_ns, nbytes, crc)


def _parse_schema(given: Any, path: str) -> Schema:
    if not isinstance(given, dict) or "inputs" not in given:
        fail(path, "H9", "the schema has no inputs")
    roles = cast("dict[str, Any]", given)
    try:
        return Schema(*(_parse_role(roles[role], path, role) if role in roles else None for role in ROLES))
    except (ArgumentError, RecordError) as error:
        fail(path, "H9", f"the schema is impossible: {error}")


def _parse_role(given: Any, path: str, role: str) -> Any:
    role_json = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    kind, members = role_json.get("kind"), role_json.get("fields")
    if kind not in ("single", "tuple", "dict") or not isinstance(members, list) or not members:
        fail(path, "H9", f"the schema's {role} have no kind or no fields")
    entries = cast("list[Any]", members)
    fields = [_parse_field(entry, path, role) for entry in entries]
    if kind == "dict":
        names = [entry.get("name") for entry in entries]
        if any(not isinstance(name, str) or name_problem(name) for name in names) or len(set(names)) != len(names):
            fail(path, "H9", f"the schema's {role} have a field name that is missing, absurd or there twice")
        return dict(zip(names, fields, strict=True))
    if (len(fields) == 1) != (kind == "single"):
        fail(path, "H9", f"the schema's {role} say {kind} of {len(fields)} fields")
    return tuple(fields)


def _parse_field(given: Any, path: str, role: str) -> Field:
    entry = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    type_name, shape = entry.get("type"), entry.get("shape")
    if not isinstance(type_name, str) or dtype_from_name(type_name) is None:
        fail(path, "H9", f"the schema's {role} have an unknown element type {str(type_name)[:80]!r}", unsupported=True)
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in cast("list[Any]", shape)):
        fail(path, "H9", f"the schema's {role} have an impossible shape {str(cast('object', shape))[:80]}")
    return Field(type_name, cast("list[int]", shape))
