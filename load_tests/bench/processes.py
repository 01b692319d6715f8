"""The processes that the benchmark starts, and what /proc says of them.

Everything listens on the loopback address or on a socket in the benchmark's own folder. Only what was started here is stopped here.
"""
from __future__ import annotations

import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 30
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
POSTGRES = "PostgreSQL"
ROOT = Path(__file__).resolve().parents[2]
PROXY_CONFIGURATION = ROOT / "cluster" / "haproxy.cfg"   # of two servers


class Unmeasurable(Exception):
    """A figure could not be taken; the sentence says why."""


def free_port() -> int:
    """Below those that the system gives to connections, one of which might take it before its server does."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(20000, 32000)))
            return probe.getsockname()[1]


class Process:
    """A daemon in the foreground, in a session of its own so that Ctrl-C does not reach it before we stop it in order."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with open(log, "wb") as out:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                           env=environment, start_new_session=True)
        self.pid = self._child.pid

    def wait_until(self, is_ready) -> None:
        """If it does not come up it is stopped: nobody else knows of it yet."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not is_ready():
            if self._child.poll() is not None:
                raise Unmeasurable(f"{self.name} has not come up (exit {self._child.returncode}): {self.last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise Unmeasurable(f"{self.name} was not ready within {READY_SECONDS_MAX} s: {self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-3:]) or "it said nothing"

    def stop(self) -> None:
        if self._child.poll() is not None:
            return
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def clean_environment() -> dict[str, str]:
    """Nobody's settings but the benchmark's."""
    return {key: value for key, value in os.environ.items()
            if not key.startswith(("DOORBUSTER_", "REDIS_", "LOCK_")) and key not in ("DATABASE_URL", "JWT_SECRET_KEY")}


def start_server(binary: Path, folder: Path, port: int, workers: int, gate: str, settings: dict[str, str] | None = None) -> Process:
    """`settings`: from the environment, besides."""
    server = Process("the server", [str(binary), "--listen", f"127.0.0.1:{port}", "--data", str(folder / "data"),
                                    "--workers", str(workers), "--gate", gate], folder / "server.log",
                     clean_environment() | {"DOORBUSTER_RATE_LIMITS": "off"} | (settings or {}))
    server.wait_until(lambda: "ready on " in server.log.read_text(errors="replace"))
    return server


def start_shop_redis(folder: Path) -> tuple[Process, str]:
    """A Redis as several servers share one, written down like a server's private one. Its socket."""
    path = str(folder / "redis.sock")
    redis = Process("redis-server", ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "yes", "--appendfsync",
                                     "everysec", "--maxmemory-policy", "noeviction", "--dir", str(folder)], folder / "redis.log")
    redis.wait_until(lambda: os.path.exists(path))
    return redis, path


def start_redis(folder: Path) -> tuple[Process, int, str]:
    """A Redis that writes nothing down: the strictest thing to be compared with. Its port and its socket."""
    port, path = free_port(), str(folder / "bench-redis.sock")
    redis = Process("redis-server", ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--unixsocket", path, "--save", "",
                                     "--appendonly", "no", "--dir", str(folder)], folder / "redis.log")
    redis.wait_until(lambda: os.path.exists(path) and answers(port))
    return redis, port, path


def start_nginx(folder: Path, port: int, workers: int, body: str, padding: int) -> Process:
    """Answers everything with 400 and `body`; `padding` bytes of header make the answer as long as the server's."""
    home = folder / "nginx"
    home.mkdir(exist_ok=True)
    if "$" in body:
        raise Unmeasurable("nginx cannot return a text with a $ in it")
    quoted = body.replace("\\", "\\\\").replace("'", "\\'")
    user = pwd.getpwuid(os.geteuid()).pw_name
    config = home / "nginx.conf"
    config.write_text(f"""
{f"user {user};" if os.geteuid() == 0 else ""}
worker_processes {workers};
worker_rlimit_nofile 8192;
daemon off;
pid {home}/nginx.pid;
error_log {home}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  server_tokens off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  default_type application/problem+json;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port} reuseport backlog=4096;
    location / {{
      {f"add_header X-P {'p' * (padding - len('X-P: ') - 2)} always;" if padding >= 8 else ""}
      return 400 '{quoted}';
    }}
  }}
}}
""")
    nginx = Process("nginx", ["/usr/sbin/nginx", "-p", str(home), "-e", str(home / "error.log"), "-c", str(config)],
                    folder / "nginx.log")
    nginx.wait_until(lambda: answers(port))
    return nginx


def start_proxy(folder: Path, servers: list[int]) -> tuple[Process, int]:
    """HAProxy as docker-compose.yml runs it. Its port."""
    port = free_port()
    where = {"LISTEN": f"127.0.0.1:{port}", "SERVER_A": f"127.0.0.1:{servers[0]}", "SERVER_B": f"127.0.0.1:{servers[1]}"}
    proxy = Process("HAProxy", ["/usr/sbin/haproxy", "-db", "-f", str(PROXY_CONFIGURATION)], folder / "haproxy.log", clean_environment() | where)
    proxy.wait_until(lambda: answers(port))
    return proxy, port


