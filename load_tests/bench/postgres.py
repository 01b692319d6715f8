"""Purchases with PostgreSQL as the store: beside SQLite, beside pgbench doing the plain transaction on the same server, and as servers and workers
are added. Each figure is a median of rounds taken in turn, like all of the benchmark."""
from __future__ import annotations

import math
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import api
import processes
import table
from load import HUGE_STOCK, Bench, Load, measure_truth, mid, prepare, purchases, purchases_at
from processes import Postgres, Process, Unmeasurable
from table import Row

CONNECTIONS = (64, 300)
GROWTH_WORKERS = (1, 2, 4)
GROWTH_SERVERS = (1, 2)
GROWTH_CONNECTIONS = 300
READY_IN_A_ROW = 5
PLAIN_GOAL = 10
# Room for pgbench's 300 beside the servers' own connections, and no checkpoint in the middle of a round.
SETTINGS = ("max_connections=1000", "shared_buffers=256MB", "max_wal_size=4GB")
PLAIN_DATABASE = "plain"
PLAIN_SCHEMA = f"""
CREATE TABLE products (id bigint PRIMARY KEY, stock bigint NOT NULL CHECK (stock >= 0));
CREATE TABLE orders (id bigserial PRIMARY KEY, product_id bigint NOT NULL REFERENCES products, user_id bigint NOT NULL, quantity integer NOT NULL,
                     unit_price bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
INSERT INTO products VALUES (1, {HUGE_STOCK});
"""
# What a shop without any of this would do: the hot row is locked until the commit is on disk.
PLAIN_TRANSACTION = """\\set user random(1, 100000)
BEGIN;
UPDATE products SET stock = stock - 1 WHERE id = 1 AND stock > 0;
INSERT INTO orders (product_id, user_id, quantity, unit_price) VALUES (1, :user, 1, 100);
COMMIT;
"""


@dataclass
class Server:
    port: int
    process: Process


