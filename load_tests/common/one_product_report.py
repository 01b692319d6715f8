"""The end of a run in which everyone wants one unit of one product: what the store has sold, against what people were told."""
from __future__ import annotations

from typing import Any

import report
from report import StoreReading
from tally import OneProductTally


def read_store(tally: OneProductTally, acks_path: str | None = None) -> StoreReading:
    reading = report.ask_store(acks_path)
    if reading.checks_total:
        compare(reading, tally)
    return reading


def compare(reading: StoreReading, tally: OneProductTally) -> None:
    product = reading.products.get(tally.product_id)
    if product is None:
        reading.faults.append(f"the store does not know product {tally.product_id}: is DOORBUSTER_DATA this server's data folder?")
        return
    sold = tally.stock_at_start - product["stock"]
    if not tally.bought <= sold <= tally.bought + tally.unanswered:
        without = f", {tally.unanswered} had no answer" if tally.unanswered else ""
        reading.faults.append(f"people were told of {tally.bought} sales{without}; the store has {sold}")
    if product["stock"] < 0:
        reading.faults.append(f"the store's stock is {product['stock']}")
    if product.get("redis_stock") not in (None, product["stock"]):
        reading.faults.append(f"with nobody buying, {tally.other_books}: a stock of {product['redis_stock']}, the store {product['stock']}")


def stock_left(tally: OneProductTally, reading: StoreReading) -> int | None:
    """By the store; None if it was not asked, or does not know the product."""
    return reading.products.get(tally.product_id, {}).get("stock")


def sold_in_run(tally: OneProductTally, reading: StoreReading) -> int | None:
    left = stock_left(tally, reading)
    return None if left is None else tally.stock_at_start - left


def faults_of(tally: OneProductTally, reading: StoreReading) -> list[str]:
    faults = report.faults_of_answers(tally)
    expected = tally.expected_successes()
    if tally.bought > expected or tally.bought + tally.unanswered < expected:
        faults.append(f"{tally.bought} sales, expected {expected}")
    if tally.one_each and tally.people_bought != tally.bought:
        faults.append(f"{tally.bought} units went to {tally.people_bought} people, though everyone may have one")
    return faults + reading.faults


def as_json(scenario: str, tally: OneProductTally, reading: StoreReading, faults: list[str]) -> dict[str, Any]:
    return {
        **report.answers_as_json(scenario, tally, faults),
        "product": tally.product_name,
        "stock_at_start": tally.stock_at_start,
        "expected": tally.expected_successes(),
        "bought": tally.bought,
        "people_bought": tally.people_bought,
        "people_refused": tally.people_refused,
        "refused_sold_out": tally.refused_sold_out,
        "unanswered": tally.unanswered,
        "interrupted": tally.interrupted,
        "store": {
            **report.store_as_json(reading),
            "sold_in_run": sold_in_run(tally, reading),
            "stock": stock_left(tally, reading),
        },
    }


def summary(scenario: str, tally: OneProductTally, reading: StoreReading, faults: list[str]) -> str:
    expected = tally.expected_successes()
    rate = 100.0 * tally.bought / tally.people_asked if tally.people_asked else 0.0
    rate_expected = 100.0 * expected / tally.people_asked if tally.people_asked else 0.0
    lines = [
        "",
        f"--- {scenario}: {tally.people_asked} people, {tally.stock_at_start} units of \"{tally.product_name}\" ---",
        f"  successes             {tally.bought:>8,}    expected {expected:,} = min(stock, people)",
        f"  success rate          {rate:>7.1f}%    expected {rate_expected:.1f}%",
        f"  people who got one    {tally.people_bought:>8,}",
        f"  people told sold out  {tally.people_refused:>8,}    in {tally.refused_sold_out:,} answers, repeats included",
        f"  limit refusals        {tally.refused_limit:>8,}    of those who had one and tried again",
        *report.lines_of_answers(tally),
    ]
    if tally.interrupted:
        lines.append(f"  interrupted           {tally.interrupted:>8,}    answers lost while a server was down, asked again")
    if tally.settled_by_orders or tally.unanswered:
        lines.append(f"  lost answers          {tally.settled_by_orders + tally.unanswered:>8,}"
                     f"    of those, {tally.settled_by_orders} settled by looking at the orders")
    sold, left = sold_in_run(tally, reading), stock_left(tally, reading)
    lines += [
        *report.lines_of_times(tally),
        report.line_of_store(reading, f"{sold or 0:>8,}    sold in this run, {left} left; {reading.checks_total} checks hold"),
        *report.lines_of_verdict(tally, faults),
    ]
    return "\n".join(lines)
