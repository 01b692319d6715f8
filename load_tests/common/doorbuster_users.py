"""The people of a sale of one product, and how its run is judged. Each wants one unit.

A scenario's locustfile derives from DoorbusterUser, sets a wait time, and calls `scenario(...)` with its defaults. Settings: those of
people.py, and from the environment

  DOORBUSTER_PRODUCT   name of the product on sale            default "Black Friday Limited Edition"
"""
from __future__ import annotations

import os
import random
import time
import uuid
from typing import Any

import gevent
from locust import task

import one_product_report as report
from account import NotReady, enter, fetch
from people import Answer, Person, Sale, judge_product_fields, run, set_scene
from tally import OneProductTally

REPEAT_BUYERS_ONE_IN = 10   # of those who have bought, one in ten tries again
ORDERS_MAX = 100            # of a person, in one answer
TRIES_MAX = 40              # until it is known what became of a purchase whose server was killed
RETRY_PAUSE_S = 0.2


def scenario(name: str, users: int, spawn_rate: int) -> None:
    """To be called once by a locustfile: its name, and what holds if the command line says nothing."""
    sale = Sale(preflight, progress, report.read_store, report.faults_of, report.summary, report.as_json)
    set_scene(name, sale, users, spawn_rate)


def preflight(host: str) -> OneProductTally:
    return OneProductTally(**look_for_sale(host, enter(host)))


def look_for_sale(host: str, headers: dict[str, str]) -> dict[str, Any]:
    """Is there a server, and is the product there? Anything else would only show as 300 confused people. What a tally begins with."""
    wanted = os.environ.get("DOORBUSTER_PRODUCT") or "Black Friday Limited Edition"
    product, stock = look_for_product(host, headers, wanted)
    if stock == 0:
        print("NOTE: nothing is left to sell, so everyone should be refused. `setup --reset` fills the shelf again.", flush=True)
    return {"product_id": product["id"], "product_name": wanted, "stock_at_start": stock,
            "one_each": product.get("per_customer_limit", 1) == 1}


def look_for_product(host: str, headers: dict[str, str], wanted: str) -> tuple[dict[str, Any], int]:
    """The product of this name and its stock."""
    product = next((line for line in fetch(f"{host}/api/products", headers=headers) if line["name"] == wanted), None)
    if product is None:
        hint = run.scenario if run.scenario != "custom" else "v1_stress"
        raise NotReady(f'there is no product "{wanted}". Make it first: setup --scenario {hint}')
    return product, fetch(f"{host}/api/products/{product['id']}/stock", headers=headers)["db_stock"]


def progress(tally: OneProductTally) -> str:
    return f"sold {tally.bought}/{tally.stock_at_start}  refused {tally.people_refused}"