class Postgres:
    """A PostgreSQL of the benchmark's own, in a folder that its parent lets the user postgres through to."""

    SCRIPT = str(ROOT / "scripts" / "postgres.sh")

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        try:
            done = subprocess.run([self.SCRIPT, "start", str(folder), *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  timeout=READY_SECONDS_MAX * 2, check=False)
            if done.returncode != 0:
                raise Unmeasurable(f"PostgreSQL has not come up: {done.stderr.strip()[-300:]}")
            self.url = done.stdout.strip()
            self.pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        except BaseException:
            self.stop()
            raise

    def client(self, program: str, database: str, *arguments: str, seconds_max: float = 60) -> str:
        """What psql, pgbench or createdb say."""
        done = subprocess.run([program, "-h", str(self.folder), "-U", "doorbuster", *arguments, database], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=seconds_max, check=False)
        if done.returncode != 0:
            raise Unmeasurable(f"{program}: {done.stdout.strip()[-300:]}")
        return done.stdout.strip()

    def stop(self) -> None:
        subprocess.run([self.SCRIPT, "stop", str(self.folder)], timeout=STOP_SECONDS_MAX * 2, check=False)


# --- /proc ------------------------------------------------------------------------------------------------------------------------


def family(pid: int) -> list[int]:
    """A process and all that descend from it, but for the children of a Redis: those rewrite its log, and count in its own figure as soon as
    they have ended."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(stat_fields(int(entry))[1]), []).append(int(entry))
            except OSError:
                continue  # it has just ended
    found = [pid]
    for member in found:
        if not program(member).startswith("redis"):
            found += children.get(member, [])
    return found


def stat_fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, from the state on: the name before it may hold anything, spaces and brackets too."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def thread_seconds(pid: int, task: str) -> float:
    try:
        return int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        return 0.0  # a thread that has just ended: a library's helper, which has done next to nothing


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has had. Live threads: to the nanosecond. Children that have ended (a Redis rewriting its log, say): to
    the clock tick."""
    fields = stat_fields(pid)
    return ((int(fields[13]) + int(fields[14])) / TICKS_PER_SECOND +
            sum(thread_seconds(pid, task) for task in os.listdir(f"/proc/{pid}/task")))


def cpu_by_pid(roots: list[int]) -> dict[int, tuple[str, float]]:
    """Of these and all that descend from them: what they are, and the processor time they have had."""
    found = {}
    for pid in (member for root in roots for member in family(root)):
        try:
            found[pid] = kind_of(pid), cpu_seconds(pid)
        except OSError:
            continue  # it has just ended
    return found


def cpu_since(before: dict[int, tuple[str, float]], roots: list[int]) -> dict[str, float]:
    """Processor time since then, by what the processes are. One of a database's may end meanwhile, its parent has its time then; none of a server's
    may."""
    after = cpu_by_pid(roots)
    for pid, (kind, _) in before.items():
        if pid not in after and not kind.startswith(POSTGRES):
            raise Unmeasurable(f"process {pid} ({kind}) ended during a measurement")
    used: dict[str, float] = {}
    for readings, sign in ((after, 1), (before, -1)):
        for kind, seconds in readings.values():
            used[kind] = used.get(kind, 0.0) + sign * seconds
    return used


def kind_of(pid: int) -> str:
    """"workers", "recorder", "Redis", "PostgreSQL's sessions" … The latter are, while people buy, the recorder's."""
    title = command_line(pid)
    if title.startswith("doorbuster: worker"):
        return "workers"
    if title.startswith("doorbuster: "):
        return title.split()[1]
    name = program(pid)
    if name.startswith("postgres"):
        return f"{POSTGRES}'s sessions" if title.startswith("postgres: doorbuster ") else f"{POSTGRES}'s writers"
    return "Redis" if name.startswith("redis") else name


def kill_nodes(server: int, numbers: tuple[int, ...]) -> None:
    """Kills private lock nodes of this server, children of its supervisor, and waits until they were started again. They do not vote for a
    while."""
    killed = {number: node_pid(server, number) for number in numbers}
    for number, pid in killed.items():
        if pid is None:
            raise Unmeasurable(f"lock node {number} is not running")
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + READY_SECONDS_MAX
    while any(node_pid(server, number) in (None, pid) for number, pid in killed.items()):
        if time.monotonic() > deadline:
            raise Unmeasurable(f"lock nodes {numbers} were not started again")
        time.sleep(0.02)


def node_pid(server: int, number: int) -> int | None:
    return next((pid for pid in family(server)[1:] if f"/node{number}.sock" in command_line(pid)), None)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""  # it has just ended


def memory_bytes(pids: list[int]) -> int:
    """What the processes hold, pages they share counted in proportion."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError as error:
            raise Unmeasurable(f"memory of process {pid} cannot be read: {error}") from error
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""  # it has just ended


def file_system_of(path: Path) -> str:
    """"ext4 on /", by the longest mount point that holds the path."""
    resolved = str(path.resolve())
    best = ("", "?")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind = line.split()[:3]
        inside = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, kind)
    return f"{best[1]} on {best[0]}"


def fsync_ms(folder: Path) -> float:
    """Median of a 4 KiB append and fsync: what a commit cannot be faster than."""
    took = []
    with open(folder / "fsync.probe", "wb", buffering=0) as out:
        for _ in range(51):
            began = time.perf_counter()
            out.write(b"\0" * 4096)
            os.fsync(out.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[len(took) // 2]
