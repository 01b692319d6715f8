"""A server that is ready to be bought from, rounds of wrk against it, and at the end the question whether all that was confirmed is in its store.
What every measurement stands on."""
from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Callable

import api
import processes
from processes import Process, Unmeasurable
from table import Row

HERE = Path(__file__).resolve().parent
HUGE_STOCK = 1_000_000_000
SHELF_PRODUCTS = 64


@dataclass
class Plan:
    rounds: int
    seconds: int
    people: int


QUICK = Plan(rounds=2, seconds=2, people=32)
FULL = Plan(rounds=5, seconds=5, people=128)


@dataclass
class Bench:
    """What all measurements need."""
    plan: Plan
    folder: Path
    port: int
    server: Process
    admin_token: str
    tokens_file: Path
    names_file: Path
    token: str
    plenty: int              # product with a stock that never ends
    sold_out: int            # product without any
    shelf: list[int]         # products with a stock that never ends, for carts
    workers: int
    settings: dict[str, str] = field(default_factory=dict)   # of the server, for the tools: where store and Redis are, if not in its folder
    confirmed: int = 0       # purchases that were told 201
    open_ended: int = 0      # connections that may have had one more on the way when a round ended
    confirmed_units: int = 0    # a cart's lines are a unit each
    open_ended_units: int = 0
    nginx_us: float = 0      # processor time of an answer of nginx's: how fast this machine is just now


@dataclass
class Load:
    """One round of wrk."""
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float            # processor time a request, of the processes watched
    by_kind: dict[str, float]   # the same, by what the process is


def say(text: str) -> None:
    print(text, flush=True)


def wrk_command(port: int, connections: int, seconds: float, script: str, *arguments: str) -> list[str]:
    return ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds:.0f}s", "--timeout", "10s", "-s", str(HERE / script),
            f"http://127.0.0.1:{port}", "--", *arguments]


def wrk_result(output: str) -> dict[str, Any]:
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line[len("RESULT "):])
    raise Unmeasurable(f"wrk gave no result: {output.strip()[-300:]}")


