#!/usr/bin/python3
"""cluster/redis.conf, replica.conf and sentinel.conf with Debian's Redis: two nodes and three Sentinels as docker-compose's profile "cluster" starts them, but for
the addresses. The master dies; the replica takes its place, with what the master had, and the old master comes back as its replica."""
from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "load_tests" / "bench"))
import processes  # noqa: E402

MASTER = "10.87.29.11 6379"
SECONDS_MAX = 30


def ask(port: int, *command: str) -> list[str]:
    """Empty while nobody answers."""
    return subprocess.run(["redis-cli", "-p", str(port), *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=10,
                          check=False).stdout.split()


class TestRedisFiles(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.started: dict[int, processes.Process] = {}
        self.master, self.replica, *self.sentinels = (processes.free_port() for _ in range(5))

    def tearDown(self) -> None:
        for process in self.started.values():
            process.stop()
        self.folder.cleanup()

    def start(self, port: int, *files: str, options: tuple[str, ...] = ()) -> None:
        """From the files at first, then from what the node has made of them."""
        home = Path(self.folder.name) / str(port)
        if not home.exists():
            home.mkdir()
            text = "".join((ROOT / "cluster" / file).read_text() for file in files)
            (home / "conf").write_text(text.replace("dir /data", f"dir {home}").replace(MASTER, f"127.0.0.1 {self.master}"))
        self.started[port] = processes.Process(f"Redis on {port}", ["redis-server", str(home / "conf"), "--port", str(port), "--bind", "127.0.0.1", *options],
                                               home / "log")
        self.started[port].wait_until(lambda: processes.answers(port))

    def wait_until(self, is_so, what: str) -> None:
        deadline = time.monotonic() + SECONDS_MAX
        while not is_so():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)

    def knows_all(self, sentinel: int) -> bool:
        said = ask(sentinel, "SENTINEL", "MASTER", "doorbuster")
        figures = dict(zip(said[::2], said[1::2]))
        return figures.get("num-slaves") == "1" and figures.get("num-other-sentinels") == "2" and figures.get("flags") == "master"

    def test_master_dies_and_comes_back(self) -> None:
        self.start(self.master, "redis.conf")
        self.start(self.replica, "redis.conf", "replica.conf")
        self.wait_until(lambda: ask(self.replica, "ROLE")[3:4] == ["connected"], "the replica follows its master")
        for setting, value in (("appendonly", "yes"), ("maxmemory-policy", "noeviction")):
            self.assertEqual(ask(self.master, "CONFIG", "GET", setting), [setting, value])
        for sentinel in self.sentinels:
            self.start(sentinel, "sentinel.conf", options=("--sentinel",))
        self.wait_until(lambda: all(self.knows_all(sentinel) for sentinel in self.sentinels), "the Sentinels know each other")
        self.assertEqual(ask(self.master, "SET", "sold", "1"), ["OK"])
        self.wait_until(lambda: ask(self.replica, "GET", "sold") == ["1"], "the replica has it")
        self.started[self.master].kill()
        self.wait_until(lambda: all(ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "doorbuster") == ["127.0.0.1", str(self.replica)]
                                    for sentinel in self.sentinels), "the replica is the master")
        self.wait_until(lambda: ask(self.replica, "ROLE")[:1] == ["master"], "and knows it")
        self.assertEqual(ask(self.replica, "GET", "sold"), ["1"])
        self.start(self.master)
        self.wait_until(lambda: ask(self.master, "ROLE")[:1] == ["slave"], "the old master follows")


if __name__ == "__main__":
    unittest.main()
