"""From NumPy's arrays to JAX's, on one device or laid out over many."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from ...errors import ArgumentError, MissingPackageError
from ...source.buffers import lease

try:
    import jax
except ImportError as error:
    raise MissingPackageError(f"as_jax needs JAX ({error}): pip install 'hypersequence[jax]'") from error

try:
    # What device_put comes down to, without the 60 us of Python on the way there; docs/decisions.md has the figures.
    # It is private to JAX: where it is gone, or gives anything but what device_put gives, device_put does the work.
    from jax._src.interpreters.pxla import batched_device_put
except ImportError:
    batched_device_put = None

#: 64-bit types, and what narrow=True makes of them.
NARROW = {
    np.dtype(np.int64): np.dtype(np.int32),
    np.dtype(np.uint64): np.dtype(np.uint32),
    np.dtype(np.float64): np.dtype(np.float32),
    np.dtype(np.complex128): np.dtype(np.complex64),
}


def would_be_cut(dtype: np.dtype[Any]) -> bool:
    """Whether JAX, as it is configured, would make a narrower type of this one without a word."""
    return dtype in NARROW and jax.dtypes.canonicalize_dtype(dtype) != dtype


class Put:
    """Puts arrays where they are wanted. For one pass.

    Args:
        device: A device, or ``None`` for the default one.
        sharding: A layout over devices instead.
        narrow: Whether to make 32-bit types of 64-bit ones.
        world: How many processes' batches make a global one, for a layout.
    """

    def __init__(
        self,
        device: jax.Device | None,  # pyright: ignore[reportInvalidTypeForm]
        sharding: jax.sharding.Sharding | None,
        narrow: bool,
        world: int,
    ) -> None:
        self._device, self._sharding, self._narrow, self._world = device, sharding, narrow, world
        self._known: dict[Any, tuple[Any, ...]] = {}

    def __call__(self, array: Any) -> jax.Array:
        """The array in its place; on a CPU, over the same memory if that begins at a multiple of 64.

        Raises:
            ArgumentError: JAX has no such type, or would cut it down; or the layout does not fit.
        """
        if not isinstance(array, np.ndarray):  # from map()
            if isinstance(array, jax.Array) and self._sharding is None:
                return jax.device_put(array, self._device)
            array = np.asarray(array)
        if self._narrow and array.dtype in NARROW:
            array = _narrowed(array)
        known = self._known.get((array.shape, array.dtype))
        if known is None:
            return self._first(array)
        aval, sharding, devices, committed = known
        return batched_device_put(aval, sharding, [array], devices, committed)  # pyright: ignore[reportOptionalCall]

    def _first(self, array: np.ndarray[Any, Any]) -> jax.Array:
        """An array of a shape and type that was not there before; or of any, where there is no shorter way."""
        if would_be_cut(array.dtype):
            raise ArgumentError(
                f"JAX would make {NARROW[array.dtype]} of {array.dtype} in silence: call "
                "jax.config.update('jax_enable_x64', True), say as_jax(narrow=True), or convert it in map(...)"
            )
        try:
            if self._sharding is not None:
                return self._laid_out(array, self._sharding)
            put = jax.device_put(array, self._device)
        except TypeError as error:
            raise ArgumentError(
                f"JAX has no elements of type {array.dtype}; leave the field out with fields(...), or convert it with "
                "map(...)"
            ) from error
        if batched_device_put is not None:
            try:
                known = put.aval, put.sharding, list(put.devices()), put.committed
                same = batched_device_put(known[0], known[1], [array], known[2], known[3])
                if type(same) is type(put) and same.aval == put.aval and same.sharding == put.sharding:
                    self._known[array.shape, array.dtype] = known
            except (AttributeError, TypeError):
                pass
        return put

    def _laid_out(self, array: np.ndarray[Any, Any], sharding: jax.sharding.Sharding) -> jax.Array:
        shape = (array.shape[0] * self._world, *array.shape[1:]) if array.ndim else ()
        try:
            return jax.make_array_from_process_local_data(sharding, array, shape)
        except (ValueError, IndexError) as error:
            raise ArgumentError(f"the sharding does not fit a global batch of shape {shape}: {error}") from error


def rank_of_rows(sharding: jax.sharding.Sharding, record_shape: tuple[int, ...]) -> tuple[int, int]:
    """Which part of a global batch this process holds, and how many parts there are.

    Processes may hold the same rows, where only other axes of a mesh tell them apart; then they are one rank.

    Args:
        sharding: The layout.
        record_shape: Shape of a record, for a layout that divides other axes too.

    Raises:
        ArgumentError: The layout has no part for this process, or one that is no run of rows of its own.
    """
    n = len(sharding.device_set)
    rows: defaultdict[int, set[int]] = defaultdict(set)
    try:
        for device, index in sharding.devices_indices_map((n, *record_shape)).items():
            rows[device.process_index].update(range(*index[0].indices(n)))
    except (ValueError, IndexError) as error:
        raise ArgumentError(f"the sharding does not fit records of shape {record_shape}: {error}") from error
    parts = sorted({tuple(sorted(of_process)) for of_process in rows.values()})
    mine = tuple(sorted(rows[jax.process_index()]))
    if [row for part in parts for row in part] != list(range(n)) or len({len(part) for part in parts}) != 1:
        raise ArgumentError(
            "the sharding gives processes parts of a batch that overlap, are torn, or differ in size; lay the first "
            "axis out so that each process has one run of rows"
        )
    if mine not in parts:
        raise ArgumentError("the sharding has no device of this process")
    return parts.index(mine), len(parts)


def _narrowed(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    wanted = NARROW[array.dtype]
    if array.dtype.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        for value in (int(array.min()), int(array.max())):
            if not limits.min <= value <= limits.max:
                raise ArgumentError(
                    f"narrow=True: {value} does not fit {wanted}; turn jax_enable_x64 on, or use map(...)"
                )
    cut = lease(array.shape, wanted)  # at a multiple of 64, so that JAX does not copy it once more
    np.copyto(cut, array, casting="unsafe")
    return cut
