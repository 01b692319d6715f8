"""What all people of all sales have in common: they sign in, send requests, look at the answers; and how a run begins and ends.

A scenario says what is on sale and how the run is judged (class Sale) and what its people do (classes derived from Person).

Settings, from the environment:
  DOORBUSTER_VERIFY    the verify program, or "none"          default build/bin/verify
  DOORBUSTER_DATA      the server's data folder, for verify   default ./data
  DOORBUSTER_RESULT    also write the summary here, as JSON
  DOORBUSTER_PROGRESS  also write a line here every few seconds
  DOORBUSTER_TIMELINE  also write a line of figures here every second, as JSON (timeline.py), for the report page
  DOORBUSTER_KILLS     not empty: servers are killed during this run, and whoever got no answer asks again
  DOORBUSTER_ACKS      keep the list of confirmed orders here, as `verify --acks` reads it; else it lasts as long as the run
"""
from __future__ import annotations

import json
import os
import random
import time
import uuid
from dataclasses import dataclass
from typing import Any, Callable
from urllib.parse import urlencode

import gevent
from locust import events
from locust.contrib.fasthttp import FastHttpUser, LocustUserAgent
from locust.exception import StopUser
from locust.runners import STATE_INIT, STATE_STOPPED, LocalRunner

from account import PASSWORD, NotReady
from acks import Acks
from report import StoreReading
from tally import Tally
from timeline import Timeline, kind_of

SOLD_OUT = "Insufficient stock"
PROGRESS_SECONDS = 5
STOP_SECONDS_MAX = 10       # how long a stopping run waits for answers that are on their way
THROTTLE_RETRIES_MAX = 30   # a person who is told 429 this often in a row goes home
THROTTLE_PAUSE_S_MAX = 5.0
LOST = (0, 502, 503, 504)   # answers of a server that was killed, or of the proxy in front of it

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

    def is_open(self) -> bool:
        """It is not known what became of the request, or not yet."""
        return self.status in LOST or (self.status == 409 and isinstance(self.body, dict)
                                       and str(self.body.get("type", "")).endswith("/request-in-progress"))

    def is_sold_out(self) -> bool:
        return self.status == 400 and SOLD_OUT in self.detail()

    def __str__(self) -> str:
        return f"{self.status or 'no answer'} {self.text[:200]}"


# Looks at an answer; a sentence if there is something wrong with it, None if not.
Judge = Callable[[Answer], "str | None"]


@dataclass(frozen=True)
class Sale:
    """What is on sale, and how a run of it is judged. Tally: the scenario's own."""
    open: Callable[[str], Any]                                   # host -> Tally; NotReady if the people would not find what they want
    progress: Callable[[Any], str]                               # where the sale stands, in half a line
    read_store: Callable[[Any, "str | None"], StoreReading]      # once, when nobody asks any more; path of the acks
    faults: Callable[[Any, StoreReading], "list[str]"]           # why the run has failed; empty if it has not
    summary: Callable[[str, Any, StoreReading, "list[str]"], str]                # for a person to read
    as_json: Callable[[str, Any, StoreReading, "list[str]"], "dict[str, Any]"]   # for result_table.py


class Run:
    """The run that is going on. One at a time, one process: the tally would be split over the workers of a distributed run."""

    def __init__(self) -> None:
        self.scenario = "custom"
        self.sale: Any = None          # a Sale
        self.tally: Any = Tally()      # from the start of a run on the sale's own
        self.acks: Acks | None = None  # likewise
        self.timeline = Timeline(None) # likewise
        self.ready = False
        self.judged = True
        self.environment: Any = None
        self.patient = bool(os.environ.get("DOORBUSTER_KILLS"))  # no answer is no fault: people ask again


run = Run()


