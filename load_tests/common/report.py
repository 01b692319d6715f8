"""The end of a run: asks the store, compares it with what people were told, and says what came out.

Answers alone prove nothing: a server can tell 100 people yes and write down 90 orders, or 110. So the last step of every run is
`verify`, and its figures are held against the tally.
"""
from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tally import Tally

ROOT = Path(__file__).resolve().parents[2]
VERIFY_SECONDS_MAX = 60
DO_NOT_ASK = "none"  # DOORBUSTER_VERIFY=none: the server runs elsewhere, its store cannot be read from here


@dataclass
class StoreReading:
    asked: bool = True
    ok: bool = False
    checks_total: int = 0
    checks_failed: list[str] = field(default_factory=list)
    sold_in_run: int | None = None
    stock: int | None = None
    faults: list[str] = field(default_factory=list)


def read_store(tally: Tally, acks_path: str | None = None) -> StoreReading:
    command = os.environ.get("DOORBUSTER_VERIFY") or str(ROOT / "build" / "bin" / "verify")
    if command == DO_NOT_ASK:
        return StoreReading(asked=False)
    data = os.environ.get("DOORBUSTER_DATA") or "data"
    arguments = ["--json", "--data", data] + (["--acks", acks_path] if acks_path else [])
    reading = StoreReading()
    try:
        done = subprocess.run([command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=VERIFY_SECONDS_MAX, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        reading.faults.append(f"the store could not be asked: {error} (DOORBUSTER_VERIFY names the program, DOORBUSTER_DATA the "
                              f"server's data folder; DOORBUSTER_VERIFY={DO_NOT_ASK} leaves this step out)")
        return reading
    try:
        report = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip()[:300] or "nothing"
        reading.faults.append(f"verify could not check (exit {done.returncode}): {said}")
        return reading
    compare(reading, report, done.returncode, tally)
    return reading


def compare(reading: StoreReading, report: dict[str, Any], exit_code: int, tally: Tally) -> None:
    checks = report.get("checks", [])
    reading.checks_total = len(checks)
    reading.checks_failed = [f"{check.get('name')}: {check.get('detail')}" for check in checks if not check.get("ok")]
    reading.faults += [f"verify: {failed}" for failed in reading.checks_failed]
    if (not report.get("ok") or exit_code != 0) and not reading.checks_failed:
        reading.faults.append(f"verify says ok={report.get('ok')} and exits {exit_code}, but names no failed check")

    product = next((line for line in report.get("products", []) if line.get("id") == tally.product_id), None)
    if product is None:
        reading.faults.append(f"the store does not know product {tally.product_id}: is DOORBUSTER_DATA this server's data folder?")
        return
    reading.stock = product["stock"]
    reading.sold_in_run = tally.stock_at_start - product["stock"]
    if not tally.bought <= reading.sold_in_run <= tally.bought + tally.unanswered:
        without = f", {tally.unanswered} had no answer" if tally.unanswered else ""
        reading.faults.append(f"people were told of {tally.bought} sales{without}; the store has {reading.sold_in_run}")
    if product["stock"] < 0:
        reading.faults.append(f"the store's stock is {product['stock']}")
    if product.get("redis_stock") not in (None, product["stock"]):
        reading.faults.append(f"with nobody buying, Redis has a stock of {product['redis_stock']}, the store {product['stock']}")
    reading.ok = not reading.faults


def faults_of(tally: Tally, reading: StoreReading) -> list[str]:
    """Why the run has failed; empty if it has not."""
    faults = []
    if tally.oversold:
        faults.append(f"{tally.oversold} answers with a negative stock")
    if tally.mismatches:
        faults.append(f"{tally.mismatches} of {tally.stock_readings} stock answers in which Redis and the store differ")
    for kind, count in tally.unexpected_count.most_common():
        faults.append(f"{count} x {kind}")
    expected = tally.expected_successes()
    if tally.bought > expected or tally.bought + tally.unanswered < expected:
        faults.append(f"{tally.bought} sales, expected {expected}")
    if tally.one_each and tally.people_bought != tally.bought:
        faults.append(f"{tally.bought} units went to {tally.people_bought} people, though everyone may have one")
    if tally.people_asked == 0:
        faults.append("nobody got as far as buying")
    return faults + reading.faults


def as_json(scenario: str, tally: Tally, reading: StoreReading, faults: list[str]) -> dict[str, Any]:
    return {
        "scenario": scenario,
        "ok": not faults,
        "faults": faults,
        "product": tally.product_name,
        "stock_at_start": tally.stock_at_start,
        "people": tally.people_asked,
        "expected": tally.expected_successes(),
        "bought": tally.bought,
        "people_bought": tally.people_bought,
        "people_refused": tally.people_refused,
        "refused_sold_out": tally.refused_sold_out,
        "refused_limit": tally.refused_limit,
        "throttled": tally.throttled,
        "settled_by_orders": tally.settled_by_orders,
        "unanswered": tally.unanswered,
        "oversold": tally.oversold,
        "mismatches": tally.mismatches,
        "stock_readings": tally.stock_readings,
        "unexpected": tally.unexpected_total(),
        "examples": tally.examples,
        "seconds": round(tally.seconds(), 3),
        "requests_per_second": round(tally.requests_per_second(), 1),
        **tally.all_requests.figures(),
        "by_name": {name: histogram.figures() for name, histogram in sorted(tally.by_name.items())},
        "store": {
            "asked": reading.asked,
            "ok": reading.ok,
            "sold_in_run": reading.sold_in_run,
            "stock": reading.stock,
            "checks": reading.checks_total,
            "checks_failed": reading.checks_failed,
        },
    }


def summary(scenario: str, tally: Tally, reading: StoreReading, faults: list[str]) -> str:
    expected = tally.expected_successes()
    rate = 100.0 * tally.bought / tally.people_asked if tally.people_asked else 0.0
    rate_expected = 100.0 * expected / tally.people_asked if tally.people_asked else 0.0
    times = tally.all_requests.figures()
    lines = [
        "",
        f"--- {scenario}: {tally.people_asked} people, {tally.stock_at_start} units of \"{tally.product_name}\" ---",
        f"  successes             {tally.bought:>8,}    expected {expected:,} = min(stock, people)",
        f"  success rate          {rate:>7.1f}%    expected {rate_expected:.1f}%",
        f"  people who got one    {tally.people_bought:>8,}",
        f"  people told sold out  {tally.people_refused:>8,}    in {tally.refused_sold_out:,} answers, repeats included",
        f"  limit refusals        {tally.refused_limit:>8,}    of those who had one and tried again",
        f"  oversales             {tally.oversold:>8,}    answers with a negative stock",
        f"  stock mismatches      {tally.mismatches:>8,}    of {tally.stock_readings:,} readings",
        f"  unexpected answers    {tally.unexpected_total():>8,}",
    ]
    if tally.throttled:
        lines.append(f"  asked to slow down    {tally.throttled:>8,}    answers 429, asked again after a pause")
    if tally.settled_by_orders or tally.unanswered:
        lines.append(f"  lost answers          {tally.settled_by_orders + tally.unanswered:>8,}"
                     f"    of those, {tally.settled_by_orders} settled by looking at the orders")
    lines += [
        f"  requests              {times['requests']:>8,}    {tally.requests_per_second():,.0f}/s over {tally.seconds():.0f} s",
        f"  response times        average {times['average_ms']:.1f} ms, p50 {times['p50_ms']:.1f}, p99 {times['p99_ms']:.1f}, "
        f"max {times['max_ms']:.1f}",
    ]
    if not reading.asked:
        lines.append("  the store             not asked (DOORBUSTER_VERIFY=none): this run says nothing about what was written down")
    elif reading.ok:
        lines.append(f"  the store (verify)    {reading.sold_in_run:>8,}    sold in this run, {reading.stock} left; "
                     f"{reading.checks_total} checks hold")
    else:
        lines.append("  the store (verify)      FAULTY    see below")
    lines.append("--- PASSED ---" if not faults else "--- FAILED ---")
    lines += [f"  * {fault}" for fault in faults]
    for kind, examples in tally.examples.items():
        lines += [f"    {kind}, for example: {example}" for example in examples]
    return "\n".join(lines)
