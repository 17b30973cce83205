"""Small files, one a feature of the format, whose bytes must never change.

``python tests/make_golden.py`` writes them into ``tests/golden``. Everything in them is made by counting, so that they
come out the same on every machine; a test compares each with the file that is kept.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from hypersequence import Field, HyperSequenceWriter, Schema

FOLDER = Path(__file__).parent / "golden"
CREATED_NS = 1_700_000_000_123_456_789
UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")
NUMBERS = [
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]
SMALL_FLOATS = [
    "bfloat16",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
]


@dataclass(frozen=True)
class Golden:
    """A file: its records, as arrays with a leading axis of records, and how it is written."""

    inputs: Any
    outputs: Any = None
    sample_weights: Any = None
    batch_size: int = 4
    block_nbytes: int = 1 << 16
    schema: Schema | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    file_id: bytes | None = None
    created_ns: int = CREATED_NS

    def columns(self) -> list[np.ndarray]:
        """The arrays in the order in which a file numbers its columns."""
        arrays: list[np.ndarray] = []
        for given in (self.inputs, self.outputs, self.sample_weights):
            if isinstance(given, dict):
                arrays += given.values()
            elif given is not None:
                arrays += given if isinstance(given, tuple) else (given,)
        return arrays


def count(n: int, *shape: int, dtype: Any = np.uint8, step: int = 37) -> np.ndarray:
    """``n`` records whose bytes are counted through; the pattern repeats after 251 bytes, a prime number."""
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod((n, *shape))) * dtype.itemsize
    raw = (np.arange(n_bytes) * step % 251).astype(np.uint8)
    return raw.view(dtype.newbyteorder("<")).reshape(n, *shape)


def every_type(n: int) -> dict[str, np.ndarray]:
    """A field of each element type, called by its name in the file."""
    fields = {"bool": np.arange(n) % 3 == 1}
    fields |= {name: count(n, dtype=name, step=41) for name in NUMBERS}
    fields |= {name: count(n, dtype=getattr(ml_dtypes, name), step=43) for name in SMALL_FLOATS}
    fields |= {"S5": np.array([b"abcde", b"a\0b", b""] * n, "S5")[:n]}
    fields |= {"U3": np.array(["äß€", "\U0001f600", ""] * n, "<U3")[:n]}
    for letter, kind in (("M", "datetime64"), ("m", "timedelta64")):
        fields |= {f"{kind}[{unit}]": count(n, dtype=f"<{letter}8[{unit}]") for unit in UNITS}
    return fields


def goldens() -> dict[str, Golden]:
    """Every file by its name."""
    days = np.array(["1970-01-01", "2024-02-29", "1066-10-14", "NaT", "9999-12-31"], "<M8[D]")
    gaps = np.array([0, -1, 10**12, "NaT", 25], "<m8[25s]")
    words = ["", "a", "Grüße", "日本語", "\U0001f600!"]
    return {
        "smallest": Golden(
            np.array([7], np.uint8), batch_size=1, block_nbytes=8 << 20, file_id=bytes(16), created_ns=0
        ),
        "several-blocks": Golden(count(22, 5, 3, dtype=np.float32), np.arange(22), block_nbytes=560),
        "last-block-full": Golden(count(24, 5, 3, dtype=np.float32), np.arange(24), block_nbytes=560),
        "one-short-block": Golden(count(6, 5, 3, dtype=np.float32), np.arange(6), block_nbytes=5000),
        "one-record-a-block": Golden(count(5, 30), batch_size=1, block_nbytes=1),
        "joined-columns": Golden(count(70, 96), count(70, dtype=np.uint16), batch_size=3, block_nbytes=6200),
        "joined-last-block-full": Golden(count(126, 96), count(126, dtype=np.uint16), batch_size=3, block_nbytes=6200),
        "uneven-columns": Golden((count(7, 1000), count(7, 999, step=39), count(7, 1001, step=45)), block_nbytes=13000),
        "every-type": Golden(every_type(7), batch_size=3, block_nbytes=2000),
        "names": Golden(
            {
                "image": count(5, 2, 2),
                "größe": np.arange(5.0),
                "標籤 😀": count(5, dtype=np.int16),
                'a "b" \\c': count(5),
                "Auf\u200clage": count(5, 3),
            },
            {"y": np.arange(5)},
            {"w" * 255: np.arange(5, dtype=np.float32)},
        ),
        "tuples-and-weights": Golden(
            (count(6, 4), count(6, 2, dtype=np.int32)), (np.arange(6), np.arange(6.0)), np.ones(6, np.float32)
        ),
        "weights-without-outputs": Golden(count(3, 4), None, np.arange(3, dtype=np.float32)),
        "unlabelled": Golden(count(9, 3, 2, 2)),
        "zero-byte-fields": Golden(
            {"none": np.empty((9, 0, 3), np.float32), "some": count(9, 3), "text": np.ndarray((9,), np.dtype("S0"))},
            block_nbytes=12,
        ),
        "only-zero-byte-fields": Golden(np.empty((9, 0), np.uint8), block_nbytes=4),
        "empty": Golden(
            np.empty((0, 2, 2), np.float32),
            np.empty(0, np.int64),
            schema=Schema(Field("float32", (2, 2)), Field("int64")),
            meta={"why": "no records"},
        ),
        "user-metadata": Golden(
            np.arange(3),
            meta={
                "n": 1,
                "x": 0.1,
                "text": "Grüße, 日本 😀 \u0000",
                "list": [True, False, None, -(2**53)],
                "deep": {"er": {}},
            },
        ),
        "strings": Golden({"text": np.array(words, "<U5"), "bytes": np.array([w.encode() for w in words], "S12")}),
        "times": Golden({"days": days, "gaps": gaps, "ns": days[[0, 1, 3, 0, 1]].astype("<M8[ns]")}),
        "many-columns": Golden(tuple(count(2, i % 5) for i in range(150)), batch_size=1),
    }


def write(name: str, path: Path) -> None:
    """Write one file."""
    golden = goldens()[name]
    file_id = hashlib.sha256(name.encode()).digest()[:16] if golden.file_id is None else golden.file_id
    with HyperSequenceWriter(
        path,
        golden.batch_size,
        schema=golden.schema,
        block_nbytes=golden.block_nbytes,
        file_id=file_id,
        created_ns=golden.created_ns,
    ) as writer:
        writer.extend(golden.inputs, golden.outputs, golden.sample_weights)
        writer.user_meta().update(golden.meta)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in goldens():
        write(name, FOLDER / f"{name}.hsq")
        print(f"{name}.hsq: {(FOLDER / f'{name}.hsq').stat().st_size} bytes")
