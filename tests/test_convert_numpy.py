"""NumPy's files in and out: the same values bit for bit, bounded reading, and a clear error for everything else."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import hypersequence as hs

TYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
    *("U3", "S4", "datetime64[ns]", "datetime64[25s]", "timedelta64[D]"),
]


def some(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of any type, with all bit patterns that it has."""
    rng, found = np.random.default_rng(7), np.dtype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if found.kind == "U":
        return np.array(["", "a", "äöü", "日本", "😀!", "x\0y"])[rng.integers(0, 6, shape)].astype(found)
    return rng.integers(0, 256, (*shape, found.itemsize), np.uint8).view(found)[..., 0]


def same(one: Any, other: np.ndarray) -> bool:
    """Whether two arrays are alike in type, shape and every bit."""
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def read(path: Path) -> dict[str, np.ndarray]:
    """All records of a file, by the names of its fields."""
    with hs.HyperSequenceFile(path) as seq:
        roles = [role for role in seq.records[:] if role is not None]
        return {name: np.array(array) for role in roles for name, array in role.items()}


def stop_after(target: Path, n: int, **arrays: np.ndarray) -> None:
    """Leave a part file with the first records, as a conversion that was interrupted does."""
    with pytest.raises(KeyboardInterrupt), hs.HyperSequenceWriter(target, block_nbytes=1 << 20) as writer:
        writer.extend({name: array[:n] for name, array in arrays.items()})
        raise KeyboardInterrupt


def damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x55]))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 2)])
def test_every_type_comes_in_and_goes_out_bit_for_bit(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    given = some(dtype, (37, *shape))
    np.save(tmp_path / "x.npy", given)
    np.savez(tmp_path / "x.npz", x=given)
    np.savez_compressed(tmp_path / "small.npz", x=given)
    for source in ("x.npy", "x.npz", "small.npz"):
        hs.convert(tmp_path / source, tmp_path / "x.hsq", overwrite=True)
        assert same(read(tmp_path / "x.hsq")["x"], given)
    hs.convert(tmp_path / "x.hsq", tmp_path / "out.npy")
    hs.convert(tmp_path / "x.hsq", tmp_path / "out.npz")
    assert same(np.load(tmp_path / "out.npy"), given)
    assert same(np.load(tmp_path / "out.npz")["x"], given)


@pytest.mark.parametrize("dtype", [">i2", ">u8", ">f4", ">c16", ">U3", ">M8[us]"])
def test_big_endian_values_become_little_endian_ones(tmp_path: Path, dtype: str) -> None:
    little = some(np.dtype(dtype).newbyteorder("<").str, (20, 3))
    np.save(tmp_path / "c.npy", little.astype(dtype))
    np.save(tmp_path / "f.npy", np.asfortranarray(little.astype(dtype)))
    hs.convert([tmp_path / "c.npy", tmp_path / "f.npy"], tmp_path / "x.hsq")
    assert all(same(array, little) for array in read(tmp_path / "x.hsq").values())


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header(tmp_path: Path, version: tuple[int, int]) -> None:
    given = some("float32", (9, 2))
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, given, version=version)
    hs.convert(tmp_path / "x.npy", tmp_path / "x.hsq")
    assert same(read(tmp_path / "x.hsq")["x"], given)
    named = np.zeros(3, [("größe" if version == (1, 0) else "大", "f4")])
    with (tmp_path / "y.npy").open("wb") as file:
        np.lib.format.write_array(file, named, version=version if version != (2, 0) else (3, 0))
    with pytest.raises(hs.SourceError, match="store each member of a structured type"):
        hs.convert(tmp_path / "y.npy", tmp_path / "y.hsq")


