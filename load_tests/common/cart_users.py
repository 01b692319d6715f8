"""The people of a sale of several products: buyers who fill carts, take bundles and cancel, and a clerk who restocks.

A scenario's locustfile derives from CartBuyer and Clerk, sets wait times, and calls `scenario(...)` with its defaults. Settings: those
of people.py, and from the environment

  DOORBUSTER_ADMIN_PASSWORD   password of the account admin_<scenario>, which `setup` has made; the clerk needs it
"""
from __future__ import annotations

import json
import os
import random
import re
import uuid
from dataclasses import dataclass
from typing import Any

import gevent
from locust import task

import report
import shelf_report
from account import NotReady, enter, fetch, fetch_token
from people import Answer, Person, Sale, judge_product_fields, run, set_scene
from shelf import Lines, Product, ShelfTally

OURS = re.compile(r"V2 (Product|Bundle) \d+")  # names of what is on the shelf; what `setup --reset` has retired is called otherwise
ORDERS_MAX = 100              # of a person, in one answer
CART_PRODUCTS = (2, 3)
TWO_UNITS_ONE_IN = 5          # lines of two units instead of one
SPLIT_LINES_ONE_IN = 4        # of these: asked for as two lines of one unit, which the server is to add up
BUNDLE_IN_CART_ONE_IN = 8     # carts with a bundle in them
WANTS_TOO_MANY_ONE_IN = 10    # people who have all they may have of a product, and put it into the cart again
RESTOCK_UNITS = (5, 20)
RESTOCK_REPEATED_ONE_IN = 4
RESTOCK_TRIES_MAX = 5         # until the clerk has had an answer


def scenario(name: str, users: int, spawn_rate: int) -> None:
    """To be called once by a locustfile: its name, and what holds if the command line says nothing."""
    sale = Sale(preflight, progress, shelf_report.close, shelf_report.faults_of, shelf_report.summary, shelf_report.as_json)
    set_scene(name, sale, users, spawn_rate)


# --- the sale -----------------------------------------------------------------------------------------------------------------------


def preflight(host: str) -> ShelfTally:
    """Is there a server, are the products there, may the clerk come in?"""
    headers = enter(host)
    fetch_token(host, *clerk_account())
    tally = ShelfTally(host=host, store_before=report.ask_store(None).products)
    for line in fetch(f"{host}/api/products", headers=headers):
        if OURS.fullmatch(line["name"]):
            stock = fetch(f"{host}/api/products/{line['id']}/stock", headers=headers)["db_stock"]
            tally.products[line["id"]] = product_of(line, stock)
    if sum(not product.limit for product in tally.plain()) < CART_PRODUCTS[-1] or not tally.bundles():
        raise NotReady(f'there are no {CART_PRODUCTS[-1]} products "V2 Product …" without a limit, and a "V2 Bundle …". Make them '
                       f"first: setup --scenario {run.scenario}")
    return tally


def clerk_account() -> tuple[str, str]:
    password = os.environ.get("DOORBUSTER_ADMIN_PASSWORD")
    if not password:
        raise NotReady("DOORBUSTER_ADMIN_PASSWORD is not set: the clerk who restocks needs it, the same that setup was given")
    return f"admin_{run.scenario}", password


def product_of(line: dict[str, Any], stock: int) -> Product:
    components = {part["product_id"]: part["quantity"] for part in line.get("components") or []}
    return Product(line["id"], line["name"], line["price"], line.get("per_customer_limit") or 0, components, stock)


def progress(tally: ShelfTally) -> str:
    return (f"carts {tally.carts_sold:,} sold, {tally.carts_refused:,} refused  cancels {tally.cancels:,}"
            f"  restocks {tally.restocks:,}")


# --- buyers -------------------------------------------------------------------------------------------------------------------------


@dataclass
class Order:
    lines: Lines
    cancelled_at: str | None = None


