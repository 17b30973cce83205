"""TensorFlow: TFRecord files read by tf.data, and what else tf.data offers for arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Epochs, Order, Shuffle
from ..workloads import Records, Workload
from . import memmap

#: The TFRecord guide: at least ten times as many files as hosts that read them.
N_FILES = 10
#: The buffer of TensorFlow's introductory guides.
BUFFER = 10_000
_BUFFER_NBYTES = 256 << 20


def write(workload: Workload, records: Records, folder: Path) -> None:
    """``tf.train.Example`` with raw bytes: of its lists only those hold any dtype, and parsing them is a copy."""
    import tensorflow as tf

    def feature(array: np.ndarray) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[array.tobytes()]))

    per_file = -(-workload.n_records // N_FILES)
    rest = iter(records)
    for number in range(N_FILES):
        with tf.io.TFRecordWriter(str(folder / f"data-{number:05d}-of-{N_FILES:05d}.tfrecord")) as writer:
            for _, (x, y) in zip(range(per_file), rest, strict=False):
                features = tf.train.Features(feature={"x": feature(x), "y": feature(y)})
                writer.write(tf.train.Example(features=features).SerializeToString())


def buffer(workload: Workload) -> int:
    """Records among which to shuffle, where these need not be all."""
    return min(BUFFER, _BUFFER_NBYTES // workload.record_nbytes)


def read(bounded: bool) -> Callable[[Workload, Path, Order], Epochs]:
    """Batches of serialized records are parsed at once, as the performance guide says.

    Args:
        bounded: Whether to shuffle within a buffer. If it holds all records, reading the files one after another is
            enough, and for small ones takes half the time of ``interleave``, which here reads from a local disk.
    """

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        import tensorflow as tf

        spec = dict.fromkeys("xy", tf.io.FixedLenFeature([], tf.string))

        def parse(serialized: Any) -> Any:
            features = tf.io.parse_example(serialized, spec)
            arrays = zip((features["x"], features["y"]), (workload.x, workload.y), strict=True)
            return tuple(tf.reshape(tf.io.decode_raw(raw, dtype), (-1, *shape)) for raw, (shape, dtype) in arrays)

        files = tf.data.Dataset.list_files(str(folder / "*.tfrecord"), shuffle=order == "shuffled")
        if order == "shuffled" and bounded:
            # blocks, as handing small records over one by one costs more than reading them
            feed = files.interleave(tf.data.TFRecordDataset, N_FILES, 16, tf.data.AUTOTUNE)
            feed = feed.shuffle(buffer(workload))
        else:
            feed = tf.data.TFRecordDataset(files)
            feed = feed.shuffle(workload.n_records) if order == "shuffled" else feed
        feed = feed.batch(workload.batch, drop_remainder=True).map(parse, tf.data.AUTOTUNE)
        return finish(feed, order)

    return open_


def finish(feed: Any, order: Order) -> Epochs:
    """The end of every pipeline. ``np.asarray`` takes the tensors that it gives without a copy."""
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = order == "sequential"
    feed = feed.prefetch(tf.data.AUTOTUNE).with_options(options)
    return lambda number: feed


def in_memory(by_batch: bool) -> Callable[[Workload, Path, Order], Epochs]:
    """Arrays in memory: by record, as the guides begin; or by batch, as Keras does with arrays that ``fit`` gets."""

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        import tensorflow as tf

        x, y = (tf.convert_to_tensor(np.array(array)) for array in memmap.arrays(workload, folder))
        n = len(x) // workload.batch * workload.batch

        def numbers(_: Any) -> Any:
            every = tf.range(len(x))
            every = tf.random.shuffle(every) if order == "shuffled" else every
            return tf.data.Dataset.from_tensor_slices(tf.reshape(every[:n], (-1, workload.batch)))

        if by_batch:
            feed = tf.data.Dataset.range(1).flat_map(numbers)
            feed = feed.map(lambda i: (tf.gather(x, i), tf.gather(y, i)), tf.data.AUTOTUNE)
        else:
            feed = tf.data.Dataset.from_tensor_slices((x, y))
            feed = feed.shuffle(len(x)) if order == "shuffled" else feed
            feed = feed.batch(workload.batch, drop_remainder=True)
        return finish(feed, order)

    return open_


def save(workload: Workload, records: Records, folder: Path) -> None:
    """``Dataset.save``, of batches, as every element that is saved costs as much as many small records."""
    import tensorflow as tf

    signature = tuple(tf.TensorSpec((None, *shape), dtype) for shape, dtype in (workload.x, workload.y))
    feed = tf.data.Dataset.from_generator(records.chunks, output_signature=signature)
    feed.rebatch(workload.batch).save(str(folder / "saved"))


def load(by_record: bool) -> Callable[[Workload, Path, Order], Epochs]:
    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        import tensorflow as tf

        feed = tf.data.Dataset.load(str(folder / "saved"))
        if order == "shuffled" and by_record:
            feed = feed.unbatch().shuffle(workload.n_records).batch(workload.batch, drop_remainder=True)
        elif order == "shuffled":
            feed = feed.shuffle(max(1, buffer(workload) // workload.batch))
        return finish(feed, order)

    return open_


_ALL = Shuffle("shuffle(all records), all in memory", True)
_SOME = Shuffle("files shuffled and interleaved, shuffle(10000) or of 256 MiB", False)
_NUMBERS = Shuffle("tf.random.shuffle of all numbers", True)
_BATCHES = Shuffle("shuffle of whole batches, as many as 10000 records or 256 MiB make", False)
_BOUND = "Of large records as many as take 256 MiB."
_BUFFERED = "Shuffled, the data must fit into memory; every epoch begins when all of it was read."
_IN_MEMORY = "The data must fit into memory, when shuffled by record as a whole and in the buffer."
CONTENDERS = [
    Contender(
        name,
        "tensorflow",
        files,
        write_,
        open_,
        shuffle,
        workloads=workloads,
        note=note,
        in_memory=note is _IN_MEMORY,
    )
    for name, files, write_, open_, shuffle, workloads, note in (
        ("TFRecord, tf.data", "tfrecord", write, read(False), _ALL, (), _BUFFERED),
        ("TFRecord, tf.data, buffer of 10000", "tfrecord", write, read(True), _SOME, (), _BOUND),
        ("tf.data, arrays in memory", "memmap", memmap.write, in_memory(False), _ALL, (), _IN_MEMORY),
        ("tf.data, arrays in memory, gathered", "memmap", memmap.write, in_memory(True), _NUMBERS, (), _IN_MEMORY),
        ("tf.data, saved batches", "tf_saved", save, load(True), _ALL, (), _BUFFERED),
        ("tf.data, saved batches, whole", "tf_saved", save, load(False), _BATCHES, (), ""),
    )
]
