#!/usr/bin/python3
"""Prints the result of a run as a table: what, measured, target, verdict; of several products their books first. Exit 1 if a target was
missed.

  result_table.py RESULT.json    the file that DOORBUSTER_RESULT named during the run
  result_table.py RUNFOLDER      what a run of scripts/demo.sh has left: result.json, and what happened to the server meanwhile

A target of v4_production that is beaten by ten is marked "ok, x10".
"""
from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import recovery
from events import read_lines
from tally import Histogram

REQUESTS_PER_SECOND_MIN = 100
AVERAGE_MS_MAX = 200
P99_MS_MAX = 1000
# Below this many people, they and their waiting times set the rate, not the server. The rate is no target in other scenarios: 100 calm
# people make 40 requests a second, however fast the server is.
RATE_TARGET_PEOPLE_MIN = {"v1_stress": 300, "v2_multi": 50, "v3_redlock": 300}
# Of v4_production. Rates are those of the busiest seconds; a thousand people who wait a little make them, fewer do not.
PRODUCTION_RATE_MIN, PRODUCTION_PEOPLE_MIN = 1000, 1000
PRODUCTION_P50_MS_MAX, PRODUCTION_P99_MS_MAX, RECOVERY_SECONDS_MAX = 50, 200, 30
BUSIEST_SECONDS = 3
TAKEOVER_SECONDS_MAX = 5   # as long as a purchase waits before it is told 503


@dataclass
class Row:
    what: str
    measured: str
    target: str = ""
    ok: bool | None = None  # None: no target, printed for the reader
    by_ten: bool = False    # the target is beaten by ten

    @property
    def is_by_ten(self) -> bool:
        return bool(self.ok and self.by_ten)

    def cells(self) -> tuple[str, ...]:
        return self.what, self.measured, self.target, verdict(self.ok) + (", x10" if self.is_by_ten else "")


@dataclass
class Run:
    """What a run has left. Of a run without a folder there is only the result."""
    result: dict[str, Any]
    outages: list[dict[str, Any]] | None = None  # what v3_redlock/outage.py wrote; None: nobody killed lock nodes
    timeline: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)  # what watch.py saw
    killed: dict[str, Any] | None = None   # what v1_stress/outage.py wrote: the server, and when the sale went on


def read_run(path: Path) -> Run:
    if not path.is_dir():
        return Run(json.loads(path.read_text(encoding="utf-8")))
    run = Run(json.loads((path / "result.json").read_text(encoding="utf-8")), None, read_lines(path / "timeline.jsonl"),
              sorted(read_lines(path / "events.jsonl"), key=lambda event: event["at"]), read_lines(path / "samples.jsonl"))
    if (path / "killed.json").exists():
        run.killed = json.loads((path / "killed.json").read_text(encoding="utf-8"))
    if run.result["scenario"] == "v3_redlock":
        outages = path / "outages.json"
        run.outages = json.loads(outages.read_text(encoding="utf-8")) if outages.exists() else []
    return run


def verdict(ok: bool | None) -> str:
    return "" if ok is None else "ok" if ok else "MISSED"


def below(what: str, measured: float, limit: float, unit: str) -> Row:
    return Row(what, f"{measured:.1f} {unit}", f"< {limit:g} {unit}", measured < limit, measured < limit / 10)


def exactly(what: str, measured: int, wanted: int) -> Row:
    return Row(what, str(measured), f"exactly {wanted}" if wanted else "0", measured == wanted)


# --- the rows ---------------------------------------------------------------------------------------------------------------------------


def rows_of_one_product(result: dict[str, Any]) -> list[Row]:
    expected = result["expected"]
    return [
        exactly("sold, by the store", result["store"]["sold_in_run"], expected),
        exactly("sold, as people were told", result["bought"], expected),
        exactly("people who got one", result["people_bought"], expected),
        exactly("people told sold out", result["people_refused"], result["people"] - expected),
    ]


