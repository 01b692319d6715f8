#!/usr/bin/python3
"""Kills processes of a running server with SIGKILL at given moments: its private Redis, a worker, the recorder. What was killed is noted as an
event; how long nobody could buy is read from the sales afterwards (../common/recovery.py).

  outage.py --server PID --events FILE [--progress FILE] SECONDS=NAME…       NAME: redis, recorder, "worker 0"

PID is the supervisor's: only its children are killed. Exit 1 if one of that name was not there.
"""
from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import processes  # noqa: E402
from events import note_event  # noqa: E402


def find(server: int, name: str) -> int | None:
    for pid in processes.family(server)[1:]:
        command = processes.command_line(pid).strip()
        if command == f"doorbuster: {name}" or (name == "redis" and command.startswith("redis-server") and "/redis.sock" in command):
            return pid
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="outage.py")
    parser.add_argument("--server", type=int, required=True, metavar="PID", help="the supervisor")
    parser.add_argument("--events", required=True, metavar="FILE")
    parser.add_argument("--progress", metavar="FILE")
    parser.add_argument("plan", nargs="+", metavar="SECONDS=NAME")
    arguments = parser.parse_args()
    began = time.monotonic()
    missing = 0
    for step in arguments.plan:
        moment, _, name = step.partition("=")
        time.sleep(max(0.0, began + float(moment) - time.monotonic()))
        pid = find(arguments.server, name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            note_event(arguments.events, f"{name} killed")
        else:
            missing += 1
        if arguments.progress:
            with open(arguments.progress, "a", encoding="utf-8") as out:
                out.write(f"        {name}: {'killed with -9' if pid is not None else 'there is no such process'}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
