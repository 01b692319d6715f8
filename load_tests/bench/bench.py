#!/usr/bin/python3
"""Speed and memory of the whole stack, each figure beside something that can be known: nginx, redis-benchmark, pgbench, or itself without
the burden. Started by scripts/bench.sh.

The machine is noisy and the load generator shares it. So what is compared is measured in turn (A B A B …), in short rounds, and the
medians are compared; everything happens in one run.
"""
from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Callable

import api
import postgres
import processes
import table
from load import (FULL, HUGE_STOCK, QUICK, SHELF_PRODUCTS, Bench, Load, Plan, looks, measure_truth, mid, prepare, purchases, refusals, say, wrk_command,
                  wrk_result)
from processes import Unmeasurable
from table import Row

ROOT = Path(__file__).resolve().parents[2]
IDLE_CONNECTIONS = 10_000
SPARE_FILES = 200
CART_LINES = 3
LOOKERS = (1, 64, 300)
STORM_CONNECTIONS = 64
STORM_PAUSE_MS = 50            # 64 people, 20 tries a second each: many times what two cores can hash
STORM_LEAD_SECONDS = 1.0       # until every hashing thread is busy
STORM_AFTERMATH_SECONDS = 2.0  # until the logins that nobody waits for any more have been hashed
NODES_KILLED = (2, 4)          # of the Redlock gate's five
NODES_BACK_SECONDS_MAX = 90.0
LOCK_WAIT = "doorbuster_lock_wait_seconds"
REDIS_DECREMENT = "return redis.call('DECRBY', KEYS[1], 1)"


# --- the measurements ----------------------------------------------------------------------------------------------------------------


def measure_sold_out(bench: Bench) -> list[Row]:
    head, body = api.raw_answer(bench.port, bench.token, bench.sold_out)
    if not head.startswith(b"HTTP/1.1 400 "):
        raise Unmeasurable(f"a sold-out product is answered with {head[:40]!r}")
    port = processes.free_port()
    nginx = processes.start_nginx(bench.folder, port, bench.workers, body.decode(), 0)
    try:
        plain_head, _ = api.raw_answer(port, bench.token, bench.sold_out)
        padding = len(head) - len(plain_head)
        if padding >= 8:
            nginx.stop()
            nginx = processes.start_nginx(bench.folder, port, bench.workers, body.decode(), padding)
        nginx_head, nginx_body = api.raw_answer(port, bench.token, bench.sold_out)
        if nginx_body != body:
            raise Unmeasurable("nginx does not answer with the same body")
        ours, theirs = [], []
        for _ in range(bench.plan.rounds):
            ours.append(refusals(bench, bench.port, bench.server.pid))
            theirs.append(refusals(bench, port, nginx.pid))
    finally:
        nginx.stop()
    bench.nginx_us = mid(theirs, lambda x: x.cpu_us)
    sizes = f"{len(head) + len(body)} bytes an answer, nginx {len(nginx_head) + len(nginx_body)}"
    return [
        table.at_most("sold-out answer, processor time", mid(ours, lambda x: x.cpu_us), mid(theirs, lambda x: x.cpu_us), 1.3, " us",
                      "nginx return 400"),
        Row("sold-out answers a second", f"{mid(ours, lambda x: x.rate):,.0f}/s", f"{mid(theirs, lambda x: x.rate):,.0f}/s nginx",
            f"{mid(ours, lambda x: x.rate) / mid(theirs, lambda x: x.rate):.2f}", sizes),
    ]