class CartBuyer(Person):
    abstract = True
    concurrency = 2  # one for whoever cancels from two places at once

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.orders: dict[int, Order] = {}
        self.open_questions = 0  # requests of which it is not known what became of them
        self.asked = False

    def on_start(self) -> None:
        super().on_start()
        run.tally.buyers.append(self)
        self.register()
        self.log_in()
        self.look_at_products()

    # --- looking ----------------------------------------------------------------------------------------------------------------

    @task(2)
    def look_at_products(self) -> None:
        self.call("GET", "/api/products", judge_products)

    @task(3)
    def look_at_stock(self) -> None:
        self.look_at_stock_of(random.choice(run.tally.plain()).id)

    @task(1)
    def look_at_orders(self) -> Answer:
        return self.call("GET", f"/api/purchases/me?limit={ORDERS_MAX}", self.judge_orders, name="/api/purchases/me")

    def judge_orders(self, answer: Answer) -> str | None:
        if answer.status != 200 or not isinstance(answer.body, list):
            return "orders: not a list"
        seen = {order.get("id"): order for order in answer.body}
        # A full page may leave out the oldest.
        oldest = min(seen) if len(seen) >= ORDERS_MAX else 0
        if any(order_id not in seen for order_id in self.orders if order_id >= oldest):
            return "orders: one that was confirmed is missing"
        if self.open_questions:
            return None
        for order_id, order in seen.items():
            known = self.orders.get(order_id)
            if known is None:
                return "orders: one that nobody was told of"
            if lines_of(order) != known.lines:
                return "orders: one with other lines than were confirmed"
            if order.get("cancelled_at") != known.cancelled_at:
                return "orders: one is cancelled and should not be, or the other way round"
        return None

    # --- buying -----------------------------------------------------------------------------------------------------------------

    @task(9)
    def buy_cart(self) -> None:
        tally = run.tally
        wanted = random.sample([product for product in tally.plain() if self.wants(product)], k=random.choice(CART_PRODUCTS))
        if one_in(BUNDLE_IN_CART_ONE_IN):
            wanted[-1] = random.choice(tally.bundles())
            random.shuffle(wanted)
        self.buy({product.id: 2 if one_in(TWO_UNITS_ONE_IN) else 1 for product in wanted})

    @task(2)
    def buy_one(self) -> None:
        self.buy({random.choice([product for product in run.tally.plain() if self.wants(product)]).id: 1})

    @task(1)
    def buy_bundle(self) -> None:
        self.buy({random.choice(run.tally.bundles()).id: 1})

    def wants(self, product: Product) -> bool:
        return not product.limit or self.held(product.id) < product.limit or one_in(WANTS_TOO_MANY_ONE_IN)

    def held(self, product_id: int) -> int:
        return sum(run.tally.units(order.lines)[product_id] for order in self.orders.values() if not order.cancelled_at)

    def exceeds_limit(self, lines: Lines) -> bool:
        """Would this person, with these lines too, have more of a product than allowed?"""
        units = run.tally.units(lines)
        return any(product.limit and units[product.id] and self.held(product.id) + units[product.id] > product.limit
                   for product in run.tally.products.values())

    def buy(self, lines: Lines) -> None:
        tally = run.tally
        if not self.asked:
            self.asked = True
            tally.people_asked += 1
        self.open_questions += 1  # until there is an answer: this person may be stopped at any moment
        # With a key it is safe that the client library asks a second time by itself when a connection breaks.
        answer = self.call("POST", "/api/purchases", lambda answer: self.judge_purchase(lines, answer), body=json.dumps(body_of(lines)),
                           name="/api/purchases (cart)" if len(lines) > 1 else None, extra={"Idempotency-Key": uuid.uuid4().hex})
        # A 409 for another reason than the limit: the client library may have asked while its first request was still running.
        if is_clear(answer) and (answer.status != 409 or self.exceeds_limit(lines)):
            self.open_questions -= 1
        else:
            self.settle()
        self.pause_if_told(answer)

    def judge_purchase(self, lines: Lines, answer: Answer) -> str | None:
        tally = run.tally
        if answer.status == 201:
            return self.judge_sale(lines, answer.body)
        if answer.is_sold_out():
            if len(lines) > 1:
                tally.carts_refused += 1
            else:
                tally.singles_refused += 1
            return judge_shortages(lines, answer.body)
        if answer.status == 409 and self.exceeds_limit(lines):
            tally.refused_limit += 1
            return None
        if answer.status == 429:
            tally.throttled += 1
            return None
        return f"purchase: answer {answer.status}" if answer.status else "purchase: no answer"

    def judge_sale(self, lines: Lines, order: Any) -> str | None:
        tally = run.tally
        told = lines_of(order)
        if told is None or not isinstance(order.get("id"), int):
            return "purchase: 201 for an order that cannot be read"
        too_many = self.exceeds_limit(told)
        self.note_order(order["id"], told)
        if run.acks:
            run.acks.note(order)
        if told != lines:
            tally.half_sold += 1
            return "purchase: 201 for other lines than were asked for"
        if too_many:
            tally.over_limit += 1
            return "purchase: more units for one person than the product's limit"
        return judge_figures(lines, order)

    def note_order(self, order_id: int, lines: Lines) -> None:
        run.tally.note_order(order_id, self.username)
        run.tally.note_sold(lines)
        self.orders[order_id] = Order(lines)

    # --- cancelling -------------------------------------------------------------------------------------------------------------

    @task(1)
    def cancel_one(self) -> None:
        live = [order_id for order_id, order in self.orders.items() if not order.cancelled_at]
        if not live:
            self.look_at_orders()
            return
        order_id = random.choice(live)
        self.open_questions += 1
        if all(is_clear(answer) for answer in self.cancel_somehow(order_id)):
            self.open_questions -= 1
        else:
            self.settle()

    def cancel_somehow(self, order_id: int) -> list[Answer]:
        """Most people ask once; some ask again, and some press the button in two places at once."""
        manner = random.random()
        if manner < 0.6:
            return [self.cancel(order_id)]
        if manner < 0.8:
            return [self.cancel(order_id), self.cancel(order_id)]
        places = [gevent.spawn(self.cancel, order_id) for _ in range(2)]
        gevent.joinall(places)
        return [place.get() for place in places]

    def cancel(self, order_id: int) -> Answer:
        return self.call("DELETE", f"/api/purchases/{order_id}", lambda answer: self.judge_cancel(order_id, answer),
                         name="/api/purchases/[id]")

    def judge_cancel(self, order_id: int, answer: Answer) -> str | None:
        order = self.orders[order_id]
        if answer.status == 429:
            run.tally.throttled += 1
            return None
        if answer.status != 200 or not isinstance(answer.body, dict):
            return f"cancel: answer {answer.status or 'lost'} instead of 200"
        cancelled_at = answer.body.get("cancelled_at")
        if answer.body.get("id") != order_id or lines_of(answer.body) != order.lines or not isinstance(cancelled_at, str):
            return "cancel: not the order that was cancelled"
        if not order.cancelled_at:
            self.note_cancelled(order, cancelled_at)
            return None
        run.tally.cancels_repeated += 1
        return None if order.cancelled_at == cancelled_at else "cancel: the second answer has another time than the first"

    def note_cancelled(self, order: Order, cancelled_at: str) -> None:
        order.cancelled_at = cancelled_at
        run.tally.note_cancelled(order.lines)

    # --- answers that were lost ---------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """What became of the last request is open: the orders tell. Stays on the list for the end, when nothing is on its way any more."""
        answer = self.look_at_orders()
        if answer.status == 200 and isinstance(answer.body, list):
            self.learn(answer.body)

    def settle_at_the_end(self, host: str) -> None:
        if self.open_questions and "Authorization" in self.headers:
            headers = {"Authorization": self.headers["Authorization"]}
            self.learn(fetch(f"{host}/api/purchases/me?limit={ORDERS_MAX}", headers=headers))

    def learn(self, orders: list[dict[str, Any]]) -> None:
        for order in orders:
            lines = lines_of(order)
            if lines is None:
                run.tally.unexpected("orders: one that cannot be read", json.dumps(order))
                continue
            if order["id"] not in self.orders:
                run.tally.settled_by_orders += 1
                self.note_order(order["id"], lines)
            known = self.orders[order["id"]]
            if order.get("cancelled_at") and not known.cancelled_at:
                run.tally.settled_by_orders += 1
                self.note_cancelled(known, order["cancelled_at"])


