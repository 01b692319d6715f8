"""What happened to a run from outside, a JSON object a line: {"at": seconds since 1970, "what": "redis killed"}. Several processes add to the file;
a line is one write, so they do not mix."""
from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


def note_event(path: str | None, what: str, at: float | None = None) -> None:
    """`path` None: nobody keeps them."""
    if path:
        line = json.dumps({"at": round(time.time() if at is None else at, 3), "what": what}) + "\n"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A file of one JSON object a line; none if there is no file. A last line that was cut off is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
