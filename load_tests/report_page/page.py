"""The page: one HTML file that needs nobody else, no script and no other host; light or dark as the reader's system is, and readable on a phone.
Pure: what reading.py found in, text out."""
from __future__ import annotations

from html import escape

import result_table
from plot import HEIGHT, Plot, draw, draw_legend, number
from reading import RunRead, Series

SMALL_PLOT_HEIGHT, SMALL_PLOT_CHARACTER = 170, 10.5

STYLE = """
:root { color-scheme: light dark; --back:#fff; --card:#f6f7f9; --text:#1b1f24; --soft:#5b6470; --rule:#dde1e6; --ok:#00794f; --bad:#c22f1f;
  --green:#00996b; --orange:#e69f00; --red:#d2451e; --blue:#0b6fb8; --sky:#8cc6ec; --pink:#c56fa3; --grey:#9aa3ad; --teal:#3f7f93; }
@media (prefers-color-scheme: dark) { :root { --back:#14171b; --card:#1d2126; --text:#e6e9ed; --soft:#9ba5b1; --rule:#343b44; --ok:#3ecf8e;
  --bad:#ff7a66; --green:#2cb889; --orange:#f0b23a; --red:#ff7350; --blue:#5fb2f2; --sky:#3d7ca5; --pink:#d98bb9; --grey:#77818c; --teal:#6fb0c4; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--back); color:var(--text); font:16px/1.45 system-ui, sans-serif; }
main { max-width:1180px; margin:0 auto; padding:20px 16px 48px; }
h1 { font-size:1.5rem; margin:0 0 2px; } h2 { font-size:1.05rem; margin:0; } section > h2 { font-size:1.2rem; margin:34px 0 10px; }
p { margin:4px 0; } .soft { color:var(--soft); } .small { font-size:.86rem; }
.verdict { display:inline-block; margin:10px 0; padding:4px 12px; border-radius:99px; font-weight:600; border:2px solid; }
.good { color:var(--ok); } .bad { color:var(--bad); }
.tiles { display:grid; grid-template-columns:repeat(auto-fit, minmax(128px, 1fr)); gap:10px; margin:14px 0; }
.tile { background:var(--card); border-radius:10px; padding:10px 14px; } .tile b { display:block; font-size:1.5rem; font-weight:600; white-space:nowrap; }
.tile span { color:var(--soft); font-size:.82rem; }
.plots { display:grid; grid-template-columns:repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap:14px; }
.plots.many { grid-template-columns:repeat(auto-fill, minmax(min(100%, 340px), 1fr)); } .many .tick { font-size:17px; }
figure { margin:0; background:var(--card); border-radius:10px; padding:12px 12px 6px; min-width:0; } figcaption { margin-bottom:6px; }
svg { display:block; width:100%; height:auto; }
.grid { stroke:var(--rule); stroke-width:1; fill:none; } .tick { fill:var(--soft); font-size:13px; }
.line { fill:none; stroke-width:2.2; stroke-linejoin:round; stroke-linecap:round; } .dashed { stroke-dasharray:3 6; }
.area { stroke:var(--card); stroke-width:.6; } .tip { fill:transparent; }
.event path { stroke:var(--text); stroke-width:1.3; stroke-dasharray:4 3; fill:none; } .event circle { fill:var(--text); }
.event text { fill:var(--back); font-size:11px; font-weight:700; }
.legend { list-style:none; display:flex; flex-wrap:wrap; gap:2px 14px; margin:2px 0 0; padding:0; font-size:.84rem; color:var(--soft); }
.key { display:inline-block; width:14px; height:10px; border-radius:2px; margin-right:5px; background:currentColor; }
.key[class*=stroke-] { height:3px; vertical-align:middle; }
.events { padding-left:0; list-style:none; margin:8px 0; } .events b { display:inline-block; min-width:22px; height:22px; line-height:22px; border-radius:99px;
  background:var(--text); color:var(--back); text-align:center; font-size:.78rem; margin-right:6px; }
.scroll { overflow-x:auto; } table { border-collapse:collapse; font-size:.92rem; } th { font-weight:600; color:var(--soft); }
td, th { padding:4px 14px 4px 0; border-bottom:1px solid var(--rule); text-align:left; vertical-align:top; } td.figure, th.figure { text-align:right;
  font-variant-numeric:tabular-nums; white-space:nowrap; }
"""
COLOURS = {"confirmed": "green", "sold-out": "orange", "refused": "pink", "changed": "teal", "signed-in": "grey", "looked": "sky",
           "unavailable": "red", "p50": "blue", "p95": "orange", "p99": "red", "users": "blue", "server": "green", "redis": "red",
           "postgres": "blue", "load": "grey", "others": "pink", "store": "blue"}


