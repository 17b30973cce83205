"""Folders of images: their pixels, their classes, their order, and what may be wrong with them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import hypersequence as hs


def noise(seed: int, height: int = 12, width: int = 10, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(height: int, width: int) -> Image.Image:
    """Something that resizing changes little, and different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    channels = 255 * y / height, 255 * x / width, 255 * (x * y) / (height * width)
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def put(path: Path, pixels: np.ndarray, **options: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of three images each, written in no particular order."""
    root = tmp_path / "pets"
    for number, name in enumerate(["dog/b.png", "cat/2.png", "dog/a.png", "cat/10.png", "dog/c.PNG", "cat/1.png"]):
        put(root / name, noise(number))
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / "cat" / ".hidden.png").write_text("what some systems leave behind")
    (root / ".thumbnails").mkdir()
    (root / "readme.md").write_text("not a class")
    return root


def converted(source: Path, **options: Any) -> Any:
    target = source.parent / "out.hsq"
    hs.convert(source, target, overwrite=True, **options)
    with hs.open(target) as seq:
        return (*seq.records[:], seq.user_meta())


def test_classes_are_numbered_by_name_and_images_come_by_class_and_name(pets: Path) -> None:
    inputs, outputs, meta = converted(pets)
    names = ["cat/1.png", "cat/10.png", "cat/2.png", "dog/a.png", "dog/b.png", "dog/c.PNG"]
    expected = np.stack([np.asarray(Image.open(pets / name)) for name in names])
    np.testing.assert_array_equal(inputs["image"], expected)
    assert outputs["label"].dtype == np.int64
    assert outputs["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert meta == {"classes": ["cat", "dog"]}


def test_keras_sees_the_same_images_and_classes(pets: Path) -> None:
    import keras

    (pets / "cat" / ".hidden.png").unlink()  # it would read this too
    theirs = keras.utils.image_dataset_from_directory(pets, shuffle=False, image_size=(12, 10), batch_size=6)
    images, labels = next(iter(theirs))
    inputs, outputs, meta = converted(pets)
    np.testing.assert_array_equal(inputs["image"], np.asarray(images).astype(np.uint8))
    np.testing.assert_array_equal(outputs["label"], np.asarray(labels))
    assert meta["classes"] == theirs.class_names


def test_folders_within_a_class_belong_to_it(pets: Path) -> None:
    extra = put(pets / "cat" / "more" / "0.png", noise(99))
    inputs, outputs, _ = converted(pets)
    assert outputs["label"].tolist() == [0] * 4 + [1] * 3
    np.testing.assert_array_equal(inputs["image"][3], extra)


def test_links_to_folders_are_followed_but_not_in_circles(pets: Path) -> None:
    expected = np.stack([np.asarray(Image.open(pets / "cat" / name)) for name in ("1.png", "10.png", "2.png")])
    (pets / "cat" / ".thumbnails").mkdir()
    put(pets / "cat" / ".thumbnails" / "1.png", noise(9))
    (pets / "dog").rename(pets.parent / "elsewhere")
    (pets / "dog").symlink_to("../elsewhere")
    (pets / "dog" / "more").symlink_to("../pets/cat")
    (pets / "dog" / "more.png").symlink_to("more.png")
    with pytest.raises(hs.SourceError, match=r"dog/more\.png: cannot be read"):
        converted(pets)
    (pets / "dog" / "more.png").unlink()
    inputs, outputs, _ = converted(pets)
    assert outputs["label"].tolist() == [0] * 3 + [1] * 6
    np.testing.assert_array_equal(inputs["image"][[0, 1, 2, 6, 7, 8]], np.concatenate([expected, expected]))
    for place, target in (("cat/self", "."), ("cat/up", ".."), ("dog/round", "../pets/dog")):
        (pets / place).symlink_to(target)
        with pytest.raises(
            hs.SourceError, match=rf"{place}: is a link to a folder in which it lies, .* remove the link"
        ):
            converted(pets)
        (pets / place).unlink()


def test_a_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    pixels = [put(tmp_path / "flat" / f"{name}.png", noise(name)) for name in range(3)]
    inputs, meta = converted(tmp_path / "flat")
    assert list(inputs) == ["image"]
    np.testing.assert_array_equal(inputs["image"], np.stack(pixels))
    assert meta == {}


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "ppm", "gif", "webp"])
def test_lossless_files_of_every_kind_keep_their_pixels(tmp_path: Path, ending: str) -> None:
    pixels = noise(1) // 128 * 255  # eight colours, which GIF has room for
    put(tmp_path / "in" / f"a.{ending}", pixels, **({"lossless": True} if ending == "webp" else {}))
    np.testing.assert_array_equal(converted(tmp_path / "in")[0]["image"][0], pixels)


def test_jpeg_is_what_pillow_makes_of_it(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpeg", noise(1))
    np.testing.assert_array_equal(
        converted(tmp_path / "in")[0]["image"][0], np.asarray(Image.open(tmp_path / "in" / "a.jpeg"))
    )


def test_grey_images_become_rgb_and_colours_grey_if_asked(tmp_path: Path) -> None:
    grey, colour = put(tmp_path / "in" / "a.png", noise(1, channels=1)), put(tmp_path / "in" / "b.png", noise(2))
    inputs, _ = converted(tmp_path / "in")
    np.testing.assert_array_equal(inputs["image"], np.stack([np.stack([grey] * 3, -1), colour]))
    inputs, _ = converted(tmp_path / "in", mode="L")
    np.testing.assert_array_equal(inputs["image"], np.stack([grey, np.asarray(Image.fromarray(colour).convert("L"))]))
    with pytest.raises(hs.SourceError, match=r"b\.png: has 12x10 .* of 3 channels, .*a\.png .* of 1 channel;"):
        converted(tmp_path / "in", mode=None)


def test_an_image_of_another_size_is_named_and_size_makes_them_alike(pets: Path) -> None:
    wide = Image.fromarray(put(pets / "dog" / "bb.png", noise(7, 20, 30)))
    with pytest.raises(hs.SourceError, match=r"bb\.png: has 20x30 .*1\.png has 12x10 .*size="):
        converted(pets)
    inputs, _, _ = converted(pets, size="8x6")
    assert inputs["image"].shape == (7, 8, 6, 3)
    np.testing.assert_array_equal(inputs["image"][5], np.asarray(wide.resize((6, 8), Image.Resampling.BILINEAR)))
    inputs, _, _ = converted(pets, size=(8, 6), crop=True)
    fitted = ImageOps.fit(wide, (6, 8), method=Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(inputs["image"][5], np.asarray(fitted))


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_as_the_camera_was_held(tmp_path: Path, orientation: int, ending: str) -> None:
    path = tmp_path / "in" / f"a.{ending}"
    path.parent.mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth(40, 60).save(path, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(path))
    assert upright.size == ((60, 40) if orientation < 5 else (40, 60))
    np.testing.assert_array_equal(converted(path.parent)[0]["image"][0], np.asarray(upright))
    for crop in (False, True):
        inputs, _ = converted(path.parent, size=(25, 15), crop=crop)
        bilinear = Image.Resampling.BILINEAR
        expected = ImageOps.fit(upright, (15, 25), bilinear) if crop else upright.resize((15, 25), bilinear)
        difference = inputs["image"][0].astype(int) - np.asarray(expected)
        assert abs(difference).max() <= 12  # JPEG leaves out detail before it is turned


def test_an_orientation_that_does_not_exist_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    pixels = put(tmp_path / "in" / "a.png", noise(1), exif=exif)
    np.testing.assert_array_equal(converted(tmp_path / "in")[0]["image"][0], pixels)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_change_nothing(tmp_path: Path, threads: int) -> None:
    pixels = [put(tmp_path / "in" / f"{name:03}.png", noise(name, 200, 300)) for name in range(60)]
    np.testing.assert_array_equal(converted(tmp_path / "in", threads=threads)[0]["image"], np.stack(pixels))


@pytest.mark.parametrize("damage", ["cut off", "empty", "no image", "a link to nowhere"])
def test_a_damaged_image_is_named_and_conversion_goes_on_when_it_is_mended(tmp_path: Path, damage: str) -> None:
    source, target = tmp_path / "in", tmp_path / "out.hsq"
    pixels = [put(source / f"class{name // 30}" / f"{name:03}.png", noise(name, 200, 300)) for name in range(60)]
    broken = source / "class1" / "040.png"
    good = broken.read_bytes()
    if damage == "a link to nowhere":
        broken.unlink()
        broken.symlink_to("nowhere")
    else:
        broken.write_bytes({"cut off": good[: len(good) // 2], "empty": b"", "no image": b"<html>" * 99}[damage])
    with pytest.raises(hs.SourceError, match=r"class1/040\.png: ") as caught:
        hs.convert(source, target, threads=2)
    assert not target.exists()
    assert "records appended are in" in caught.value.__notes__[0]
    broken.unlink()
    broken.write_bytes(good)
    assert hs.convert(source, target, resume=True).n_records == 60
    with hs.open(target) as seq:
        inputs, outputs = seq.records[:]
    np.testing.assert_array_equal(inputs["image"], np.stack(pixels))
    assert outputs["label"].tolist() == [0] * 30 + [1] * 30


def test_an_image_that_vanishes_on_the_way_is_named(tmp_path: Path) -> None:
    from hypersequence.converting.registry import format_named

    for name in range(3):
        put(tmp_path / "in" / f"{name}.png", noise(name))
    format = format_named("images")
    with format.opens([tmp_path / "in"], format.parse({})) as reader:
        (tmp_path / "in" / "1.png").unlink()
        (job,) = reader.jobs(0, ["image"], 100)
        with pytest.raises(hs.SourceError, match=r"1\.png: cannot be read: "):
            job()


def test_more_than_eight_bits_are_not_thrown_away(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png", np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    with pytest.raises(hs.SourceError, match=r"a\.png: .*more than 8 bits"):
        converted(tmp_path / "in")


def deep_png() -> bytes:
    """One pixel of three times 16 bits."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0abcdef")),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def deep_tiff() -> bytes:
    """The same: a table of tags, the bits of each colour, the pixel."""
    tags = {256: 1, 257: 1, 258: 122, 259: 1, 262: 2, 273: 128, 277: 3, 278: 1, 279: 6}
    rows = [struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags.items()]
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(tags))
        + b"".join(rows)
        + bytes(4)
        + struct.pack("<3H", 16, 16, 16)
        + b"abcdef"
    )


