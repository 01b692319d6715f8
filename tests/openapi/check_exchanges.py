#!/usr/bin/env python3
"""Holds what the server answered in the tests against web/openapi.json.

    check_exchanges.py DESCRIPTION UNSEEN FOLDER [--all NAME,NAME…]

Every file NAME.jsonl of FOLDER has a JSON line an exchange (tests/support/exchanges.h). Each must be described: its path, its method, its status, its headers, the
media type, the body; and what was accepted of a request must be valid too. Whatever is described and was never seen must stand in UNSEEN, with the
reason, so that nobody loses a test without noticing; that is judged only if there is a file of each NAME, for a part of the tests sees a part.
Exit code 1: at least one does not hold."""
import argparse
import collections
import glob
import json
import os
import re
import sys
import urllib.parse

from description import Description

TRANSPORT = {"connection", "content-length", "date", "keep-alive", "transfer-encoding", "content-type"}
BEFORE_ROUTING = (400, 413, 414, 431, 429, 500, 503)  # whatever the path
BY_LIBRARY = (400, 413, 414, 431, 505)
NO_BODY = (204, 304)


class Exchange:
    def __init__(self, line, source):
        parsed = json.loads(line)
        self.source = source
        self.method = parsed.get("method")
        self.path = urllib.parse.urlsplit(parsed["target"]).path if "target" in parsed else None
        self.request = parsed["request"].encode("latin-1") if "request" in parsed else None
        self.body = parsed["body"].encode("latin-1")
        lines = parsed["head"].split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {}
        for name, value in (each.split(":", 1) for each in lines[1:] if each):
            self.headers.setdefault(name.strip().lower(), []).append(value.strip())

    def header(self, name):
        return self.headers.get(name, [None])[0]

    def shape(self):
        """Two of one shape are checked once."""
        digits = re.compile(rb"\d+")
        names = ",".join(sorted(self.headers))
        return (self.method, re.sub(r"\d+", "0", self.path or ""), self.status, names, digits.sub(b"0", self.body), digits.sub(b"0", self.request or b""))

    def __str__(self):
        body = self.body.decode("utf-8", "replace")
        return f"{self.method or '?'} {self.path or '?'} -> {self.status} ({self.source}): {body[:160]}"


