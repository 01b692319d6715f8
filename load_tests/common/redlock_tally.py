"""What a run of the Redlock sale has seen. Plain data, no Locust in here."""
from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tally import OneProductTally


@dataclass
class RedlockTally(OneProductTally):
    """The limited product, of which everyone wants one unit, and the everyday product, which does not run out."""

    host: str = ""
    buyers: list[Any] = field(default_factory=list)   # the people, for open questions at the end
    everyday_id: int = 0
    everyday_stock_at_start: int = 0
    everyday_sold: int = 0
    all_in_at: float = 0.0         # when the last of the people had come in; of the monotonic clock
    longest_pause_s: float = 0.0   # between two everyday sales
    metrics_before: dict[str, float] = field(default_factory=dict)
    metrics_after: dict[str, float] = field(default_factory=dict)
    everyday_sold_at: Counter[int] = field(default_factory=Counter)  # second of the monotonic clock -> everyday sales
    _last_sale_at: float = 0.0

    def note_everyday(self) -> None:
        now = time.monotonic()
        if self.everyday_sold:
            self.longest_pause_s = max(self.longest_pause_s, now - self._last_sale_at)
        self.everyday_sold += 1
        self._last_sale_at = now
        self.everyday_sold_at[int(now)] += 1

    def counted(self, name: str) -> float:
        """How far a counter of the server's has come in this run."""
        return self.metrics_after.get(name, 0.0) - self.metrics_before.get(name, 0.0)
