"""The end of a run: asks the store, and says what came out. What every scenario has in common.

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
    checks_total: int = 0
    checks_failed: list[str] = field(default_factory=list)
    products: dict[int, dict[str, Any]] = field(default_factory=dict)  # by id, as `verify --json` gives them
    faults: list[str] = field(default_factory=list)

    def ok(self) -> bool:
        return self.asked and not self.faults


def ask_store(acks_path: str | None) -> StoreReading:
    command = os.environ.get("DOORBUSTER_VERIFY") or str(ROOT / "build" / "bin" / "verify")
    if command == DO_NOT_ASK:
        return StoreReading(asked=False)
    data = os.environ.get("DOORBUSTER_DATA") or "data"
    arguments = ["--json", "--data", data] + (["--acks", acks_path] if acks_path else [])
    try:
        done = subprocess.run([command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=VERIFY_SECONDS_MAX, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return StoreReading(faults=[f"the store could not be asked: {error} (DOORBUSTER_VERIFY names the program, DOORBUSTER_DATA the "
                                    f"server's data folder; DOORBUSTER_VERIFY={DO_NOT_ASK} leaves this step out)"])
    try:
        report = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip()[:300] or "nothing"
        return StoreReading(faults=[f"verify could not check (exit {done.returncode}): {said}"])
    return read_report(report, done.returncode)


def read_report(report: dict[str, Any], exit_code: int) -> StoreReading:
    checks = report.get("checks", [])
    reading = StoreReading(checks_total=len(checks), products={line["id"]: line for line in report.get("products", [])})
    reading.checks_failed = [f"{check.get('name')}: {check.get('detail')}" for check in checks if not check.get("ok")]
    reading.faults += [f"verify: {failed}" for failed in reading.checks_failed]
    if (not report.get("ok") or exit_code != 0) and not reading.checks_failed:
        reading.faults.append(f"verify says ok={report.get('ok')} and exits {exit_code}, but names no failed check")
    if not checks:
        reading.faults.append("verify has checked nothing")
    return reading


# --- what every report holds --------------------------------------------------------------------------------------------------------


def faults_of_answers(tally: Tally) -> list[str]:
    faults = []
    if tally.oversold:
        faults.append(f"{tally.oversold} answers with a negative stock")
    if tally.mismatches:
        faults.append(f"{tally.mismatches} of {tally.stock_readings} stock answers in which {tally.other_books} and the store differ")
    for kind, count in tally.unexpected_count.most_common():
        faults.append(f"{count} x {kind}")
    if tally.people_asked == 0:
        faults.append("nobody got as far as buying")
    return faults


def answers_as_json(scenario: str, tally: Tally, faults: list[str]) -> dict[str, Any]:
    return {
        "scenario": scenario,
        "ok": not faults,
        "faults": faults,
        "people": tally.people_asked,
        "refused_limit": tally.refused_limit,
        "throttled": tally.throttled,
        "settled_by_orders": tally.settled_by_orders,
        "oversold": tally.oversold,
        "mismatches": tally.mismatches,
        "other_books": tally.other_books,
        "stock_readings": tally.stock_readings,
        "unexpected": tally.unexpected_total(),
        "examples": tally.examples,
        "seconds": round(tally.seconds(), 3),
        "requests_per_second": round(tally.requests_per_second(), 1),
        **tally.all_requests.figures(),
        "by_name": {name: histogram.figures() for name, histogram in sorted(tally.by_name.items())},
    }


def store_as_json(reading: StoreReading) -> dict[str, Any]:
    return {
        "asked": reading.asked,
        "ok": reading.ok(),
        "checks": reading.checks_total,
        "checks_failed": reading.checks_failed,
    }


def lines_of_answers(tally: Tally) -> list[str]:
    lines = [
        f"  oversales             {tally.oversold:>8,}    answers with a negative stock",
        f"  stock mismatches      {tally.mismatches:>8,}    of {tally.stock_readings:,} readings",
        f"  unexpected answers    {tally.unexpected_total():>8,}",
    ]
    if tally.throttled:
        lines.append(f"  asked to slow down    {tally.throttled:>8,}    answers 429, asked again after a pause")
    return lines


def lines_of_times(tally: Tally) -> list[str]:
    times = tally.all_requests.figures()
    return [
        f"  requests              {times['requests']:>8,}    {tally.requests_per_second():,.0f}/s over {tally.seconds():.0f} s",
        f"  response times        average {times['average_ms']:.1f} ms, p50 {times['p50_ms']:.1f}, p99 {times['p99_ms']:.1f}, "
        f"max {times['max_ms']:.1f}",
    ]


def line_of_store(reading: StoreReading, found: str) -> str:
    """`found`: what to say if it is as it should be."""
    if not reading.asked:
        return "  the store             not asked (DOORBUSTER_VERIFY=none): this run says nothing about what was written down"
    return f"  the store (verify)    {found}" if reading.ok() else "  the store (verify)      FAULTY    see below"


def lines_of_verdict(tally: Tally, faults: list[str]) -> list[str]:
    lines = ["--- PASSED ---" if not faults else "--- FAILED ---"]
    lines += [f"  * {fault}" for fault in faults]
    for kind, examples in tally.examples.items():
        lines += [f"    {kind}, for example: {example}" for example in examples]
    return lines