class Check:
    def __init__(self, description, awaited=()):
        self.description = description
        self.awaited = {name.lower() for name in awaited}  # headers and paths that are described, but that the server does not have yet
        self.seen = collections.Counter()
        document = description.document
        self.general = {name.lower() for name in document["x-headers-of-every-answer"]}
        self.bare = description.component("responses", "MethodNotAllowed")
        self.problem = description.component("schemas", "Problem")

    def faults(self, exchange):
        """Sentences about what is not as described."""
        if exchange.path is None:
            return self._unknown_request(exchange)
        template = self.description.find(exchange.path)
        if template is None or (template in self.awaited and exchange.status == 404):
            return self._no_path(exchange)
        method = "get" if exchange.method == "HEAD" else exchange.method.lower()
        operation = self.description.operation(template, method)
        if operation is None:
            return self._no_method(exchange, template)
        self.seen[(str(exchange.status), exchange.method if exchange.method != "HEAD" else "GET", template)] += 1
        response = self.description.response(operation, exchange.status)
        if response is None:
            return [f"status {exchange.status} is not described of {operation['operationId']}"]
        return self._headers(exchange, response) + self._body(exchange, response) + self._request(exchange, operation)

    # --- what no operation describes -----------------------------------------------------------------------
    def _unknown_request(self, exchange):
        """Bytes that a test sent as they were, to see them refused: by us, or by libmicrohttpd before we see them."""
        self.seen[(str(exchange.status), "?", "?")] += 1
        if exchange.status in BY_LIBRARY and exchange.header("content-type") is None and exchange.header("connection") == "close":
            return []
        return self._is_problem(exchange) if exchange.status >= 400 else []

    def _no_path(self, exchange):
        if exchange.status != 404 and exchange.status not in BEFORE_ROUTING:
            return [f"status {exchange.status} at a path that is not described"]
        return self._is_problem(exchange)

    def _no_method(self, exchange, template):
        if exchange.status in BEFORE_ROUTING:
            return self._is_problem(exchange)
        if exchange.method == "OPTIONS" and exchange.status == 204:
            return [] if exchange.header("access-control-allow-methods") else ["204 to OPTIONS, which says nothing"]
        if exchange.status != 405:
            return [f"status {exchange.status} to a method that is not described"]
        own = {method.upper() for method in self.description.document["paths"][template] if method != "parameters"}
        own |= {"HEAD"} if "GET" in own else set()
        allowed = {name.strip() for name in (exchange.header("allow") or "").split(",")}
        wrong = [] if allowed == own else [f"Allow is {sorted(allowed)}, described are {sorted(own)}"]
        return wrong + self._headers(exchange, self.bare) + self._body(exchange, self.bare)

    def _is_problem(self, exchange):
        if exchange.header("content-type") != "application/problem+json":
            return ["an error that is no problem"]
        if exchange.method == "HEAD":
            return []
        value, wrong = parse(exchange.body)
        if wrong:
            return [wrong]
        own = [schema for schema in self.description.document["components"]["schemas"].values()
               if schema.get("properties", {}).get("type", {}).get("const") == value.get("type")]
        wrong = [] if value.get("status") == exchange.status else [f"status {exchange.status}, in the body {value.get('status')}"]
        return wrong + self.description.errors(own[0] if own else self.problem, value)

    # --- what one does -------------------------------------------------------------------------------------
    def _headers(self, exchange, response):
        described = {name.lower(): self.description.resolve(header) for name, header in response.get("headers", {}).items()}
        found = [f"header {name} is not described" for name in exchange.headers
                 if name not in described and name not in self.general and name not in TRANSPORT]
        for name, header in described.items():
            values = exchange.headers.get(name, [])
            if not values and header.get("required") and name not in self.awaited:
                found.append(f"header {name} is missing")
            if len(values) > 1:
                found.append(f"header {name} is there {len(values)} times")
            for value in values:
                found += [f"header {name}: {error}" for error in self.description.errors(header["schema"], typed(value, header["schema"]))]
        return found

    def _body(self, exchange, response):
        content = response.get("content")
        if content is None or exchange.status in NO_BODY:
            return ["a body that is not described"] if exchange.body else []
        media_type = exchange.header("content-type")
        if media_type not in content:
            return [f"media type {media_type} is not described, but {', '.join(content)}"]
        if exchange.method == "HEAD":
            return ["an answer to HEAD with a body"] if exchange.body else []
        media = content[media_type]
        if "x-event-data" in media:
            return self._events(exchange, media["x-event-data"])
        if media_type.endswith("json"):
            value, wrong = parse(exchange.body)
        else:
            value, wrong = text(exchange.body)
        return [wrong] if wrong else self.description.errors(media["schema"], value)

    def _events(self, exchange, schemas):
        found = []
        for frame in exchange.body.decode("utf-8", "replace").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in frame.split("\n") if ": " in line)
            if "event" in fields:
                value, wrong = parse(fields.get("data", "").encode())
                found += [wrong] if wrong else self.description.errors(schemas[fields["event"]], value)
        return found

    def _request(self, exchange, operation):
        """What the server took must be what the description lets a client send."""
        body = operation.get("requestBody")
        if body is None or exchange.status >= 300 or exchange.request is None:
            return []
        media_type, media = next(iter(body["content"].items()))
        if media_type == "application/x-www-form-urlencoded":
            value, wrong = dict(urllib.parse.parse_qsl(exchange.request.decode("utf-8", "replace"))), None
        else:
            value, wrong = parse(exchange.request)
        return [wrong] if wrong else [f"accepted, though: {error}" for error in self.description.errors(media["schema"], value)]

    # --- what was never seen -------------------------------------------------------------------------------
    def unseen(self, rules):
        """Faults: described and not seen, and no rule says why; or a rule that speaks of nothing."""
        found = []
        everywhere = {status for status, _, _ in self.seen}
        for path, method, operation in self.description.operations():
            if path in self.awaited:
                continue
            for status in operation["responses"]:
                key = (status, method.upper(), path)
                rule = next((rule for rule in rules if rule.covers(*key)), None)
                if rule is not None:
                    rule.used = True
                if self.seen[key] == 0 and (rule is None or rule.kind == "must"):
                    found.append(f"{status} of {key[1]} {path} is described, but no test has seen it")
        for rule in rules:
            if not rule.used:
                found.append(f"{rule}: nothing of this kind is described")
            elif rule.kind == "somewhere" and rule.status not in everywhere:
                found.append(f"{rule}: no test has seen a {rule.status} anywhere")
        return found