# Columns of 900 B, which are read as a whole, and of 160 kB, from which records are picked; 3 MB each.
@pytest.mark.parametrize("shape", [(900, 60, 55), (40_000, 75), (20_000, 5, 3, 10)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, None])
def test_fortran_order_is_turned_in_bounded_memory(
    tmp_path: Path, shape: tuple[int, ...], save: Callable[..., None] | None
) -> None:
    dtype = "uint8" if len(shape) != 2 else "int32"
    values = (np.arange(np.prod(shape)) * 2654435761 >> 7).astype(dtype).reshape(shape)
    given = np.asfortranarray(values)
    source = tmp_path / ("x.npy" if save is None else "x.npz")
    np.save(source, given) if save is None else save(source, x=given)
    hs.convert(source, tmp_path / "x.hsq", memory=1)
    assert (read(tmp_path / "x.hsq")["x"] == values).all()
    hs.convert(source, tmp_path / "y.hsq", memory=64, threads=0)
    assert (read(tmp_path / "y.hsq")["x"] == values).all()


def test_several_files_are_fields_side_by_side(tmp_path: Path) -> None:
    images, digits = some("uint8", (300, 256, 256)), np.arange(300)  # more than two pieces
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "digits.npy", digits)
    sources = [tmp_path / "images.npy", tmp_path / "digits.npy"]
    for threads in (0, 1, 3):
        hs.convert(sources, tmp_path / "x.hsq", outputs=["digits"], threads=threads, overwrite=True)
        with hs.HyperSequenceFile(tmp_path / "x.hsq") as seq:
            assert (list(seq.schema.inputs), list(seq.schema.outputs)) == (["images"], ["digits"])
        found = read(tmp_path / "x.hsq")
        assert same(found["images"], images)
        assert same(found["digits"], digits)


def test_several_archives_follow_each_other(tmp_path: Path) -> None:
    x, y = some("float32", (50, 3)), np.arange(50)
    for i, (start, stop) in enumerate([(0, 20), (20, 20), (20, 50)]):
        np.savez(tmp_path / f"{i}.npz", x=x[start:stop], y=y[start:stop])
    done = hs.convert(tmp_path / "*.npz", tmp_path / "x.hsq")
    assert done.n_records == 50
    found = read(tmp_path / "x.hsq")
    assert same(found["x"], x)
    assert same(found["y"], y)


def test_archives_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.zeros((2, 3)), y=np.zeros(2))
    np.savez(tmp_path / "1.npz", x=np.zeros((2, 3)))
    np.savez(tmp_path / "2.npz", x=np.zeros((2, 4)), y=np.zeros(2))
    np.savez(tmp_path / "3.npz", x=np.zeros((2, 3), np.float32), y=np.zeros(2))
    with pytest.raises(hs.SourceError, match=r"1\.npz: has no 'y', which .*0\.npz has"):
        hs.convert([tmp_path / "0.npz", tmp_path / "1.npz"], tmp_path / "x.hsq")
    for other in ("2.npz", "3.npz"):
        with pytest.raises(hs.SourceError, match=rf"{other}, x.npy: is float.*, but .*0\.npz, x.npy is float64"):
            hs.convert([tmp_path / "0.npz", tmp_path / other], tmp_path / "x.hsq")
    hs.convert([tmp_path / "0.npz", tmp_path / "1.npz"], tmp_path / "x.hsq", inputs=["x"])
    assert read(tmp_path / "x.hsq")["x"].shape == (4, 3)


def test_of_an_archive_of_several_sets_one_is_chosen(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "all.npz", x_train=np.ones((7, 2)), y_train=np.arange(7), x_test=np.ones((3, 2)), y_test=np.arange(3)
    )
    with pytest.raises(hs.SourceError, match=r"different numbers of records: .*x_train.npy: 7.*x_test.npy: 3.*inputs="):
        hs.convert(tmp_path / "all.npz", tmp_path / "x.hsq")
    hs.convert(tmp_path / "all.npz", tmp_path / "test.hsq", inputs=["x_test"], outputs=["y_test"])
    assert same(read(tmp_path / "test.hsq")["y_test"], np.arange(3))
    assert not (tmp_path / "x.hsq").exists()