def set_scene(name: str, sale: Sale, users: int, spawn_rate: int) -> None:
    """To be called once: the scenario's name, its sale, and what holds if the command line says nothing."""
    run.scenario = name
    run.sale = sale

    @events.init_command_line_parser.add_listener
    def set_defaults(parser: Any, **_: Any) -> None:
        parser.set_defaults(num_users=users, spawn_rate=spawn_rate, host="http://127.0.0.1:8080")


class Person(FastHttpUser):
    abstract = True
    concurrency = 1             # a person has one connection and waits for the answer
    network_timeout = 30.0
    connection_timeout = 30.0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.client.client.cookiejar = None  # there are no cookies; looking for them costs a tenth of the load generator
        self.username = f"buyer_{uuid.uuid4().hex[:16]}"
        self.password = PASSWORD
        self.headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}

    def on_start(self) -> None:
        if not run.ready:
            raise StopUser()
        run.tally.people_started += 1

    def register(self) -> None:
        body = {"username": self.username, "password": self.password, "email": f"{self.username}@example.com"}
        # Nobody else has such a name: whoever asks again and hears that it is taken has got it.
        expected = (201, 409) if run.patient else (201,)
        self.until_not_throttled("POST", "/api/auth/register", expect_status("register", *expected), body=json.dumps(body))

    def log_in(self) -> None:
        form = urlencode({"username": self.username, "password": self.password})
        answer = self.until_not_throttled("POST", "/api/auth/login", judge_login, body=form,
                                          extra={"Content-Type": "application/x-www-form-urlencoded"})
        if answer.status != 200 or not isinstance(answer.body, dict) or "access_token" not in answer.body:
            raise StopUser()  # counted by the judge; there is nothing to do here without a token
        self.headers["Authorization"] = f"Bearer {answer.body['access_token']}"

    def look_at_stock_of(self, product_id: int) -> None:
        self.call("GET", f"/api/products/{product_id}/stock", judge_stock(product_id), name="/api/products/[id]/stock")

    def pause_if_told(self, answer: Answer) -> None:
        if answer.status in (429, 503):
            gevent.sleep(min(answer.retry_after_s, THROTTLE_PAUSE_S_MAX))

    def until_not_throttled(self, method: str, path: str, judge: Judge, **arguments: Any) -> Answer:
        """Registering and logging in are made slow on purpose (password hashing), and the server may ask to wait."""
        def allow_429(answer: Answer) -> str | None:
            if answer.status == 429:
                run.tally.throttled += 1
                return None
            if run.patient and answer.is_open():
                run.tally.interrupted += 1
                return None
            return judge(answer)

        for _ in range(THROTTLE_RETRIES_MAX):
            answer = self.call(method, path, allow_429, **arguments)
            if answer.status != 429 and not (run.patient and answer.is_open()):
                return answer
            gevent.sleep(min(answer.retry_after_s, THROTTLE_PAUSE_S_MAX) * random.uniform(0.5, 1.0))
        run.tally.unexpected(f"{path}: told to slow down {THROTTLE_RETRIES_MAX} times in a row", str(answer))
        raise StopUser()

    def call(self, method: str, path: str, judge: Judge, body: str | None = None, name: str | None = None,
             extra: dict[str, str] | None = None) -> Answer:
        """`extra`: headers of this request alone. `name`: under which the times are counted, if not the path."""
        headers = {**self.headers, **extra} if extra else self.headers
        name = name or path
        sent_at = time.perf_counter()
        with self.client.request(method, path, name=name, data=body, headers=headers, catch_response=True) as response:
            took_ms = (time.perf_counter() - sent_at) * 1000
            response.request_meta["response_time"] = took_ms  # Locust's own figure is cut off to whole milliseconds
            answer = read_answer(response, sent_at)
            run.tally.answered(name, took_ms)
            run.timeline.note(kind_of(method, path, answer.status, answer.is_sold_out()), took_ms)
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


def expect_status(what: str, *statuses: int) -> Judge:
    def judge(answer: Answer) -> str | None:
        return None if answer.status in statuses else f"{what}: answer {answer.status or 'lost'} instead of {statuses[0]}"
    return judge