class Rule:
    """A line of unseen.txt: `never|sometimes|somewhere|must STATUS METHOD PATH`."""

    def __init__(self, line):
        self.kind, self.status, self.method, self.path = line.split()
        if self.kind not in ("never", "sometimes", "somewhere", "must"):
            raise ValueError(f"unseen.txt: {line}")
        self.used = False

    def covers(self, status, method, path):
        return status == self.status and self.method in ("*", method) and self.path in ("*", path)

    def __str__(self):
        return f"unseen.txt: {self.kind} {self.status} {self.method} {self.path}"


def parse(body):
    try:
        return json.loads(body.decode("utf-8")), None
    except ValueError as error:
        return None, f"not JSON: {error}"


def text(body):
    try:
        return body.decode("utf-8"), None
    except ValueError:
        return None, "not UTF-8"


def typed(value, schema):
    return int(value) if schema.get("type") == "integer" and re.fullmatch(r"-?\d+", value) else value


def read_rules(path):
    rules, awaited = [], []
    with open(path, encoding="utf-8") as file:
        for line in (line.split("#")[0].strip() for line in file):
            if line.startswith("awaited "):
                awaited.append(line.split()[1])
            elif line:
                rules.append(Rule(line))
    return rules, awaited


def read_exchanges(paths):
    known = set()
    for path in paths:
        with open(path, encoding="ascii") as file:
            for line in file:
                exchange = Exchange(line, os.path.basename(path).removesuffix(".jsonl"))
                shape = exchange.shape()
                if shape not in known:
                    known.add(shape)
                    yield exchange


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("description")
    parser.add_argument("unseen")
    parser.add_argument("--all", default="", help="judge what was never seen if there is a file of each of these")
    parser.add_argument("folder")
    options = parser.parse_args()
    files = sorted(glob.glob(os.path.join(options.folder, "*.jsonl")))
    rules, awaited = read_rules(options.unseen)
    check = Check(Description.load(options.description), awaited)
    faults, count = collections.Counter(), 0
    for exchange in read_exchanges(files):
        count += 1
        for fault in check.faults(exchange):
            template = check.description.find(exchange.path) if exchange.path else None
            key = (exchange.method, template, exchange.status, re.sub(r"\d+", "0", fault))
            if faults[key] == 0:
                print(f"FAULT {fault}\n      {exchange}")
            faults[key] += 1
    wanted = {name for name in options.all.split(",") if name}
    there = {os.path.basename(path).removesuffix(".jsonl") for path in files}
    unseen = []
    if wanted and wanted <= there:
        unseen = check.unseen(rules)
        for fault in unseen:
            print(f"FAULT {fault}")
    else:
        print(f"what was never seen is not judged: no answers of {', '.join(sorted(wanted - there)) or 'any test'}")
    print(f"{count} shapes of exchanges of {len(there)} tests, {len(check.seen)} answers of operations, {len(faults) + len(unseen)} faults")
    return 1 if faults or unseen else 0


if __name__ == "__main__":
    sys.exit(main())