class DoorbusterUser(Person):
    abstract = True
    purchase_name = "/api/purchases"  # under which the times of purchases are counted

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.orders: list[int] = []
        self.asked = False
        self.told_sold_out = False
        self.tries_again = False

    # --- the way through the sale -------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        super().on_start()
        self.register()
        self.log_in()
        self.look_at_products()
        self.look_at_stock()

    @task
    def next_step(self) -> None:
        if self.orders or self.told_sold_out:
            self.browse()
        else:
            self.buy()

    def browse(self) -> None:
        """What people do who have their answer: some look, and some do not believe it."""
        step = random.random()
        if step < 0.30:
            self.look_at_products()
        elif step < 0.55:
            self.call("GET", f"/api/products/{run.tally.product_id}", judge_product, name="/api/products/[id]")
        elif step < 0.80:
            self.look_at_stock()
        elif step < 0.90 or not self.may_try_again():
            self.look_at_orders()
        else:
            self.buy()

    def may_try_again(self) -> bool:
        if not self.orders:
            return True  # was told "sold out", and is to be told so again
        # With no limit on the product, a second unit would be theirs by right, as long as there is one.
        return self.tries_again and (run.tally.one_each or run.tally.first_sold_out_at is not None)

    def look_at_products(self) -> None:
        self.call("GET", "/api/products", judge_products)

    def look_at_stock(self) -> None:
        self.look_at_stock_of(run.tally.product_id)

    def look_at_orders(self) -> Answer:
        def judge(answer: Answer) -> str | None:
            if answer.status != 200 or not isinstance(answer.body, list):
                return "orders: not a list"
            seen = {order.get("id") for order in answer.body}
            # A full page may leave out the oldest.
            oldest = min(seen) if len(seen) >= ORDERS_MAX else 0
            if not seen >= {order_id for order_id in self.confirmed_orders() if order_id >= oldest}:
                return "orders: one that was confirmed is missing"
            return None
        return self.call("GET", f"/api/purchases/me?limit={ORDERS_MAX}", judge, name="/api/purchases/me")

    def confirmed_orders(self) -> list[int]:
        return self.orders

    # --- buying -------------------------------------------------------------------------------------------------------------

    def purchase_path(self) -> str:
        return "/api/purchases"

    def buy(self) -> None:
        tally = run.tally
        if not self.asked:
            self.asked = True
            tally.people_asked += 1
        tally.unanswered += 1  # until there is an answer: this person may be stopped at any moment
        answer = self.ask_for_one()
        if answer.status == 0 or (answer.status == 409 and not self.orders):
            # Whether it was sold is open: the connection may have broken after the order was written down, and the client
            # library then asks a second time by itself.
            self.settle_by_orders(answer)
        else:
            tally.unanswered -= 1
        self.pause_if_told(answer)

    def ask_for_one(self) -> Answer:
        """Where servers are killed: with a key, and until it is clear what became of it."""
        extra = {"Idempotency-Key": uuid.uuid4().hex} if run.patient else None
        for _ in range(TRIES_MAX):
            answer = self.call("POST", self.purchase_path(), self.judge_purchase, name=self.purchase_name,
                               body=f'{{"product_id": {run.tally.product_id}, "quantity": 1}}', extra=extra)
            if not (run.patient and answer.is_open()):
                break
            gevent.sleep(RETRY_PAUSE_S)
        return answer

    def judge_purchase(self, answer: Answer) -> str | None:
        tally = run.tally
        if run.patient and answer.is_open():
            tally.interrupted += 1
            return None
        if answer.status == 201:
            return self.judge_sale(answer)
        if answer.is_sold_out():
            tally.refused_sold_out += 1
            if tally.first_sold_out_at is None:
                tally.first_sold_out_at = time.perf_counter()
            if not self.told_sold_out and not self.orders:
                tally.people_refused += 1
            self.told_sold_out = True
            return None
        if answer.status == 409:
            tally.refused_limit += 1 if self.orders else 0
            return None  # for a person without an order, buy() looks into it
        if answer.status == 429:
            tally.throttled += 1
            return None
        return f"purchase: answer {answer.status}" if answer.status else "purchase: no answer"

    def judge_sale(self, answer: Answer) -> str | None:
        tally = run.tally
        had_one = bool(self.orders)
        late = tally.first_sold_out_at is not None and answer.sent_at > tally.first_sold_out_at
        order_id = answer.body.get("id") if isinstance(answer.body, dict) else None
        self.note_purchase(order_id)
        if not isinstance(order_id, int):
            return "purchase: 201 without an order id"
        if run.acks:
            run.acks.note(answer.body)
        if answer.body.get("product_id") != tally.product_id or answer.body.get("quantity") != 1:
            return "purchase: 201 for something else than was asked for"
        remaining = answer.body.get("remaining_stock")
        if not isinstance(remaining, int):
            return "purchase: 201 without remaining_stock"
        if remaining < 0:
            tally.oversold += 1
            return "purchase: remaining_stock is negative"
        if had_one and tally.one_each:
            return "purchase: a second unit for one person"
        if late:
            return "purchase: sold after somebody had been told sold out"
        return None

    def note_purchase(self, order_id: Any) -> None:
        tally = run.tally
        tally.bought += 1
        if not self.orders:
            tally.people_bought += 1
            self.tries_again = tally.people_bought % REPEAT_BUYERS_ONE_IN == 0
            if self.told_sold_out:
                tally.people_refused -= 1
        self.orders.append(order_id)
        if isinstance(order_id, int):
            tally.note_order(order_id, self.username)

    def settle_by_orders(self, lost: Answer) -> None:
        tally = run.tally
        answer = self.look_at_orders()
        if answer.status != 200 or not isinstance(answer.body, list):
            return  # stays unanswered
        tally.unanswered -= 1
        new = [order.get("id") for order in answer.body
               if order.get("product_id") == tally.product_id and order.get("id") not in self.orders]
        for order_id in new:
            tally.settled_by_orders += 1
            self.note_purchase(order_id)
        if not new and lost.status == 409:
            tally.unexpected("purchase: 409 for a person without an order", str(lost))


# --- what the answers must look like ----------------------------------------------------------------------------------------------


def judge_products(answer: Answer) -> str | None:
    if answer.status != 200 or not isinstance(answer.body, list):
        return "products: not a list"
    ours = next((product for product in answer.body if product.get("id") == run.tally.product_id), None)
    return judge_product_fields(ours) if ours else "products: the product on sale is missing"


def judge_product(answer: Answer) -> str | None:
    if answer.status != 200 or not isinstance(answer.body, dict) or answer.body.get("id") != run.tally.product_id:
        return "product: not the one asked for"
    return judge_product_fields(answer.body)
