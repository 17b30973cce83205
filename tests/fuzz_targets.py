"""What is done with each input while fuzzing, and how inputs are made that get past the first checksum.

``fuzz/read.py`` runs this under atheris for hours; ``test_corpus.py`` runs it once over every input that was ever of
interest.
"""

from __future__ import annotations

import gzip
import random
import shutil
import struct
import warnings
import zlib
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

import hypersequence as hs
from test_bad_input import CHUNK, FRAME, HEADER, PAGE, SECTION, TRAILER, crc

U64 = (0, 1, 2, 3, 63, 64, 128, 4096, (1 << 31) - 1, 1 << 32, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


# --- what is done with an input --------------------------------------------------------------------------------------


def use(data: bytes, folder: Path) -> int:
    """Everything that a person could do with a file; nothing but a ``HyperSequenceError`` may come of it.

    Returns:
        How many ways of reading it worked.
    """
    path = folder / "fuzzed.hsq"
    path.write_bytes(data)
    n_worked = 0
    for options in ({}, {"use_mmap": False}, {"verify": "never"}):
        with suppress(hs.HyperSequenceError):
            read(path, **options)
            n_worked += 1
    with suppress(hs.HyperSequenceError):
        n_worked += hs.verify(path, threads=0).ok
    part = folder / "fuzzed.hsq.0123abcd.part"
    path.rename(part)
    for action in (
        lambda: hs.recover(part, folder / "out.hsq", overwrite=True),
        lambda: hs.HyperSequenceWriter.resume(part).abort(),
        lambda: hs.recover(part, overwrite=True),
    ):
        if part.exists():  # it goes if a writer is aborted without a record
            with warnings.catch_warnings(), suppress(hs.HyperSequenceError):
                warnings.simplefilter("ignore", RuntimeWarning)
                action()
                n_worked += 1
    for left in folder.iterdir():
        left.unlink()
    return n_worked


def read(path: Path, **options: Any) -> None:
    """Batches in order and shuffled, records near and far, and what is said of the file."""
    with hs.open(path, **options) as seq:
        repr(seq), seq._repr_html_(), seq.user_meta(), seq.dtypes(), seq.schema
        few = seq.rebatch(3)  # one batch may be as large as it likes
        for _ in islice(few, 5):
            pass
        if seq.n_records:
            last = seq.n_records - 1
            seq.records[last], seq.records[[0, last // 2, last]]
            few[len(few) - 1], few.shuffled(1)[0], few.shuffled(1, by="record")[len(few) // 2]
            few.shuffled(2, by="batch")[0]


#: What comes of numbers that are not what they should be.
_LIES = (struct.error, OverflowError, IndexError)


# --- inputs that get past the checksums ------------------------------------------------------------------------------


def mend(given: bytes, choice: random.Random) -> bytes:
    """The same bytes with sums and lengths put right, as far as they can be found."""
    data = bytearray(given)
    if len(data) < PAGE + TRAILER.nbytes:
        return given
    head = min(max(PAGE, HEADER.get(data, "nbytes")), len(data) - TRAILER.nbytes)
    data[head - 4 : head] = crc(data[: head - 4])
    tail = len(data) - TRAILER.nbytes
    index, n_index, footer, n_footer = (
        TRAILER.get(data, name, tail) for name in ("index_offset", "index_nbytes", "footer_offset", "footer_nbytes")
    )
    with suppress(*_LIES):
        _mend_frames(data, head, index, min(index + n_index, tail), choice)
    with suppress(*_LIES):
        TRAILER.put(data, {"footer_crc": _mend_footer(data, footer, min(footer + n_footer, tail))}, tail)
    same = {"header_crc": zlib.crc32(data[: head - 4]), "file_nbytes": len(data)}
    TRAILER.put(data, same | {"file_id": HEADER.get(data, "file_id"), "magic": b"HSQ3END\n"}, tail)
    TRAILER.put(data, {"crc": zlib.crc32(data[tail : tail + TRAILER.nbytes - 12])}, tail)
    return bytes(data)


def _mend_frames(data: bytearray, head: int, start: int, stop: int, choice: random.Random) -> None:
    """The frames of an index, with the sums of runs in them; and now and then the same at the heads of blocks."""
    stride = HEADER.get(data, "stride")
    for number in range(64):
        if start + FRAME.nbytes > stop:
            return
        nbytes = FRAME.get(data, "frame_nbytes", start)
        if not FRAME.nbytes + 4 <= nbytes <= stop - start:
            return
        FRAME.put(data, {"file_id": HEADER.get(data, "file_id")}, start)
        with suppress(*_LIES):
            _mend_runs(data, start, nbytes, FRAME.get(data, "offset", start))
        data[start + nbytes - 4 : start + nbytes] = crc(data[start : start + nbytes - 4])
        place = head + number * stride
        if place + nbytes <= start and choice.random() < 0.8:
            data[place : place + nbytes] = data[start : start + nbytes]
        start += nbytes


def _mend_runs(data: bytearray, start: int, nbytes: int, block: int) -> None:
    n_chunks = min(FRAME.get(data, "n_chunks", start), 4096)
    sums = start + FRAME.nbytes + n_chunks * CHUNK.nbytes
    for number in range(n_chunks):
        row = start + FRAME.nbytes + number * CHUNK.nbytes
        offset, stored, run = (CHUNK.get(data, name, row) for name in ("offset", "stored", "run"))
        for at in range(0, stored if run > 0 and stored <= len(data) else 0, max(1, run)):
            if sums + 8 > start + nbytes - 4:
                return
            piece = data[block + offset + at : block + offset + min(at + run, stored)]
            data[sums : sums + 8] = xxhash.xxh3_64_intdigest(piece).to_bytes(8, "little")
            sums += 8


def _mend_footer(data: bytearray, start: int, stop: int) -> int:
    n_sections = min(struct.unpack_from("<I", data, start)[0], 300)
    for number in range(n_sections):
        row = start + 4 + number * SECTION.nbytes
        at, nbytes = SECTION.get(data, "offset", row), SECTION.get(data, "nbytes", row)
        SECTION.put(data, {"crc": zlib.crc32(data[start + at : min(start + at + nbytes, stop)])}, row)
    return zlib.crc32(data[start : start + 4 + n_sections * SECTION.nbytes])


def change_a_number(given: bytes, choice: random.Random) -> bytes:
    """A member of some structure gets a value of the kind that breaks programs."""
    data = bytearray(given)
    if len(data) < PAGE + TRAILER.nbytes:
        return given
    tail = len(data) - TRAILER.nbytes
    index = TRAILER.get(data, "index_offset", tail)
    places = [(HEADER, 0), (TRAILER, tail), (FRAME, index), (CHUNK, index + FRAME.nbytes)]
    places += [(CHUNK, index + FRAME.nbytes + CHUNK.nbytes), (FRAME, HEADER.get(data, "nbytes"))]
    layout, start = choice.choice(places)
    name = choice.choice([name for name, (_, code) in layout.places.items() if code[-1] != "s"])
    with suppress(*_LIES):
        was = layout.get(data, name, start)
        value = choice.choice([*U64, was + 1, was - 1, was * 2, was + 64, choice.getrandbits(16)])
        size = struct.calcsize(layout.places[name][1])
        layout.put(data, {name: value % (1 << 8 * size - (name == "created_ns"))}, start)
    return bytes(data)


def change_old_metadata(given: bytes, choice: random.Random, mutate: Any) -> bytes:
    """A file of 0.10 whose compressed metadata are changed and compressed again."""
    if given[-4:] != b"HSQ2" or len(given) < 8:
        return given
    nbytes = int.from_bytes(given[-8:-4], "big")
    try:
        meta = gzip.decompress(given[-8 - nbytes : -8])
    except (OSError, EOFError, zlib.error):
        return given
    packed = gzip.compress(mutate(meta), 1, mtime=0)
    return given[: -8 - nbytes] + packed + len(packed).to_bytes(4, "big") + b"HSQ2"


# --- what to begin with ----------------------------------------------------------------------------------------------


def seeds(folder: Path) -> list[bytes]:
    """Files of every kind, small ones."""
    found = [path.read_bytes() for path in sorted((Path(__file__).parent / "golden").glob("*.hsq"))]
    found = [data for data in found if len(data) <= 32 << 10]
    part = folder / "seed.hsq"
    writer = hs.HyperSequenceWriter(part, 4, block_nbytes=300)
    writer.extend(np.arange(60.0).reshape(30, 2), np.arange(30))
    writer.abort()
    (left,) = folder.glob("seed.hsq.*.part")
    found.append(left.read_bytes())
    shutil.rmtree(folder)
    return [*found, *old_files()]


def old_files() -> list[bytes]:
    """Files as 0.9 and 0.10 wrote them: two batches of two fields."""
    data = np.arange(24, dtype="<f4").tobytes() + np.arange(4, dtype="<i8").tobytes()
    meta = (
        b'{"records": 2, "batch_size": 4, "no_inputs": 1, "no_outputs": 1, "usermeta": {"a": [1, 2.5, null]}, '
        b'"dtype": [["i0", "<f4", [4, 6]], ["o0", "<i8", [4]]]}'
    )
    packed = gzip.compress(meta, 1, mtime=0)
    return [2 * data + b"@@FSEQ@@" + meta, 2 * data + packed + len(packed).to_bytes(4, "big") + b"HSQ2"]
