"""Damage of every kind, one after the other, and what came of it: ``python fuzz/damage.py`` prints a table in minutes.

Each damaged file is opened and read to its end, as a training would, and looked at by ``hs.verify``. What reading says
nothing of must be harmless: records, metadata and schema as they were written. The last column says where such bytes
stand. A silent wrong read ends this with an error.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

import hypersequence as hs
from hypersequence.layout import BlockWalk, align, parse_header
from hypersequence.layout.block import claimed_number

SECTOR = 512
N = 150


def write(path: Path, first: int) -> bytes:
    """A file of three blocks and a short one, with gaps between columns, and metadata."""
    numbers = np.arange(first, first + N)
    fixed = {"file_id": first.to_bytes(16, "big"), "created_ns": first}  # the same files, and figures, each time
    with hs.HyperSequenceWriter(path, 7, block_nbytes=1000, overwrite=True, **fixed) as writer:
        writer.extend({"a": numbers.astype(np.float64), "b": np.repeat(numbers.astype("u1")[:, None], 11, 1)}, numbers)
        writer.user_meta()["first"] = first
    return path.read_bytes()


def flipped(data: bytes, _: bytes) -> Iterator[bytearray]:
    """One at a time."""
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        yield changed


def cut_off(data: bytes, _: bytes) -> Iterator[bytearray]:
    """As a download that broke off."""
    for nbytes in range(len(data)):
        yield bytearray(data[:nbytes])


def made_longer(data: bytes, other: bytes) -> Iterator[bytearray]:
    """By zeros, or by the beginning of another file."""
    for nbytes in range(1, len(other)):
        yield bytearray(data + other[:nbytes])
        yield bytearray(data + bytes(nbytes))


def sectors_lost(data: bytes, _: bytes) -> Iterator[bytearray]:
    """Each in turn."""
    choice = np.random.default_rng(0)
    for start in range(0, len(data), SECTOR):
        nbytes = len(data[start : start + SECTOR])
        for content in (bytes(nbytes), b"\xff" * nbytes, choice.bytes(nbytes)):
            yield _with(data, start, content)


def sectors_elsewhere(data: bytes, _: bytes) -> Iterator[bytearray]:
    """Written to the place of another."""
    places = range(0, len(data) - SECTOR, SECTOR)
    for start, source in permutations(places, 2):
        yield _with(data, start, data[source : source + SECTOR])


def sectors_stale(data: bytes, other: bytes) -> Iterator[bytearray]:
    """Of a file of the same structure that stood there before, from each sector on so many as there are."""
    for start in range(0, len(data), SECTOR):
        for end in range(start + SECTOR, len(data) + SECTOR, SECTOR):
            yield _with(data, start, other[start:end])


def blocks_elsewhere(data: bytes, other: bytes) -> Iterator[bytearray]:
    """Written to the place of another, with their frames; or of another file."""
    header = parse_header(data[:4096], "")
    places = range(header.nbytes, len(data) - header.stride, header.stride)
    for start, source in permutations(places, 2):
        yield _with(data, start, data[source : source + header.stride])
        yield _with(data, start, other[source : source + header.stride])


def bytes_shifted(data: bytes, _: bytes) -> Iterator[bytearray]:
    """One lost, or one too many, as by a transfer in text mode."""
    for at in range(0, len(data), 5):
        yield bytearray(data[:at] + data[at + 1 :])
        yield bytearray(data[:at] + b"\r" + data[at:])


KINDS = {
    "every bit flipped": flipped,
    "cut off after every byte": cut_off,
    "made longer, by up to a file": made_longer,
    "a sector of zeros, ones or rubbish": sectors_lost,
    "a sector in the place of another": sectors_elsewhere,
    "sectors of an older file": sectors_stale,
    "a block in the place of another, or of another file": blocks_elsewhere,
    "a byte lost, or one too many": bytes_shifted,
}


def _with(data: bytes, start: int, content: bytes) -> bytearray:
    changed = bytearray(data)
    changed[start : start + len(content)] = content
    return changed[: len(data)]


def content(path: Path) -> list[Any]:
    """All that a training can learn of a file."""
    with hs.open(path) as seq:
        inputs, outputs = seq.records[:]
        arrays = [inputs["a"], inputs["b"], outputs]
        return [seq.schema, seq.user_meta(), seq.batch_size(), *((a.dtype.str, a.shape, a.tobytes()) for a in arrays)]


def places(data: bytes) -> dict[str, np.ndarray]:
    """Which bytes no reader needs, and why."""
    header = parse_header(data[:4096], "")
    walk = BlockWalk(lambda offset, nbytes: data[offset : offset + nbytes], len(data), header, "")
    padding, frames = np.zeros(len(data), np.bool_), np.zeros(len(data), np.bool_)

    def is_there(number: int) -> bool:
        return number < walk.n_places and claimed_number(data[walk.place(number) :]) == number

    number = 0
    while is_there(number):
        frame, _ = walk.frame(number)
        frames[frame.offset : frame.offset + frame.frame_nbytes] = True
        end = walk.place(number + 1) if is_there(number + 1) else align(frame.offset + frame.nbytes)
        for start, stop in walk.gaps(frame, end):
            padding[start:stop] = True
        number += 1
    return {"padding": padding, "frames at the heads of blocks, which only recovery needs": frames & ~padding}


def try_all(path: Path, data: bytes, damaged: Iterator[bytearray]) -> tuple[Counter[str], Counter[str]]:
    """What came of it, and where damage stood that was harmless."""
    expected, unneeded = content(path), places(data)
    result, where = Counter[str](), Counter[str]()
    for changed in damaged:
        if changed == data:
            continue
        path.write_bytes(changed)
        result["tried"] += 1
        try:
            found = content(path)
        except hs.HyperSequenceError:
            result["noticed"] += 1
        else:
            if found != expected:
                kept = shutil.copy(path, tempfile.gettempdir())
                raise SystemExit(f"a silent wrong read; the file is {kept}")
            different = np.flatnonzero(np.frombuffer(changed, np.uint8) != np.frombuffer(data, np.uint8))
            touched = [name for name, mask in unneeded.items() if mask[different].any()]
            where[" and ".join(touched)] += 1
        try:
            result["verify"] += not hs.verify(path, threads=0).ok
        except hs.UnsupportedError:
            result["verify"] += 1
    return result, where


def main() -> None:
    """All kinds, a row each."""
    shown = sys.stderr.isatty()
    print("| damage | tried | noticed by reading | silently wrong | harmless | of it in | noticed by `verify` |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for kind, damaged in KINDS.items():
            path = Path(folder, "a.hsq")
            other = write(path, 1000)
            data = write(path, 0)
            if shown:
                print(f"{kind} ...", file=sys.stderr)
            result, where = try_all(path, data, damaged(data, other))
            n_harmless = result["tried"] - result["noticed"]
            why = "; ".join(f"{name}: {n:,}" for name, n in where.items())
            tried, noticed, by_verify = (result[name] for name in ("tried", "noticed", "verify"))
            print(f"| {kind} | {tried:,} | {noticed:,} | 0 | {n_harmless:,} | {why} | {by_verify:,} |", flush=True)


if __name__ == "__main__":
    main()