def render(run: RunRead) -> str:
    name = f"{run.machine.get('scenario', run.run.result['scenario'])}"
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(name)}: Doorbuster load test</title><style>{STYLE}{colours()}</style></head><body><main>"
            f"{head(run, name)}{tiles(run)}{events(run)}{plots(run)}{stock(run)}{result(run)}{machine(run)}</main></body></html>\n")


def colours() -> str:
    return "".join(f".stroke-{style}{{stroke:var(--{colour});color:var(--{colour})}}.fill-{style}{{fill:var(--{colour});color:var(--{colour})}}"
                   for style, colour in COLOURS.items())


def head(run: RunRead, name: str) -> str:
    missed, ok = result_table.missed_targets(run.run), run.run.result["ok"]
    good = ok and not missed
    verdict = "All targets met" if good else "Missed: " + ", ".join(missed) if missed else "Failed: see the faults below"
    faults = "".join(f"<li>{escape(fault)}</li>" for fault in run.run.result["faults"])
    return (f"<h1>{escape(name)}</h1>"
            f'<p class="soft">{escape(result_table.title(run.run).strip())} · {escape(run.machine.get("began_at", ""))} · '
            f'{escape(run.machine.get("Doorbuster", "Doorbuster"))}, gate {escape(run.machine.get("gate", "?"))}</p>'
            f'<p class="verdict {"good" if good else "bad"}">{"✓" if good else "✗"} {escape(verdict)}</p>'
            + (f'<ul class="bad">{faults}</ul>' if faults else ""))


def tiles(run: RunRead) -> str:
    found = run.run.result
    figures = [(f"{result_table.busiest_rate(run.run.timeline):,.0f}/s", f"requests, best {result_table.BUSIEST_SECONDS} s"),
               (f"{number(found['p50_ms'])} ms", "p50 of all answers"), (f"{number(found['p99_ms'])} ms", "p99 of all answers"),
               (f"{result_table.most_people(run.run.timeline):,}", "people at once"),
               (f"{result_table.orders_confirmed(found):,}", "orders confirmed"),
               (f"{found['oversold']}", "oversold"), (f"{found['mismatches']}", f"of {found['stock_readings']:,} looks: the books differed")]
    return '<div class="tiles">' + "".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in figures) + "</div>"


def events(run: RunRead) -> str:
    if not run.events:
        return ""
    listed = "".join(f"<li><b>{event.number}</b>{event.second:.1f} s: {escape(event.what)}</li>" for event in run.events)
    return f'<ol class="events">{listed}</ol>'


def plots(run: RunRead) -> str:
    def plot(title: str, unit: str, series: list[Series], **options: object) -> Plot:
        return Plot(title, unit, series, run.seconds, run.events, **options)  # type: ignore[arg-type]

    shown = [plot("Answers", "a second, by kind", run.throughput, stacked=True),
             plot("How long purchases took", "ms, logarithmic", run.buying_times, logarithmic=True),
             plot("How long everything took", "ms, logarithmic; signing in is slow on purpose", run.all_times, logarithmic=True),
             plot("People", "at once", run.users),
             plot("Processor time", "processors in use", run.cpu, top=1.0)]
    return f'<section><h2>Second by second</h2><div class="plots">{"".join(show(each) for each in shown if each.series)}</div></section>'


