"""The people of the sale, for every scenario: what they do, what they may be told, and how the run is judged.

A scenario's locustfile derives from DoorbusterUser, sets a wait time, and calls `scenario(...)` with its defaults.

Settings, from the environment:
  DOORBUSTER_PRODUCT   name of the product on sale            default "Black Friday Limited Edition"
  DOORBUSTER_VERIFY    the verify program, or "none"          default build/bin/verify
  DOORBUSTER_DATA      the server's data folder, for verify   default ./data
  DOORBUSTER_RESULT    also write the summary here, as JSON
  DOORBUSTER_PROGRESS  also write a line here every few seconds
  DOORBUSTER_ACKS      keep the list of confirmed orders here, as `verify --acks` reads it; else it lasts as long as the run
"""
from __future__ import annotations

import json
import os
import random
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Any, Callable
from urllib.parse import urlencode

import gevent
from locust import events, task
from locust.contrib.fasthttp import FastHttpUser, LocustUserAgent
from locust.exception import StopUser
from locust.runners import STATE_INIT, STATE_STOPPED, LocalRunner

import report
from acks import Acks
from tally import Tally

PASSWORD = "Black-Friday-1"
SOLD_OUT = "Insufficient stock"
PROGRESS_SECONDS = 5
STOP_SECONDS_MAX = 10       # how long a stopping run waits for answers that are on their way
PREFLIGHT_SECONDS_MAX = 10
THROTTLE_RETRIES_MAX = 30   # a person who is told 429 this often in a row goes home
THROTTLE_PAUSE_S_MAX = 5.0
REPEAT_BUYERS_ONE_IN = 10   # of those who have bought, one in ten tries again

# The client treats these as answers, not as errors: otherwise it drops the connection after each refusal, and the run would
# measure connecting.
LocustUserAgent.valid_response_codes = frozenset(range(200, 600))


@dataclass
class Answer:
    status: int                 # 0: no answer came
    body: Any                   # parsed JSON, or None
    text: str
    retry_after_s: float
    sent_at: float

    def detail(self) -> str:
        return str(self.body.get("detail", "")) if isinstance(self.body, dict) else ""

    def is_sold_out(self) -> bool:
        return self.status == 400 and SOLD_OUT in self.detail()

    def __str__(self) -> str:
        return f"{self.status or 'no answer'} {self.text[:200]}"


# Looks at an answer; a sentence if there is something wrong with it, None if not.
Judge = Callable[[Answer], "str | None"]


class Run:
    """The run that is going on. One at a time, one process: the tally would be split over the workers of a distributed run."""

    def __init__(self) -> None:
        self.scenario = "custom"
        self.tally = Tally()
        self.acks: Acks | None = None  # from the start of a run on
        self.ready = False
        self.judged = True
        self.environment: Any = None


run = Run()


def scenario(name: str, users: int, spawn_rate: int) -> None:
    """To be called once by a locustfile: its name, and what holds if the command line says nothing."""
    run.scenario = name

    @events.init_command_line_parser.add_listener
    def set_defaults(parser: Any, **_: Any) -> None:
        parser.set_defaults(num_users=users, spawn_rate=spawn_rate, host="http://127.0.0.1:8080")


