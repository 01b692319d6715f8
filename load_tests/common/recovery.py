"""How long it took, after a process was killed, until people could buy again: from the sales that they were told of, tenth by tenth of a second.
Pure arithmetic, no I/O.

Recovered is the first moment from which on the next 0.3 s and the next whole second both have 90 % of the sales that there were in the two seconds
before the kill, or, where those came unevenly, what they had at their weakest, but never less than half: the stream is back, and stays. A kill that nobody
noticed took 0 s."""
from __future__ import annotations

import math
from typing import Any

BEFORE_TENTHS = 20            # what "before" is
WINDOWS_TENTHS = (3, 10)
ENOUGH = 0.9
BURST = 1.5                   # times the rate before: more in a tenth of a second is what was put off, made good at once, and does not count
AT_LEAST = 0.5


def recovery_seconds(sold_at: dict[int, int], killed_at: float) -> float | None:
    """`sold_at`: tenth of a second since 1970 -> sales. None: it never was as before, or nothing was sold before."""
    killed = int(killed_at * 10)
    rate = sales(sold_at, killed - BEFORE_TENTHS, BEFORE_TENTHS) / BEFORE_TENTHS
    if rate == 0:
        return None
    capped = {tenth: min(count, math.ceil(rate * BURST)) for tenth, count in sold_at.items()}
    enough = {length: enough_sales(capped, killed, length, rate) for length in WINDOWS_TENTHS}
    for tenth in range(killed, max(sold_at) - max(WINDOWS_TENTHS) + 2):
        if all(sales(capped, tenth, length) >= enough[length] for length in WINDOWS_TENTHS):
            return max(0.0, tenth / 10 - killed_at)
    return None


def sales(sold_at: dict[int, int], first: int, length: int) -> int:
    return sum(sold_at.get(tenth, 0) for tenth in range(first, first + length))


def enough_sales(sold_at: dict[int, int], killed: int, length: int, rate: float) -> float:
    weakest = min(sales(sold_at, first, length) for first in range(killed - BEFORE_TENTHS, killed - length + 1))
    return max(min(rate * length * ENOUGH, weakest), rate * length * AT_LEAST)


def recoveries(sold_at: dict[str, int], events: list[dict[str, Any]]) -> list[tuple[str, float, float | None]]:
    """For each kill: what, when, how long."""
    tenths = {int(tenth): count for tenth, count in sold_at.items()}
    return [(event["what"], event["at"], recovery_seconds(tenths, event["at"])) for event in events if event["what"].endswith(" killed")]