def show(plot: Plot, legend: str | None = None) -> str:
    if legend is None:
        legend = draw_legend(plot.series, plot.stacked) if len(plot.series) > 1 else ""
    return (f'<figure><figcaption><h2>{escape(plot.title)} <span class="soft small">{escape(plot.unit)}</span></h2>{legend}</figcaption>'
            f"{draw(plot)}</figure>")


def stock(run: RunRead) -> str:
    if not run.stock:
        return ""
    many = len(run.stock) > 1
    figures = []
    for name, books in run.stock:
        known = [value for _, value in books[0].points if value is not None]
        left = f"{number(known[-1])} left" if known else ""
        series = [book for book in books if any(value is not None for _, value in book.points)]
        seconds = max([run.seconds, *(second for book in series for second, _ in book.points)])
        figures.append(show(Plot(name, left, series, seconds, run.events, height=SMALL_PLOT_HEIGHT if many else HEIGHT,
                                 close=True, character=SMALL_PLOT_CHARACTER if many else 8.0), legend=""))
    left_out = f'<p class="soft small">{run.products_left_out} more products are not shown.</p>' if run.products_left_out else ""
    return (f'<section><h2>Stock <span class="soft small">by the store, and by {escape(run.stock[0][1][1].name)} at the same position of the log</span></h2>'
            f'{draw_legend(run.stock[0][1], False)}<p></p><div class="plots{" many" if many else ""}">{"".join(figures)}</div>{left_out}</section>')


def result(run: RunRead) -> str:
    found = result_table.rows_of(run.run)
    ten = " x10: ten times better than the target." if any(row.is_by_ten for row in found) else ""
    rows = "".join(f'<tr><td>{escape(row.what)}</td><td class="figure">{escape(row.measured)}</td><td>{escape(row.target)}</td>'
                   f'<td class="{"" if row.ok is None else "good" if row.ok else "bad"}">{escape(row.cells()[3])}</td></tr>'
                   for row in found)
    return ('<section><h2>Result</h2><div class="scroll"><table><tr><th></th><th class="figure">measured</th><th>target</th><th></th></tr>'
            f'{rows}</table></div><p class="soft small">Sold, oversold and the books are judged by the store (verify), never by the answers alone.'
            f"{ten}</p>{books(run)}</section>")


def books(run: RunRead) -> str:
    products = run.run.result.get("products", [])
    if not products:
        return ""
    columns = (("opening", "opening"), ("restocked", "restocked"), ("cancelled", "cancelled"), ("sold", "sold"), ("expected", "expected"),
               ("stock", "store"), ("redis_stock", "Redis"))
    lines = "".join(
        f"<tr><td>{escape(product['name'])}</td>"
        + "".join(f'<td class="figure">{"" if product[key] is None or (product["is_bundle"] and key not in ("cancelled", "sold")) else format(product[key], ",")}</td>'
                  for key, _ in columns)
        + f'<td class="{"good" if product["ok"] else "bad"}">{result_table.verdict(product["ok"])}</td></tr>' for product in products)
    heads = "".join(f'<th class="figure">{label}</th>' for _, label in columns)
    return f'<h2>The books of each product</h2><div class="scroll"><table><tr><th></th>{heads}<th></th></tr>{lines}</table></div>'


def machine(run: RunRead) -> str:
    shown = {key: value for key, value in run.machine.items() if key not in ("scenario", "began_at")}
    rows = "".join(f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in shown.items())
    return (f'<section><h2>Machine and versions</h2><div class="scroll"><table>{rows}</table></div><p class="soft small">The load generator ran on the same '
            "machine; its share is in the plot of processor time. Times are the client's.</p></section>") if rows else ""