def judge_login(answer: Answer) -> str | None:
    if answer.status != 200:
        return f"log-in: answer {answer.status or 'lost'} instead of 200"
    if not isinstance(answer.body, dict) or answer.body.get("token_type") != "bearer" or not answer.body.get("access_token"):
        return "log-in: no bearer token"
    return None


def judge_product_fields(product: dict[str, Any]) -> str | None:
    if not isinstance(product.get("stock"), int):
        return "product: no stock"
    if product["stock"] < 0 or (product.get("redis_stock") or 0) < 0:
        run.tally.oversold += 1
        return "product: stock is negative"
    return None


def judge_stock(product_id: int) -> Judge:
    def judge(answer: Answer) -> str | None:
        tally = run.tally
        if answer.status != 200 or not isinstance(answer.body, dict):
            return f"stock: answer {answer.status or 'lost'} instead of 200"
        in_store, in_redis = answer.body.get("db_stock"), answer.body.get("redis_stock")
        if run.patient and in_redis is None:
            tally.interrupted += 1  # the gate is closed for a moment, and what Redis has is nobody's book
            return None
        if answer.body.get("product_id") != product_id or not isinstance(in_store, int) or not isinstance(in_redis, int):
            return "stock: figures are missing"
        tally.stock_readings += 1
        if in_store < 0 or in_redis < 0:
            tally.oversold += 1
            return "stock: negative"
        if in_store != in_redis or answer.body.get("synced") is not True:
            tally.mismatches += 1
            return f"stock: {tally.other_books} and the store differ"
        return None
    return judge


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
        run.tally = run.sale.open((environment.host or "").rstrip("/"))
    except NotReady as error:
        refuse_to_start(environment, str(error))
        return
    try:
        run.acks = Acks(os.environ.get("DOORBUSTER_ACKS"))
    except OSError as error:
        refuse_to_start(environment, f"cannot write the list of confirmed orders: {error} (DOORBUSTER_ACKS)")
        return
    try:
        path = os.environ.get("DOORBUSTER_TIMELINE")
        run.timeline = Timeline(open(path, "w", encoding="utf-8") if path else None)
    except OSError as error:
        refuse_to_start(environment, f"cannot write a line every second: {error} (DOORBUSTER_TIMELINE)")
        return
    run.ready = True
    run.judged = False
    gevent.spawn(write_timeline, run.tally)
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
                      f"  {run.sale.progress(tally)}  faults {tally.unexpected_total()}\n")
            out.flush()


def write_timeline(tally: Tally) -> None:
    """Until the run is judged; whoever judges it closes the file."""
    while not run.judged and run.tally is tally:
        gevent.sleep(1.0 - time.time() % 1.0)
        run.timeline.write_line(time.time(), run.environment.runner.user_count, tally.unexpected_total())


@events.test_stop.add_listener
def on_test_stop(environment: Any, **_: Any) -> None:
    if run.judged:
        return
    run.judged = True
    run.timeline.close()
    reading = run.sale.read_store(run.tally, run.acks.path if run.acks else None)
    if run.acks:
        run.acks.close()
    faults = run.sale.faults(run.tally, reading)
    faults += [f"the load test itself stumbled: {error['msg']}" for error in environment.runner.exceptions.values()]
    print(run.sale.summary(run.scenario, run.tally, reading, faults), flush=True)
    if os.environ.get("DOORBUSTER_RESULT"):
        with open(os.environ["DOORBUSTER_RESULT"], "w", encoding="utf-8") as out:
            json.dump(run.sale.as_json(run.scenario, run.tally, reading, faults), out, indent=2)
    if faults:
        environment.process_exit_code = 1


@events.quitting.add_listener
def on_quitting(environment: Any, **_: Any) -> None:
    """Ctrl-C comes here with the people still at it; they must have their answers before anything is compared."""
    if environment.runner.state not in (STATE_INIT, STATE_STOPPED):
        environment.runner.stop()