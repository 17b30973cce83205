"""How much is measured: the short form, and the whole one."""

from __future__ import annotations

from dataclasses import dataclass

from .contenders import Order
from .workloads import names

ORDERS: tuple[Order, ...] = ("sequential", "shuffled")


@dataclass(frozen=True)
class Form:
    """How much is measured.

    Args:
        workloads: Which.
        share: Of the records.
        rounds: Interleaved repetitions of each figure.
        seconds: Of a pass.
        writes: Repetitions of writing.
        cold: Repetitions with files out of the page cache; 0 for none.
        write_seconds: No writer gets more time than this; who is not finished has fewer records.
        limited_write_seconds: The same where memory is limited, which files that are not whole may fit into.
        cold_seconds: No cold pass takes longer.
        orders: In which records are read.
        spare_nbytes: Memory at hand for each cold pass, beside the page cache: more than most use.
    """

    workloads: tuple[str, ...]
    share: float
    rounds: int
    seconds: float
    writes: int
    cold: int
    write_seconds: float = 60
    limited_write_seconds: float = 180
    cold_seconds: float = 8
    orders: tuple[Order, ...] = ORDERS
    spare_nbytes: int = 1 << 30


#: Five minutes on two slow processors: what comes from memory in a shuffle of records, of records as in the README.
QUICK = Form(("pairs",), share=0.2, rounds=2, seconds=0.3, writes=1, cold=0, write_seconds=4, orders=("shuffled",))
#: Hours.
FULL = Form(tuple(names()), share=1.0, rounds=5, seconds=0.6, writes=5, cold=5, write_seconds=15)
