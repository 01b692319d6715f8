"""A run second by second: how many answers of which kind, how long they took, how many people were there. One JSON object a line, for the
report page (../report) and for result_table.py. Plain data, no Locust in here.

A line: {"at": seconds since 1970, "users": N, "kinds": {kind: answers}, "faults": N, "all": figures, "buying": figures,
"buckets": {bucket: answers}}; figures are [answers, p50, p95, p99, max] in milliseconds, buckets those of tally.Histogram.
"""
from __future__ import annotations

import json
from collections import Counter
from typing import Any, TextIO

from tally import Histogram

# What an answer was, for a person who looks at a plot.
CONFIRMED, SOLD_OUT, REFUSED, LOOKED, SIGNED_IN, CHANGED, UNAVAILABLE = (
    "confirmed", "sold out", "refused", "looked", "signed in", "changed", "unavailable")


def kind_of(method: str, path: str, status: int, is_sold_out: bool) -> str:
    if status == 0 or status >= 500:
        return UNAVAILABLE
    if path.startswith("/api/auth/"):
        return SIGNED_IN
    if method == "GET":
        return LOOKED
    if method == "POST" and path.startswith("/api/purchases"):
        return CONFIRMED if status == 201 else SOLD_OUT if is_sold_out else REFUSED
    return CHANGED  # a restock, a new product, a cancelled order


def figures(histogram: Histogram) -> list[float]:
    percentiles = [round(histogram.percentile_ms(percent), 2) for percent in (50, 95, 99)]
    return [histogram.count, *percentiles, round(histogram.max_ms, 2)]


class Timeline:
    """What came since the last line. `out` None: nothing is kept."""

    def __init__(self, out: TextIO | None) -> None:
        self._out = out
        self._begin()

    def _begin(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._all, self._buying = Histogram(), Histogram()

    def note(self, kind: str, took_ms: float) -> None:
        if self._out is None:
            return
        self._kinds[kind] += 1
        self._all.add(took_ms)
        if kind in (CONFIRMED, SOLD_OUT):
            self._buying.add(took_ms)

    def write_line(self, at: float, users: int, faults: int) -> None:
        if self._out is None:
            return
        line: dict[str, Any] = {"at": round(at, 3), "users": users, "kinds": dict(self._kinds), "faults": faults,
                                "all": figures(self._all), "buying": figures(self._buying), "buckets": self._all.buckets()}
        self._out.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._out.flush()
        self._begin()

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None
