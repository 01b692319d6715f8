#!/usr/bin/python3
"""Kills one of several servers in mid-sale, all its processes at once, as a host that loses its power would: the one whose recorder records.

  outage.py --host URL --redis SOCKET --events FILE --out FILE [--progress FILE] DIR=PID…

It waits until half of what is on sale is sold, finds the server whose recorder has the lease, kills it, and looks how long it takes until the store's stock
falls again. DIR is a server's data folder, PID its supervisor. To OUT goes, as JSON, who was killed and after how many seconds the sale went on. Exit 1
if there was nobody to kill, or the sale did not go on.
"""
from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import account  # noqa: E402
import processes  # noqa: E402
from events import note_event  # noqa: E402

PRODUCT = "Black Friday Limited Edition"
LEASE = "{doorbuster}:recorder"
POLL_SECONDS = 0.05
HALF_SECONDS_MAX = 300.0
BACK_SECONDS_MAX = 30.0


class Shelf:
    def __init__(self, host: str) -> None:
        self.host = host
        self.headers = account.enter(host)
        listed = account.fetch(f"{host}/api/products", headers=self.headers)
        self.id = next(product["id"] for product in listed if product["name"] == PRODUCT)

    def stock(self) -> int | None:
        """By the store; None: it cannot be asked just now."""
        try:
            return account.fetch(f"{self.host}/api/products/{self.id}/stock", headers=self.headers)["db_stock"]
        except account.NotReady:
            return None

    def wait_below(self, units: int, seconds_max: float) -> bool:
        deadline = time.monotonic() + seconds_max
        while (stock := self.stock()) is None or stock >= units:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def who_records(redis: str, servers: dict[str, int]) -> str | None:
    """The data folder of the server whose id is in the lease."""
    lease = subprocess.run(["redis-cli", "-s", redis, "GET", LEASE], stdout=subprocess.PIPE, text=True, timeout=10, check=True).stdout
    return next((folder for folder in servers if Path(folder, "server.id").read_text().strip() in lease), None)


def kill_all(server: int) -> None:
    for pid in processes.family(server):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the first one's end has ended it


def tell(path: str | None, text: str) -> None:
    print(text, flush=True)
    if path:
        with open(path, "a", encoding="utf-8") as out:
            out.write(f"        {text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="outage.py")
    for option in ("--host", "--redis", "--events", "--out"):
        parser.add_argument(option, required=True)
    parser.add_argument("--progress")
    parser.add_argument("servers", nargs="+", metavar="DIR=PID")
    arguments = parser.parse_args()
    servers = {folder: int(pid) for folder, _, pid in (server.rpartition("=") for server in arguments.servers)}
    shelf = Shelf(arguments.host)
    opening = shelf.stock() or 0
    if not shelf.wait_below(opening // 2, HALF_SECONDS_MAX):
        tell(arguments.progress, "nobody was killed: half of it was never sold")
        return 1
    folder = who_records(arguments.redis, servers)
    if folder is None:
        tell(arguments.progress, "nobody was killed: no server has the recorder's lease")
        return 1
    name = f"server {list(servers).index(folder) + 1}"
    kill_all(servers[folder])
    killed, left = time.monotonic(), shelf.stock()
    note_event(arguments.events, f"{name} killed, whose recorder was the active one")
    if left is None or not shelf.wait_below(left, BACK_SECONDS_MAX):
        tell(arguments.progress, f"{name}: killed with -9; the sale did not go on")
        return 1
    seconds = time.monotonic() - killed
    Path(arguments.out).write_text(json.dumps({"what": name, "seconds": round(seconds, 3)}))
    tell(arguments.progress, f"{name}: killed with -9, all its processes, its recorder the active one; the next order recorded {seconds:.1f} s later")
    return 0


if __name__ == "__main__":
    sys.exit(main())
