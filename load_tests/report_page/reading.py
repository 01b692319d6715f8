"""Reads what a run has left in its folder, and makes of it what the page plots: for each plot, series over the seconds since the run began.
No HTML in here; nothing but the standard library."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable

import result_table
import timeline

POINTS_MAX = 300   # of a series: a run of an hour is drawn in steps of 12 s
PRODUCTS_MAX = 12  # with a plot of their own
END_SECONDS = 3    # behind the last line of the run: what was still on its way is in the books only then

# From the bottom of the stack to its top.
KINDS = (timeline.CONFIRMED, timeline.SOLD_OUT, timeline.REFUSED, timeline.CHANGED, timeline.SIGNED_IN, timeline.LOOKED, timeline.UNAVAILABLE)


class NoRun(Exception):
    """The folder does not hold a run; the sentence says what is missing."""


@dataclass
class Series:
    name: str
    style: str                                   # class in the page's style sheet
    points: list[tuple[float, float | None]]     # second, figure; None: not known then
    dashed: bool = False


@dataclass
class Event:
    second: float
    what: str
    number: int = 0


@dataclass
class RunRead:
    run: result_table.Run
    machine: dict[str, str]
    seconds: float
    events: list[Event]
    throughput: list[Series] = field(default_factory=list)
    all_times: list[Series] = field(default_factory=list)
    buying_times: list[Series] = field(default_factory=list)
    users: list[Series] = field(default_factory=list)
    cpu: list[Series] = field(default_factory=list)
    stock: list[tuple[str, list[Series]]] = field(default_factory=list)   # product, its two books
    products_left_out: int = 0


def read(folder: Path) -> RunRead:
    if not (folder / "result.json").exists():
        raise NoRun(f"there is no result.json in {folder}: it is not the folder of a run, or the run did not get to its end")
    run = result_table.read_run(folder)
    lines = run.timeline
    if not lines:
        raise NoRun(f"there is no timeline.jsonl in {folder}, or nothing is in it")
    machine_file = folder / "machine.json"
    machine = json.loads(machine_file.read_text(encoding="utf-8")) if machine_file.exists() else {}
    began = lines[0]["at"] - 1   # a line is about the second before it
    seconds = lines[-1]["at"] - began
    looks = [line for line in run.samples if began <= line["at"] <= lines[-1]["at"] + END_SECONDS]
    samples = [line for line in looks if line["at"] <= lines[-1]["at"] + 0.1]
    found = RunRead(run, machine, seconds, number_events(run.events, began, seconds))
    found.throughput = [Series(kind, style_of(kind), thin(((line["at"] - began, line["kinds"].get(kind, 0)) for line in lines), mean))
                        for kind in KINDS if any(line["kinds"].get(kind) for line in lines)]
    found.all_times, found.buying_times = (times(lines, which, began) for which in ("all", "buying"))
    found.users = [Series("people", "users", thin(((line["at"] - began, line["users"]) for line in lines), mean))]
    found.cpu = [Series(name, who, thin(((line["at"] - began, line["cpu"].get(who, 0.0)) for line in samples), mean))
                 for name, who in (("server", "server"), ("Redis", "redis"), ("PostgreSQL", "postgres"), ("load generator", "load"),
                                   ("everything else", "others"))
                 if any(who in line["cpu"] for line in samples)]
    read_stock(found, looks, began)
    return found


def times(lines: list[dict[str, Any]], which: str, began: float) -> list[Series]:
    return [Series(name, name, thin(((line["at"] - began, line[which][place] if line[which][0] else None) for line in lines), highest))
            for name, place in (("p50", 1), ("p95", 2), ("p99", 3))]


def style_of(kind: str) -> str:
    return kind.replace(" ", "-")


def number_events(events: list[dict[str, Any]], began: float, seconds: float) -> list[Event]:
    inside = [Event(event["at"] - began, event["what"]) for event in events if began <= event["at"] <= began + seconds]
    for number, event in enumerate(inside, 1):
        event.number = number
    return inside


def read_stock(found: RunRead, looks: list[dict[str, Any]], began: float) -> None:
    names: dict[int, str] = {}
    for line in looks:
        names.update({product["id"]: product["name"] for product in line["products"]})
    found.products_left_out = max(0, len(names) - PRODUCTS_MAX)
    for product_id in sorted(names)[:PRODUCTS_MAX]:
        books = {book: thin(((line["at"] - began, figure(line, product_id, book)) for line in looks), last) for book in ("store", "redis")}
        found.stock.append((names[product_id], [Series("store", "store", books["store"]),
                                                Series(found.run.result.get("other_books", "Redis"), "redis", books["redis"], dashed=True)]))


def figure(line: dict[str, Any], product_id: int, book: str) -> float | None:
    return next((product[book] for product in line["products"] if product["id"] == product_id), None)


# --- many seconds in few points -----------------------------------------------------------------------------------------------------


def thin(points: Iterable[tuple[float, float | None]], merge: Callable[[list[float]], float]) -> list[tuple[float, float | None]]:
    points = list(points)
    step = -(-len(points) // POINTS_MAX) or 1
    if step == 1:
        return points
    thinned = []
    for first in range(0, len(points), step):
        group = points[first:first + step]
        known = [value for _, value in group if value is not None]
        thinned.append((group[-1][0], merge(known) if known else None))
    return thinned


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def highest(values: list[float]) -> float:
    return max(values)


def last(values: list[float]) -> float:
    return values[-1]