class Shop:
    """Servers of several sizes on one PostgreSQL and one Redis; those that are measured are up, and no others."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder, self.bin_folder = folder, bin_folder
        self.started: list[Process | Postgres] = []
        self.servers: dict[tuple[int, int], Server] = {}   # workers, number
        self.settings: dict[str, str] = {}

    def __enter__(self) -> "Shop":
        self.folder.mkdir(mode=0o711)
        self.folder.chmod(0o711)
        try:
            self.postgres = Postgres(self.folder / "postgres", *SETTINGS)
            self.started.append(self.postgres)
            self.redis, socket = processes.start_shop_redis(self.folder)
            self.started.append(self.redis)
            self.settings = {"DATABASE_URL": self.postgres.url, "REDIS_URL": f"unix:{socket}", "JWT_SECRET_KEY": secrets.token_urlsafe(32)}
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.open(0, 0)
        while self.started:
            self.started.pop().stop()

    def open(self, servers: int, workers: int) -> list[Server]:
        """So many servers of so many workers, and each worker of them can sell."""
        wanted = [(workers, number) for number in range(servers)]
        for size in [size for size in self.servers if size not in wanted]:
            self.servers.pop(size).process.stop()
        for size in wanted:
            if size not in self.servers:
                folder = self.folder / f"workers-{workers}-{size[1]}"
                folder.mkdir(exist_ok=True)
                port = processes.free_port()
                self.servers[size] = Server(port, processes.start_server(self.bin_folder / "server", folder, port, workers, "lua", self.settings))
        for server in self.servers.values():
            await_selling(server, workers)
        return list(self.servers.values())

    def watched(self) -> list[int]:
        return [*(server.process.pid for server in self.servers.values()), self.redis.pid, self.postgres.pid]

    def disk_bytes(self) -> tuple[int, int]:
        """Written to the log so far; the size of the database."""
        said = self.postgres.client("psql", "doorbuster", "-At", "-F", " ", "-c",
                                    "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, pg_database_size(current_database())")
        written, kept = map(int, said.split())
        return written, kept

    def buy(self, bench: Bench, servers: list[Server], connections: int) -> Load:
        return purchases_at(bench, [server.port for server in servers], self.watched(), connections, [bench.plenty])


def await_selling(server: Server, workers: int) -> None:
    """Each answer may come from another worker, so several in a row. A recorder takes over when the one before it has let go."""
    deadline, seen = time.monotonic() + processes.READY_SECONDS_MAX, 0
    while seen < READY_IN_A_ROW * workers:
        if time.monotonic() > deadline:
            raise Unmeasurable(f"a server is up and cannot sell: {api.ready_parts(server.port)}")
        seen = seen + 1 if api.ask(server.port, "GET", "/health/ready")[0] == 200 else 0
        time.sleep(0.02)


def measure(sqlite: Bench, bin_folder: Path) -> list[Row]:
    sqlite.folder.chmod(0o711)   # PostgreSQL is another user's
    with Shop(sqlite.folder / "shop", bin_folder) as shop:
        server, = shop.open(1, sqlite.workers)
        folder = server.process.log.parent
        bench = prepare(sqlite.plan, folder, bin_folder, sqlite.workers, server.process, server.port, shop.settings)
        plain = Plain(shop.postgres, folder)
        shop.buy(bench, [server], 64)  # a round that does not count: files grow, caches fill
        rows = against_others(sqlite, bench, shop, plain)
        plain.check()
        rows += growth(bench, shop)
        rows += behind_proxy(bench, shop)
        return rows + [Row(f"PostgreSQL: {row.what}", *row.cells()[1:5], row.ok) for row in measure_truth(bench, bin_folder / "verify")]


class Plain:
    """pgbench, on the same server, in a database of its own."""

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self.postgres = postgres
        self.script = folder / "plain.sql"
        self.script.write_text(PLAIN_TRANSACTION)
        self.done = 0
        self.connecting_seconds = 3.0   # of pgbench's last run
        postgres.client("createdb", PLAIN_DATABASE)
        postgres.client("psql", PLAIN_DATABASE, "-q", "-v", "ON_ERROR_STOP=1", "-c", PLAIN_SCHEMA)

    def rate(self, clients: int, seconds: int) -> float:
        """Prepared statements: the fastest it has. Its clock runs while its clients connect, which it leaves out of the rate."""
        seconds += math.ceil(self.connecting_seconds)
        said = self.postgres.client("pgbench", PLAIN_DATABASE, "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(seconds),
                                    "-f", str(self.script), seconds_max=seconds + 60)
        figures = [re.search(what, said, re.M) for what in (r"^tps = ([0-9.]+)", r"actually processed: ([1-9]\d*)$",
                                                            r"^initial connection time = ([0-9.]+) ms", r"failed transactions: (0) ")]
        if None in figures:
            raise Unmeasurable(f"pgbench: {said[-300:]}")
        tps, done, connecting_ms, _ = (float(figure.group(1)) for figure in figures if figure)
        self.done += int(done)
        self.connecting_seconds = connecting_ms / 1000
        return tps

    def check(self) -> None:
        left, orders = map(int, self.postgres.client("psql", PLAIN_DATABASE, "-At", "-F", " ", "-c",
                                                     "SELECT stock, (SELECT count(*) FROM orders) FROM products").split())
        if not HUGE_STOCK - left == orders >= self.done:
            raise Unmeasurable(f"pgbench did not do what it said: {self.done} transactions, {HUGE_STOCK - left} units, {orders} orders")


def against_others(sqlite: Bench, bench: Bench, shop: Shop, plain: Plain) -> list[Row]:
    by_postgres: dict[int, list[Load]] = {count: [] for count in CONNECTIONS}
    by_sqlite: dict[int, list[Load]] = {count: [] for count in CONNECTIONS}
    by_pgbench: dict[int, list[float]] = {count: [] for count in CONNECTIONS}
    server, = shop.open(1, bench.workers)
    for _ in range(bench.plan.rounds):
        for count in CONNECTIONS:
            by_postgres[count].append(shop.buy(bench, [server], count))
            by_sqlite[count].append(purchases(sqlite, count))
            by_pgbench[count].append(plain.rate(count, bench.plan.seconds))
    rows = []
    for count in CONNECTIONS:
        rate, against = mid(by_postgres[count], lambda x: x.rate), mid(by_sqlite[count], lambda x: x.rate)
        rows += [
            table.at_least(f"PostgreSQL: confirmed purchases, {count} connections", rate, median(by_pgbench[count]), PLAIN_GOAL, "/s",
                           f"pgbench, {count} clients"),
            Row(f"PostgreSQL: the same beside SQLite, {count} connections", f"{rate:,.0f}/s", f"{against:,.0f}/s SQLite", f"{rate / against:.2f}"),
            Row(f"PostgreSQL: p99 of purchases, {count} connections flat out", f"{mid(by_postgres[count], lambda x: x.p99_ms):.1f} ms",
                f"{mid(by_sqlite[count], lambda x: x.p99_ms):.1f} ms SQLite"),
        ]
    most = CONNECTIONS[-1]
    return rows + rows_of_kinds(f"PostgreSQL: processor time a purchase, {most} connections", by_postgres[most], by_sqlite[most], "SQLite")


def rows_of_kinds(what: str, loads: list[Load], others: list[Load], name: str) -> list[Row]:
    """All of it, and how much of it which processes have."""
    rows = [Row(what, f"{mid(loads, lambda x: x.cpu_us):.1f} us", f"{mid(others, lambda x: x.cpu_us):.1f} us {name}")]
    for kind in sorted(loads[0].by_kind):
        us, against = (mid(each, lambda x: x.by_kind.get(kind, 0.0)) for each in (loads, others))
        rows.append(Row(f"  of it {kind}", f"{us:.1f} us", f"{against:.1f} us {name}" if kind in others[0].by_kind else ""))
    return rows


def growth(bench: Bench, shop: Shop) -> list[Row]:
    """On a small machine the load generator, Redis and PostgreSQL have their share of the processors, so it ends soon; what it costs per purchase says what a
    larger one would do."""
    sizes = [(servers, workers) for servers in GROWTH_SERVERS for workers in GROWTH_WORKERS]
    loads: dict[tuple[int, int], list[Load]] = {size: [] for size in sizes}
    confirmed, written, kept = bench.confirmed, *shop.disk_bytes()
    for _ in range(max(2, bench.plan.rounds - 2)):
        for servers, workers in sizes:
            loads[(servers, workers)].append(shop.buy(bench, shop.open(servers, workers), GROWTH_CONNECTIONS))
    confirmed, written, kept = (after - before for after, before in zip((bench.confirmed, *shop.disk_bytes()), (confirmed, written, kept)))
    first = mid(loads[sizes[0]], lambda x: x.rate)
    rows = [Row(f"PostgreSQL: {several(servers, 'server')} x {several(workers, 'worker')}, {GROWTH_CONNECTIONS} connections",
                f"{mid(loads[(servers, workers)], lambda x: x.rate):,.0f}/s", f"{mid(loads[(servers, workers)], lambda x: x.cpu_us):.1f} us a purchase",
                f"{mid(loads[(servers, workers)], lambda x: x.rate) / first:.2f}") for servers, workers in sizes]
    return rows + [Row("PostgreSQL: written ahead for an order, kept of it", f"{written / confirmed:,.0f}, {kept / confirmed:,.0f} bytes")]


def behind_proxy(bench: Bench, shop: Shop) -> list[Row]:
    servers = shop.open(2, 1)
    proxy, port = processes.start_proxy(shop.folder, [server.port for server in servers])
    shop.started.append(proxy)
    through, direct = [], []
    for _ in range(max(2, bench.plan.rounds - 2)):
        direct.append(shop.buy(bench, servers, GROWTH_CONNECTIONS))
        through.append(purchases_at(bench, [port], [*shop.watched(), proxy.pid], GROWTH_CONNECTIONS, [bench.plenty]))
    rate, against = mid(through, lambda x: x.rate), mid(direct, lambda x: x.rate)
    return [Row(f"PostgreSQL: the same two servers behind HAProxy, {GROWTH_CONNECTIONS} connections", f"{rate:,.0f}/s", f"{against:,.0f}/s without",
                f"{rate / against:.2f}"),
            *rows_of_kinds("PostgreSQL: processor time a purchase behind HAProxy", through, direct, "without")]


def several(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
