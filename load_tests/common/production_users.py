"""The people of a production run. They had their accounts before the sale: a few dozen accounts are signed in before the clock starts, and
everybody who comes takes one of them, several people sharing one. Somebody signs up afresh now and then.

Every purchase has an idempotency key and is asked for until its outcome is known, so a process may die at any moment and the count is still
exact. An admin restocks what has run out and puts new products on sale. Settings: those of people.py, and from the environment

  DOORBUSTER_ADMIN_PASSWORD   password of the account admin_v4_production, which `setup` has made
"""
from __future__ import annotations

import json
import os
import random
import time
import uuid
from typing import Any

import gevent
from gevent.pool import Pool
from locust import task

import production
import report
import shelf_report
from account import PASSWORD, NotReady, enter, fetch, fetch_token
from people import Answer, Judge, Person, Sale, expect_status, judge_product_fields, judge_stock, run, set_scene
from production import ProductionTally
from shelf import Product

SCENARIO = "v4_production"
ADMIN = f"admin_{SCENARIO}"
EVERYDAY, LIMITED = "Black Friday Everyday", "Black Friday Limited Edition"
ACCOUNTS = 40
ACCOUNTS_AT_ONCE = 4         # signed in side by side: passwords are hashed slowly on purpose
ORDERS_PAGE = 20
TRIES_MAX = 25               # until it is known what became of a purchase or a change
RETRY_PAUSE_S = 0.2
SIGN_UP_ONE_IN = 1000        # of the steps
EVERYDAY_ONE_IN = 2          # of the purchases; the others go to what may run out
DROP_UNITS = (50, 200)
RESTOCK_UNITS = (20, 100)
DROPS_A_RUN = 6

shape: Any = None            # of the run; set by scenario()
tokens: list[str] = []       # of the accounts


def scenario(chosen: Any) -> None:
    """To be called once by a locustfile: the shape that was chosen."""
    global shape
    shape = chosen
    shape.look = lambda: run.tally if run.ready else None
    sale = Sale(preflight, progress, shelf_report.close, production.faults_of, production.summary, production.as_json)
    set_scene(SCENARIO, sale, None, None)  # the shape says how many


# --- before and after ---------------------------------------------------------------------------------------------------------------


def preflight(host: str) -> ProductionTally:
    headers = enter(host)
    tally = ProductionTally(host=host, shape=shape.name, seconds_asked=shape.seconds, kills_expected=shape.kills,
                            store_before=report.ask_store(None).products)
    for line in fetch(f"{host}/api/products", headers=headers):
        if line["name"] in (EVERYDAY, LIMITED):
            stock = fetch(f"{host}/api/products/{line['id']}/stock", headers=headers)["db_stock"]
            tally.products[line["id"]] = Product(line["id"], line["name"], line["price"], 0, {}, stock)
    if len(tally.products) != 2:
        raise NotReady(f'there is no "{EVERYDAY}" and "{LIMITED}". Make them first: setup --scenario {SCENARIO}')
    if not os.environ.get("DOORBUSTER_ADMIN_PASSWORD"):
        raise NotReady("DOORBUSTER_ADMIN_PASSWORD is not set: the admin needs it, the same that setup was given")
    tokens[:] = Pool(ACCOUNTS_AT_ONCE).map(lambda _: enter(host)["Authorization"], range(ACCOUNTS))
    # The accounts were there before the sale, and Locust's clock has run meanwhile.
    tally.started_at = time.monotonic()
    shape.reset_time()
    return tally


def progress(tally: ProductionTally) -> str:
    return f"sold {tally.bought:,}  sold out {tally.refused_sold_out:,}  products {len(tally.products)}  interrupted {tally.interrupted:,}"


class Visitor(Person):
    """Somebody who bears with a process of the server being killed, if that is what this run is about."""
    abstract = True

    def wait_time(self) -> float:
        return random.uniform(*shape.wait)

    def call(self, method: str, path: str, judge: Judge, **arguments: Any) -> Answer:
        return super().call(method, path, bearing(judge), **arguments)


def bearing(judge: Judge) -> Judge:
    def judge_unless_interrupted(answer: Answer) -> str | None:
        tally = run.tally
        if answer.status == 429:
            tally.throttled += 1
            return None
        if tally.kills_expected and answer.status in (0, 503):
            tally.interrupted += 1
            return None
        return judge(answer)
    return judge_unless_interrupted


# --- buyers -------------------------------------------------------------------------------------------------------------------------


