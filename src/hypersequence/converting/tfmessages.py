"""The messages of ``tf.train.Example``, without TensorFlow."""

from __future__ import annotations

from functools import cache
from typing import Any

from .base import require

_PACKAGE = "hypersequence.tfrecord"
# As in TensorFlow's example.proto, feature.proto, tensor.proto and tensor_shape.proto, so far as it matters here. The
# feature_lists are what a SequenceExample has; here they are only to be noticed.
_MESSAGES = {
    "BytesList": "repeated bytes value = 1",
    "FloatList": "repeated float value = 1",
    "Int64List": "repeated int64 value = 1",
    "Feature": "BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3",
    "Features.FeatureEntry": "string key = 1; Feature value = 2",
    "Features": "repeated Features.FeatureEntry feature = 1",
    "Example": "Features features = 1; bytes feature_lists = 2",
    "Dimension": "int64 size = 1",
    "TensorShape": "repeated Dimension dim = 2; bool unknown_rank = 3",
    "Tensor": "int32 dtype = 1; TensorShape tensor_shape = 2; bytes tensor_content = 4",
}


@cache
def messages() -> dict[str, Any]:
    """The classes of protobuf's messages.

    They are described in a pool of their own: TensorFlow puts its own into the common one, which takes no name twice.
    """
    pb, pool = require("google.protobuf.descriptor_pb2"), require("google.protobuf.descriptor_pool").DescriptorPool()
    file = pb.FileDescriptorProto(name="hypersequence/tfrecord.proto", package=_PACKAGE, syntax="proto3")
    found = {name: file.message_type.add(name=name) for name in _MESSAGES if "." not in name}
    # A map is a list of such pairs to protobuf, described just here and so.
    found["Features.FeatureEntry"] = found["Features"].nested_type.add(name="FeatureEntry")
    found["Features.FeatureEntry"].options.map_entry = True
    found["Feature"].oneof_decl.add(name="kind")
    for message, lines in _MESSAGES.items():
        for line in lines.split("; "):
            *repeated, kind, name, _, number = line.split()
            field = found[message].field.add(name=name, number=int(number), label=3 if repeated else 1)
            if kind in _MESSAGES:
                field.type, field.type_name = pb.FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = pb.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
            if message == "Feature":
                field.oneof_index = 0
    pool.Add(file)
    make = require("google.protobuf.message_factory").GetMessageClass
    return {name: make(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in ("Example", "Int64List", "Tensor")}


def head(number: int, length: int) -> bytes:
    """What stands before so many bytes of a field of protobuf's: its number, that it is of bytes, and how many."""
    found = bytearray([number << 3 | 2])
    while length > 127:
        found.append(length & 127 | 128)
        length >>= 7
    found.append(length)
    return bytes(found)


def delimited(number: int, data: bytes | memoryview) -> bytes:
    """A field of protobuf's that holds bytes or a message."""
    return b"".join((head(number, len(data)), data))


def joined(entries: tuple[bytes, ...]) -> bytes:
    """The bytes of an Example with these features."""
    return delimited(1, b"".join(entries))
