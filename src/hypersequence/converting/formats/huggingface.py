"""Hugging Face's data sets: objects of ``datasets``, and the folders that their ``save_to_disk`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from ... import strictjson
from ...errors import ArgumentError, SourceError
from ..arrays import explained
from ..base import Format, Option, Options, Reader, require
from ..columns import ROWS_NBYTES, Rows, RowsJob
from ..images import IMAGE_OPTIONS
from ..tables import TableReader
from .arrow import IpcReader

_SPLITS, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


class _DatasetReader(TableReader):
    """The rows of a ``Dataset``, in its order, which may be that of a list of indices."""

    def __init__(self, dataset: Any, options: Options) -> None:
        if dataset.format["type"] == "custom":
            raise ArgumentError(
                "the data set has a transform, so that nothing is known of what comes out of it; reset_format() it, or "
                "use write(), which takes it as it takes every iterable"
            )
        self._dataset = dataset.with_format("arrow")  # what is stored, with no change of types
        super().__init__(dataset.features.arrow_schema, "the data set", options, dataset.format["columns"], follow=True)
        self.n_records = len(dataset)

    def rows(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[RowsJob]:
        chosen = self._dataset.select_columns(list(wanted))
        n_rows = max(1, min(n_records, ROWS_NBYTES * chosen.data.num_rows // max(1, chosen.data.nbytes)))
        for first in range(start, len(self._dataset), n_rows):
            yield partial(_slice, chosen, first, min(first + n_rows, len(self._dataset)))


def _slice(dataset: Any, first: int, stop: int) -> Rows:
    with explained(f"the data set, rows {first:,} to {stop - 1:,}"):
        table = dataset[first:stop]
    return Rows("the data set", first, table.to_batches(), lambda: None)  # it may be mapped, and copies are quicker


def _open_object(dataset: Any, options: Options) -> Reader:
    datasets = require("datasets")
    if isinstance(dataset, datasets.DatasetDict):
        return _DatasetReader(dataset[_split(list(dataset), options["split"], "the data sets")], options)
    if not isinstance(dataset, datasets.Dataset):
        raise ArgumentError(
            f"a {type(dataset).__name__} is a stream; write() takes it, as it takes every iterable of records"
        )
    if options["split"] is not None:
        raise ArgumentError("split= chooses from a DatasetDict, and this is a Dataset")
    return _DatasetReader(dataset, options)


def _open_folder(folder: Path, options: Options) -> Reader:
    """What ``save_to_disk`` wrote: Arrow's streams, for which ``datasets`` itself need not be there."""
    if (folder / _SPLITS).is_file():
        found = _read(folder / _SPLITS).get("splits")
        folder = folder / _split(list(map(str, found or ())), options["split"], str(folder))
    elif options["split"] is not None:
        raise ArgumentError(f"{folder}: split= chooses from a DatasetDict, and this is a single Dataset")
    state = _read(folder / _STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise SourceError(f"{folder}: was saved by an old version, with indices; load_from_disk() it, and convert that")
    try:
        names = [str(each["filename"]) for each in state["_data_files"]]
    except (KeyError, TypeError):
        raise SourceError(f"{folder / _STATE}: does not list the files with the data") from None
    odd = [name for name in names if Path(name).name != name]
    if odd or not names:
        what = f"{odd[0]}, which is no file of its folder" if odd else "no files, as if nothing had been saved"
        raise SourceError(f"{folder / _STATE}: lists {what}")
    columns = state.get("_format_columns") or None
    return IpcReader([folder / name for name in names], options, cast("list[str] | None", columns))


def _split(offered: list[str], asked: str | None, where: str) -> str:
    if asked not in offered:
        what = "say which with split=" if asked is None else f"not {asked!r}"
        raise ArgumentError(f"{where}: has the splits {', '.join(offered)}; {what}")
    return asked


def _read(path: Path) -> dict[str, Any]:
    with explained(str(path)):
        found = strictjson.decode(path.read_bytes())
    if not isinstance(found, dict):
        raise SourceError(f"{path}: is not what save_to_disk() writes")
    return cast("dict[str, Any]", found)


def _open(sources: list[Any], options: Options) -> Reader:
    if len(sources) > 1:
        raise ArgumentError("give one data set; datasets.concatenate_datasets() makes one of several")
    (source,) = sources
    return _open_folder(source, options) if isinstance(source, Path) else _open_object(source, options)


def _recognises(path: Path) -> bool:
    return (path / _SPLITS).is_file() or ((path / _STATE).is_file() and (path / _INFO).is_file())


FORMATS = [
    Format(
        "huggingface",
        "Hugging Face data sets",
        opens=_open,
        options=(
            Option("split", str, "which part of a DatasetDict, as train or test (a Dataset has none)"),
            *IMAGE_OPTIONS,
        ),
        recognises=_recognises,
        takes=lambda source: type(source).__module__.split(".")[0] == "datasets",
        packages=("pyarrow",),
    )
]
