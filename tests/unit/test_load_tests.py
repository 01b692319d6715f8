#!/usr/bin/python3
"""The arithmetic of the load tests and their report page, from canned figures: recovery after a kill, where a step run bends, percentiles put
together again, the page. Needs no Locust; only Python's standard library."""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import unittest
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
for folder in ("common", "report_page"):
    sys.path.insert(0, str(ROOT / "load_tests" / folder))

import events  # noqa: E402
import page  # noqa: E402
import plot  # noqa: E402
import production  # noqa: E402
import reading  # noqa: E402
import recovery  # noqa: E402
import result_table  # noqa: E402
import timeline  # noqa: E402
from tally import Histogram  # noqa: E402

BEGAN = 1_795_600_000.0
SECONDS = 40
KILLED_AT = BEGAN + 20.0
NOT_AN_ELEMENT_THAT_ENDS = {"meta", "path", "circle", "rect"}


def a_line(second: int) -> dict:
    histogram = Histogram()
    for place in range(100):
        histogram.add(1.0 if place < 98 else 15.0)
    dead = 20 < second <= 22
    return {"at": BEGAN + second, "users": min(1000, 100 * second), "kinds": {"confirmed": 0 if dead else 500, "sold out": 300, "looked": 400,
                                                                             **({"unavailable": 7} if dead else {})},
            "faults": 0, "all": [1200, *timeline.figures(histogram)[1:]], "buying": timeline.figures(histogram), "buckets": histogram.buckets()}


def a_sample(second: int) -> dict:
    products = [{"id": 1, "name": "Everyday <&>", "store": 1_000_000 - 500 * second, "redis": 1_000_000 - 500 * second}]
    if second > 10:
        products.append({"id": 2, "name": "Drop", "store": max(0, 400 - 20 * second), "redis": None if second == 21 else max(0, 400 - 20 * second)})
    return {"at": BEGAN + second, "cpu": {"server": 0.5, "redis": 0.1, "load": 0.9, "others": 0.2}, "products": products}


def a_result(**changes: object) -> dict:
    sold_at = {str(int(BEGAN * 10) + tenth): 50 for tenth in range(SECONDS * 10) if not 200 <= tenth < 215}
    result = {"scenario": "v4_production", "shape": "spike", "ok": True, "faults": [], "people": 999, "oversold": 0, "mismatches": 0,
              "other_books": "Redis", "stock_readings": 1234, "unexpected": 0, "examples": {}, "seconds": 40.0, "requests": 47000,
              "requests_per_second": 1175.0, "average_ms": 1.4, "p50_ms": 1.2, "p99_ms": 15.2, "max_ms": 99.0, "by_name": {}, "bought": 19000,
              "refused_sold_out": 12000, "drops": 1, "restocks": 2, "interrupted": 14, "kills_expected": True, "bend": None, "sold_at": sold_at,
              "products": [{"name": "Everyday <&>", "is_bundle": False, "opening": 1000000, "restocked": 0, "cancelled": 0, "sold": 19000,
                            "expected": 981000, "stock": 981000, "redis_stock": 981000, "ok": True}],
              "store": {"asked": True, "ok": True, "checks": 40, "checks_failed": []}}
    result.update(changes)
    return result


def write_run(folder: Path, result: dict, seconds: int = SECONDS) -> None:
    def write_lines(name: str, lines: list) -> None:
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "machine.json").write_text(json.dumps({"scenario": "v4_spike", "gate": "lua", "began_at": "2026-11-25", "processors": "2 x <fast>"}),
                                         encoding="utf-8")
    write_lines("timeline.jsonl", [a_line(second) for second in range(1, seconds + 1)])
    write_lines("samples.jsonl", [a_sample(second) for second in range(1, seconds + 1)])
    events.note_event(str(folder / "events.jsonl"), "redis killed", KILLED_AT)


