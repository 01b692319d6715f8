"""What a run has seen so far: counters, response times, examples of what should not have happened.

Plain data, no Locust in here. Everything is bounded, however long the run: times go into a histogram, of faults a few examples
are kept.
"""
from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field

EXAMPLES_MAX = 5
EXAMPLE_CHARS_MAX = 300


class Histogram:
    """Response times in buckets that are 2 % apart: exact enough for a p99, and of a fixed size. Locust's own figures are whole
    milliseconds, which says little about a server that answers in less than one."""

    _PER_DOUBLING = 35  # 2 ** (1 / 35) = 1.02
    _SMALLEST_MS = 0.01

    def __init__(self) -> None:
        self.count = 0
        self.total_ms = 0.0
        self.max_ms = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, took_ms: float) -> None:
        self.count += 1
        self.total_ms += took_ms
        self.max_ms = max(self.max_ms, took_ms)
        self._buckets[int(math.log2(max(took_ms, self._SMALLEST_MS) / self._SMALLEST_MS) * self._PER_DOUBLING)] += 1

    def buckets(self) -> dict[int, int]:
        return dict(self._buckets)

    def add_buckets(self, buckets: dict[str, int]) -> None:
        """Of another histogram, as JSON has them; the total and the longest are then those of the buckets' edges."""
        for bucket, count in buckets.items():
            edge_ms = self._edge_ms(int(bucket))
            self.count += count
            self.total_ms += edge_ms * count
            self.max_ms = max(self.max_ms, edge_ms)
            self._buckets[int(bucket)] += count

    def _edge_ms(self, bucket: int) -> float:
        return self._SMALLEST_MS * 2 ** ((bucket + 1) / self._PER_DOUBLING)

    def average_ms(self) -> float:
        return self.total_ms / self.count if self.count else 0.0

    def percentile_ms(self, percent: float) -> float:
        """The upper edge of the bucket that holds this percentile, so never too small."""
        wanted = math.ceil(self.count * percent / 100)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(self._edge_ms(bucket), self.max_ms)
        return 0.0

    def figures(self) -> dict[str, float]:
        return {
            "requests": self.count,
            "average_ms": round(self.average_ms(), 3),
            "p50_ms": round(self.percentile_ms(50), 3),
            "p99_ms": round(self.percentile_ms(99), 3),
            "max_ms": round(self.max_ms, 3),
        }


@dataclass
class Tally:
    """One run, whatever is sold. Whoever calls `unexpected` gives the sentence that a person will read at the end."""

    started_at: float = field(default_factory=time.monotonic)
    last_answer_at: float = 0.0
    other_books: str = "Redis"   # who has the other figure of a stock, beside the store

    people_started: int = 0      # users that Locust has started
    people_asked: int = 0        # of those: sent at least one purchase

    refused_limit: int = 0       # answers 409, customer limit
    throttled: int = 0           # answers 429; asked again after a pause
    interrupted: int = 0         # answers that never came, or 503, while a process was down; asked again
    settled_by_orders: int = 0   # purchases whose answer was lost and which were found among the buyer's orders
    oversold: int = 0            # answers with a negative stock
    mismatches: int = 0          # stock answers in which the store and the other books differ
    stock_readings: int = 0

    order_ids: set[int] = field(default_factory=set)
    unexpected_count: Counter[str] = field(default_factory=Counter)   # kind of fault -> how often
    examples: dict[str, list[str]] = field(default_factory=dict)      # kind of fault -> the first few

    all_requests: Histogram = field(default_factory=Histogram)
    by_name: dict[str, Histogram] = field(default_factory=dict)

    def answered(self, name: str, took_ms: float) -> None:
        self.last_answer_at = time.monotonic()
        self.all_requests.add(took_ms)
        self.by_name.setdefault(name, Histogram()).add(took_ms)

    def unexpected(self, kind: str, example: str) -> None:
        self.unexpected_count[kind] += 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < EXAMPLES_MAX:
            kept.append(example[:EXAMPLE_CHARS_MAX])

    def note_order(self, order_id: int, who: str) -> None:
        if order_id in self.order_ids:
            self.unexpected("order id given out twice", f"order {order_id}, the second time to {who}")
        self.order_ids.add(order_id)

    def unexpected_total(self) -> int:
        return sum(self.unexpected_count.values())

    def seconds(self) -> float:
        return max((self.last_answer_at or time.monotonic()) - self.started_at, 0.001)

    def requests_per_second(self) -> float:
        return self.all_requests.count / self.seconds()


@dataclass
class OneProductTally(Tally):
    """A run in which everyone wants one unit of one product."""

    product_id: int = 0
    product_name: str = ""
    one_each: bool = True        # the product is limited to one unit a customer
    stock_at_start: int = 0

    people_bought: int = 0       # of those who asked: hold at least one unit
    people_refused: int = 0      # of those who asked: were told "sold out" without ever having got one

    bought: int = 0              # purchases that were told 201
    refused_sold_out: int = 0    # answers 400 "Insufficient stock"
    unanswered: int = 0          # purchases whose outcome nobody was told
    first_sold_out_at: float | None = None  # when the first "sold out" had arrived

    def expected_successes(self) -> int:
        """Everyone wants one unit, so as many are sold as there are people or units, whichever is less."""
        return min(self.stock_at_start, self.people_asked)
