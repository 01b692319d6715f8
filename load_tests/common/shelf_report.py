"""The end of a run of several products: exact arithmetic for each, as people were told, held against the store and Redis."""
from __future__ import annotations

from typing import Any

import report
from account import NotReady, enter, fetch
from report import StoreReading
from shelf import Product, ShelfTally

# What `verify` counts and people were told of.
TOLD = ("restocked", "cancelled", "sold")


def close(tally: ShelfTally, acks_path: str | None) -> StoreReading:
    """Nobody asks any more: settles what is open, reads every stock once more, and asks the store."""
    for person in [*tally.buyers, *tally.clerks]:
        try:
            person.settle_at_the_end(tally.host)
        except NotReady as error:
            tally.unexpected("a question that was open at the end could not be settled", f"{person.username}: {error}")
    try:
        headers = enter(tally.host)
        for product in tally.products.values():
            stock = fetch(f"{tally.host}/api/products/{product.id}/stock", headers=headers)
            product.db_stock, product.redis_stock = stock["db_stock"], stock["redis_stock"]
    except NotReady as error:
        tally.unexpected("the stock at the end could not be read", str(error))
    return read_store(tally, acks_path)


def read_store(tally: ShelfTally, acks_path: str | None) -> StoreReading:
    reading = report.ask_store(acks_path)
    if reading.checks_total:
        for product in tally.products.values():
            reading.faults += faults_in_store(tally, product, reading)
    return reading


def in_store(tally: ShelfTally, product: Product, reading: StoreReading) -> dict[str, int] | None:
    """What the store has of this product, and what it counted in this run. None: it was not asked, or does not know it."""
    after, before = reading.products.get(product.id), tally.store_before.get(product.id)
    if after is None or before is None:
        return None
    return {"stock": after["stock"], **{figure: after[figure] - before[figure] for figure in TOLD}}


def faults_in_store(tally: ShelfTally, product: Product, reading: StoreReading) -> list[str]:
    store = in_store(tally, product, reading)
    if store is None:
        return [f"the store does not know \"{product.name}\": is DOORBUSTER_DATA this server's data folder?"]
    told = {"stock": product.expected_stock(), **{figure: getattr(product, figure) for figure in TOLD}}
    faults = [f"\"{product.name}\": {figure} {told[figure]} as people were told, {store[figure]} in the store"
              for figure in told if told[figure] != store[figure]]
    redis_stock = reading.products[product.id].get("redis_stock")
    if not product.components and redis_stock not in (None, product.expected_stock()):
        faults.append(f"\"{product.name}\": with nobody buying, Redis has a stock of {redis_stock}, expected {product.expected_stock()}")
    return faults


def faults_of_product(product: Product) -> list[str]:
    """What the server itself answers after the run. A bundle has no stock of its own."""
    if product.components or product.db_stock == product.redis_stock == product.expected_stock():
        return []
    return [f"\"{product.name}\": opening {product.opening} + restocked {product.restocked} + cancelled {product.cancelled} - sold "
            f"{product.sold} = {product.expected_stock()}, but the store says {product.db_stock} and Redis {product.redis_stock}"]


def faults_of(tally: ShelfTally, reading: StoreReading) -> list[str]:
    faults = report.faults_of_answers(tally)
    for product in tally.products.values():
        faults += faults_of_product(product)
    if tally.carts_sold == 0:
        faults.append("no cart was sold")
    return faults + reading.faults


def as_json(scenario: str, tally: ShelfTally, reading: StoreReading, faults: list[str]) -> dict[str, Any]:
    return {
        **report.answers_as_json(scenario, tally, faults),
        "products": [product_as_json(tally, product, reading) for product in tally.products.values()],
        "carts_sold": tally.carts_sold,
        "carts_refused": tally.carts_refused,
        "singles_sold": tally.singles_sold,
        "singles_refused": tally.singles_refused,
        "half_sold": tally.half_sold,
        "over_limit": tally.over_limit,
        "cancels": tally.cancels,
        "cancels_repeated": tally.cancels_repeated,
        "restocks": tally.restocks,
        "restocks_repeated": tally.restocks_repeated,
        "store": report.store_as_json(reading),
    }


def product_as_json(tally: ShelfTally, product: Product, reading: StoreReading) -> dict[str, Any]:
    faults = faults_of_product(product)
    if reading.checks_total:
        faults += faults_in_store(tally, product, reading)
    return {
        "name": product.name,
        "is_bundle": bool(product.components),
        "opening": product.opening,
        **{figure: getattr(product, figure) for figure in TOLD},
        "expected": product.expected_stock(),
        "stock": product.db_stock,
        "redis_stock": product.redis_stock,
        "store": in_store(tally, product, reading),
        "ok": not faults,
    }


def summary(scenario: str, tally: ShelfTally, reading: StoreReading, faults: list[str]) -> str:
    lines = [
        "",
        f"--- {scenario}: {tally.people_asked} people, {len(tally.plain())} products, {len(tally.bundles())} bundles ---",
        f"  carts                 {tally.carts_sold:>8,}    sold; {tally.carts_refused:,} refused; {tally.half_sold} sold in part",
        f"  single purchases      {tally.singles_sold:>8,}    sold; {tally.singles_refused:,} refused",
        f"  limit refusals        {tally.refused_limit:>8,}    of those who had all they may have",
        f"  orders cancelled      {tally.cancels:>8,}    and asked again {tally.cancels_repeated:,} times",
        f"  restocks              {tally.restocks:>8,}    and asked again {tally.restocks_repeated:,} times",
        *report.lines_of_answers(tally),
    ]
    if tally.settled_by_orders:
        lines.append(f"  lost answers          {tally.settled_by_orders:>8,}    settled by looking at the orders")
    lines += [
        *report.lines_of_times(tally),
        report.line_of_store(reading, f"{len(tally.products):>8,}    products as people were told; {reading.checks_total} checks hold"),
        *report.lines_of_verdict(tally, faults),
    ]
    return "\n".join(lines)