def redis_rate(where: list[str], sha: str, requests: int) -> float:
    done = subprocess.run(["redis-benchmark", *where, "-c", "64", "-n", str(requests), "--csv", "EVALSHA", sha, "1", "stock"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    try:
        return float(done.stdout.strip().splitlines()[-1].split(",")[1].strip('"'))
    except (IndexError, ValueError) as error:
        raise Unmeasurable(f"redis-benchmark: {done.stdout.strip()[-200:]}") from error


def redis_cli(path: str, *arguments: str) -> str:
    return subprocess.run(["redis-cli", "-s", path, *arguments], stdout=subprocess.PIPE, text=True, timeout=10, check=True).stdout.strip()


def measure_purchases(bench: Bench) -> list[Row]:
    redis, port, path = processes.start_redis(bench.folder)
    tcp, unix = ["-h", "127.0.0.1", "-p", str(port)], ["-s", path]
    warm_up = 20_000
    try:
        sha = redis_cli(path, "SCRIPT", "LOAD", REDIS_DECREMENT)
        redis_cli(path, "SET", "stock", str(HUGE_STOCK))
        requests = int(redis_rate(tcp, sha, warm_up) * bench.plan.seconds)
        plain, plain_unix, few, many = [], [], [], []
        for _ in range(bench.plan.rounds):
            plain.append(redis_rate(tcp, sha, requests))
            few.append(purchases(bench, 64))
            plain_unix.append(redis_rate(unix, sha, requests // 2))
            many.append(purchases(bench, 300))
        done = HUGE_STOCK - int(redis_cli(path, "GET", "stock"))
        if done != warm_up + (requests + requests // 2) * bench.plan.rounds:
            raise Unmeasurable(f"redis-benchmark did not do what it said, but {done} decrements")
    finally:
        redis.stop()
    against = median(plain)
    return [
        table.at_least("confirmed purchases, 64 connections", mid(few, lambda x: x.rate), against, 0.4, "/s", "redis-benchmark"),
        table.at_least("confirmed purchases, 300 connections", mid(many, lambda x: x.rate), against, 0.4, "/s", "redis-benchmark"),
        Row("redis-benchmark on a unix socket, for comparison", f"{median(plain_unix):,.0f}/s", f"{against:,.0f}/s over TCP"),
        table.below("processor time a purchase, 64 connections", mid(few, lambda x: x.cpu_us), 20, " us", bench.nginx_us, "a nginx answer"),
        table.below("processor time a purchase, 300 connections", mid(many, lambda x: x.cpu_us), 20, " us", bench.nginx_us,
                    "a nginx answer"),
        Row("p99 of purchases, 64 connections flat out", f"{mid(few, lambda x: x.p99_ms):.1f} ms"),
        Row("p99 of purchases, 300 connections flat out", f"{mid(many, lambda x: x.p99_ms):.1f} ms"),
    ]


def measure_carts(bench: Bench) -> list[Row]:
    single, spread, carts = [], [], []
    for _ in range(bench.plan.rounds):
        single.append(purchases(bench, 64))
        spread.append(purchases(bench, 64, bench.shelf))
        carts.append(purchases(bench, 64, bench.shelf, CART_LINES))
    against = mid(single, lambda x: x.rate)
    return [
        table.at_least(f"confirmed carts of {CART_LINES} lines, 64 connections", mid(carts, lambda x: x.rate), against, 0.5, "/s",
                       "single purchases"),
        table.at_least(f"single purchases of {SHELF_PRODUCTS} products at random", mid(spread, lambda x: x.rate), against, 0.8, "/s",
                       "of one product"),
        Row(f"p99 of carts of {CART_LINES} lines, 64 connections flat out", f"{mid(carts, lambda x: x.p99_ms):.1f} ms"),
    ]


def measure_looks(bench: Bench) -> list[Row]:
    """At one product's stock, by one person alone and by many at once."""
    loads: dict[int, list[Load]] = {count: [] for count in LOOKERS}
    for _ in range(bench.plan.rounds):
        for count in LOOKERS:
            loads[count].append(looks(bench, [bench.server.pid], count, f"/api/products/{bench.plenty}/stock"))
    alone = mid(loads[1], lambda x: x.cpu_us)
    return [Row(f"looking at a product, {count} connections", f"{mid(each, lambda x: x.cpu_us):.1f} us", f"{alone:.1f} us one alone",
                f"{mid(each, lambda x: x.cpu_us) / alone:.2f}",
                f"p50 {mid(each, lambda x: x.p50_ms):.2f}, p99 {mid(each, lambda x: x.p99_ms):.1f} ms") for count, each in loads.items()]


# --- the Redlock gate ----------------------------------------------------------------------------------------------------------------------


def measure_redlock(bench: Bench, bin_folder: Path) -> list[Row]:
    """A second server beside the first, which idles while this one is measured and the other way round."""
    folder = bench.folder / "redlock"
    folder.mkdir()
    port = processes.free_port()
    server = processes.start_server(bin_folder / "server", folder, port, bench.workers, "redlock")
    try:
        redlock = prepare(bench.plan, folder, bin_folder, bench.workers, server, port)
        purchases(redlock, 64)  # a round that does not count
        rows = redlock_rounds(bench, redlock)
        return rows + [Row(f"Redlock gate: {row.what}", *row.cells()[1:5], row.ok) for row in measure_truth(redlock, bin_folder / "verify")]
    finally:
        server.stop()


def redlock_rounds(lua: Bench, redlock: Bench) -> list[Row]:
    by_lua, lua_many, few, many, sold_out, crippled = [], [], [], [], [], []
    before = api.metrics(redlock.port)
    for _ in range(lua.plan.rounds):
        by_lua.append(purchases(lua, 64))
        few.append(purchases(redlock, 64))
        lua_many.append(purchases(lua, 300))
        many.append(purchases(redlock, 300))
        sold_out.append(refusals(redlock, redlock.port, redlock.server.pid))
    whole = LockWaits(before, api.metrics(redlock.port))
    before = api.metrics(redlock.port)
    for _ in range(lua.plan.rounds):
        await_nodes(redlock)
        # They are started again at once, but do not vote for as long as a lock that they forgot may live: longer than the round.
        processes.kill_nodes(redlock.server.pid, NODES_KILLED)
        crippled.append(purchases(redlock, 64))
        if all(api.ready_parts(redlock.port).values()):
            raise Unmeasurable("the killed nodes voted again before the round was over")
    crippled_waits = LockWaits(before, api.metrics(redlock.port))
    lua_rate, rate, few_left = mid(by_lua, lambda x: x.rate), mid(few, lambda x: x.rate), mid(crippled, lambda x: x.rate)
    return [
        Row("Redlock gate: confirmed purchases, 64 connections", f"{rate:,.0f}/s", f"{lua_rate:,.0f}/s Lua gate", f"{rate / lua_rate:.2f}",
            ">= 5,000/s", rate >= 5000),
        Row("Redlock gate: the same, 300 connections", f"{mid(many, lambda x: x.rate):,.0f}/s",
            f"{mid(lua_many, lambda x: x.rate):,.0f}/s Lua gate", f"{mid(many, lambda x: x.rate) / mid(lua_many, lambda x: x.rate):.2f}"),
        Row("Redlock gate: two of five nodes killed, 64 connections", f"{few_left:,.0f}/s", f"{rate:,.0f}/s with all five",
            f"{few_left / rate:.2f}"),
        Row("Redlock gate: sold-out answers a second", f"{mid(sold_out, lambda x: x.rate):,.0f}/s"),
        Row("Redlock gate: processor time a purchase, 64 connections", f"{mid(few, lambda x: x.cpu_us):.1f} us",
            f"{mid(by_lua, lambda x: x.cpu_us):.1f} us Lua gate", f"{mid(few, lambda x: x.cpu_us) / mid(by_lua, lambda x: x.cpu_us):.2f}"),
        Row("Redlock gate: p99 of purchases, 64 connections flat out", f"{mid(few, lambda x: x.p99_ms):.1f} ms",
            f"{mid(by_lua, lambda x: x.p99_ms):.1f} ms Lua gate"),
        *whole.rows("Redlock gate: getting a lock"),
        *crippled_waits.rows("Redlock gate: the same with two nodes killed"),
    ]


def await_nodes(bench: Bench) -> None:
    """Until all nodes vote; a few times in a row, for each answer may come from another worker."""
    deadline, seen = time.monotonic() + NODES_BACK_SECONDS_MAX, 0
    while seen < 5 * bench.workers:
        if time.monotonic() > deadline:
            raise Unmeasurable(f"not all lock nodes vote: {api.ready_parts(bench.port)}")
        seen = seen + 1 if all(api.ready_parts(bench.port).values()) else 0
        time.sleep(0.05)


@dataclass
class LockWaits:
    """How long workers waited for their locks between two readings of /metrics."""
    before: dict[str, float]
    after: dict[str, float]

    def count(self, name: str) -> float:
        return self.after[name] - self.before.get(name, 0.0)

    def at_most_ms(self, percent: float) -> float:
        """The upper edge of the bucket that holds this percentile, so never too small."""
        wanted = self.count(f"{LOCK_WAIT}_count") * percent / 100
        buckets = sorted((float(name.split('"')[1]), self.count(name)) for name in self.after if name.startswith(f"{LOCK_WAIT}_bucket"))
        return next(edge * 1000 for edge, count in buckets if count >= wanted)

    def rows(self, what: str) -> list[Row]:
        locks = self.count(f"{LOCK_WAIT}_count")
        if not locks:
            raise Unmeasurable("no lock was taken")
        average = self.count(f"{LOCK_WAIT}_sum") * 1000 / locks
        p50, p99 = self.at_most_ms(50), self.at_most_ms(99)
        return [Row(f"{what}, p50 / p99 at most", f"{p50:g} / {p99:g} ms", f"{average:.2f} ms average of {locks:,.0f}", "", "p99 <= 50 ms",
                    p99 <= 50)]


def our_processes(bench: Bench) -> list[int]:
    """The server's own, without its Redis: that one holds no connection of a buyer."""
    return [pid for pid in processes.family(bench.server.pid) if not processes.program(pid).startswith("redis")]


def idle_count() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(IDLE_CONNECTIONS, limit - SPARE_FILES)


def measure_idle(bench: Bench) -> list[Row]:
    count = idle_count()
    pids = our_processes(bench)
    per_connection, alone, crowded = [], [], []
    for _ in range(bench.plan.rounds):
        alone.append(purchases(bench, 64))
        time.sleep(0.5)
        before = processes.memory_bytes(pids)
        with api.IdleConnections(bench.port, count) as idle:
            time.sleep(0.5)
            per_connection.append((processes.memory_bytes(pids) - before) / count / 1024)
            crowded.append(purchases(bench, 64))
            alive = idle.still_open()
        if alive < count:
            raise Unmeasurable(f"{count - alive} of {count} idle connections were closed by the server during a round")
        time.sleep(1)
    # The first round counts: later ones find memory that the first has left allocated.
    return [
        table.below("memory of an idle keep-alive connection", per_connection[0], 12, " KiB"),
        table.at_least(f"64 busy beside {count:,} idle connections", mid(crowded, lambda x: x.rate), mid(alone, lambda x: x.rate), 0.8,
                       "/s", "64 alone"),
    ]


def measure_storm(bench: Bench) -> list[Row]:
    calm, stormy, storms = [], [], []
    for _ in range(bench.plan.rounds):
        calm.append(purchases(bench, 64))
        command = wrk_command(bench.port, STORM_CONNECTIONS, bench.plan.seconds + 2 * STORM_LEAD_SECONDS, "login_storm.lua",
                              str(bench.names_file), str(STORM_PAUSE_MS))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as storm:
            try:
                time.sleep(STORM_LEAD_SECONDS)
                stormy.append(purchases(bench, 64))
                storms.append(wrk_result(storm.communicate(timeout=60)[0]))
            finally:
                if storm.poll() is None:
                    storm.kill()
        if storms[-1]["refused"] != storms[-1]["requests"]:
            raise Unmeasurable("some wrong passwords were not refused")
        time.sleep(STORM_AFTERMATH_SECONDS)
    tried = median(storm["requests"] / storm["seconds"] for storm in storms)
    full = median(storm["queue_full"] / storm["requests"] for storm in storms)
    return [
        table.at_most("p99 of purchases during a login storm", mid(stormy, lambda x: x.p99_ms), mid(calm, lambda x: x.p99_ms), 2.0, " ms",
                      "without it"),
        Row("purchases a second during a login storm", f"{mid(stormy, lambda x: x.rate):,.0f}/s",
            f"{mid(calm, lambda x: x.rate):,.0f}/s without it",
            f"{mid(stormy, lambda x: x.rate) / mid(calm, lambda x: x.rate):.2f}", f"{tried:,.0f} logins/s tried, {full:.0%} told 429"),
    ]


# --- the run ------------------------------------------------------------------------------------------------------------------------------


def measure(bench: Bench, bin_folder: Path, only: str) -> list[Row]:
    steps: list[tuple[str, Callable[[], list[Row]]]] = [
        # Memory first: a server that has been busy has memory to spare, and would look better than it is.
        ("idle connections", lambda: measure_idle(bench)),
        ("sold-out answers against nginx", lambda: measure_sold_out(bench)),
        ("purchases against redis-benchmark", lambda: measure_purchases(bench)),
        ("carts against single purchases", lambda: measure_carts(bench)),
        ("looking at a product", lambda: measure_looks(bench)),
        ("purchases during a login storm", lambda: measure_storm(bench)),
        ("the Redlock gate", lambda: measure_redlock(bench, bin_folder)),
        ("PostgreSQL against SQLite and pgbench, and 1, 2, 4 workers, 1 and 2 servers", lambda: postgres.measure(bench, bin_folder)),
        ("the store", lambda: measure_truth(bench, bin_folder / "verify")),
    ]
    steps = [(what, step) for what, step in steps if only.lower() in what.lower()]
    rows: list[Row] = []
    purchases(bench, 64)  # a round that does not count: files grow, caches fill
    for what, step in steps:
        began = time.monotonic()
        try:
            rows += step()
            # A disk that others use meanwhile explains a slow figure, so say how fast it is now.
            say(f"  {what}: {time.monotonic() - began:.0f} s; an append and fsync takes {processes.fsync_ms(bench.folder):.2f} ms")
        except (Unmeasurable, OSError, subprocess.SubprocessError) as error:
            rows.append(Row(what, str(error), failed=True))
            say(f"  {what}: could not be measured: {error}")
    return rows


def version_of(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10, check=False)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "?"


def describe(plan: Plan, folder: Path, workers: int) -> None:
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    say(f"Machine: {os.cpu_count()} x {model}, Linux {platform.release()}; load generator on the same machine")
    say(f"Store:   {processes.file_system_of(folder)}, an append and fsync takes {processes.fsync_ms(folder):.2f} ms")
    say(f"Against: {version_of('/usr/sbin/nginx', '-v')}; {version_of('redis-server', '--version').split(' sha=')[0]}; "
        f"{workers} workers each for the server and nginx")
    say(f"Rounds:  {plan.rounds} of {plan.seconds} s for each figure, in turn; medians")
    if "tmpfs" in processes.file_system_of(folder):
        say("NOTE:    the store is on a tmpfs, where fsync costs nothing. Set TMPDIR to a folder on a disk.")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sh", description="Measures the server's speed and memory, about 15 minutes. Exit 1 if "
                                     "something could not be measured; a missed goal is printed, not an error.")
    parser.add_argument("--quick", action="store_true", help="about three minutes; good for a first look, not for a comparison")
    parser.add_argument("--only", default="", metavar="WORDS", help="only the measurements that are called so: \"Redlock\", \"storm\", \"postgres\" …")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="worker processes (default: processors)")
    parser.add_argument("--bin", type=Path, default=ROOT / "build" / "bin", metavar="DIR", help="where server, setup, verify are")
    return parser.parse_args()


def main() -> int:
    arguments = read_arguments()
    plan = QUICK if arguments.quick else FULL
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Not in /tmp, which may be in memory: an fsync must reach a disk.
    folder = Path(tempfile.mkdtemp(prefix="doorbuster-bench.", dir=os.environ.get("TMPDIR") or "/var/tmp"))
    server = None
    try:
        describe(plan, folder, arguments.workers)
        port = processes.free_port()
        server = processes.start_server(arguments.bin / "server", folder, port, arguments.workers, "lua")
        bench = prepare(plan, folder, arguments.bin, arguments.workers, server, port)
        say("Measuring:")
        rows = measure(bench, arguments.bin, arguments.only)
        print()
        print(table.render(rows))
        return 1 if any(row.failed for row in rows) else 0
    except (Unmeasurable, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave a server behind
        if server:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
