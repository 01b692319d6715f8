#!/usr/bin/python3
"""cluster/haproxy.cfg with Debian's HAProxy, in front of two servers that this test plays: who is asked again when a server dies on a request, and who is
asked when no server can sell."""
from __future__ import annotations

import http.client
import sys
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "load_tests" / "bench"))
import processes  # noqa: E402

ASKED = 8             # in turn, so half of them come to the server that dies
SECONDS_MAX = 15


class Server(ThreadingHTTPServer):
    """Answers 201, or dies on every request that it has read; what it says of its health is up to the test."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answerer)
        self.port = self.server_address[1]
        self.dies = False
        self.can_sell = True
        self.seen = 0
        self.checked = 0   # whether it can sell
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class Answerer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.path.startswith("/health"):
            self.server.seen += 1
            if self.server.dies:
                self.close_connection = True
                return
        self.server.checked += self.path == "/health/ready"
        self.send_response(503 if self.path == "/health/ready" and not self.server.can_sell else 200 if self.path.startswith("/health") else 201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


class TestHaproxy(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.servers = [Server(), Server()]
        self.proxy, self.port = processes.start_proxy(Path(self.folder.name), [server.port for server in self.servers])
        self.wait_until(lambda: all(server.checked for server in self.servers))

    def tearDown(self) -> None:
        self.proxy.stop()
        for server in self.servers:
            server.end()
        self.folder.cleanup()

    def wait_until(self, is_so) -> None:
        deadline = time.monotonic() + SECONDS_MAX
        while not is_so():
            self.assertLess(time.monotonic(), deadline, "it never came to that")
            time.sleep(0.02)

    def ask(self, method: str, path: str = "/api/purchases", **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        try:
            connection.request(method, path, "{}" if method == "POST" else None, {name.replace("_", "-"): value for name, value in headers.items()})
            return connection.getresponse().status
        finally:
            connection.close()

    def test_purchase_is_asked_twice_only_with_a_key(self) -> None:
        self.servers[0].dies = True
        self.assertEqual([self.ask("POST", Idempotency_Key="k") for _ in range(ASKED)], [201] * ASKED)
        self.assertEqual([self.ask("GET") for _ in range(ASKED)], [201] * ASKED)
        self.assertEqual([self.ask("DELETE") for _ in range(ASKED)], [201] * ASKED)
        self.assertGreater(self.servers[0].seen, 0)
        before = sum(server.seen for server in self.servers)
        self.assertEqual(sorted(self.ask("POST") for _ in range(ASKED)), [201] * (ASKED // 2) + [502] * (ASKED // 2))
        self.assertEqual(sum(server.seen for server in self.servers) - before, ASKED)

    def test_server_that_is_gone(self) -> None:
        self.servers.pop(0).end()
        self.assertEqual([self.ask("POST") for _ in range(ASKED)], [201] * ASKED)

    def test_who_cannot_sell_is_left_out_as_long_as_another_can(self) -> None:
        self.servers[0].can_sell = False

        def all_to_the_other() -> bool:
            before = self.servers[0].seen
            return [self.ask("POST") for _ in range(ASKED)] == [201] * ASKED and self.servers[0].seen == before
        self.wait_until(all_to_the_other)
        self.servers[1].can_sell = False
        checked = [server.checked for server in self.servers]
        self.wait_until(lambda: all(server.checked > before + 2 for server, before in zip(self.servers, checked)))
        # They know better than a proxy what to say.
        self.assertEqual([self.ask("POST") for _ in range(ASKED)], [201] * ASKED)

    def test_figures_are_not_for_everybody(self) -> None:
        self.assertEqual(self.ask("GET", "/metrics"), 404)
        self.assertEqual(sum(server.seen for server in self.servers), 0)


if __name__ == "__main__":
    unittest.main()
