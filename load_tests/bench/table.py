"""The benchmark's table: what was measured, against what, the ratio, the goal."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Row:
    what: str
    measured: str
    against: str = ""
    ratio: str = ""
    goal: str = ""
    ok: bool | None = None   # None: no goal, printed for the reader
    failed: bool = False     # could not be measured

    def cells(self) -> tuple[str, ...]:
        verdict = "NOT MEASURED" if self.failed else "" if self.ok is None else "ok" if self.ok else "MISSED"
        return self.what, self.measured, self.against, self.ratio, self.goal, verdict


def at_least(what: str, measured: float, against: float, goal: float, unit: str, against_name: str) -> Row:
    ratio = measured / against
    return Row(what, f"{measured:,.0f}{unit}", f"{against:,.0f}{unit} {against_name}", f"{ratio:.2f}", f">= {goal} x", ratio >= goal)


def at_most(what: str, measured: float, against: float, goal: float, unit: str, against_name: str) -> Row:
    ratio = measured / against
    return Row(what, f"{measured:,.2f}{unit}", f"{against:,.2f}{unit} {against_name}", f"{ratio:.2f}", f"<= {goal} x", ratio <= goal)


def below(what: str, measured: float, goal: float, unit: str, against: float = 0, against_name: str = "") -> Row:
    """An absolute goal; `against` tells how fast the machine is."""
    row = Row(what, f"{measured:,.1f}{unit}", goal=f"<= {goal:g}{unit}", ok=measured <= goal)
    if against:
        row.against, row.ratio = f"{against:,.2f}{unit} {against_name}", f"{measured / against:.2f}"
    return row


def render(rows: list[Row]) -> str:
    header = ("what", "measured", "against", "ratio", "goal", "")
    table = [header, *(row.cells() for row in rows if not row.failed)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    line = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def format_cells(cells: tuple[str, ...]) -> str:
        sides = (str.ljust, str.rjust, str.ljust, str.rjust, str.ljust, str.ljust)
        return "  ".join(side(cell, width) for side, cell, width in zip(sides, cells, widths)).rstrip()

    out = [line, format_cells(header), line, *map(format_cells, table[1:]), line]
    out += [f"NOT MEASURED: {row.what}: {row.measured}" for row in rows if row.failed]
    return "\n".join(out)