def test_what_is_no_array_of_records_matters_only_if_it_is_wanted(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(4), one=np.array({}, object), names=np.array([{"a": 1}, None], object))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("README.txt", "not an array")
    hs.convert(tmp_path / "x.npz", tmp_path / "x.hsq", inputs=["x"])
    assert same(read(tmp_path / "x.hsq")["x"], np.arange(4))
    for name, message in {"one": "single value", "names": "objects", "README.txt": "no array"}.items():
        with pytest.raises(hs.SourceError, match=rf"x\.npz, {name}.*{message}"):
            hs.convert(tmp_path / "x.npz", tmp_path / "y.hsq", inputs=[name])
    assert not (tmp_path / "y.hsq").exists()


def test_single_values_in_an_archive_become_metadata(tmp_path: Path) -> None:
    values = {"version": 2, "title": "Größe", "none": "", "scale": 0.5, "raw": b"abc", "ok": np.True_}
    np.savez(tmp_path / "x.npz", x=np.arange(4), day=np.datetime64("2024-01-01"), z=1j, nan=np.nan, **values)
    np.savez_compressed(tmp_path / "y.npz", x=np.arange(2), version=3, other=4)
    hs.convert([tmp_path / "x.npz", tmp_path / "y.npz"], tmp_path / "x.hsq")
    assert read(tmp_path / "x.hsq")["x"].tolist() == [0, 1, 2, 3, 0, 1]
    with hs.open(tmp_path / "x.hsq") as seq:
        assert seq.user_meta() == {**values, "raw": "abc", "ok": True}
    whole = (tmp_path / "y.npz").read_bytes()
    np.savez(tmp_path / "y.npz", version=3)
    with pytest.raises(hs.SourceError, match=r"y\.npz: no arrays with an axis of records"):
        hs.convert(tmp_path / "y.npz", tmp_path / "y.hsq")
    (tmp_path / "y.npz").write_bytes(whole)
    with zipfile.ZipFile(tmp_path / "y.npz") as archive:
        header_at = archive.getinfo("other.npy").header_offset
    damage(tmp_path / "y.npz", header_at + 60)
    with pytest.raises(hs.SourceError, match=r"y\.npz, other\.npy: cannot be read"):
        hs.convert(tmp_path / "y.npz", tmp_path / "y.hsq")


class _Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    trap = np.array([_Trap(tmp_path / "sprung")] * 3, object)
    np.save(tmp_path / "x.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=trap)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(hs.SourceError, match=rf"{name}.*Python objects are never stored"):
            hs.convert(tmp_path / name, tmp_path / "x.hsq")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "x.npz"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(3.0), "holds a single value"),
        (np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]), "store each member of a structured type"),
        (np.zeros(3, "M8"), "give it a unit"),
        (np.zeros(3, np.longdouble), "convert it first"),
    ],
)
def test_arrays_that_are_no_records_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(hs.SourceError, match=rf"x\.npy: .*{message}"):
        hs.convert(tmp_path / "x.npy", tmp_path / "x.hsq")
    assert not (tmp_path / "x.hsq").exists()


def test_a_folder_called_as_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.npy").mkdir()
    with pytest.raises(hs.SourceError, match=r"d\.npy: cannot be read: "):
        hs.convert(tmp_path / "d.npy", tmp_path / "x.hsq")


@pytest.mark.parametrize("keep", [0, 5, 60, 128, 128 + 79])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, keep: int) -> None:
    np.save(tmp_path / "x.npy", np.arange(10.0))
    os.truncate(tmp_path / "x.npy", keep)
    with pytest.raises(hs.SourceError, match=r"x\.npy: is (cut off: 80 bytes|no array)"):
        hs.convert(tmp_path / "x.npy", tmp_path / "x.hsq")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy"]


