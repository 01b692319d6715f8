"""One question at a time over plain HTTP, without Locust: for what is looked at before, beside and after a run."""
from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from typing import Any
from urllib.parse import urlencode

PASSWORD = "Black-Friday-1"
PREFLIGHT_SECONDS_MAX = 10


class NotReady(Exception):
    pass


def fetch(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=PREFLIGHT_SECONDS_MAX) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise NotReady(f"{url} answers {error.code}: {error.read(200).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise NotReady(f"no Doorbuster answers at {url}: {error}. Is the server running? (build/bin/server; --host names it)") from error


def fetch_token(host: str, username: str, password: str) -> dict[str, str]:
    """The header with which this account may ask."""
    login = fetch(f"{host}/api/auth/login", urlencode({"username": username, "password": password}).encode())
    return {"Authorization": f"Bearer {login['access_token']}"}


def enter(host: str) -> dict[str, str]:
    """Registers somebody who only watches; the header with which he may ask."""
    fetch(f"{host}/health")
    username = f"watcher_{uuid.uuid4().hex[:16]}"
    as_json = {"Content-Type": "application/json"}
    fetch(f"{host}/api/auth/register", json.dumps({"username": username, "password": PASSWORD}).encode(), as_json)
    return fetch_token(host, username, PASSWORD)