# --- the clerk ----------------------------------------------------------------------------------------------------------------------


@dataclass
class Restock:
    product_id: int
    delta: int
    key: str
    answer: dict[str, Any] | None = None  # the first that came

    def path(self) -> str:
        return f"/api/admin/products/{self.product_id}/stock"

    def body(self) -> str:
        return json.dumps({"delta": self.delta, "reason": "a pallet was found"})


class Clerk(Person):
    """Brings units now and then, and asks some of it twice with the same key: they must be counted once."""
    abstract = True
    fixed_count = 1

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.restocking: Restock | None = None  # until it was answered

    def on_start(self) -> None:
        super().on_start()
        run.tally.clerks.append(self)
        self.username, self.password = clerk_account()
        self.log_in()

    @task
    def restock(self) -> None:
        restock = self.restocking or Restock(random.choice(run.tally.plain()).id, random.randint(*RESTOCK_UNITS), uuid.uuid4().hex)
        self.restocking = restock
        for _ in range(RESTOCK_TRIES_MAX):
            self.pause_if_told(self.ask(restock))
            if restock.answer is not None:
                self.restocking = None
                break
        if one_in(RESTOCK_REPEATED_ONE_IN):
            self.ask(restock)

    def ask(self, restock: Restock) -> Answer:
        return self.call("POST", restock.path(), lambda answer: judge_restock(restock, answer), body=restock.body(),
                         name="/api/admin/products/[id]/stock", extra={"Idempotency-Key": restock.key})

    def settle_at_the_end(self, host: str) -> None:
        if self.restocking:
            headers = {"Authorization": self.headers["Authorization"], "Content-Type": "application/json",
                       "Idempotency-Key": self.restocking.key}
            told = fetch(host + self.restocking.path(), self.restocking.body().encode(), headers)
            fault = judge_restock_figures(self.restocking, told)
            if fault:
                run.tally.unexpected(fault, json.dumps(told))


