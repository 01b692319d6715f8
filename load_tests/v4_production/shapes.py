"""How many people are there at which moment: Locust's LoadTestShape, five of them. Each lasts `seconds` in all and never has more than `users`
people; which one is chosen, and both figures, come from the environment (locustfile.py).
"""
from __future__ import annotations

import time
from typing import Any, Callable

from locust import LoadTestShape

from production import why_it_bends

ARRIVALS_PER_SECOND = 500    # at most: so many connections a second the client library opens without falling behind
LEVELS = (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)


class Shape(LoadTestShape):
    """`wait`: how long people wait between two steps, from and to, in seconds."""
    abstract = True
    users_default = 1000
    seconds_default = 60
    wait = (0.4, 1.2)
    kills = False            # scripts/demo.sh then kills Redis and a worker at the top of it

    def __init__(self, users: int = 0, seconds: int = 0) -> None:
        super().__init__()
        self.users = users or self.users_default
        self.seconds = seconds or self.seconds_default
        self.look: Callable[[], Any] = lambda: None  # at the run's tally; None as long as the run is being prepared

    def tick(self) -> tuple[int, float] | None:
        """Locust begins to ask before the run is prepared, and prepares it once more if the answer has changed meanwhile."""
        passed = self.get_run_time() / self.seconds if self.look() else 0.0
        return None if passed >= 1 else (max(self.people(passed), 2), ARRIVALS_PER_SECOND)

    def people(self, passed: float) -> int:
        """`passed`: of the run, from 0 to 1."""
        raise NotImplementedError


class Baseline(Shape):
    """A hundred people all the time: what the others are compared with."""
    users_default = 100

    def people(self, passed: float) -> int:
        return self.users


class Ramp(Shape):
    """From ten people to a thousand in equal steps of a second for two thirds of the time, then all of them."""

    def people(self, passed: float) -> int:
        seconds = int(passed * self.seconds)
        return min(self.users, 10 + int((self.users - 10) * seconds / (self.seconds * 2 / 3)))


class Spike(Shape):
    """Ten, then at once a thousand, then ten again."""
    kills = True

    def people(self, passed: float) -> int:
        return self.users if 0.1 <= passed < 0.85 else 10


class Step(Shape):
    """More and more impatient people, level by level, until it bends: an answer in a hundred is late, or more people bring hardly more answers."""
    users_default = 1600
    wait = (0.1, 0.3)

    def __init__(self, users: int = 0, seconds: int = 0) -> None:
        super().__init__(users, seconds)
        self._level = -1
        self._since: tuple[float, int] = (0.0, 0)
        self._rates: list[tuple[int, float]] = []

    def tick(self) -> tuple[int, float] | None:
        tally = self.look()
        if tally is None:
            return self._people_of(0), ARRIVALS_PER_SECOND  # as in Shape
        level = int(self.get_run_time() / self.seconds * len(LEVELS))
        if level != self._level:
            self._note_end_of_level(tally)
            self._level = level
        return None if level >= len(LEVELS) or tally.bend else (self._people_of(level), ARRIVALS_PER_SECOND)

    def _people_of(self, level: int) -> int:
        return max(2, int(self.users * LEVELS[level]))

    def _note_end_of_level(self, tally: Any) -> None:
        now, count = time.monotonic(), tally.all_requests.count
        began, count_before = self._since
        self._since = (now, count)
        p99_ms = tally.level.percentile_ms(99)
        tally.begin_level()
        if self._level < 0:
            return
        users = self._people_of(self._level)
        self._rates.append((users, (count - count_before) / (now - began)))
        why = why_it_bends(self._rates, p99_ms)
        if why:
            tally.bend = {"users": users, "rate": round(self._rates[-1][1], 1), "p99_ms": round(p99_ms, 2), "why": why}


class Soak(Shape):
    """Three hundred people for ten minutes."""
    users_default = 300
    seconds_default = 600
    kills = True

    def people(self, passed: float) -> int:
        return self.users


SHAPES: dict[str, type[Shape]] = {"baseline": Baseline, "ramp": Ramp, "spike": Spike, "step": Step, "soak": Soak}
