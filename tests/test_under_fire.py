"""Readers while everything around them goes wrong: files that are replaced, limits that are reached, odd names."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import xxhash

import hypersequence as hs
from conftest import LONG, write_numbered
from hypersequence.layout import (
    Chunk,
    ContentDigest,
    Frame,
    Trailer,
    encode_footer,
    encode_frame,
    encode_header,
    encode_trailer,
    parse_header,
    plan_geometry,
    run_records,
)
from test_cli import hsq
from tried import TRIED


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_replaced_again_and_again_under_its_readers(tmp_path: Path) -> None:
    """Whoever has opened a file sees one version of it, to the end."""
    path, wrong, versions = tmp_path / "a.hsq", list[BaseException](), set[int]()

    def write(version: int) -> None:
        with hs.HyperSequenceWriter(path, 8, block_nbytes=2000) as writer:
            writer.extend(np.full((200, 4), version), np.full(200, version))

    def read(number: int) -> None:
        try:
            while not over.is_set():
                with hs.open(path, use_mmap=number % 2 == 0) as seq:
                    version = int(seq[0][1][0])
                    for order in (seq, seq.shuffled(number), seq.shuffled(number, by="batch")):
                        for inputs, outputs in order:
                            assert (inputs == version).all() and (outputs == version).all()
                versions.add(version)
        except BaseException as error:
            wrong.append(error)

    write(0)
    over = threading.Event()
    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    for version in range(1, 1000 * LONG):
        write(version)
    over.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(versions) > 10
    TRIED["files replaced under their readers"] += 1000 * LONG - 1


def n_descriptors(path: Path) -> int:
    """How many this process has of a file; others may go, with what tests before this one left."""
    return sum(entry.resolve() == path.resolve() for entry in Path("/proc/self/fd").iterdir())


def test_each_mapping_that_somebody_has_a_view_of_keeps_a_descriptor(numbered: Path) -> None:
    n_files = 2000
    before = len(list(Path("/proc/self/fd").iterdir()))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[1], before + n_files + 100), limits[1]))
    try:
        views = []
        for number in range(n_files):
            with hs.open(numbered) as seq:
                views.append(seq[number % 12])
        assert n_descriptors(numbered) == n_files
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + n_files
        for number, (inputs, outputs) in enumerate(views):
            assert outputs.tolist() == list(range(number % 12 * 8, number % 12 * 8 + 8))
            assert (inputs == outputs[:, None, None]).all()
        del inputs, outputs, views
        assert n_descriptors(numbered) == 0
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_thousands_of_live_views(numbered: Path) -> None:
    """Views of one file keep one mapping and one descriptor together, however many they are."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    views = []
    for number in range(200):
        with hs.open(numbered) as seq:
            if number == 0:
                views += [batch for _ in range(1000) for batch in seq]
    assert len(views) == 13_000
    assert n_descriptors(numbered) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert sum(int(y.sum()) for _, y in views) == 1000 * sum(range(103))
    views.clear()
    assert n_descriptors(numbered) == 0
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


TOO_MANY = """
import resource, sys, warnings
import hypersequence as hs
warnings.simplefilter("error")
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
held = []
try:
    while True:
        held.append(hs.open(sys.argv[1]))
except (hs.FileError, RuntimeWarning) as error:
    print(type(error).__name__, error)
print(len(held), held[0][0][1].tolist(), held[-1][-1][1].tolist())
warnings.simplefilter("ignore")
try:
    while True:
        held.append(hs.open(sys.argv[1]))
except hs.FileError as error:
    print(error)
print(held[-1][-1][1].tolist())
for seq in held:
    seq.close()
hs.open(sys.argv[1])[0]
"""


def test_no_descriptors_left(numbered: Path) -> None:
    lines = run(TOO_MANY, numbered).splitlines()
    assert "too many open files" in lines[-2] and "ulimit -n" in lines[-2]
    assert str(numbered) in lines[0] and str(numbered) in lines[-2]
    assert int(lines[1].split()[0]) > 35
    assert lines[1].endswith("[0, 1, 2, 3, 4, 5, 6, 7] [96, 97, 98, 99, 100, 101, 102]")
    assert lines[-1] == "[96, 97, 98, 99, 100, 101, 102]"