def test_headers_that_lie_are_refused(tmp_path: Path) -> None:
    for shape in ("(-3,)", "(10000000000000,)", "(3, 99999999999999999999)"):
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": ()})
            data = file.tell()
        text = (tmp_path / "x.npy").read_bytes()[:data].replace(b"'shape': ()", b"'shape': " + shape.encode())
        text = text[:8] + (len(text) - 10).to_bytes(2, "little") + text[10:]
        (tmp_path / "x.npy").write_bytes(text + bytes(24))
        with pytest.raises(hs.SourceError, match=r"x\.npy: "):
            hs.convert(tmp_path / "x.npy", tmp_path / "x.hsq")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("fortran", [False, True])
def test_a_damaged_archive_is_refused_before_anything_of_it_is_written(
    tmp_path: Path, save: Callable[..., None], fortran: bool
) -> None:
    x = some("uint8", (100, 3000))
    save(tmp_path / "x.npz", x=np.asfortranarray(x) if fortran else x)
    damage(tmp_path / "x.npz", (tmp_path / "x.npz").stat().st_size - 2000)
    with pytest.raises(hs.SourceError, match=r"x\.npz, x\.npy: cannot be read"):
        hs.convert(tmp_path / "x.npz", tmp_path / "x.hsq")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npz"]


def test_what_comes_before_a_damaged_archive_is_kept(tmp_path: Path) -> None:
    x = some("uint8", (200, 3000))
    np.savez(tmp_path / "0.npz", x=x[:100])
    np.savez(tmp_path / "1.npz", x=x[100:])
    sound = (tmp_path / "1.npz").read_bytes()
    damage(tmp_path / "1.npz", 150_000)
    sources = [tmp_path / "0.npz", tmp_path / "1.npz"]
    with pytest.raises(hs.SourceError, match=r"1\.npz, x\.npy: cannot be read") as caught:
        hs.convert(sources, tmp_path / "x.hsq")
    assert "first 100 of the records" in caught.value.__notes__[0]
    (tmp_path / "1.npz").write_bytes(sound)
    hs.convert(sources, tmp_path / "x.hsq", resume=True)
    assert same(read(tmp_path / "x.hsq")["x"], x)


def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(1000))
    os.truncate(tmp_path / "x.npz", 5000)
    with pytest.raises(hs.SourceError, match=r"x\.npz: cannot be read"):
        hs.convert(tmp_path / "x.npz", tmp_path / "x.hsq")
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:  # a sound archive of half an array
        np.save(tmp_path / "x.npy", np.arange(1000))
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:5000])
    with pytest.raises(hs.SourceError, match=r"y\.npz, x\.npy: is cut off: it should have 8,128 bytes, and has 5,000"):
        hs.convert(tmp_path / "y.npz", tmp_path / "x.hsq")
    with zipfile.ZipFile(tmp_path / "z.npz", "w"):
        pass
    with pytest.raises(hs.SourceError, match=r"z\.npz: no arrays"):
        hs.convert(tmp_path / "z.npz", tmp_path / "x.hsq")


def test_different_numbers_of_records_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(5))
    np.save(tmp_path / "b.npy", np.zeros(4))
    with pytest.raises(hs.SourceError, match=r"a\.npy: 5, .*b\.npy: 4"):
        hs.convert([tmp_path / "a.npy", tmp_path / "b.npy"], tmp_path / "x.hsq")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "x.npy", np.zeros(5))
    np.save(tmp_path / "b" / "x.npy", np.zeros(5))
    with pytest.raises(hs.SourceError, match="another source is called 'x' too"):
        hs.convert([tmp_path / "x.npy", tmp_path / "b" / "x.npy"], tmp_path / "x.hsq")


@pytest.mark.parametrize("n", [0, 1])
def test_few_records(tmp_path: Path, n: int) -> None:
    given = {"x": some("float32", (n, 3)), "f": np.asfortranarray(some("int16", (n, 2, 2))), "y": some("int64", (n,))}
    np.savez(tmp_path / "x.npz", **given)
    assert hs.convert(tmp_path / "x.npz", tmp_path / "x.hsq").n_records == n
    hs.convert(tmp_path / "x.hsq", tmp_path / "y.npz")
    for found in (read(tmp_path / "x.hsq"), np.load(tmp_path / "y.npz")):
        assert all(same(found[name], array) for name, array in given.items())