class Balance(HTMLParser):
    """Every element that is opened is closed, in order; no script, and nothing from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.seen: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        if tag not in NOT_AN_ELEMENT_THAT_ENDS:
            self.open.append(tag)
        self.faults += [f"<{tag} {name}={value}>" for name, value in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        if tag in NOT_AN_ELEMENT_THAT_ENDS:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> where it does not belong")


class TestRecovery(unittest.TestCase):
    def test_time_until_the_sales_are_back(self) -> None:
        sold_at = {tenth: 50 for tenth in range(400) if not 200 <= tenth < 215}
        self.assertAlmostEqual(recovery.recovery_seconds(sold_at, 20.0), 1.5)

    def test_burst_before_the_stream_is_back_does_not_count(self) -> None:
        sold_at = {tenth: 50 for tenth in range(400) if not 200 <= tenth < 230}
        sold_at[205] = 600   # what was put off, made good at once
        self.assertGreater(recovery.recovery_seconds(sold_at, 20.0), 2.5)

    def test_kill_that_nobody_noticed(self) -> None:
        self.assertEqual(recovery.recovery_seconds({tenth: 50 for tenth in range(400)}, 20.0), 0.0)

    def test_sales_that_came_unevenly_before(self) -> None:
        sold_at = {tenth: 30 if tenth % 10 < 3 else 60 for tenth in range(400) if not 200 <= tenth < 210}
        self.assertAlmostEqual(recovery.recovery_seconds(sold_at, 20.0), 1.0)

    def test_never_back(self) -> None:
        self.assertIsNone(recovery.recovery_seconds({tenth: 50 if tenth < 200 else 20 for tenth in range(400)}, 20.0))

    def test_nothing_sold_before(self) -> None:
        self.assertIsNone(recovery.recovery_seconds({tenth: 50 for tenth in range(200, 400)}, 20.0))
        self.assertEqual(recovery.recoveries({}, []), [])


class TestBend(unittest.TestCase):
    def test_bends_when_answers_are_late(self) -> None:
        self.assertIn("p99", production.why_it_bends([(100, 500.0)], production.BEND_P99_MS + 1))

    def test_bends_when_more_people_bring_no_more_answers(self) -> None:
        self.assertIn("more people", production.why_it_bends([(100, 500.0), (200, 505.0)], 10.0))

    def test_goes_on_while_more_people_bring_more(self) -> None:
        self.assertEqual(production.why_it_bends([(100, 500.0), (200, 900.0)], 10.0), "")


class TestTable(unittest.TestCase):
    def test_percentile_of_seconds_put_together(self) -> None:
        whole, parts = Histogram(), Histogram()
        for place in range(1000):
            whole.add(place / 10 + 0.1)
        parts.add_buckets(json.loads(json.dumps(whole.buckets())))
        self.assertEqual(parts.count, 1000)
        for percent in (50, 95, 99):
            self.assertAlmostEqual(parts.percentile_ms(percent), whole.percentile_ms(percent))

    def rows(self, result: dict) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            write_run(Path(folder), result)
            return {row.what: row for row in result_table.rows_of(result_table.read_run(Path(folder)))}

    def test_targets_beaten_by_ten(self) -> None:
        rows = self.rows(a_result())
        self.assertTrue(all(row.ok in (None, True) for row in rows.values()), rows)
        self.assertEqual(rows["p50"].cells()[3], "ok, x10")
        self.assertEqual(rows["redis killed: selling again after"].cells()[1:], ("1.5 s", "< 30 s", "ok, x10"))
        self.assertTrue(rows["p99, without the seconds after a kill"].by_ten)
        self.assertEqual(rows["requests/s, busiest 3 s"].cells()[2:], (">= 1,000", "ok"))

    def test_targets_missed(self) -> None:
        rows = self.rows(a_result(oversold=1, p50_ms=50.0, sold_at={str(int(BEGAN * 10) + tenth): 50 for tenth in range(200)}))
        missed = [what for what, row in rows.items() if row.ok is False]
        self.assertEqual(missed, ["oversold", "p50", "redis killed: selling again after"])

    def test_kill_that_stopped_nobody(self) -> None:
        rows = self.rows(a_result(sold_at={str(int(BEGAN * 10) + tenth): 50 for tenth in range(SECONDS * 10)}))
        self.assertEqual(rows["redis killed: sales of all workers"].cells()[1:], ("went on", "back in < 30 s", "ok"))

    def test_title_counts_who_was_there_at_once(self) -> None:
        run = result_table.Run(a_result(), timeline=[a_line(second) for second in range(1, SECONDS)])
        self.assertIn("v4_production spike: 1,000 people at once, 1 products", result_table.title(run))
        self.assertIn("v1_stress spike: 999 people, ", result_table.title(result_table.Run(a_result(scenario="v1_stress"))))

    def test_server_killed_in_a_sale_of_one_product(self) -> None:
        """Whoever bought just then has waited; the p99 is that of the other seconds."""
        one_product = {"scenario": "v1_stress", "products": [], "stock_at_start": 500, "expected": 500, "bought": 500, "people_bought": 500,
                       "people_refused": 499, "p99_ms": 1500.0}
        result = a_result(**one_product, store={**a_result()["store"], "sold_in_run": 500})
        with tempfile.TemporaryDirectory() as folder:
            write_run(Path(folder), result)
            (Path(folder) / "killed.json").write_text(json.dumps({"what": "server 2", "seconds": 1.4}), encoding="utf-8")
            rows = {row.what: row for row in result_table.rows_of(result_table.read_run(Path(folder)))}
        self.assertEqual(rows["server 2 killed: next order recorded after"].cells()[1:], ("1.4 s", "< 5 s", "ok"))
        self.assertTrue(rows["p99, without the seconds after the kill"].ok)
        self.assertTrue(all(row.ok in (None, True) for row in rows.values()), rows)

    def test_lost_answer_where_nothing_was_killed(self) -> None:
        self.assertFalse(self.rows(a_result(kills_expected=False))["answers lost, 503 or without Redis' figure"].ok)


class TestPage(unittest.TestCase):
    def render(self, result: dict, seconds: int = SECONDS) -> str:
        with tempfile.TemporaryDirectory() as folder:
            write_run(Path(folder), result, seconds)
            return page.render(reading.read(Path(folder)))

    def test_page_of_a_run(self) -> None:
        text = self.render(a_result())
        found = Balance()
        found.feed(text)
        self.assertEqual((found.faults, found.open), ([], []))
        self.assertEqual(found.seen["svg"], 7)   # answers, times twice, people, processors, and two products
        self.assertNotIn("script", found.seen)
        for words in ("All targets met", "redis killed", "Everyday &lt;&amp;&gt;", "2 x &lt;fast&gt;", "ok, x10", "prefers-color-scheme: dark"):
            self.assertIn(words, text)
        self.assertIn("<b>19,000</b><span>orders confirmed", text)
        self.assertIn("x10: ten times better", text)
        self.assertIn("1,000 people at once", text)
        self.assertNotIn("999 people", text)
        self.assertNotIn("http", text)
        self.assertNotIn("<&>", text)

    def test_page_of_a_run_that_failed(self) -> None:
        text = self.render(a_result(ok=False, faults=["3 x purchase: <no answer>"], oversold=3))
        self.assertIn("Missed: oversold", text)
        self.assertIn("3 x purchase: &lt;no answer&gt;", text)

    def test_x10_is_explained_where_there_is_one(self) -> None:
        with mock.patch.object(result_table, "steady_times", return_value=99.0):
            text = self.render(a_result(p50_ms=40.0, sold_at={str(int(BEGAN * 10) + tenth): 50 for tenth in range(SECONDS * 10)}))
        self.assertNotIn("x10", text)

    def test_last_look_at_the_stock_counts(self) -> None:
        """A restock in the last second is in the books just behind the end."""
        restocked = a_sample(SECONDS + 1)
        restocked["products"][1].update(store=72, redis=72)
        with tempfile.TemporaryDirectory() as folder:
            write_run(Path(folder), a_result())
            with open(Path(folder) / "samples.jsonl", "a", encoding="utf-8") as samples:
                samples.write(json.dumps(restocked) + "\n")
            found = reading.read(Path(folder))
        self.assertEqual(found.stock[1][1][0].points[-1], (SECONDS + 1, 72))
        self.assertEqual(found.cpu[0].points[-1][0], SECONDS)
        self.assertIn("72 left", page.render(found))

    def test_long_run_has_few_points(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_run(Path(folder), a_result(), 3600)
            found = reading.read(Path(folder))
        self.assertLessEqual(len(found.all_times[0].points), reading.POINTS_MAX)
        self.assertLess(len(page.render(found)), 400_000)

    def test_line_is_broken_where_a_figure_is_unknown(self) -> None:
        series = reading.Series("Redis", "redis", [(1, 5.0), (2, None), (3, 6.0)])
        drawn = plot.draw(plot.Plot("Stock", "units", [series], 3.0, []))
        self.assertEqual(drawn.split('class="line')[1].split('d="')[1].split('"')[0].count("M"), 2)

    def test_axis_of_a_little_of_very_much(self) -> None:
        series = reading.Series("store", "store", [(1, 9_999_990.0), (2, 9_999_950.0)])
        scale = plot.Scale.of(plot.Plot("Stock", "units", [series], 2.0, [], close=True))
        self.assertEqual((scale.ticks[0], scale.ticks[-1]), (9_999_950.0, 9_999_990.0))

    def test_folder_without_a_run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([str(ROOT / "scripts" / "report.sh"), folder], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("it is not the folder of a run", done.stderr)


if __name__ == "__main__":
    unittest.main()