class Shopper(Visitor):
    abstract = True

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.orders: list[int] = []
        self.asked = False
        self.open_purchase: tuple[int, str] | None = None  # product and key, until it is known what became of it

    def on_start(self) -> None:
        super().on_start()
        self.headers["Authorization"] = tokens[run.tally.people_started % len(tokens)]
        run.tally.buyers.append(self)
        gevent.sleep(random.uniform(0, shape.wait[1]))  # Locust lets hundreds in at the same instant; people are not that punctual

    @task(60)
    def buy(self) -> None:
        tally = run.tally
        if not self.asked:
            self.asked = True
            tally.people_asked += 1
        if self.open_purchase is None:
            self.open_purchase = (self.choose(), uuid.uuid4().hex)
        product_id, key = self.open_purchase
        for _ in range(TRIES_MAX):
            answer = self.call("POST", "/api/purchases", lambda answer: self.judge_purchase(product_id, answer),
                               body=body_of(product_id), extra={"Idempotency-Key": key})
            if answer.status not in (0, 409, 429, 503):
                self.open_purchase = None
                return
            gevent.sleep(max(RETRY_PAUSE_S, min(answer.retry_after_s, 1.0) if answer.status == 429 else 0.0))

    def choose(self) -> int:
        """Half want what is always there, half the newest: it is the one that everybody talks about."""
        ids = sorted(run.tally.products)
        return ids[0] if random.randrange(EVERYDAY_ONE_IN) else random.choice(ids[-3:])

    def judge_purchase(self, product_id: int, answer: Answer) -> str | None:
        if answer.status == 201:
            return self.judge_order(product_id, answer.body if isinstance(answer.body, dict) else {})
        if answer.is_sold_out():
            run.tally.refused_sold_out += 1
            return None
        if answer.status == 409 and self.open_purchase is not None and run.tally.kills_expected:
            return None  # the client library has asked a second time by itself, and the first is still under way
        return f"purchase: answer {answer.status}" if answer.status else "purchase: no answer"

    def judge_order(self, product_id: int, order: dict[str, Any]) -> str | None:
        tally = run.tally
        if not isinstance(order.get("id"), int) or order.get("product_id") != product_id or order.get("quantity") != 1:
            return "purchase: 201 for something else than was asked for"
        self.orders.append(order["id"])
        tally.note_order(order["id"], self.username)
        tally.note_bought(product_id, time.time())
        if run.acks:
            run.acks.note(order)
        if not isinstance(order.get("remaining_stock"), int) or order["remaining_stock"] < 0:
            tally.oversold += 1
            return "purchase: remaining_stock is missing or negative"
        return None

    def settle_at_the_end(self, host: str) -> None:
        """A person may have been sent home in the middle of a purchase. What is sold out by now was not sold to him."""
        if self.open_purchase is None:
            return
        product_id, key = self.open_purchase
        headers = {"Authorization": self.headers["Authorization"], "Content-Type": "application/json", "Idempotency-Key": key}
        try:
            order = fetch(f"{host}/api/purchases", body_of(product_id).encode(), headers)
        except NotReady as error:
            if "Insufficient stock" in str(error):
                return
            raise
        fault = self.judge_order(product_id, order)
        if fault:
            run.tally.unexpected(fault, json.dumps(order))

    @task(20)
    def look_at_stock(self) -> None:
        product_id = random.choice(list(run.tally.products))
        self.call("GET", f"/api/products/{product_id}/stock", judge_stock_or_gap(product_id), name="/api/products/[id]/stock")

    @task(10)
    def look_at_products(self) -> None:
        expected = set(run.tally.products)
        self.call("GET", "/api/products", lambda answer: judge_products(expected, answer))

    @task(10)
    def look_at_orders(self) -> None:
        self.call("GET", f"/api/purchases/me?limit={ORDERS_PAGE}", judge_orders, name="/api/purchases/me")

    @task
    def sign_up(self) -> None:
        if random.randrange(SIGN_UP_ONE_IN // 100) == 0:  # this task is one of a hundred
            body = {"username": f"late_{uuid.uuid4().hex[:16]}", "password": PASSWORD}
            self.call("POST", "/api/auth/register", judge_sign_up, body=json.dumps(body))


def body_of(product_id: int) -> str:
    return f'{{"product_id": {product_id}, "quantity": 1}}'


def judge_products(expected: set[int], answer: Answer) -> str | None:
    if answer.status != 200 or not isinstance(answer.body, list):
        return "products: not a list"
    seen = {product.get("id"): product for product in answer.body}
    if not seen.keys() >= expected:
        return "products: one that is on sale is missing"
    faults = (judge_product_fields(seen[product_id]) for product_id in expected)
    return next((fault for fault in faults if fault), None)


def judge_stock_or_gap(product_id: int) -> Judge:
    """While Redis is down its figure is not known, and the server says so."""
    judge = judge_stock(product_id)

    def judge_unless_unknown(answer: Answer) -> str | None:
        unknown = isinstance(answer.body, dict) and "redis_stock" in answer.body and answer.body["redis_stock"] is None
        if run.tally.kills_expected and unknown:
            run.tally.interrupted += 1
            return None
        return judge(answer)
    return judge_unless_unknown


def judge_orders(answer: Answer) -> str | None:
    """Others buy with this account too, so what must be in the list is not known here; `verify --acks` looks for every order."""
    return None if answer.status == 200 and isinstance(answer.body, list) else "orders: not a list"


def judge_sign_up(answer: Answer) -> str | None:
    """409: the client library has asked a second time by itself."""
    return None if answer.status == 409 and run.tally.kills_expected else expect_status("register", 201)(answer)


# --- the admin ----------------------------------------------------------------------------------------------------------------------


class Admin(Visitor):
    """Puts products on sale in mid-run, and restocks."""
    abstract = True
    fixed_count = 1

    def on_start(self) -> None:
        super().on_start()
        run.tally.clerks.append(self)
        self.headers.update(fetch_token(run.tally.host, ADMIN, os.environ["DOORBUSTER_ADMIN_PASSWORD"]))
        self.open_restock: tuple[int, int, str] | None = None  # product, units, key
        self.open_drop: tuple[str, int] | None = None          # name, units

    def wait_time(self) -> float:
        return max(0.5, shape.seconds / DROPS_A_RUN / 4)

    @task(1)
    def put_on_sale(self) -> None:
        if self.open_drop is None:
            self.open_drop = (f"Drop {uuid.uuid4().hex[:8]}", random.randint(*DROP_UNITS))
        name, units = self.open_drop
        for _ in range(TRIES_MAX):
            answer = self.call("POST", "/api/products", judge_drop, body=json.dumps({"name": name, "price": 4900, "stock": units}))
            if answer.status == 201:
                return self.note_drop(answer.body, units)
            if answer.status == 409:
                self.find_drop(run.tally.host)
                return None
            gevent.sleep(RETRY_PAUSE_S)

    def note_drop(self, product: dict[str, Any], units: int) -> None:
        self.open_drop = None
        run.tally.note_drop(Product(product["id"], product["name"], product["price"], 0, {}, units))

    def find_drop(self, host: str) -> None:
        """The answer was lost: is it there?"""
        assert self.open_drop is not None
        name, units = self.open_drop
        listed = fetch(f"{host}/api/products", headers={"Authorization": self.headers["Authorization"]})
        found = next((product for product in listed if product["name"] == name), None)
        if found:
            self.note_drop(found, units)

    @task(3)
    def restock(self) -> None:
        if self.open_restock is None:
            ids = sorted(run.tally.products)[1:]
            self.open_restock = (random.choice(ids), random.randint(*RESTOCK_UNITS), uuid.uuid4().hex)
        product_id, units, key = self.open_restock
        for _ in range(TRIES_MAX):
            answer = self.call("POST", f"/api/admin/products/{product_id}/stock", lambda answer: judge_restock(units, answer),
                               name="/api/admin/products/[id]/stock", body=restock_body(units), extra={"Idempotency-Key": key})
            if answer.status == 200:
                self.open_restock = None
                run.tally.note_restocked(product_id, units)
                return
            gevent.sleep(RETRY_PAUSE_S)

    def settle_at_the_end(self, host: str) -> None:
        if self.open_restock:
            product_id, units, key = self.open_restock
            headers = {"Authorization": self.headers["Authorization"], "Content-Type": "application/json", "Idempotency-Key": key}
            fetch(f"{host}/api/admin/products/{product_id}/stock", restock_body(units).encode(), headers)
            run.tally.note_restocked(product_id, units)
        if self.open_drop:
            self.find_drop(host)


def restock_body(units: int) -> str:
    return json.dumps({"delta": units, "reason": "a pallet was found"})


def judge_drop(answer: Answer) -> str | None:
    if answer.status == 409 and run.tally.kills_expected:
        return None  # made by an answer that was lost
    if answer.status != 201 or not isinstance(answer.body, dict):
        return f"new product: answer {answer.status or 'lost'} instead of 201"
    return None if isinstance(answer.body.get("id"), int) else "new product: without an id"


def judge_restock(units: int, answer: Answer) -> str | None:
    if answer.status == 409 and run.tally.kills_expected:
        return None  # the first request with this key is still under way
    if answer.status != 200 or not isinstance(answer.body, dict):
        return f"restock: answer {answer.status or 'lost'} instead of 200"
    return None if answer.body.get("delta") == units else "restock: of something else than was asked for"