def run_wrk(bench: Bench, ports: list[int], connections: int, watched: list[int],
            *what: str) -> tuple[Load, dict[str, Any]]:
    """`ports`: the connections are shared out among them, with a wrk for each. `watched`: processes whose families' processor time counts.
    `what`: the people do, as people.lua wants it."""
    before = processes.cpu_by_pid(watched)
    started = [subprocess.Popen(wrk_command(port, connections // len(ports), bench.plan.seconds, "people.lua", str(bench.tokens_file), *what),
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for port in ports]
    try:
        results = [wrk_result(wrk.communicate(timeout=bench.plan.seconds + 60)[0]) for wrk in started]
    finally:
        for wrk in started:
            if wrk.poll() is None:
                wrk.kill()
                wrk.wait()
    used = processes.cpu_since(before, watched)
    result = {figure: sum(one[figure] for one in results) for figure in ("requests", "refused", "broken", "timeouts")}
    if result["broken"] or result["timeouts"]:
        raise Unmeasurable(f"wrk: {result['broken']} connections broke, {result['timeouts']} requests timed out")
    if not all(one["requests"] for one in results):
        raise Unmeasurable("wrk had no answers")
    by_kind = {kind: seconds * 1e6 / result["requests"] for kind, seconds in used.items()}
    p50_ms, p99_ms = (max(one[figure] for one in results) / 1000 for figure in ("p50_us", "p99_us"))
    load = Load(sum(one["requests"] / one["seconds"] for one in results), p50_ms, p99_ms,
                sum(by_kind.values()), by_kind)
    return load, result


def purchases(bench: Bench, connections: int, products: list[int] | None = None, lines: int = 1) -> Load:
    return purchases_at(bench, [bench.port], [bench.server.pid], connections, products or [bench.plenty], lines)


def purchases_at(bench: Bench, ports: list[int], watched: list[int], connections: int, products: list[int], lines: int = 1) -> Load:
    load, result = run_wrk(bench, ports, connections, watched, str(lines), *map(str, products))
    if result["refused"]:
        raise Unmeasurable(f"{result['refused']} of {result['requests']} purchases were refused, though there is stock for all")
    bench.confirmed += result["requests"]
    bench.open_ended += connections
    bench.confirmed_units += result["requests"] * lines
    bench.open_ended_units += connections * lines
    return load


def refusals(bench: Bench, port: int, watched: int) -> Load:
    load, result = run_wrk(bench, [port], 64, [watched], "1", str(bench.sold_out))
    if result["refused"] != result["requests"]:
        raise Unmeasurable(f"{result['requests'] - result['refused']} purchases of a sold-out product were not refused")
    return load


def looks(bench: Bench, watched: list[int], connections: int, *paths: str) -> Load:
    load, result = run_wrk(bench, [bench.port], connections, watched, "look", *paths)
    if result["refused"]:
        raise Unmeasurable(f"{result['refused']} of {result['requests']} looks at {', '.join(paths)} were refused")
    return load


def mid(loads: list[Load], what: Callable[[Load], float]) -> float:
    return median(what(load) for load in loads)


def measure_truth(bench: Bench, verify: Path) -> list[Row]:
    """Fast is nothing if it is not true: all that was confirmed must be in the store."""
    done = subprocess.run([str(verify), "--json", "--data", str(bench.folder / "data")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=300, check=False, env=processes.clean_environment() | bench.settings)
    try:
        report = json.loads(done.stdout)
        orders = report["orders"] - 1  # without that of the last one
        units = sum(product["sold"] for product in report["products"] if product["id"] in (bench.plenty, *bench.shelf))
        failed = [check["name"] for check in report["checks"] if not check["ok"]]
    except (ValueError, KeyError) as error:
        raise Unmeasurable(f"verify could not check (exit {done.returncode}): {(done.stderr or done.stdout).strip()[:200]}") from error
    # When a round ends, wrk hangs up on purchases that are on their way; those may be sold without having been counted.
    all_orders = bench.confirmed <= orders <= bench.confirmed + bench.open_ended
    all_units = bench.confirmed_units <= units <= bench.confirmed_units + bench.open_ended_units
    return [
        Row("purchases in the store after all this", f"{orders:,}", f"{bench.confirmed:,} were confirmed",
            goal=f"all; {len(report['checks'])} checks of verify" + (f"; FAILED: {', '.join(failed)}" if failed else ""),
            ok=all_orders and report["ok"] and done.returncode == 0),
        Row("units in these purchases", f"{units:,}", f"{bench.confirmed_units:,} were confirmed", goal="all", ok=all_units),
    ]


def prepare(plan: Plan, folder: Path, bin_folder: Path, workers: int, server: Process, port: int,
            settings: dict[str, str] | None = None) -> Bench:
    settings = settings or {}
    password = secrets.token_urlsafe(16)
    done = subprocess.run([str(bin_folder / "setup"), "--scenario", "v1_stress", "--data", str(folder / "data")], text=True, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          env={**processes.clean_environment(), **settings, "DOORBUSTER_ADMIN_PASSWORD": password})
    if done.returncode != 0:
        raise Unmeasurable(f"setup exits {done.returncode}: {done.stdout.strip()[:300]}")
    admin_token = api.log_in(port, "admin_v1_stress", password)
    people = api.register(port, plan.people)
    plenty = api.add_product(port, admin_token, "Bench: plenty", HUGE_STOCK)
    sold_out = api.add_product(port, admin_token, "Bench: the last one", 1)
    shelf = api.add_products(port, admin_token, "Bench: shelf", SHELF_PRODUCTS, HUGE_STOCK)
    if (status := api.buy(port, people[0].token, sold_out)) != 201:
        raise Unmeasurable(f"the last unit could not be bought: {status}")
    tokens_file, names_file = folder / "tokens", folder / "names"
    tokens_file.write_text("".join(f"{person.token}\n" for person in people))
    names_file.write_text("".join(f"{person.name}\n" for person in people))
    return Bench(plan, folder, port, server, admin_token, tokens_file, names_file, people[0].token, plenty, sold_out, shelf,
                 workers, settings)