def rows_of_redlock(result: dict[str, Any]) -> list[Row]:
    """The everyday product and the locks."""
    everyday, locks = result["everyday"], result["locks"]
    sold, in_store = everyday["sold"], everyday["sold_in_store"]
    rows = [
        Row("everyday product sold, by the store", "?" if in_store is None else f"{in_store:,}", f"exactly {sold:,}", in_store == sold),
        Row("longest pause between two of these", f"{everyday['longest_pause_ms']:,.0f} ms"),
        Row("locks acquired", f"{locks['acquired']:,}"),
    ]
    if locks["acquired"]:
        rows.append(Row("wait for a lock, average", f"{locks['wait_average_ms']:.1f} ms"))
    if locks["wait_p99_ms"] is not None:
        rows.append(Row("wait for a lock, p99 at most", f"{locks['wait_p99_ms']:g} ms"))
    return rows


def rows_of_outages(everyday: dict[str, Any], outages: list[dict[str, Any]]) -> list[Row]:
    """What happened to the nodes, and how sales went with some of them missing, and with everybody there before that."""
    again = sum(outage["votes"] is not None for outage in outages)
    rows = [Row("nodes killed that vote again", f"{again} of {len(outages)}", "all", 0 < len(outages) == again)]
    sales = {int(second): count for second, count in everyday["sold_at"].items()}
    if again and sales:
        begin, end = min(outage["down"] for outage in outages), max(outage["votes"] or 0 for outage in outages)
        before = range(max(int(everyday["all_in_at"]) + 1, 2 * int(begin) - int(end)), int(begin))
        missing = range(int(begin) + 1, min(int(end), max(sales)))
        for what, seconds in (("everyday sold a second, before that", before), ("everyday sold a second, nodes missing", missing)):
            if seconds:
                rows.append(Row(what, f"{sum(sales.get(second, 0) for second in seconds) / len(seconds):,.0f}"))
    return rows


def rows_of_shelf(result: dict[str, Any]) -> list[Row]:
    return [
        Row("carts sold", f"{result['carts_sold']:,}"),
        Row("carts refused", f"{result['carts_refused']:,}"),
        exactly("carts sold in part", result["half_sold"], 0),
        Row("single purchases sold", f"{result['singles_sold']:,}"),
        Row("single purchases refused", f"{result['singles_refused']:,}"),
        Row("refused by the customer limit", f"{result['refused_limit']:,}"),
        exactly("people above the limit", result["over_limit"], 0),
        Row("orders cancelled (and asked again)", f"{result['cancels']:,} ({result['cancels_repeated']:,})"),
        Row("restocks (and asked again)", f"{result['restocks']:,} ({result['restocks_repeated']:,})"),
    ]


def rows_of_production(run: Run) -> list[Row]:
    """Books and answers as everywhere; speed at the busiest moment, and how soon people could buy again after a kill."""
    result = run.result
    people, rate, steady = most_people(run.timeline), busiest_rate(run.timeline), steady_times(run)
    rate_counts = people >= PRODUCTION_PEOPLE_MIN and not result["bend"]
    rows = [
        Row("people at once, at most", f"{people:,}"),
        Row("sold", f"{result['bought']:,}"),
        Row("told sold out", f"{result['refused_sold_out']:,}"),
        Row("products put on sale, restocks", f"{result['drops']}, {result['restocks']}"),
        exactly("oversold", result["oversold"], 0),
        Row("Redis and store differ", f"{result['mismatches']} of {result['stock_readings']:,}", "0", result["mismatches"] == 0),
        exactly("unexpected answers", result["unexpected"], 0),
        Row("answers lost, 503 or without Redis' figure", f"{result['interrupted']:,}", "" if result["kills_expected"] else "0",
            None if result["kills_expected"] else result["interrupted"] == 0),
        Row(f"requests/s, busiest {BUSIEST_SECONDS} s", f"{rate:,.0f}", f">= {PRODUCTION_RATE_MIN:,}" if rate_counts else "",
            rate >= PRODUCTION_RATE_MIN if rate_counts else None, rate >= 10 * PRODUCTION_RATE_MIN),
        below("p50", result["p50_ms"], PRODUCTION_P50_MS_MAX, "ms"),
    ]
    p99 = below("p99, without the seconds after a kill" if run.events else "p99", steady, PRODUCTION_P99_MS_MAX, "ms")
    rows.append(p99 if not result["bend"] else Row("p99, the bend included", p99.measured))
    if result["bend"]:
        bend = result["bend"]
        rows.append(Row("it bends at", f"{bend['users']:,} people, {bend['rate']:,.0f}/s: {bend['why']}"))
    for what, _, seconds in recovery.recoveries(result["sold_at"], run.events):
        rows.append(row_of_kill(what, seconds))
    if run.samples:
        names = (("Locust", "load"), ("server", "server"), ("Redis", "redis"), ("others", "others"))
        rows.append(Row("processors in use at most", ", ".join(f"{name} {busiest_processors(run.samples, who):.1f}" for name, who in names)))
    store = result["store"]
    rows.append(Row("verify", f"{store['checks'] - len(store['checks_failed'])} of {store['checks']} checks", "all", store["ok"]))
    return rows


