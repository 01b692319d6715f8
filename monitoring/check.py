#!/usr/bin/python3
"""Holds the dashboard, the alert rules and the runbook against each other and against what the server really says: check.py METRICS…

METRICS: files with the text of /metrics. Every metric that a panel or a rule asks for must be in one of them, every panel must have a title and a
unit, every alert a case in which it fires and one in which it does not, and a heading in the runbook. Exit 1 if something is amiss, each a line.
Nothing but Python's standard library: rules.yml is read line by line, as it is written.
"""
from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DASHBOARD = HERE / "grafana" / "dashboards" / "doorbuster.json"
RULES = HERE / "rules.yml"
RULES_TEST = HERE / "tests" / "rules_test.yml"
RUNBOOK = HERE.parent / "docs" / "operations.md"
A_METRIC = re.compile(r"\bdoorbuster[_:][a-z0-9_:]+")
OF_A_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def metrics_served(texts: list[str]) -> set[str]:
    """Also those of which there is only a # TYPE line: nothing of that kind has happened yet."""
    found = set()
    for line in "\n".join(texts).splitlines():
        words = line.split()
        if line.startswith("# TYPE "):
            found.add(words[2])
        elif line and not line.startswith("#"):
            found.add(OF_A_HISTOGRAM.sub("", re.split(r"[{ ]", line)[0]))
    return found


def check_names(where: str, text: str, known: set[str]) -> list[str]:
    return [f"{where}: the server has no metric {name}" for name in sorted(set(A_METRIC.findall(text)))
            if name not in known and OF_A_HISTOGRAM.sub("", name) not in known]


def check_dashboard(known: set[str]) -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    faults = check_names("the dashboard", " ".join(queries_of(dashboard)), known)
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    titles = [panel.get("title") for panel in panels]
    faults += [f"panel {panel['id']}: no title" for panel in panels if not panel.get("title")]
    faults += [f"panel \"{panel.get('title')}\": no unit" for panel in panels if not panel["fieldConfig"]["defaults"].get("unit")]
    faults += [f"panel \"{panel.get('title')}\": asks nothing" for panel in panels if not panel.get("targets")]
    faults += [f"two panels are called \"{title}\"" for title in sorted(set(titles)) if titles.count(title) > 1]
    ids = [panel["id"] for panel in dashboard["panels"]]
    faults += [f"two panels have the id {number}" for number in sorted(set(ids)) if ids.count(number) > 1]
    faults += [f"panels \"{one['title']}\" and \"{other['title']}\" overlap" for place, one in enumerate(panels) for other in panels[place + 1:]
               if overlap(one["gridPos"], other["gridPos"])]
    return faults


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
            and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"])


def queries_of(dashboard: dict) -> list[str]:
    return ([target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
            + [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
            + [variable["query"] for variable in dashboard["templating"]["list"]])


def check_rules(known: set[str]) -> list[str]:
    rules = RULES.read_text(encoding="utf-8")
    recorded = set(re.findall(r"^      - record: (\S+)$", rules, re.MULTILINE))
    expressions = re.sub(r"^ +(summary|description|runbook_url): .*$", "", rules, flags=re.MULTILINE)
    faults = check_names("the rules", expressions, known | recorded)
    cases = re.findall(r'^  - name: "(\w+)(, not)?: ', RULES_TEST.read_text(encoding="utf-8"), re.MULTILINE)
    headings = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).strip().replace(" ", "-")
                for heading in re.findall(r"^#+ (.*)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)}
    alerts = re.split(r"^      - alert: ", rules, flags=re.MULTILINE)[1:]
    for alert in alerts:
        name = alert.splitlines()[0]
        faults += [f"{name}: no {part}" for part in ("summary", "description", "runbook_url", "labels: {severity") if f"{part}: " not in alert]
        faults += [f"{name}: no case in which it {'does not fire' if case[1] else 'fires'}" for case in ((name, ""), (name, ", not")) if case not in cases]
        anchor = re.search(r"runbook_url: docs/operations\.md#(\S+)", alert)
        if anchor is None or anchor.group(1) not in headings:
            faults.append(f"{name}: the runbook has no such heading")
    return faults if alerts else ["there are no alerts"]


def check_alerts_are_shown(known: set[str]) -> list[str]:
    """Who is woken up by a figure wants to see how it came to that: what an alert asks for is on the dashboard too."""
    def asked(text: str) -> set[str]:
        return {OF_A_HISTOGRAM.sub("", name) for name in A_METRIC.findall(text)} & known

    expressions = re.sub(r"^ +(summary|description|runbook_url): .*$", "", RULES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = asked(" ".join(queries_of(json.loads(DASHBOARD.read_text(encoding="utf-8")))))
    return [f"no panel shows {name}, which a rule asks for" for name in sorted(asked(expressions) - shown)]


def main() -> int:
    known = metrics_served([Path(name).read_text(encoding="utf-8") for name in sys.argv[1:]])
    if not known:
        print("check.py: no metrics to hold it against", file=sys.stderr)
        return 2
    faults = check_dashboard(known) + check_rules(known) + check_alerts_are_shown(known)
    for fault in faults:
        print(fault)
    if not faults:
        print(f"dashboard, rules and runbook hold against {len(known)} metrics")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
