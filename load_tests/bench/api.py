"""What the benchmark asks of the server besides load: people, products, one answer byte by byte, and connections that idle."""
from __future__ import annotations

import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from processes import Unmeasurable

SECONDS_MAX = 30
PASSWORD = "Black-Friday-1"
THROTTLE_RETRIES_MAX = 60


@dataclass
class Person:
    name: str
    token: str


def ask(port: int, method: str, path: str, body: str | None = None, token: str | None = None,
        content_type: str = "application/json") -> tuple[int, Any]:
    for _ in range(THROTTLE_RETRIES_MAX):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
        headers = {"Content-Type": content_type} if body else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Unmeasurable(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if response.status != 429:
            return response.status, json.loads(text) if text else None
        time.sleep(min(float(response.headers.get("Retry-After", "1")), 2.0))
    raise Unmeasurable(f"{method} {path}: told to slow down {THROTTLE_RETRIES_MAX} times")


def must(result: tuple[int, Any], status: int, what: str) -> Any:
    if result[0] != status:
        raise Unmeasurable(f"{what}: {result[0]} {json.dumps(result[1])[:200]}")
    return result[1]


def log_in(port: int, name: str, password: str) -> str:
    answer = ask(port, "POST", "/api/auth/login", urlencode({"username": name, "password": password}),
                 content_type="application/x-www-form-urlencoded")
    return must(answer, 200, f"logging in {name}")["access_token"]


def register(port: int, count: int) -> list[Person]:
    """Each costs two password hashes, so they come a few at a time."""
    def one(number: int) -> Person:
        name = f"bench_{number:04}"
        must(ask(port, "POST", "/api/auth/register", json.dumps({"username": name, "password": PASSWORD})), 201, f"registering {name}")
        return Person(name, log_in(port, name, PASSWORD))

    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(one, range(count)))


def add_product(port: int, admin_token: str, name: str, stock: int) -> int:
    body = json.dumps({"name": name, "price": 100, "stock": stock})
    return must(ask(port, "POST", "/api/products", body, admin_token), 201, f"adding product {name}")["id"]


def add_products(port: int, admin_token: str, name: str, count: int, stock: int) -> list[int]:
    return [add_product(port, admin_token, f"{name} {number}", stock) for number in range(1, count + 1)]


def buy(port: int, token: str, product_id: int) -> int:
    return ask(port, "POST", "/api/purchases", json.dumps({"product_id": product_id, "quantity": 1}), token)[0]


def metrics(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    except (OSError, http.client.HTTPException) as error:
        raise Unmeasurable(f"GET /metrics: {error}") from error
    finally:
        connection.close()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def ready_parts(port: int) -> dict[str, bool]:
    """Each part that a sale needs: does it do its share?"""
    _, state = ask(port, "GET", "/health/ready")
    return {part["name"]: part["up"] for part in state["parts"]}


def raw_answer(port: int, token: str, product_id: int) -> tuple[bytes, bytes]:
    """Head and body of a purchase's answer, as they came over the wire."""
    body = f'{{"product_id":{product_id},"quantity":1}}'
    request = (f"POST /api/purchases HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
               f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX) as connection:
        connection.sendall(request.encode())
        data = receive_head(connection)
        head, _, rest = data.partition(b"\r\n\r\n")
        length = content_length(head)
        while len(rest) < length:
            more = connection.recv(65536)
            if not more:
                raise Unmeasurable("the connection was closed in the middle of an answer")
            rest += more
    return head + b"\r\n\r\n", rest


def receive_head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise Unmeasurable("a connection was closed instead of answered")
        data += more
    return data


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    raise Unmeasurable("an answer without Content-Length")


class IdleConnections:
    """Connections that have had one answer each and are now silent."""

    REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def __init__(self, port: int, count: int) -> None:
        self.sockets: list[socket.socket] = []
        try:
            for number in range(count):
                connection = socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX)
                self.sockets.append(connection)
                connection.sendall(self.REQUEST)
                if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                    raise Unmeasurable(f"connection {number + 1} of {count} was not answered with 200")
        except OSError as error:
            opened = len(self.sockets)
            self.close()
            raise Unmeasurable(f"only {opened} of {count} connections could be opened: {error}") from error
        except Unmeasurable:
            self.close()
            raise

    def still_open(self) -> int:
        alive = 0
        for connection in self.sockets:
            try:
                connection.setblocking(False)
                alive += connection.recv(1) != b""
            except BlockingIOError:
                alive += 1
            except OSError:
                pass
        return alive

    def close(self) -> None:
        for connection in self.sockets:
            connection.close()
        self.sockets.clear()

    def __enter__(self) -> "IdleConnections":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