def row_of_kill(what: str, seconds: float | None) -> Row:
    """The sales are those of all workers together: of one that was killed nothing is seen if the others went on."""
    if seconds is None:
        return Row(f"{what}: selling again after", "not in this run", f"< {RECOVERY_SECONDS_MAX} s", False)
    if seconds < 0.1:  # what a sale is counted by
        return Row(f"{what}: sales of all workers", "went on", f"back in < {RECOVERY_SECONDS_MAX} s", True)
    return below(f"{what}: selling again after", seconds, RECOVERY_SECONDS_MAX, "s")


def most_people(timeline: list[dict[str, Any]]) -> int:
    return max((line["users"] for line in timeline), default=0)


def orders_confirmed(result: dict[str, Any]) -> int:
    """As people were told, whatever the scenario sells."""
    return sum(result.get(figure, 0) for figure in ("bought", "carts_sold", "singles_sold")) + result.get("everyday", {}).get("sold", 0)


def busiest_rate(timeline: list[dict[str, Any]]) -> float:
    counts = [line["all"][0] for line in timeline]
    return max((sum(counts[i:i + BUSIEST_SECONDS]) / BUSIEST_SECONDS for i in range(len(counts) - BUSIEST_SECONDS + 1)), default=0.0)


def busiest_processors(samples: list[dict[str, Any]], who: str) -> float:
    return max(line["cpu"].get(who, 0.0) for line in samples)


def steady_times(run: Run) -> float:
    """The p99 of all seconds in which nothing was killed and everything that was had recovered."""
    return p99_without(run, [(at, RECOVERY_SECONDS_MAX if seconds is None else seconds)
                             for _, at, seconds in recovery.recoveries(run.result["sold_at"], run.events)])


def kills_of(run: Run) -> list[float]:
    return [event["at"] for event in run.events if " killed" in event["what"]]


def p99_without(run: Run, kills: list[tuple[float, float]]) -> float:
    """`kills`: when, and for how long it was felt."""
    disturbed = [(at - 1, at + 1 + seconds) for at, seconds in kills]
    times = Histogram()
    for line in run.timeline:
        if not any(begin <= line["at"] <= end + 1 for begin, end in disturbed):
            times.add_buckets(line["buckets"])
    return times.percentile_ms(99) if times.count else run.result["p99_ms"]


def rows_of_answers(run: Run) -> list[Row]:
    result = run.result
    store, rate, average = result["store"], result["requests_per_second"], result["average_ms"]
    p99, without = result["p99_ms"], ""
    if run.killed:   # who bought just then has waited for that long
        p99, without = p99_without(run, [(at, run.killed["seconds"]) for at in kills_of(run)]), ", without the seconds after the kill"
    rate_counts = result["people"] >= RATE_TARGET_PEOPLE_MIN.get(result["scenario"], sys.maxsize)
    return [
        exactly("oversold", result["oversold"], 0),
        Row(f"{result['other_books']} and store differ", f"{result['mismatches']} of {result['stock_readings']:,}", "0", result["mismatches"] == 0),
        exactly("unexpected answers", result["unexpected"], 0),
        Row("requests/s", f"{rate:,.0f}", f">= {REQUESTS_PER_SECOND_MIN}" if rate_counts else "",
            rate >= REQUESTS_PER_SECOND_MIN if rate_counts else None),
        Row("average", f"{average:.1f} ms", f"< {AVERAGE_MS_MAX} ms", average < AVERAGE_MS_MAX),
        Row("p50", f"{result['p50_ms']:.1f} ms"),
        Row(f"p99{without}", f"{p99:.1f} ms", f"< {P99_MS_MAX} ms", p99 < P99_MS_MAX),
        *rows_of_purchases(result["by_name"]),
        Row("verify", f"{store['checks'] - len(store['checks_failed'])} of {store['checks']} checks", "all", store["ok"]),
    ]


