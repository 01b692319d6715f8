#!/usr/bin/python3
"""Watches a running server from outside, once a second, until the load generator has ended: the stock of every product by the store and by Redis,
and how much processor time the server, its Redis, the load generator and everything else on the machine take. A JSON object a line, for the report.

  watch.py --host URL --server PID… --load FILE --out FILE [--events FILE] [--beside PID…]

  --server  the supervisor; of several servers all
  --beside  what is not the servers' child: a Redis, a PostgreSQL
  --load    the load generator's process id will be in this file: it is started when OUT is there, so that this has signed in before the crowd
  --events  note here, too, which of the server's processes were started anew

A line: {"at": …, "products": [{"id", "name", "store", "redis"}, …], "cpu": {"server": 0.8, "redis": 0.1, "load": 0.9, "others": 0.0}}, and "postgres" if there is one; "redis" is null while
it cannot be asked.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import account  # noqa: E402
import processes  # noqa: E402
from events import note_event  # noqa: E402

PRODUCTS_MAX = 12           # of more, the first: each is a request a second
LIST_EVERY_SECONDS = 5
LOAD_SECONDS_MAX = 60


class Shelf:
    def __init__(self, host: str) -> None:
        self.host = host
        self.headers: dict[str, str] | None = None
        self.products: dict[int, str] = {}
        self.listed_at = 0.0

    def look(self) -> list[dict[str, Any]]:
        """Empty while the server does not answer."""
        try:
            if self.headers is None:
                self.headers = account.enter(self.host)
            if time.monotonic() - self.listed_at > LIST_EVERY_SECONDS:
                listed = account.fetch(f"{self.host}/api/products", headers=self.headers)
                plain = [product for product in listed if not product.get("components")]
                self.products = {product["id"]: product["name"] for product in plain[:PRODUCTS_MAX]}
                self.listed_at = time.monotonic()
            return [self.stock_of(product_id) for product_id in self.products]
        except account.NotReady:
            return []

    def stock_of(self, product_id: int) -> dict[str, Any]:
        stock = account.fetch(f"{self.host}/api/products/{product_id}/stock", headers=self.headers)
        return {"id": product_id, "name": self.products[product_id], "store": stock["db_stock"], "redis": stock["redis_stock"]}


class Machine:
    """Processor time by who had it, between two looks. What was started since the last look counts from then on."""

    def __init__(self, servers: list[int], beside: list[int], load: int) -> None:
        self.servers, self.beside, self.load = servers, beside, load
        self.before: dict[int, float] = {}
        self.at = 0.0
        self.busy = 0.0
        self.titles: dict[tuple[int, str], int] = {}

    def look(self) -> dict[str, float]:
        now = time.monotonic()
        pids = {pid: "load" for pid in processes.family(self.load)}
        for root in (*self.servers, *self.beside):
            for pid in processes.family(root):
                pids[pid] = whose(pid)
        used = {"server": 0.0, "redis": 0.0, "load": 0.0} | {who: 0.0 for who in pids.values()}
        seconds: dict[int, float] = {}
        for pid, who in pids.items():
            try:
                # Not with its children that have ended: a killed worker's whole life would count as its supervisor's last second.
                seconds[pid] = sum(processes.thread_seconds(pid, task) for task in os.listdir(f"/proc/{pid}/task"))
            except OSError:
                continue  # it has just ended
            used[who] += max(0.0, seconds[pid] - self.before.get(pid, seconds[pid]))
        passed, busy = now - self.at, busy_seconds()
        used["others"] = max(0.0, busy - self.busy - sum(used.values()))
        self.before, self.at, self.busy = seconds, now, busy
        return {who: round(value / passed, 3) for who, value in used.items()}

    def started_anew(self) -> list[str]:
        """The servers' processes that have another number than when last looked at."""
        titles = {(server, name_of(processes.command_line(pid))): pid for server in self.servers for pid in processes.family(server)[1:]}
        anew = [title for title, pid in titles.items() if self.titles.get(title, pid) != pid]
        self.titles.update(titles)
        return [title for _, title in anew]


def whose(pid: int) -> str:
    program = processes.program(pid)
    return "redis" if program.startswith("redis") else "postgres" if program.startswith("postgres") else "server"


def busy_seconds() -> float:
    """Processor time that anybody on this machine has had."""
    user, nice, system, _, _, interrupts, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + interrupts + soft) / processes.TICKS_PER_SECOND


def name_of(command_line: str) -> str:
    """"worker 0", "recorder", "redis", "node 3"."""
    command_line = command_line.strip()
    if command_line.startswith("doorbuster: "):
        return command_line[len("doorbuster: "):]
    return "node " + command_line.partition("/node")[2][:1] if "/node" in command_line else "redis"


def main() -> int:
    parser = argparse.ArgumentParser(prog="watch.py")
    parser.add_argument("--host", required=True, metavar="URL")
    parser.add_argument("--server", type=int, nargs="+", required=True, metavar="PID")
    parser.add_argument("--beside", type=int, nargs="+", default=[], metavar="PID")
    parser.add_argument("--load", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument("--events", metavar="FILE")
    arguments = parser.parse_args()
    shelf = Shelf(arguments.host)
    shelf.look()
    with open(arguments.out, "w", encoding="utf-8") as out:
        load = wait_for_number(arguments.load)
        machine = Machine(arguments.server, arguments.beside, load)
        machine.look()
        machine.started_anew()
        while is_running(load):
            time.sleep(1.0 - time.time() % 1.0)
            try:
                line = {"at": round(time.time(), 3), "cpu": machine.look(), "products": shelf.look()}
                for title in machine.started_anew():
                    note_event(arguments.events, f"{title} started anew")
            except OSError:
                continue  # a process has ended while we looked
            out.write(json.dumps(line, separators=(",", ":")) + "\n")
            out.flush()
    return 0


def wait_for_number(path: Path) -> int:
    deadline = time.monotonic() + LOAD_SECONDS_MAX
    while not path.exists() or not path.read_text().strip():
        if time.monotonic() > deadline:
            raise SystemExit(f"watch.py: no process id in {path}")
        time.sleep(0.05)
    return int(path.read_text())


def is_running(pid: int) -> bool:
    """A child that nobody has waited for yet has ended too."""
    try:
        return processes.stat_fields(pid)[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
