"""A production run: people with accounts who come and go in a given shape, buy what does not run out and what does, while an admin puts new
products on sale and restocks, and, in some shapes, processes of the server are killed. What it has seen, and how it is judged: each
product to the unit, as in the sale of several products. No Locust in here.
"""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import report
import shelf_report
from report import StoreReading
from shelf import Product, ShelfTally
from tally import Histogram

BEND_P99_MS = 100.0          # a server that answers one in a hundred later than this is over its bend
BEND_GROWTH_MIN = 0.3        # of what more people should have brought more: less than this and it is over too
NEVER_BEFORE = {figure: 0 for figure in shelf_report.TOLD}  # what `verify` would have said of a product that was not there yet


@dataclass
class ProductionTally(ShelfTally):
    shape: str = ""
    seconds_asked: int = 0       # for how long the shape was asked to last
    kills_expected: bool = False # then a lost answer or a 503 is no fault: the same is asked again, with the same key
    drops: int = 0               # products put on sale during the run
    bend: dict[str, Any] | None = None  # of the shape that looks for it
    bought: int = 0
    refused_sold_out: int = 0
    level: Histogram = field(default_factory=Histogram)  # since begin_level()
    sold_at: Counter[int] = field(default_factory=Counter)  # tenth of a second since 1970 -> orders confirmed in it

    def answered(self, name: str, took_ms: float) -> None:
        super().answered(name, took_ms)
        self.level.add(took_ms)

    def begin_level(self) -> None:
        self.level = Histogram()

    def note_drop(self, product: Product) -> None:
        self.drops += 1
        self.products[product.id] = product
        self.store_before[product.id] = NEVER_BEFORE

    def note_bought(self, product_id: int, at: float) -> None:
        self.bought += 1
        self.sold_at[int(at * 10)] += 1
        self.note_sold({product_id: 1})


def why_it_bends(rates: list[tuple[int, float]], p99_ms: float) -> str:
    """`rates`: people and answers a second of each level so far. "": it does not."""
    if p99_ms > BEND_P99_MS:
        return f"p99 over {BEND_P99_MS:.0f} ms"
    if len(rates) >= 2:
        (users_before, rate_before), (users, rate) = rates[-2:]
        if rate / rate_before - 1 < BEND_GROWTH_MIN * (users / users_before - 1):
            return "more people brought hardly more answers"
    return ""


def faults_of(tally: ProductionTally, reading: StoreReading) -> list[str]:
    faults = report.faults_of_answers(tally)
    for product in tally.products.values():
        faults += shelf_report.faults_of_product(product)
    if tally.bought == 0:
        faults.append("nothing was sold")
    return faults + reading.faults


def as_json(scenario: str, tally: ProductionTally, reading: StoreReading, faults: list[str]) -> dict[str, Any]:
    return {
        **report.answers_as_json(scenario, tally, faults),
        "shape": tally.shape,
        "products": [shelf_report.product_as_json(tally, product, reading) for product in tally.products.values()],
        "bought": tally.bought,
        "refused_sold_out": tally.refused_sold_out,
        "restocks": tally.restocks,
        "restocks_repeated": tally.restocks_repeated,
        "drops": tally.drops,
        "interrupted": tally.interrupted,
        "kills_expected": tally.kills_expected,
        "bend": tally.bend,
        "sold_at": tally.sold_at,
        "store": report.store_as_json(reading),
    }


def summary(scenario: str, tally: ProductionTally, reading: StoreReading, faults: list[str]) -> str:
    lines = [
        "",
        f"--- {scenario}, {tally.shape}: {tally.people_asked} people, {len(tally.products)} products ---",
        f"  sold                  {tally.bought:>8,}    and told sold out {tally.refused_sold_out:,} times",
        f"  restocks              {tally.restocks:>8,}    and {tally.drops} products put on sale in mid-run",
        *report.lines_of_answers(tally),
    ]
    if tally.interrupted:
        lines.append(f"  interrupted           {tally.interrupted:>8,}    answers lost or 503 while a process was down, asked again")
    lines += [
        *report.lines_of_times(tally),
        report.line_of_store(reading, f"{len(tally.products):>8,}    products as people were told; {reading.checks_total} checks hold"),
        *report.lines_of_verdict(tally, faults),
    ]
    return "\n".join(lines)
