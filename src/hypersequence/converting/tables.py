"""Records that come as Arrow's tables, as those of Parquet and Hugging Face do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from ..errors import SourceError
from ..schema import Array, Field
from ..source.buffers import lease
from .arrowtypes import Place
from .base import Job, Options, Piece, Reader, require
from .columns import ADVICE, KEY, Column, Rows, RowsJob, ValueColumn, json_of, type_here
from .description import Description
from .images import decode_image


class TableReader(Reader):
    """A reader of records that some library gives as Arrow's tables.

    Args:
        schema: Arrow's schema of the table.
        where: What messages call it.
        options: Those of images.
        names: The columns to offer; ``None`` for all.
        follow: Whether images are read from files whose paths stand in the table.

    Raises:
        SourceError: Two columns have one name, or none has, or there are none at all.
    """

    def __init__(
        self, schema: Any, where: str, options: Options, names: Sequence[str] | None = None, *, follow: bool = False
    ) -> None:
        offered = list(map(str, schema.names if names is None else names))
        odd = [name for name in offered if schema.names.count(name) != 1]
        if odd or not offered:
            what = f"{schema.names.count(odd[0])} columns called {odd[0]!r}" if odd else "no columns"
            raise SourceError(f"{where}: has {what}")
        self._schema: Any = schema
        self._where, self._options, self._follow = where, options, follow
        metadata: Mapping[bytes, bytes] = schema.metadata or {}
        self.described = Description.of(json_of(metadata, KEY))
        self._features = _features(json_of(metadata, b"huggingface"))
        classes = {name: each for name, each in self._features.items() if each.get("_type") == "ClassLabel"}
        self.labels = self.described.outputs or tuple(classes)
        self.meta = dict(self.described.user_meta or {})
        if names_of_classes := {name: each["names"] for name, each in classes.items() if each.get("names")}:
            self.meta.setdefault("label names", names_of_classes)
        self.fields = {name: Field("S0") for name in offered}  # until choose()
        self._columns = dict[str, Column]()

    @abstractmethod
    def rows(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[RowsJob]:
        """Jobs that give all rows from one on, some at a time, as :meth:`Reader.jobs` gives records."""

    def choose(self, wanted: Sequence[str]) -> None:
        """Find out their types and shapes."""
        for name in wanted:
            column = self._column(self._schema.field(name))
            column.settle(partial(self._scan, name))
            self._columns[name], self.fields[name] = column, column.field

    def _column(self, field: Any) -> Column:
        type = field.type
        if require("pyarrow").types.is_struct(type) and {part.name for part in type} == {"bytes", "path"}:
            told = self._features.get(field.name, {})
            kind, mode = told.get("_type", "Image"), told.get("mode")
            if kind != "Image":
                raise SourceError(
                    f"{self._where}: the column {field.name!r} is {kind}, as datasets calls it, and of the files in "
                    f"such a column only images are decoded here; decode it with map() to arrays of one shape, {ADVICE}"
                )
            own = {"mode": mode} if self._options["mode"] is None and isinstance(mode, str) else {}
            return ImageColumn(field.name, {**self._options, **own}, follow=self._follow)
        return ValueColumn(field, self._where)

    def _scan(self, name: str, n_rows: int) -> Iterator[Rows]:
        for job in self.rows(0, [name], n_rows):
            rows = job()
            yield rows
            if rows.release is not None:
                rows.release()

    def jobs(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[Job]:
        """Jobs that give rows, and make arrays of them."""
        for job in self.rows(start, wanted, n_records):
            yield partial(self._piece, job, wanted)

    def _piece(self, job: RowsJob, wanted: Sequence[str]) -> Piece:
        rows = job()
        try:
            return {name: self._columns[name].read(rows) for name in wanted}
        finally:
            if rows.release is not None:
                rows.release()


class ImageColumn(Column):
    """A column of encoded images, as ``datasets`` keeps them: bytes, or the path of a file.

    Args:
        name: The column's name.
        options: ``size``, ``crop`` and ``mode``, as :func:`~.images.decode_image` takes them.
        follow: Whether files are read at the paths that stand in it.
    """

    def __init__(self, name: str, options: Options, *, follow: bool) -> None:
        super().__init__(name)
        self._options, self._follow = options, follow

    def settle(self, scan: Callable[[int], Iterator[Rows]]) -> None:
        """Look at the first image."""
        found = self.first(scan)
        if found is None:
            raise SourceError(f"the column {self.name!r} has no rows, so that nothing tells the size of its images")
        array, place = found
        image = self._image(array[0].as_py(), place(0))
        self.field = Field(image.dtype, image.shape)

    def values(self, array: Any, place: Place) -> Array:
        """The images of an array, decoded."""
        out = lease((len(array), *self.field.shape), self.field.dtype)
        for number, value in enumerate(array):
            image = self._image(value.as_py(), place(number))
            if image.shape != self.field.shape:
                raise SourceError(
                    f"{place(number)}: the image has the shape {image.shape}, the first one {self.field.shape}; size= "
                    "resizes all images, mode= makes them all RGB or grey"
                )
            out[number] = image
        return out

    def _image(self, value: Any, where: str) -> Array:
        value = {} if value is None else value
        data, path = value.get("bytes"), value.get("path")
        if data is None and not (self._follow and path and Path(path).is_file()):
            hint = f"; it should be in the file {path}, which is not read from here" if path else ""
            raise SourceError(f"{where}: has no image{hint}")
        told = {name: self._options[name] for name in ("size", "crop", "mode")}
        # Upright, as they are in datasets.
        return decode_image(Path(path) if data is None else data, where, **told, upright=True)


def _features(hub: Any) -> dict[str, dict[str, Any]]:
    """The features of ``datasets``, as it leaves them in a table's metadata."""
    for key in ("info", "features"):
        hub = cast("dict[str, Any]", hub).get(key) if isinstance(hub, dict) else None
    found = cast("dict[str, Any]", hub) if isinstance(hub, dict) else {}
    return {name: cast("dict[str, Any]", each) for name, each in found.items() if isinstance(each, dict)}


