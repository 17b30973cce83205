"""Folders of images, a sub-folder for each class."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArgumentError, SourceError
from ...schema import Array, Field
from ...source.buffers import lease
from ..base import Format, Job, Options, Piece, Reader, SlicingReader
from ..images import IMAGE_ENDINGS, IMAGE_OPTIONS, decode_image


@dataclass(frozen=True)
class _Folder:
    """Images that lie together.

    Args:
        path: The folder.
        names: Theirs in it, sorted. No paths, of which millions would fill the memory.
        label: The number of their class.
    """

    path: str
    names: list[str]
    label: int


class _ImagesReader(SlicingReader):
    """The images of a folder, by class and then by name."""

    def __init__(self, root: Path, options: Options) -> None:
        if not root.is_dir():
            raise SourceError(f"{root}: is no folder; give the one in which the images or the folders of classes lie")
        self._told = {name: options[name] for name in ("size", "crop", "mode")}
        if self._told["crop"] and self._told["size"] is None:
            raise ArgumentError("images: crop needs size=, to which images are cut")
        try:
            classes, self._folders = _listed(root)
        except OSError as error:
            raise SourceError(f"{root}: cannot be read: {error}") from error
        self._ends = list(accumulate(len(folder.names) for folder in self._folders))
        self.n_records = self._ends[-1]
        self._first = self._path(0)
        self._shape = self._decode(self._first).shape
        self.fields = {"image": Field(np.uint8, self._shape)}
        self.meta = {}
        if classes:
            self.fields["label"] = Field(np.int64)
            self.labels = ("label",)
            self.meta = {"classes": classes}

    def jobs(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[Job]:
        # Smaller than others' pieces: images take longer to decode, and a broken one takes its piece with it.
        return super().jobs(start, wanted, max(1, n_records // 8))

    def piece(self, start: int, stop: int, wanted: Sequence[str]) -> Piece:
        piece: Piece = {}
        if "image" in wanted:
            piece["image"] = lease((stop - start, *self._shape), np.dtype(np.uint8))
            for row, number in enumerate(range(start, stop)):
                piece["image"][row] = self._image(self._path(number))
        if "label" in wanted:
            labels = [self._folder(number)[0].label for number in range(start, stop)]
            piece["label"] = np.array(labels, np.int64)
        return piece

    def _folder(self, number: int) -> tuple[_Folder, int]:
        """Where a record lies, and the how-manieth it is there."""
        index = bisect_right(self._ends, number)
        folder = self._folders[index]
        return folder, number - self._ends[index] + len(folder.names)

    def _path(self, number: int) -> Path:
        folder, place = self._folder(number)
        return Path(folder.path, folder.names[place])

    def _image(self, path: Path) -> Array:
        image = self._decode(path)
        if image.shape != self._shape:
            raise SourceError(
                f"{path}: has {_dimensions(image.shape)}, where {self._first} has {_dimensions(self._shape)}; size= "
                "resizes all images to one size, and mode= gives them the same channels"
            )
        return image

    def _decode(self, path: Path) -> Array:
        """An image as a person sees it."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error
        return decode_image(data, str(path), **self._told, upright=True)


def _listed(root: Path) -> tuple[list[str], list[_Folder]]:
    """The names of the classes, none if images lie in the folder itself, and where all images are."""
    classes = sorted(each.name for each in os.scandir(root) if _is_folder(each) and not each.name.startswith("."))
    folders = [folder for label, name in enumerate(classes) for folder in _within(root / name, label)]
    flat = _Folder(str(root), sorted(_images_in(str(root))), 0)
    if flat.names and folders:
        raise SourceError(
            f"{root}: has images of its own ({flat.names[0]}) beside folders of images ({folders[0].path}); whether "
            "these folders are classes is not clear: move one or the other away"
        )
    if flat.names:
        return [], [flat]
    if not folders:
        raise SourceError(f"{root}: has no images, nor have its folders (images end in {', '.join(IMAGE_ENDINGS)})")
    with_images = {folder.label for folder in folders}
    for label, name in enumerate(classes):
        if label not in with_images:
            raise SourceError(
                f"{root / name}: has no images; classes are numbered by their folders, so remove it, or fill it"
            )
    return classes, folders


def _within(path: Path, label: int) -> list[_Folder]:
    """All folders with images from this one on down, by path."""
    paths = sorted(_walked(str(path), {_identity(path.parent)}))
    found = [_Folder(each, sorted(_images_in(each)), label) for each in paths]
    return [folder for folder in found if folder.names]


def _walked(folder: str, above: set[tuple[int, int]]) -> Iterator[str]:
    """A folder and all below it, also those to which links lead.

    Args:
        folder: Its path.
        above: The folders in which it lies.

    Raises:
        SourceError: It is one of these.
    """
    here = _identity(folder)
    if here in above:
        raise SourceError(
            f"{folder}: is a link to a folder in which it lies, so that the same images would come again and again; "
            "remove the link"
        )
    yield folder
    with os.scandir(folder) as entries:
        below = [entry.path for entry in entries if _is_folder(entry) and not entry.name.startswith(".")]
    for each in below:
        yield from _walked(each, {*above, here})


def _identity(folder: str | Path) -> tuple[int, int]:
    """What is the same of all paths of a folder."""
    found = Path(folder).stat()
    return found.st_dev, found.st_ino


def _images_in(folder: str) -> Iterator[str]:
    """The names of a folder's images, of links that lead nowhere too: reading them says so."""
    with os.scandir(folder) as entries:
        for entry in entries:
            hidden = entry.name.startswith(".")  # what systems keep for themselves
            if entry.name.lower().endswith(IMAGE_ENDINGS) and not hidden and not _is_folder(entry):
                yield entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _dimensions(shape: tuple[int, ...]) -> str:
    channels = shape[2] if len(shape) == 3 else 1
    return f"{shape[0]}x{shape[1]} pixels (height x width) of {channels} channel{'s' if channels > 1 else ''}"


def _open(sources: list[Any], options: Options) -> Reader:
    if len(sources) > 1:
        raise SourceError("convert folders of images one by one, since each numbers its classes by itself")
    return _ImagesReader(sources[0], options)


def _recognises(path: Path) -> bool:
    """Whether there are images in a folder, or one level below."""
    if not path.is_dir():
        return False
    below = (each.path for each in os.scandir(path) if each.is_dir() and not each.name.startswith("."))
    return any(True for folder in (str(path), *below) for _ in _images_in(folder))


_SIZE, _CROP, _MODE = IMAGE_OPTIONS

FORMATS = [
    Format(
        "images",
        "folders of images by class",
        opens=_open,
        options=(
            replace(_SIZE, help="resize images to height and width: 224, or 224x320 (default: all must have one size)"),
            _CROP,
            replace(_MODE, help="make all images RGB (the default), or L: grey", default="RGB"),
        ),
        recognises=_recognises,
        packages=("PIL",),
    )
]
