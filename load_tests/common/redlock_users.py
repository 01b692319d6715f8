"""The people of the Redlock sale. Each wants one unit of the limited product, as in the V1 scenarios; whoever has an answer to that also
buys, now and then, of a product that does not run out. So there are sales before, during and after whatever happens to the lock nodes.

Purchases go to the paths that clients of this gate know. Settings: those of doorbuster_users.py, and from the environment

  DOORBUSTER_PURCHASE_PATHS   comma-separated; default those below. "/api/purchases" lets the same people into a server with another gate
"""
from __future__ import annotations

import json
import os
import random
import time
import urllib.error
import urllib.request
import uuid
from typing import Any

import gevent

import redlock_report as report
from doorbuster_users import DoorbusterUser, look_for_product, look_for_sale
from account import PREFLIGHT_SECONDS_MAX, NotReady, enter, fetch
from people import Answer, Sale, run, set_scene
from redlock_tally import RedlockTally
from report import StoreReading

EVERYDAY = "Black Friday Everyday"
PATHS = ("/api/purchases/redlock",) * 5 + ("/api/purchases/redlock-manual", "/api/purchases/redlock-manual-async",
                                           "/api/purchases/redlock-aioredlock")
EVERYDAY_ONE_IN = 4     # of the steps of a person who has an answer
EVERYDAY_TRIES_MAX = 5  # until it is known what became of a purchase
RETRY_PAUSE_S = 0.2


def scenario(name: str, users: int, spawn_rate: int) -> None:
    """To be called once by a locustfile: its name, and what holds if the command line says nothing."""
    set_scene(name, Sale(preflight, progress, close, report.faults_of, report.summary, report.as_json), users, spawn_rate)


def preflight(host: str) -> RedlockTally:
    headers = enter(host)
    if purchase_paths() == PATHS:
        gate = fetch(f"{host}/health/ready").get("gate")
        if gate != "redlock":
            raise NotReady(f"the server at {host} sells through the gate \"{gate}\"; start it with --gate redlock")
    everyday, stock = look_for_product(host, headers, EVERYDAY)
    return RedlockTally(**look_for_sale(host, headers), host=host, other_books="nodes", everyday_id=everyday["id"],
                        everyday_stock_at_start=stock, metrics_before=fetch_metrics(host))


def purchase_paths() -> tuple[str, ...]:
    chosen = os.environ.get("DOORBUSTER_PURCHASE_PATHS")
    return tuple(chosen.split(",")) if chosen else PATHS


def fetch_metrics(host: str) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"{host}/metrics", timeout=PREFLIGHT_SECONDS_MAX) as response:
            lines = response.read().decode().splitlines()
    except (OSError, urllib.error.HTTPError) as error:
        raise NotReady(f"{host}/metrics: {error}") from error
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def progress(tally: RedlockTally) -> str:
    return (f"sold {tally.bought}/{tally.stock_at_start}  refused {tally.people_refused}"
            f"  everyday {tally.everyday_sold:,}")


def close(tally: RedlockTally, acks_path: str | None) -> StoreReading:
    """Nobody asks any more: settles what is open, and asks the store."""
    for person in tally.buyers:
        try:
            person.settle_at_the_end(tally.host)
        except NotReady as error:
            tally.unexpected("a purchase that was open at the end could not be settled", f"{person.username}: {error}")
    try:
        tally.metrics_after = fetch_metrics(tally.host)
    except NotReady as error:
        tally.unexpected("the counters at the end could not be read", str(error))
    return report.read_store(tally, acks_path)


class RedlockUser(DoorbusterUser):
    abstract = True
    purchase_name = "/api/purchases/redlock*"

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.everyday_orders: list[int] = []
        self.open_key: str | None = None  # of the everyday purchase of which it is not known what became of it

    def on_start(self) -> None:
        run.tally.buyers.append(self)
        super().on_start()
        run.tally.all_in_at = time.monotonic()

    def purchase_path(self) -> str:
        return random.choice(purchase_paths())

    def confirmed_orders(self) -> list[int]:
        return self.orders + self.everyday_orders

    def browse(self) -> None:
        if random.randrange(EVERYDAY_ONE_IN) == 0:
            self.buy_everyday()
        else:
            super().browse()

    def look_at_stock(self) -> None:
        self.look_at_stock_of(random.choice((run.tally.product_id, run.tally.everyday_id)))

    def buy_everyday(self) -> None:
        """Asks until the answer is clear: with a key that is safe, and so it is that the client library asks twice by itself."""
        self.open_key = self.open_key or uuid.uuid4().hex
        for _ in range(EVERYDAY_TRIES_MAX):
            answer = self.call("POST", self.purchase_path(), self.judge_everyday, name=self.purchase_name,
                               body=everyday_body(), extra={"Idempotency-Key": self.open_key})
            if answer.status == 201:
                self.open_key = None
                return
            self.pause_if_told(answer)
            gevent.sleep(RETRY_PAUSE_S)

    def settle_at_the_end(self, host: str) -> None:
        """A person may have been sent home in the middle of a purchase."""
        if self.open_key:
            headers = {"Authorization": self.headers["Authorization"], "Content-Type": "application/json",
                       "Idempotency-Key": self.open_key}
            order = fetch(host + self.purchase_path(), everyday_body().encode(), headers)
            fault = self.judge_everyday_order(order)
            if fault:
                run.tally.unexpected(fault, json.dumps(order))

    def judge_everyday(self, answer: Answer) -> str | None:
        tally = run.tally
        if answer.status == 429:
            tally.throttled += 1
            return None
        if answer.status != 201:
            return f"everyday purchase: answer {answer.status}" if answer.status else "everyday purchase: no answer"
        return self.judge_everyday_order(answer.body if isinstance(answer.body, dict) else {})

    def judge_everyday_order(self, order: dict[str, Any]) -> str | None:
        tally = run.tally
        if not isinstance(order.get("id"), int) or order.get("product_id") != tally.everyday_id or order.get("quantity") != 1:
            return "everyday purchase: 201 for something else than was asked for"
        self.everyday_orders.append(order["id"])
        tally.note_order(order["id"], self.username)
        tally.note_everyday()
        if run.acks:
            run.acks.note(order)
        if not isinstance(order.get("remaining_stock"), int) or order["remaining_stock"] < 0:
            tally.oversold += 1
            return "everyday purchase: remaining_stock is missing or negative"
        return None


def everyday_body() -> str:
    return f'{{"product_id": {run.tally.everyday_id}, "quantity": 1}}'