@pytest.mark.parametrize(
    ("name", "data"), [("a.png", deep_png()), ("a.tif", deep_tiff()), ("a.ppm", b"P6 1 1 999\nabcdef")]
)
def test_colours_of_sixteen_bits_are_not_cut_to_eight(tmp_path: Path, name: str, data: bytes) -> None:
    """As Pillow does."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    with pytest.raises(hs.SourceError, match=rf"{name}: .*more than 8 bits"):
        converted(tmp_path / "in")


def test_folders_that_are_not_clear_are_refused(pets: Path) -> None:
    (pets / "empty").mkdir()
    with pytest.raises(hs.SourceError, match=r"pets/empty: has no images; .* remove it"):
        converted(pets)
    (pets / "empty").rmdir()
    put(pets / "stray.png", noise(1))
    with pytest.raises(hs.SourceError, match=r"images of its own \(stray\.png\)"):
        converted(pets)
    (pets / "stray.png").unlink()
    with pytest.raises(hs.SourceError, match="is no folder"):
        converted(pets / "cat" / "1.png", from_="images")
    with pytest.raises(hs.SourceError, match="one by one"):
        hs.convert([pets, pets], pets.parent / "out.hsq")
    (pets.parent / "void" / "sub").mkdir(parents=True)
    with pytest.raises(hs.ArgumentError, match="does not tell the format"):
        converted(pets.parent / "void")
    with pytest.raises(hs.SourceError, match="has no images, nor have its folders"):
        converted(pets.parent / "void", from_="images")


@pytest.mark.parametrize("size", [np.int64(8), np.array(8), (np.uint8(8), 8), np.array([8, 8]), "8", 8])
def test_a_size_may_be_any_integer(pets: Path, size: Any) -> None:
    assert converted(pets, size=size)[0]["image"].shape == (6, 8, 8, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "big"}, "size='big'"),
        ({"size": (0, 3)}, "size="),
        ({"mode": "CMYK"}, "mode='CMYK'"),
        ({"crop": True}, "crop needs size="),
        ({"size": "100000x100000"}, "an image may have 268,435,456 pixels at most"),
        ({"colour": 1}, "no option is called 'colour'"),
    ],
)
def test_options_that_make_no_sense_are_refused(pets: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(hs.ArgumentError, match=message):
        converted(pets, **options)


def test_labels_alone_need_no_decoding(pets: Path) -> None:
    (pets / "dog" / "a.png").write_text("damaged, and nobody looks")
    labels, _ = converted(pets, inputs=["label"], named=False)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