def rows_of_purchases(by_name: dict[str, Any]) -> list[Row]:
    names = {"p99 of carts alone": "/api/purchases (cart)", "p99 of purchases alone": "/api/purchases",
             "p99 of purchases at the Redlock paths": "/api/purchases/redlock*"}
    return [Row(what, f"{by_name[name]['p99_ms']:.1f} ms") for what, name in names.items() if name in by_name]


# --- the tables -------------------------------------------------------------------------------------------------------------------------


def render(header: tuple[str, ...], rows: list[tuple[str, ...]], sides: tuple[Callable[[str, int], str], ...]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows)]
    line = "  " + "-" * (sum(widths) + 2 * (len(widths) - 1))

    def format_row(row: tuple[str, ...]) -> str:
        return ("  " + "  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths))).rstrip()

    return "\n".join([line, format_row(header), line, *map(format_row, rows), line])


def render_rows(rows: list[Row]) -> str:
    return render(("", "measured", "target", ""), [row.cells() for row in rows], (str.ljust, str.rjust, str.ljust, str.ljust))


def render_products(products: list[dict[str, Any]]) -> str:
    header = ("", "opening", "restocked", "cancelled", "sold", "expected", "stock", "in Redis", "")
    rows = [cells_of_product(product) for product in products]
    return render(header, rows, (str.ljust, *(str.rjust,) * 7, str.ljust)) + "\n" + (
        "  sold and cancelled: as people were told, with what went in bundles; of a bundle: bundles, which have no stock of their own")


def cells_of_product(product: dict[str, Any]) -> tuple[str, ...]:
    def cell(figure: str) -> str:
        no_stock_of_its_own = product["is_bundle"] and figure not in ("cancelled", "sold")
        return "" if no_stock_of_its_own else "?" if product[figure] is None else f"{product[figure]:,}"

    figures = ("opening", "restocked", "cancelled", "sold", "expected", "stock", "redis_stock")
    return product["name"], *map(cell, figures), verdict(product["ok"])


def title(run: Run) -> str:
    result = run.result
    what = (f"{result['stock_at_start']} units of \"{result['product']}\"" if "product" in result
            else f"{len(result['products'])} products" + (", bundles among them" if any(line["is_bundle"] for line in result["products"]) else ""))
    if result["scenario"] == "v4_production" and run.timeline:   # people come and go
        scenario, people = f"{result['scenario']} {result['shape']}", f"{most_people(run.timeline):,} people at once"
    else:
        scenario, people = " ".join(result[name] for name in ("scenario", "shape") if name in result), f"{result['people']} people"
    return f"  {scenario}: {people}, {what}, {result['seconds']:.0f} s, {result['requests']:,} requests"


def rows_of(run: Run) -> list[Row]:
    result = run.result
    if result["scenario"] == "v4_production":
        return rows_of_production(run)
    rows = rows_of_shelf(result) if result.get("products") else rows_of_one_product(result)
    rows += rows_of_redlock(result) if "locks" in result else []
    rows += rows_of_outages(result["everyday"], run.outages) if run.outages is not None else []
    if run.killed:
        rows += [below(f"{run.killed['what']} killed: next order recorded after", run.killed["seconds"], TAKEOVER_SECONDS_MAX, "s"),
                 Row("answers lost, 503 or without Redis' figure meanwhile", f"{result['interrupted']:,}")]
    return rows + rows_of_answers(run)


def missed_targets(run: Run) -> list[str]:
    return ([product["name"] for product in run.result.get("products", []) if not product["ok"]] +
            [row.what for row in rows_of(run) if row.ok is False])


def main() -> int:
    run = read_run(Path(sys.argv[1]))
    result, products = run.result, run.result.get("products", [])
    print(title(run))
    if products:
        print(render_products(products))
    print(render_rows(rows_of(run)))
    missed = missed_targets(run)
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
