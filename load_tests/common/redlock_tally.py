"""What a run of the Redlock sale has seen. Plain data, no Locust in here."""
from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from tally import OneProductTally


@dataclass
class RedlockTally(OneProductTally):
    """The limited product, of which everyone wants one unit, and the everyday product, which does not run out."""

    host: str = ""
    everyday_id: int = 0
    everyday_stock_at_start: int = 0
    everyday_sold: int = 0
    everyday_unanswered: int = 0   # purchases whose outcome nobody was told
    longest_pause_s: float = 0.0   # between two everyday sales
    metrics_before: dict[str, float] = field(default_factory=dict)
    metrics_after: dict[str, float] = field(default_factory=dict)
    _last_sale_at: float = 0.0
    _sold_at: Counter[int] = field(default_factory=Counter)  # second of the monotonic clock -> everyday sales

    def note_everyday(self) -> None:
        now = time.monotonic()
        if self.everyday_sold:
            self.longest_pause_s = max(self.longest_pause_s, now - self._last_sale_at)
        self.everyday_sold += 1
        self._last_sale_at = now
        self._sold_at[int(now)] += 1

    def everyday_rate(self, begin: float, end: float) -> float | None:
        """Everyday sales a second, over the whole seconds between two times of the monotonic clock. None: there is no such second."""
        seconds = range(int(begin) + 1, int(end))
        return sum(self._sold_at[second] for second in seconds) / len(seconds) if len(seconds) else None

    def counted(self, name: str) -> float:
        """How far a counter of the server's has come in this run."""
        return self.metrics_after.get(name, 0.0) - self.metrics_before.get(name, 0.0)