@pytest.mark.parametrize("kind", ["npy", "npz", "fortran npy", "fortran npz", "compressed npz"])
def test_resuming_goes_on_where_it_stopped(tmp_path: Path, kind: str) -> None:
    x = some("uint8", (500, 100, 100))
    given = np.asfortranarray(x) if "fortran" in kind else x
    source = tmp_path / f"x.{kind[-3:]}"
    if kind.endswith("npy"):
        np.save(source, given)
    else:
        (np.savez_compressed if kind.startswith("compressed") else np.savez)(source, x=given)
    stop_after(tmp_path / "x.hsq", 333, x=x)
    hs.convert(source, tmp_path / "x.hsq", resume=True, memory=2)
    assert same(read(tmp_path / "x.hsq")["x"], x)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.hsq", source.name]


def test_resuming_with_another_source_is_refused(tmp_path: Path) -> None:
    x = some("uint8", (500, 10_000))
    stop_after(tmp_path / "x.hsq", 400, x=x)
    np.save(tmp_path / "x.npy", x[::-1])
    with pytest.raises(hs.SourceError, match="another source"):
        hs.convert(tmp_path / "x.npy", tmp_path / "x.hsq", resume=True)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_types_that_numpys_files_do_not_know_are_refused_on_the_way_out(tmp_path: Path, dtype: Any) -> None:
    with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
        writer.extend(np.zeros((3, 2), dtype))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(hs.ArgumentError, match=f"know no {np.dtype(dtype).name}"):
            hs.convert(tmp_path / "x.hsq", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.hsq"]


def test_an_npy_file_holds_one_field_and_an_archive_all(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
        writer.extend((np.arange(5), np.arange(5) * 2), {"y": np.arange(5) * 3})
    with pytest.raises(hs.ArgumentError, match=r"write an \.npz"):
        hs.convert(tmp_path / "x.hsq", tmp_path / "x.npy")
    hs.convert(tmp_path / "x.hsq", tmp_path / "x.npz")
    found = np.load(tmp_path / "x.npz")
    assert {name: found[name].tolist() for name in found} == {
        "inputs_0": [0, 1, 2, 3, 4],
        "inputs_1": [0, 2, 4, 6, 8],
        "y": [0, 3, 6, 9, 12],
    }
    with hs.HyperSequenceFile(tmp_path / "x.hsq") as seq:
        hs.convert(seq.fields("y").skip(0), tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").tolist() == [0, 3, 6, 9, 12]


def test_options_are_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(hs.ArgumentError, match="memory=0: must be 1 or more"):
        hs.convert(tmp_path / "x.npy", tmp_path / "x.hsq", memory=0)
    with pytest.raises(hs.ArgumentError, match="no option is called 'chunks'; it has: memory"):
        hs.convert(tmp_path / "x.npy", tmp_path / "x.hsq", chunks=3)


@pytest.mark.parametrize("changed", ["a", "b", "label"])
def test_resuming_compares_all_fields_of_the_last_safe_record(tmp_path: Path, changed: str) -> None:
    arrays = {name: np.arange(10) for name in ("a", "b", "label")}
    with pytest.raises(RuntimeError), hs.HyperSequenceWriter(tmp_path / "x.hsq", 1, block_nbytes=1) as writer:
        for i in range(5):
            writer.append({"a": arrays["a"][i], "b": arrays["b"][i]}, {"label": arrays["label"][i]})
        raise RuntimeError("the power goes out")
    arrays[changed] = np.where(np.arange(10) == 4, 77, np.arange(10))
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(hs.SourceError, match="record 4 of the source is not the one that was stored before"):
        hs.convert(tmp_path / "x.npz", tmp_path / "x.hsq", resume=True)
    np.savez(tmp_path / "x.npz", **{name: np.arange(10) for name in arrays})
    assert hs.convert(tmp_path / "x.npz", tmp_path / "x.hsq", resume=True).n_records == 10