class DoorbusterUser(FastHttpUser):
    abstract = True
    concurrency = 1             # a person has one connection and waits for the answer
    network_timeout = 30.0
    connection_timeout = 30.0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.client.client.cookiejar = None  # there are no cookies; looking for them costs a tenth of the load generator
        self.username = f"buyer_{uuid.uuid4().hex[:16]}"
        self.headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        self.orders: list[int] = []
        self.asked = False
        self.told_sold_out = False
        self.tries_again = False

    # --- the way through the sale -------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        if not run.ready:
            raise StopUser()
        run.tally.people_started += 1
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

    def register(self) -> None:
        body = {"username": self.username, "password": PASSWORD, "email": f"{self.username}@example.com"}
        self.until_not_throttled("POST", "/api/auth/register", expect_status("register", 201), body=json.dumps(body))

    def log_in(self) -> None:
        form = urlencode({"username": self.username, "password": PASSWORD})
        answer = self.until_not_throttled("POST", "/api/auth/login", judge_login, body=form,
                                          content_type="application/x-www-form-urlencoded")
        if answer.status != 200 or not isinstance(answer.body, dict) or "access_token" not in answer.body:
            raise StopUser()  # counted by the judge; there is nothing to do here without a token
        self.headers["Authorization"] = f"Bearer {answer.body['access_token']}"

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
        self.call("GET", f"/api/products/{run.tally.product_id}/stock", judge_stock, name="/api/products/[id]/stock")

    def look_at_orders(self) -> Answer:
        def judge(answer: Answer) -> str | None:
            if answer.status != 200 or not isinstance(answer.body, list):
                return "orders: not a list"
            seen = {order.get("id") for order in answer.body}
            if not seen >= set(self.orders):
                return "orders: one that was confirmed is missing"
            return None
        return self.call("GET", "/api/purchases/me", judge)

    # --- buying -------------------------------------------------------------------------------------------------------------

    def buy(self) -> None:
        tally = run.tally
        if not self.asked:
            self.asked = True
            tally.people_asked += 1
        tally.unanswered += 1  # until there is an answer: this person may be stopped at any moment
        answer = self.call("POST", "/api/purchases", self.judge_purchase,
                           body=f'{{"product_id": {tally.product_id}, "quantity": 1}}')
        if answer.status == 0 or (answer.status == 409 and not self.orders):
            # Whether it was sold is open: the connection may have broken after the order was written down, and the client
            # library then asks a second time by itself.
            self.settle_by_orders(answer)
        else:
            tally.unanswered -= 1
        if answer.status in (429, 503):
            gevent.sleep(min(answer.retry_after_s, THROTTLE_PAUSE_S_MAX))

    def judge_purchase(self, answer: Answer) -> str | None:
        tally = run.tally
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

    # --- one request --------------------------------------------------------------------------------------------------------

    def until_not_throttled(self, method: str, path: str, judge: Judge, **arguments: Any) -> Answer:
        """Registering and logging in are made slow on purpose (password hashing), and the server may ask to wait."""
        def allow_429(answer: Answer) -> str | None:
            if answer.status == 429:
                run.tally.throttled += 1
                return None
            return judge(answer)

        for _ in range(THROTTLE_RETRIES_MAX):
            answer = self.call(method, path, allow_429, **arguments)
            if answer.status != 429:
                return answer
            gevent.sleep(min(answer.retry_after_s, THROTTLE_PAUSE_S_MAX) * random.uniform(0.5, 1.0))
        run.tally.unexpected(f"{path}: told to slow down {THROTTLE_RETRIES_MAX} times in a row", str(answer))
        raise StopUser()

    def call(self, method: str, path: str, judge: Judge, body: str | None = None, name: str | None = None,
             content_type: str | None = None) -> Answer:
        headers = {**self.headers, "Content-Type": content_type} if content_type else self.headers
        name = name or path
        sent_at = time.perf_counter()
        with self.client.request(method, path, name=name, data=body, headers=headers, catch_response=True) as response:
            took_ms = (time.perf_counter() - sent_at) * 1000
            response.request_meta["response_time"] = took_ms  # Locust's own figure is cut off to whole milliseconds
            answer = read_answer(response, sent_at)
            run.tally.answered(name, took_ms)
            fault = judge(answer)
            if fault is None:
                response.success()
            else:
                run.tally.unexpected(fault, f"{method} {path} by {self.username}: {answer}")
                response.failure(fault)
        return answer


def read_answer(response: Any, sent_at: float) -> Answer:
    status = response.status_code
    if status == 0:
        return Answer(0, None, repr(getattr(response, "error", "")), 1.0, sent_at)
    text = response.text or ""
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    retry_after = response.headers.get("Retry-After") if response.headers else None
    return Answer(status, body, text, float(retry_after) if retry_after and retry_after.isdigit() else 1.0, sent_at)


# --- what the answers must look like ----------------------------------------------------------------------------------------------


def expect_status(what: str, status: int) -> Judge:
    def judge(answer: Answer) -> str | None:
        return None if answer.status == status else f"{what}: answer {answer.status or 'lost'} instead of {status}"
    return judge


def judge_login(answer: Answer) -> str | None:
    if answer.status != 200:
        return f"log-in: answer {answer.status or 'lost'} instead of 200"
    if not isinstance(answer.body, dict) or answer.body.get("token_type") != "bearer" or not answer.body.get("access_token"):
        return "log-in: no bearer token"
    return None


def judge_products(answer: Answer) -> str | None:
    if answer.status != 200 or not isinstance(answer.body, list):
        return "products: not a list"
    ours = next((product for product in answer.body if product.get("id") == run.tally.product_id), None)
    return judge_product_fields(ours) if ours else "products: the product on sale is missing"


def judge_product(answer: Answer) -> str | None:
    if answer.status != 200 or not isinstance(answer.body, dict) or answer.body.get("id") != run.tally.product_id:
        return "product: not the one asked for"
    return judge_product_fields(answer.body)


def judge_product_fields(product: dict[str, Any]) -> str | None:
    if not isinstance(product.get("stock"), int):
        return "product: no stock"
    if product["stock"] < 0 or (product.get("redis_stock") or 0) < 0:
        run.tally.oversold += 1
        return "product: stock is negative"
    return None


def judge_stock(answer: Answer) -> str | None:
    tally = run.tally
    if answer.status != 200 or not isinstance(answer.body, dict):
        return f"stock: answer {answer.status or 'lost'} instead of 200"
    in_store, in_redis = answer.body.get("db_stock"), answer.body.get("redis_stock")
    if answer.body.get("product_id") != tally.product_id or not isinstance(in_store, int) or not isinstance(in_redis, int):
        return "stock: figures are missing"
    tally.stock_readings += 1
    tally.last_stock = in_store
    if in_store < 0 or in_redis < 0:
        tally.oversold += 1
        return "stock: negative"
    if in_store != in_redis or answer.body.get("synced") is not True:
        tally.mismatches += 1
        return "stock: Redis and the store differ"
    return None


