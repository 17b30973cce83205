"""What an order costs a record, and how much memory it takes. `python -m benchmarks.orders`."""

from __future__ import annotations

import resource
import statistics
import time

from hypersequence.order import Order, Shuffled, Windowed

from .measure import row

CHUNK = 1 << 16
WINDOW_NBYTES = 512 << 20
#: Record bytes, and records of a block of some 8 MiB with batches of 32.
BLOCKS = {"1 KiB": (1028, 8128), "16 KiB": (16388, 480), "600 KiB": (602116, 32)}


def nanoseconds(order: Order) -> float:
    """A record, in chunks in a row at five places: median of the places, each with all it has to set up."""
    n_chunks = max(1, order.n // CHUNK)
    costs = []
    for place in range(5):
        first = min(n_chunks * place // 5, max(0, n_chunks - 4))
        stop = min(order.n, (first + 4) * CHUNK)
        begun = time.perf_counter()
        for start in range(first * CHUNK, stop, CHUNK):
            order.span(start, min(start + CHUNK, stop))
        costs.append((time.perf_counter() - begun) / (stop - first * CHUNK))
    return statistics.median(costs) * 1e9


def main() -> None:
    print("Nanoseconds a record, in chunks of 65,536\n")
    row("records", "all records", *(f"windows, {name}" for name in BLOCKS))
    for n in (10**5, 10**6, 10**7, 10**8, 10**9, 10**10):
        orders: list[Order] = [Shuffled(n, seed=1)]
        orders += [Windowed.of_nbytes(n, block, size, WINDOW_NBYTES, seed=1) for size, block in BLOCKS.values()]
        row(f"{n:,}", *(f"{nanoseconds(order):.0f}" for order in orders))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\nPeak memory of the whole process, NumPy and all: {before / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