NO_ADDRESSES = """
import resource, sys, warnings
import hypersequence as hs
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), now + (1 << 30)))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with hs.open(sys.argv[1]) as seq:
        print(seq.n_records, seq[0][1].tolist(), seq[len(seq) - 1][1].tolist(), seq.records[[5, 1]][1].tolist())
        print(seq[0][0].flags.writeable)
print(*[warning.message for warning in caught])
"""


def large_file(path: Path, n_blocks: int) -> int:
    """Blocks of 1 GiB that are nearly all zeros, which no disk has to hold; how many records there are."""
    schema = hs.Schema(hs.Field("uint8", [1 << 20]), hs.Field("int64"))
    sizes = [column.field.nbytes for column in schema.columns]
    geometry = plan_geometry(sizes, 4, 1 << 30)
    n, step = geometry.block_records, run_records(1 << 20)
    header = encode_header(schema, 4, n, geometry.stride, bytes(16), 0)
    parsed = parse_header(header, "")
    crc, digest = parsed.crc, ContentDigest(parsed.schema_json)
    zeros = hash_of(bytes(step << 20))
    index: list[bytes] = []
    with path.open("wb") as file:
        file.write(header)
        for number in range(n_blocks):
            place = len(header) + number * geometry.stride
            labels = np.arange(number * n, number * n + n, dtype="<i8").tobytes()
            chunks = (
                Chunk(geometry.offsets[0], n << 20, step << 20, zeros * (n // step)),
                Chunk(geometry.offsets[1], 8 * n, 8 * run_records(8), hash_of(labels)),
            )
            end = max(chunk.offset + chunk.nbytes for chunk in chunks)
            frame = Frame(number, place, number * n, n, end, geometry.frame_nbytes, chunks)
            index.append(encode_frame(frame, bytes(16)))
            digest.add(frame)
            file.seek(place)
            file.write(index[-1])
            file.seek(place + geometry.offsets[1])
            file.write(labels)
        offset = -(-(place + end) // 64) * 64
        footer, footer_crc = encode_footer({})
        n_index = sum(map(len, index))
        n_bytes = offset + n_index + len(footer) + 128
        places = offset, n_index, offset + n_index, len(footer), footer_crc, n_bytes
        total = n * n_blocks
        trailer = Trailer(total, n_blocks, *places, bytes(16), digest.finish(total), crc)
        file.seek(offset)
        file.write(b"".join(index) + footer + encode_trailer(trailer))
    return total


def hash_of(data: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(data).to_bytes(8, "little")


def test_files_over_4_gib_with_and_without_room_for_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "large.hsq"
    n = large_file(path, 5)
    assert path.stat().st_size > 4 << 30
    for use_mmap in (True, False):
        with hs.open(path, use_mmap=use_mmap) as seq:
            assert seq[len(seq) - 1][1].tolist() == [n - 4, n - 3, n - 2, n - 1]
            numbers = [n - 1, 0, n // 2]
            inputs, outputs = seq.records[numbers]
            assert outputs.tolist() == numbers and not inputs.any()
    expected = f"{n} [0, 1, 2, 3] {[n - 4, n - 3, n - 2, n - 1]} [5, 1]"
    told = run(NO_ADDRESSES, path).splitlines()
    assert told[:2] == [expected, "True"]
    assert "cannot be mapped" in told[2] and str(path) in told[2]


def test_names_of_any_bytes(tmp_path: Path) -> None:
    """What no encoding can read is still a name: for files, in errors, on the terminal."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe caf\xe9 [1]\n"))
    folder.mkdir()
    path = folder / os.fsdecode(b"a\xff\xe9.hsq")
    with hs.HyperSequenceWriter(path, 4) as writer:
        writer.extend(np.arange(10))
    with hs.open(path) as seq, hs.open(str(path)) as same:
        assert seq.n_records == same.n_records == 10
        repr(seq), seq._repr_html_()
    assert hs.verify(path).ok
    shown = hsq("verify", path)
    assert shown.returncode == 0 and "all as written" in shown.stdout
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(hs.FormatError) as caught:
        hs.open(path)
    assert "\udcff" in str(caught.value)
    shown = hsq("verify", path)
    assert shown.returncode == 1 and "Traceback" not in shown.stderr
    writer = hs.HyperSequenceWriter(folder / "b.hsq", 4)
    writer.extend(np.arange(10))
    writer.abort()
    shown = hsq("recover", "--list", folder)
    assert shown.returncode == 0 and "Traceback" not in shown.stderr
    with hs.HyperSequenceWriter.resume(folder / "b.hsq") as writer:
        assert writer.n_records == 10


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="no folder here that nobody can write")
def test_folders_that_cannot_be_written() -> None:
    with pytest.raises(hs.FileError, match="cannot write into its folder"):
        hs.HyperSequenceWriter("/sys/a.hsq")


#: For root every folder can be written, so this becomes somebody else first.
WITHOUT_RIGHTS = """
import os, sys
from pathlib import Path
import hypersequence as hs

folder = Path(sys.argv[1])
attempts = hs.HyperSequenceWriter, hs.HyperSequenceWriter.resume, hs.recover  # modules are loaded while they can be
_ = hs.open, hs.verify
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    (folder / "new").touch()
    raise SystemExit("the folder can be written")
except PermissionError:
    pass
with hs.open(folder / "a.hsq") as seq:
    assert sorted(label for _, labels in seq.shuffled(1) for label in labels.tolist()) == list(range(103))
assert hs.verify(folder / "a.hsq").ok
for attempt in attempts:
    try:
        attempt(folder / ("a.hsq" if attempt is not hs.HyperSequenceWriter else "b.hsq"))
    except hs.FileError as error:
        print(error)
"""


def test_reading_from_a_folder_that_cannot_be_written() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:  # pytest's own folders can be entered by nobody else
        folder = Path(temporary) / "folder"
        folder.mkdir()
        Path(temporary).chmod(0o755)
        write_numbered(folder / "a.hsq")
        (folder / "a.hsq").chmod(0o444)
        folder.chmod(0o555)
        try:
            done = subprocess.run(
                [sys.executable, "-c", WITHOUT_RIGHTS, str(folder)], capture_output=True, text=True, check=False
            )
        finally:
            folder.chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert "cannot write into its folder" in done.stdout
    assert "no part file" in done.stdout
    assert "cannot be opened for writing" in done.stdout


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A file system of 1 MiB: nothing is torn, and when there is room again the writer goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        if os.environ.get("CI") or os.geteuid() == 0:
            pytest.fail(f"no file system could be mounted: {mounted.stderr!r}")
        pytest.skip("mounting a file system is not allowed here; run this test as root")
    try:
        path, ballast = disk / "a.hsq", disk / "ballast"
        with hs.HyperSequenceWriter(path, 16, block_nbytes=20_000) as writer:
            writer.extend(np.zeros((100, 100)), np.arange(100))
        ballast.write_bytes(bytes(600_000))
        writer = hs.HyperSequenceWriter(path, 16, block_nbytes=20_000)
        n = n_failed = 0
        while n < 1000:
            try:
                writer.append(np.full(100, n), n)
            except hs.FileError as error:
                assert "No space left" in str(error)
                n_failed += 1
                with hs.open(path) as old:
                    assert old.n_records == 100
                ballast.write_bytes(bytes(max(0, 600_000 - 100_000 * n_failed)))
                assert n_failed < 10
            n = writer.n_records
        ballast.unlink(missing_ok=True)
        writer.close()
        assert n_failed > 0
        with hs.open(path, verify="always") as seq:
            assert seq.records[:][1].tolist() == list(range(1000))
            assert (seq.records[:][0] == np.arange(1000)[:, None]).all()
        assert list(disk.glob("*.part")) == []
    finally:
        subprocess.run(["umount", disk], check=True)