def common_schema(files: Sequence[tuple[Path, Any]]) -> Any:
    """The schema of files with the same columns, in whatever order: that of the first one.

    What its metadata says of a column that was exported from here is left out unless all files say the same.

    Args:
        files: Their paths and schemas.

    Raises:
        SourceError: One has other columns than the first.
    """
    (first_path, first), *_ = files
    for path, schema in files[1:]:
        _check_same(schema, path, first, first_path)
        ours, theirs = _class_names(schema), _class_names(first)
        if any(ours[name] != theirs[name] for name in ours.keys() & theirs.keys()):
            raise SourceError(
                f"{path}: its classes have other names, or another order, than those of {first_path}, so that one "
                "number would mean several; convert them one by one"
            )
    by_name = [{field.name: field for field in schema} for _, schema in files]
    fields = [
        field if len({_kept(each[field.name]) for each in by_name}) == 1 else _without_type_here(field)
        for field in first
    ]
    return require("pyarrow").schema(fields, metadata=first.metadata)


def _class_names(schema: Any) -> dict[str, Any]:
    """The names of classes that ``datasets`` knows, by columns."""
    features = _features(json_of(schema.metadata or {}, b"huggingface"))
    return {name: each.get("names") for name, each in features.items() if each.get("_type") == "ClassLabel"}


def _without_type_here(field: Any) -> Any:
    told: dict[bytes, bytes] = field.metadata or {}
    return field.with_metadata({key: value for key, value in told.items() if key != KEY})


def _kept(field: Any) -> str:
    """What follows for a column from the type that it had here: the width of text, and that null is NaT."""
    ours = type_here(field)
    return "" if ours is None else "time" if ours.kind in "mM" else str(ours)


def _check_same(schema: Any, path: Path, first: Any, first_path: Path) -> None:
    ours, theirs = ({field.name: field.type for field in each} for each in (schema, first))
    for name in [*theirs, *ours]:
        if ours.get(name) != theirs.get(name):
            here, there = (str(types.get(name, "not there")) for types in (ours, theirs))
            raise SourceError(
                f"{path}: the column {name!r} is {here}, but in {first_path} it is {there}; convert files with "
                "different columns one by one"
            )
