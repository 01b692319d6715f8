#!/usr/bin/python3
"""Kills private lock nodes of a running server with SIGKILL, one after another, and watches them come back.

  outage.py --server PID --host URL --after SECONDS [--nodes 2,4] [--progress FILE] [--events FILE] [--out FILE]

PID is the supervisor's: only a child of it that runs "redis-server unixsocket:…/nodeN.sock" is killed. A line for each node goes to
`--progress` as soon as it votes again, and all times to `--out`. Exit 1 if a node was not there, or did not come back.
"""
from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
from events import note_event  # noqa: E402

PAUSE_SECONDS = 2.0           # between two nodes: less than a restarted one keeps silent, so both are missing at once
NODE_POLL_SECONDS = 0.02
VOTE_POLL_SECONDS = 0.1
BACK_SECONDS_MAX = 20.0
SILENCE_SECONDS_MAX = 3.0     # until a worker has noticed
VOTE_SECONDS_MAX = 90.0       # a restarted node votes again when every lock that it may have forgotten is over (LOCK_TIMEOUT_SECONDS)
VOTES_IN_A_ROW = 10           # each request may be answered by another worker; all must count on the node


def children_of(parent: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(fields[1]) == parent:
                found.append(int(entry))
    return found


def find_node(server: int, number: int) -> int | None:
    for pid in children_of(server):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if title.startswith("redis-server") and f"/node{number}.sock" in title:
            return pid
    return None


def votes(host: str, number: int) -> bool:
    """Does the worker that answers count on this node? A server that is not ready says so with 503, and names the parts too."""
    try:
        with urllib.request.urlopen(f"{host}/health/ready", timeout=5) as response:
            state = json.load(response)
    except urllib.error.HTTPError as error:
        state = json.load(error)
    except OSError:
        return False
    parts = [part for part in state.get("parts", []) if part["name"].startswith(f"lock node {number} ")]
    return bool(parts) and all(part["up"] for part in parts)


def wait_until(is_so: Callable[[], bool], seconds_max: float, poll_seconds: float, in_a_row: int = 1) -> float | None:
    """Since when it is so, the last few times that we looked; None: not in time."""
    deadline = time.monotonic() + seconds_max
    since, seen = 0.0, 0
    while time.monotonic() < deadline:
        if is_so():
            since = since if seen else time.monotonic()
            seen += 1
            if seen == in_a_row:
                return since
        else:
            seen = 0
        time.sleep(poll_seconds)
    return None


@dataclass
class Outage:
    """Times of the monotonic clock; None: it has not happened."""
    node: int
    down: float
    back: float | None = None
    votes: float | None = None

    def line(self) -> str:
        if self.back is None:
            return f"node {self.node}: killed with -9, and not back after {BACK_SECONDS_MAX:.0f} s"
        return f"node {self.node}: killed with -9, started again after {(self.back - self.down) * 1000:.0f} ms; it does not vote yet"

    def line_of_vote(self) -> str:
        if self.votes is None:
            return f"node {self.node}: does not vote after {VOTE_SECONDS_MAX:.0f} s"
        return f"node {self.node}: votes again, {self.votes - self.down:.1f} s after it was killed"


def kill_node(server: int, node: int) -> Outage | None:
    pid = find_node(server, node)
    if pid is None:
        return None
    os.kill(pid, signal.SIGKILL)
    outage = Outage(node, time.monotonic())
    outage.back = wait_until(lambda: find_node(server, node) not in (None, pid), BACK_SECONDS_MAX, NODE_POLL_SECONDS)
    return outage


def wait_for_vote(host: str, outage: Outage) -> None:
    wait_until(lambda: not votes(host, outage.node), SILENCE_SECONDS_MAX, VOTE_POLL_SECONDS)
    outage.votes = wait_until(lambda: votes(host, outage.node), VOTE_SECONDS_MAX, VOTE_POLL_SECONDS, VOTES_IN_A_ROW)


def tell(path: str | None, text: str) -> None:
    print(text, flush=True)
    if path:
        with open(path, "a", encoding="utf-8") as out:
            out.write(f"        {text}\n")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="outage.py")
    parser.add_argument("--server", type=int, required=True, metavar="PID", help="the supervisor")
    parser.add_argument("--host", required=True, metavar="URL")
    parser.add_argument("--after", type=float, required=True, metavar="SECONDS", help="until the first node is killed")
    parser.add_argument("--nodes", default="2,4", metavar="N,N", help="which, in this order (default 2,4)")
    parser.add_argument("--progress", metavar="FILE", help="add a line here for each event")
    parser.add_argument("--events", metavar="FILE", help="note here when a node was killed and when it voted again, for the report page")
    parser.add_argument("--out", metavar="FILE", help="write all times here, as JSON")
    return parser.parse_args()


def main() -> int:
    arguments = read_arguments()
    outages: list[Outage] = []
    failed = False
    time.sleep(arguments.after)
    for number, node in enumerate(map(int, arguments.nodes.split(","))):
        if number:
            time.sleep(PAUSE_SECONDS)
        outage = kill_node(arguments.server, node)
        if outage is None:
            tell(arguments.progress, f"node {node}: process {arguments.server} has no such child")
            failed = True
            continue
        outages.append(outage)
        note_event(arguments.events, f"node {node} killed", time.time() - (time.monotonic() - outage.down))
        tell(arguments.progress, outage.line())
    for outage in outages:
        wait_for_vote(arguments.host, outage)
        if outage.votes is not None:
            note_event(arguments.events, f"node {outage.node} votes again", time.time() - (time.monotonic() - outage.votes))
        tell(arguments.progress, outage.line_of_vote())
    if arguments.out:
        Path(arguments.out).write_text(json.dumps([asdict(outage) for outage in outages]))
    return 1 if failed or any(outage.votes is None for outage in outages) else 0


if __name__ == "__main__":
    sys.exit(main())
