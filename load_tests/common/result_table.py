#!/usr/bin/python3
"""Prints the result of a run as one table: what, measured, target, verdict. Exit 1 if a target was missed.

  result_table.py RESULT.json     the file that DOORBUSTER_RESULT named during the run
"""
from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

REQUESTS_PER_SECOND_MIN = 100
AVERAGE_MS_MAX = 200
P99_MS_MAX = 1000
# Below this many people who do not wait, people and their waiting times set the rate, not the server.
RATE_TARGET_PEOPLE_MIN = 300


@dataclass
class Row:
    what: str
    measured: str
    target: str = ""
    ok: bool | None = None  # None: no target, printed for the reader

    def verdict(self) -> str:
        return "" if self.ok is None else "ok" if self.ok else "MISSED"


def rows_of(result: dict[str, Any]) -> list[Row]:
    store = result["store"]
    expected, bought, refused = result["expected"], result["bought"], result["people"] - result["expected"]
    rate, average, p99 = result["requests_per_second"], result["average_ms"], result["p99_ms"]
    # The rate is a target for the stress scenario; 100 calm people make 40 requests a second, however fast the server is.
    rate_counts = result["scenario"] == "v1_stress" and result["people"] >= RATE_TARGET_PEOPLE_MIN
    purchases = result["by_name"].get("/api/purchases", {})
    return [
        Row("sold, by the store", str(store["sold_in_run"]), f"exactly {expected}", store["sold_in_run"] == expected),
        Row("sold, as people were told", str(bought), f"exactly {expected}", bought == expected),
        Row("people who got one", str(result["people_bought"]), f"exactly {expected}", result["people_bought"] == expected),
        Row("people told sold out", str(result["people_refused"]), f"exactly {refused}", result["people_refused"] == refused),
        Row("oversold", str(result["oversold"]), "0", result["oversold"] == 0),
        Row("Redis and store differ", f"{result['mismatches']} of {result['stock_readings']:,}", "0", result["mismatches"] == 0),
        Row("unexpected answers", str(result["unexpected"]), "0", result["unexpected"] == 0),
        Row("requests/s", f"{rate:,.0f}", f">= {REQUESTS_PER_SECOND_MIN}" if rate_counts else "",
            rate >= REQUESTS_PER_SECOND_MIN if rate_counts else None),
        Row("average", f"{average:.1f} ms", f"< {AVERAGE_MS_MAX} ms", average < AVERAGE_MS_MAX),
        Row("p50", f"{result['p50_ms']:.1f} ms"),
        Row("p99", f"{p99:.1f} ms", f"< {P99_MS_MAX} ms", p99 < P99_MS_MAX),
        Row("p99 of purchases alone", f"{purchases.get('p99_ms', 0):.1f} ms"),
        Row("verify", f"{store['checks'] - len(store['checks_failed'])} of {store['checks']} checks", "all", store["ok"]),
    ]


def render(result: dict[str, Any], rows: list[Row]) -> str:
    header = Row("", "measured", "target")
    widths = [max(len(cell) for cell in column)
              for column in zip(*((row.what, row.measured, row.target, row.verdict()) for row in [header, *rows]))]
    line = "  " + "-" * (sum(widths) + 6)

    def format_row(row: Row) -> str:
        cells = (row.what.ljust(widths[0]), row.measured.rjust(widths[1]), row.target.ljust(widths[2]), row.verdict())
        return ("  " + "  ".join(cells)).rstrip()

    return "\n".join([
        f"  {result['scenario']}: {result['people']} people, {result['stock_at_start']} units of \"{result['product']}\", "
        f"{result['seconds']:.0f} s, {result['requests']:,} requests",
        line, format_row(header), line, *map(format_row, rows), line,
    ])


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as source:
        result = json.load(source)
    rows = rows_of(result)
    print(render(result, rows))
    missed = [row.what for row in rows if row.ok is False]
    if not missed and result["ok"]:
        print("  All targets met.")
        return 0
    if missed:
        print(f"  MISSED: {', '.join(missed)}")
    for fault in result["faults"]:
        print(f"  * {fault}")
    for kind, examples in result["examples"].items():
        print(f"    {kind}, for example: {examples[0]}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