# --- before the run -----------------------------------------------------------------------------------------------------------------


class NotReady(Exception):
    pass


def fetch(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=PREFLIGHT_SECONDS_MAX) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise NotReady(f"{url} answers {error.code}: {error.read(200).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise NotReady(f"no Doorbuster answers at {url}: {error}. Is the server running? (build/bin/server; --host names it)") from error


def preflight(host: str) -> Tally:
    """Is there a server, and is the product there? Anything else would only show as 300 confused people."""
    fetch(f"{host}/health")
    username = f"watcher_{uuid.uuid4().hex[:16]}"
    as_json = {"Content-Type": "application/json"}
    fetch(f"{host}/api/auth/register", json.dumps({"username": username, "password": PASSWORD}).encode(), as_json)
    login = fetch(f"{host}/api/auth/login", urlencode({"username": username, "password": PASSWORD}).encode())
    headers = {"Authorization": f"Bearer {login['access_token']}"}
    wanted = os.environ.get("DOORBUSTER_PRODUCT") or "Black Friday Limited Edition"
    product = next((line for line in fetch(f"{host}/api/products", headers=headers) if line["name"] == wanted), None)
    if product is None:
        hint = run.scenario if run.scenario != "custom" else "v1_stress"
        raise NotReady(f'there is no product "{wanted}". Make it first: setup --scenario {hint}')
    stock = fetch(f"{host}/api/products/{product['id']}/stock", headers=headers)["db_stock"]
    return Tally(product_id=product["id"], product_name=wanted, stock_at_start=stock,
                 one_each=product.get("per_customer_limit", 1) == 1)


# --- hooks --------------------------------------------------------------------------------------------------------------------------


@events.init.add_listener
def on_init(environment: Any, **_: Any) -> None:
    if not isinstance(environment.runner, LocalRunner):
        raise SystemExit("These scenarios run in one Locust process: their counts would be split over the workers of a distributed run.")
    run.environment = environment
    environment.stop_timeout = environment.stop_timeout or STOP_SECONDS_MAX


def refuse_to_start(environment: Any, why: str) -> None:
    print(f"\nCANNOT START: {why}\n", flush=True)
    environment.process_exit_code = 2
    headless = environment.web_ui is None
    gevent.spawn(environment.runner.quit if headless else environment.runner.stop)


@events.test_start.add_listener
def on_test_start(environment: Any, **_: Any) -> None:
    run.ready = False
    try:
        run.tally = preflight((environment.host or "").rstrip("/"))
    except NotReady as error:
        refuse_to_start(environment, str(error))
        return
    if run.tally.stock_at_start == 0:
        print("NOTE: nothing is left to sell, so everyone should be refused. `setup --reset` fills the shelf again.", flush=True)
    try:
        run.acks = Acks(os.environ.get("DOORBUSTER_ACKS"))
    except OSError as error:
        refuse_to_start(environment, f"cannot write the list of confirmed orders: {error} (DOORBUSTER_ACKS)")
        return
    run.ready = True
    run.judged = False
    if os.environ.get("DOORBUSTER_PROGRESS"):
        gevent.spawn(write_progress, os.environ["DOORBUSTER_PROGRESS"], run.tally)


def write_progress(path: str, tally: Tally) -> None:
    requests_before = 0
    with open(path, "a", encoding="utf-8") as out:
        while not run.judged and run.tally is tally:
            gevent.sleep(PROGRESS_SECONDS)
            if run.judged:
                break
            rate = (tally.all_requests.count - requests_before) / PROGRESS_SECONDS
            requests_before = tally.all_requests.count
            users = run.environment.runner.user_count
            out.write(f"{time.monotonic() - tally.started_at:5.0f} s  {users:>4} users  {rate:>6,.0f} requests/s"
                      f"  sold {tally.bought}/{tally.stock_at_start}  refused {tally.people_refused}"
                      f"  faults {tally.unexpected_total()}\n")
            out.flush()


@events.test_stop.add_listener
def on_test_stop(environment: Any, **_: Any) -> None:
    if run.judged:
        return
    run.judged = True
    reading = report.read_store(run.tally, run.acks.path if run.acks else None)
    if run.acks:
        run.acks.close()
    faults = report.faults_of(run.tally, reading)
    faults += [f"the load test itself stumbled: {error['msg']}" for error in environment.runner.exceptions.values()]
    print(report.summary(run.scenario, run.tally, reading, faults), flush=True)
    if os.environ.get("DOORBUSTER_RESULT"):
        with open(os.environ["DOORBUSTER_RESULT"], "w", encoding="utf-8") as out:
            json.dump(report.as_json(run.scenario, run.tally, reading, faults), out, indent=2)
    if faults:
        environment.process_exit_code = 1


@events.quitting.add_listener
def on_quitting(environment: Any, **_: Any) -> None:
    """Ctrl-C comes here with the people still at it; they must have their answers before anything is compared."""
    if environment.runner.state not in (STATE_INIT, STATE_STOPPED):
        environment.runner.stop()