# --- what is asked for, and what the answers must look like -------------------------------------------------------------------------


def one_in(count: int) -> bool:
    return random.randrange(count) == 0


def is_clear(answer: Answer) -> bool:
    """Does this answer say what became of the request?"""
    return 0 < answer.status < 500


def body_of(lines: Lines) -> dict[str, Any]:
    if len(lines) == 1:
        product_id, quantity = next(iter(lines.items()))
        return {"product_id": product_id, "quantity": quantity}
    items = []
    for product_id, quantity in lines.items():
        split = quantity == 2 and one_in(SPLIT_LINES_ONE_IN)
        items += [{"product_id": product_id, "quantity": quantity // 2 if split else quantity}] * (2 if split else 1)
    return {"items": items}


def lines_of(order: Any) -> Lines | None:
    """What an order in an answer is about; None if that cannot be read, or it is about something that is not on the shelf."""
    if not isinstance(order, dict):
        return None
    items = order.get("items", [order])
    lines = {item.get("product_id"): item.get("quantity") for item in items}
    if len(lines) != len(items) or not all(isinstance(quantity, int) for quantity in lines.values()):
        return None
    return lines if lines and lines.keys() <= run.tally.products.keys() else None


def judge_figures(lines: Lines, order: dict[str, Any]) -> str | None:
    """Prices and what remains, of a 201 whose lines are right."""
    for item in order.get("items", [order]):
        remaining = item.get("remaining_stock")
        if not isinstance(remaining, int):
            return "purchase: 201 without remaining_stock"
        if remaining < 0:
            run.tally.oversold += 1
            return "purchase: remaining_stock is negative"
        if "items" in order and item.get("unit_price") != run.tally.products[item["product_id"]].price:
            return "purchase: another price than the product's"
    return None if order.get("total_price") == run.tally.price(lines) else "purchase: total_price is not the sum of the lines"


def judge_shortages(lines: Lines, problem: dict[str, Any]) -> str | None:
    """Nobody may be told "sold out" of something that there was enough of."""
    shortages = [problem]
    if len(lines) > 1:
        if not isinstance(problem.get("shortages"), list) or not problem["shortages"]:
            return "sold out: a cart without shortages"
        shortages += problem["shortages"]
    may_be_short = run.tally.units(lines)
    for shortage in shortages:
        requested, available = shortage.get("requested"), shortage.get("available")
        if shortage.get("product_id") not in may_be_short or not isinstance(requested, int) or not isinstance(available, int):
            return "sold out: it does not say of what"
        if not 0 <= available < requested:
            return "sold out: though there was enough"
    return None


def judge_products(answer: Answer) -> str | None:
    if answer.status != 200 or not isinstance(answer.body, list):
        return "products: not a list"
    seen = {product.get("id"): product for product in answer.body}
    if not seen.keys() >= run.tally.products.keys():
        return "products: one that is on sale is missing"
    faults = (judge_product_fields(seen[product_id]) for product_id in run.tally.products)
    return next((fault for fault in faults if fault), None)


def judge_restock(restock: Restock, answer: Answer) -> str | None:
    if answer.status == 429:
        run.tally.throttled += 1
        return None
    if answer.status != 200 or not isinstance(answer.body, dict):
        return f"restock: answer {answer.status or 'lost'} instead of 200"
    return judge_restock_figures(restock, answer.body)


def judge_restock_figures(restock: Restock, told: dict[str, Any]) -> str | None:
    if restock.answer is not None:
        run.tally.restocks_repeated += 1
        return None if told == restock.answer else "restock: the second answer differs from the first"
    if told.get("product_id") != restock.product_id or told.get("delta") != restock.delta:
        return "restock: of something else than was asked for"
    restock.answer = told
    run.tally.note_restocked(restock.product_id, restock.delta)
    if not isinstance(told.get("stock"), int) or told["stock"] < 0:
        return "restock: without the stock afterwards"
    return None
