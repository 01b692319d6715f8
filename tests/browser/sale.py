"""A real sale for the browser: the built server on a free port with a data folder of its own, seeded by setup, and calls to its API.

Signals go to the supervisor that was started here or to a child found through it, never by name alone."""

import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse

ADMIN = "admin_v1_stress"
PASSWORD = "a password of the tests"
WAIT_SECONDS = 30
BIN = pathlib.Path(os.environ.get("DOORBUSTER_BIN") or pathlib.Path(__file__).parents[2] / "build-test/bin")


def wait_for(condition, what, seconds=WAIT_SECONDS):
    """Waits until condition() is true, and answers what it answered."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for: {what() if callable(what) else what}")
        time.sleep(0.02)


def die_with_the_test():
    """In the server's process, before it becomes the server: a test that is killed leaves nothing running."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Sale:
    def __init__(self, stock, limit):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="doorbuster-browser-"))
        self.data = self.folder / "data"
        self.log_path = self.folder / "log"
        self.tokens = {}
        with open(self.log_path, "wb") as log:
            self.server = subprocess.Popen([BIN / "server", "--listen", "127.0.0.1:0", "--workers", "1", "--data", self.data], stdout=log, stderr=log,
                                           preexec_fn=die_with_the_test)
        try:
            self.port = int(wait_for(self._ready, lambda: f"the server to be ready; it says {self.log()}").group(1))
            self._run("setup", "--scenario", "v1_stress", "--stock", str(stock), "--limit", str(limit))
        except BaseException:
            self.end()
            raise
        self.url = f"http://127.0.0.1:{self.port}"
        self.product = self.call("GET", "/api/products", as_user=ADMIN)[0]["id"]

    def _ready(self):
        assert self.server.poll() is None, f"the server ended: {self.log()}"
        return re.search(r"ready on http://127\.0\.0\.1:(\d+)", self.log())

    def _run(self, tool, *arguments):
        environment = {**os.environ, "DOORBUSTER_ADMIN_PASSWORD": PASSWORD}
        done = subprocess.run([BIN / tool, "--data", self.data, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{tool}: {done.stdout}{done.stderr}"

    def log(self):
        return self.log_path.read_text(errors="replace")

    def verify(self):
        self._run("verify")

    def end(self):
        """The server must leave as it should."""
        try:
            self.server.send_signal(signal.SIGTERM)
            assert self.server.wait(WAIT_SECONDS) == 0, self.log()
        finally:
            if self.server.poll() is None:
                self.server.kill()
                self.server.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- processes ---
    def kill_redis(self):
        """kill -9 of the private Redis; the supervisor starts it again."""
        (redis,) = wait_for(lambda: self._children("redis-server"), "the private Redis")
        os.kill(redis, signal.SIGKILL)

    @contextlib.contextmanager
    def recorder_stopped(self):
        """It is there and does nothing, until it may go on or the supervisor has had enough."""
        (recorder,) = wait_for(lambda: self._children("doorbuster: recorder"), "the recorder")
        os.kill(recorder, signal.SIGSTOP)
        try:
            yield
        finally:
            if recorder in self._children("doorbuster: recorder"):
                os.kill(recorder, signal.SIGCONT)

    def _children(self, title):
        found = []
        for pid in pathlib.Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()):
                    found.append(int(pid))
        return found

    # --- the API ---
    def call(self, method, path, body=None, as_user=None, headers=None, form=None):
        status, answer = self.try_call(method, path, body, as_user, headers, form)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    def try_call(self, method, path, body=None, as_user=None, headers=None, form=None):
        headers = dict(headers or {})
        if as_user:
            headers["Authorization"] = "Bearer " + self.token(as_user)
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urllib.parse.urlencode(form)
        elif body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        return answer.status, json.loads(text) if "json" in (answer.headers["Content-Type"] or "") else text.decode()

    def token(self, username):
        if username not in self.tokens:
            if username != ADMIN:
                self.call("POST", "/api/auth/register", {"username": username, "password": PASSWORD})
            answer = self.call("POST", "/api/auth/login", form={"username": username, "password": PASSWORD})
            self.tokens[username] = answer["access_token"]
        return self.tokens[username]

    def add_product(self, name, stock, **more):
        return self.call("POST", "/api/products", {"name": name, "price": 1999, "stock": stock, **more}, as_user=ADMIN)["id"]

    def buy(self, username, product, quantity=1):
        return self.call("POST", "/api/purchases", {"product_id": product, "quantity": quantity}, as_user=username)["id"]

    def orders_of(self, product):
        """Confirmed units, by the store."""
        return self.call("GET", f"/api/products/{product}", as_user=ADMIN)["sold"]
