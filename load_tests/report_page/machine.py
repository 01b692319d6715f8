#!/usr/bin/python3
"""Notes where and with what a run was made, as JSON, for the report: machine.py --bin DIR --data DIR --scenario NAME --gate NAME --out FILE
[--servers N --store sqlite|postgres]"""
from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import processes  # noqa: E402


def first_line(*command: str) -> str:
    try:
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return "?"
    return (said.strip().splitlines() or ["?"])[0]


def field_of(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "?"


def beyond_one(servers: int, store: str) -> dict[str, str]:
    """What a run with several servers had besides."""
    if store != "postgres":
        return {}
    return {"PostgreSQL": first_line("psql", "--version"), "HAProxy": first_line("/usr/sbin/haproxy", "-v").partition(" 20")[0],
            "servers": f"{servers}, behind HAProxy, on one PostgreSQL and one Redis"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="machine.py")
    for option in ("--bin", "--data", "--scenario", "--gate", "--out"):
        parser.add_argument(option, required=True)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--store", default="sqlite")
    arguments = parser.parse_args()
    memory_kib = field_of("/proc/meminfo", "MemTotal").split()[0]
    facts = {
        "scenario": arguments.scenario,
        "gate": arguments.gate,
        "began_at": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "Doorbuster": first_line(f"{arguments.bin}/server", "--version"),
        "Redis": first_line("redis-server", "--version").partition(" sha")[0],
        **beyond_one(arguments.servers, arguments.store),
        "Locust": first_line("dpkg-query", "-W", "-f", "${Version}", "python3-locust"),
        "Python": platform.python_version(),
        "processors": f"{os.cpu_count()} x {field_of('/proc/cpuinfo', 'model name')}",
        "memory": f"{int(memory_kib) / 1024 / 1024:.0f} GiB" if memory_kib.isdigit() else "?",
        "data on": processes.file_system_of(Path(arguments.data)),
        "kernel": platform.release(),
    }
    Path(arguments.out).write_text(json.dumps(facts, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
