"""Writes the MDS folders beside this file with MosaicML's own library, which wants another NumPy than the tests have.

In an environment with ``mosaicml-streaming`` 0.13 and what it imports: ``python tests/foreign/make_mds.py``. The tests
compare with ``record``.
"""

from __future__ import annotations

import json
import shutil
import sys
from decimal import Decimal
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
N = 23
ENCODINGS = {
    "a_bytes": "bytes",
    "a_str": "str",
    "an_int": "int",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "float16": "float16",
    "float32": "float32",
    "float64": "float64",
    "str_int": "str_int",
    "str_float": "str_float",
    "str_decimal": "str_decimal",
    "array": "ndarray",
    "array_f4": "ndarray:float32",
    "array_u2_fixed": "ndarray:uint16:2,3",
    "long_array": "ndarray",
    "pil": "pil",
    "pil_grey": "pil",
    "jpeg": "jpeg",
    "png": "png",
    "list_png": "list[png]",
    "list_pil": "list[pil]",
    "jpeg_array": "jpeg_array",
    "json": "json",
}


def record(number: int) -> dict[str, Any]:
    """Values of one record; images as arrays."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return {
        "a_bytes": rng.bytes(7),
        "a_str": "ä€😀"[: number % 4] + "x" * (number % 5),
        "an_int": -(10**18) + number,
        **{f"int{bits}": -(1 << bits - 1) + number for bits in (8, 16, 32, 64)},
        **{f"uint{bits}": (1 << bits) - 1 - number for bits in (8, 16, 32, 64)},
        **{f"float{bits}": float(np.float16(1 / (number + 3))) for bits in (16, 32, 64)},
        "str_int": number - 10,
        "str_float": 1 / (number + 3),
        "str_decimal": Decimal(f"1.{'1234567890' * 3}{number}"),
        "array": rng.integers(-9, 9, (3, 2), dtype=np.int16),
        "array_f4": rng.random((4, 1), dtype=np.float32),
        "array_u2_fixed": rng.integers(0, 999, (2, 3), dtype=np.uint16),
        "long_array": rng.random((300,)),  # its length takes two bytes
        "pil": image,
        "pil_grey": image[..., 0],
        "jpeg": np.full((8, 16, 3), number * 9, np.uint8),  # of one colour, which JPEG keeps
        "png": image,
        "list_png": np.stack([image, 255 - image]),
        "list_pil": np.stack([image, image // 2, image // 3]),
        "jpeg_array": np.stack([np.full((8, 8, 3), 7 * k + number, np.uint8) for k in range(2)]),
        "json": {
            "box": [number, 1, 2, 3],
            "score": number / 7,
            "tags": {"good": number % 2 == 0, "name": "n" * (number % 3)},
        },
    }


def encodable(values: dict[str, Any]) -> dict[str, Any]:
    """The same, images as the library wants them."""
    import io

    from PIL import Image

    def jpeg(array: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "JPEG", quality=100)
        return stream.getvalue()

    images = {name: Image.fromarray(values[name]) for name in ("pil", "pil_grey", "jpeg", "png")}
    lists = {name: [Image.fromarray(one) for one in values[name]] for name in ("list_png", "list_pil")}
    return {**values, **images, **lists, "jpeg_array": [jpeg(one) for one in values["jpeg_array"]]}


def write(folder: str, columns: dict[str, str], **options: Any) -> None:
    """One folder, of several shards."""
    from streaming.base.format.mds.writer import MDSWriter

    shutil.rmtree(HERE / folder, ignore_errors=True)
    with MDSWriter(out=str(HERE / folder), columns=columns, **options) as writer:
        for number in range(N):
            values = encodable(record(number))
            writer.write({name: values[name] for name in columns})
    shards = json.loads((HERE / folder / "index.json").read_bytes())["shards"]
    assert len(shards) > 1, "a smaller size_limit makes several shards"


def stand_in_for_torchvision() -> None:
    """Let the library be imported without it: only data sets that are not used here want it."""
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        module: Any = module_from_spec(ModuleSpec(name, None))
        sys.modules[name] = module
        module.VisionDataset, module.to_tensor = object, None


if __name__ == "__main__":
    stand_in_for_torchvision()
    write("mds", ENCODINGS, hashes=["sha1", "xxh64"], size_limit=80_000)
    few = {name: ENCODINGS[name] for name in ("an_int", "a_str", "array_f4")}
    for compression in ("gz", "bz2", "zstd", "br", "snappy"):
        write(f"mds_{compression}", few, hashes=["xxh3_64"], compression=compression, size_limit=900)
    write("mds_pickle", {"an_int": "int", "str_int": "pkl"}, size_limit=500)
