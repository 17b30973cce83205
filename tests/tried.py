"""What tests that take chances have tried, which the end of a run tells."""

from __future__ import annotations

from collections import Counter

TRIED: Counter[str] = Counter()
