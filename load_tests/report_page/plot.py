"""A plot as SVG: series over seconds, with an axis, grid lines, a legend, and marks for what happened. Colours are classes of the page's style sheet,
so that the same plot works in the light and in the dark. Pure: figures in, text out."""
from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from reading import Event, Series

WIDTH, HEIGHT = 520, 250
LEFT_MIN, RIGHT, TOP, BOTTOM = 40, 14, 22, 26   # LEFT_MIN and more, if the figures beside the axis are long
CLOSE_FROM = 0.6 # of the highest figure: a plot whose lowest is above that may leave out what is below
TIPS_MAX = 120   # places at which a pointer that rests is told the figures


@dataclass
class Plot:
    title: str
    unit: str
    series: list[Series]
    seconds: float
    events: list[Event]
    stacked: bool = False
    logarithmic: bool = False
    height: int = HEIGHT
    top: float | None = None    # the axis reaches at least so far
    close: bool = False         # whole figures, and the axis need not begin at 0: for a little of very much
    character: float = 8.0      # how wide one is beside the axis


def draw(plot: Plot) -> str:
    scale = Scale.of(plot)
    parts = [f'<svg viewBox="0 0 {WIDTH} {plot.height}" role="img" aria-label="{escape(describe(plot))}">']
    parts += draw_axes(plot, scale)
    parts += draw_stack(plot, scale) if plot.stacked else [draw_line(series, scale) for series in plot.series]
    parts += draw_events(plot, scale)
    parts += draw_tips(plot, scale)
    parts.append("</svg>")
    return "".join(parts)


def describe(plot: Plot) -> str:
    """What somebody hears who does not see it."""
    said = []
    for series in plot.series:
        known = [value for _, value in series.points if value is not None]
        if known:
            said.append(f"{series.name} from {number(min(known))} to {number(max(known))}")
    return f"{plot.title}, {plot.unit}, over {plot.seconds:.0f} s: " + "; ".join(said)


# --- scales -------------------------------------------------------------------------------------------------------------------------


@dataclass
class Scale:
    seconds: float
    low: float
    high: float
    height: int
    logarithmic: bool
    ticks: list[float]
    left: float = LEFT_MIN

    @staticmethod
    def of(plot: Plot) -> "Scale":
        scale = Scale.without_margin(plot)
        scale.left = max(LEFT_MIN, 12 + plot.character * max(len(number(tick)) for tick in scale.ticks))
        return scale

    @staticmethod
    def without_margin(plot: Plot) -> "Scale":
        values = [value for series in plot.series for _, value in series.points if value is not None]
        high = max(values, default=1.0)
        if plot.stacked:
            high = max(map(sum, zip(*[[value or 0 for _, value in series.points] for series in plot.series])), default=1.0)
        high = max(high, plot.top or 0, 1.0)
        if not plot.logarithmic:
            lowest = min(values, default=0.0)
            low = lowest if plot.close and lowest > CLOSE_FROM * high else 0.0
            step = nice_step(max((high - low) / 4, 1.0 if plot.close else high * 1e-6))
            first = math.floor(low / step)
            ticks = [step * place for place in range(first, max(math.ceil(high / step - 1e-9), first + 1) + 1)]
            return Scale(plot.seconds, ticks[0], ticks[-1], plot.height, False, ticks)
        low_power = math.floor(math.log10(max(min((value for value in values if value > 0), default=1.0), 0.01)))
        high_power = max(math.ceil(math.log10(high)), low_power + 1)
        return Scale(plot.seconds, 10.0 ** low_power, 10.0 ** high_power, plot.height, True,
                     [10.0 ** power for power in range(low_power, high_power + 1)])

    def x(self, second: float) -> float:
        return round(self.left + (WIDTH - self.left - RIGHT) * second / self.seconds, 1)

    def y(self, value: float) -> float:
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.height - BOTTOM - (self.height - TOP - BOTTOM) * share, 1)


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 5, 10 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


# --- the parts ----------------------------------------------------------------------------------------------------------------------


def draw_axes(plot: Plot, scale: Scale) -> list[str]:
    parts = []
    for tick in scale.ticks:
        y = scale.y(tick)
        parts.append(f'<path class="grid" d="M{scale.left} {y}H{WIDTH - RIGHT}"/>'
                     f'<text class="tick" x="{scale.left - 6}" y="{y + 4}" text-anchor="end">{number(tick)}</text>')
    step = nice_step(plot.seconds / 6)
    second = 0.0
    while second <= plot.seconds:
        label = f"{second:g} s" if plot.seconds < 180 else f"{second / 60:g} min"
        anchor = "start" if second == 0 else "end" if scale.x(second) > WIDTH - RIGHT - 20 else "middle"
        parts.append(f'<text class="tick" x="{scale.x(second)}" y="{plot.height - 8}" text-anchor="{anchor}">{label}</text>')
        second += step if plot.seconds < 180 else max(60, math.ceil(step / 60) * 60)
    return parts


def draw_line(series: Series, scale: Scale) -> str:
    """Broken where a figure is not known."""
    path, pen_down = [], False
    for second, value in series.points:
        if value is None:
            pen_down = False
            continue
        path.append(f"{'L' if pen_down else 'M'}{scale.x(second)} {scale.y(value)}")
        pen_down = True
    dash = " dashed" if series.dashed else ""
    return f'<path class="line stroke-{series.style}{dash}" d="{"".join(path)}"/>'


def draw_stack(plot: Plot, scale: Scale) -> list[str]:
    parts = []
    floor = [0.0] * len(plot.series[0].points) if plot.series else []
    for series in plot.series:
        ceiling = [below + (value or 0) for below, (_, value) in zip(floor, series.points)]
        seconds = [second for second, _ in series.points]
        there = "".join(f"{'L' if place else 'M'}{scale.x(second)} {scale.y(value)}" for place, (second, value) in enumerate(zip(seconds, ceiling)))
        back = "".join(f"L{scale.x(second)} {scale.y(value)}" for second, value in zip(reversed(seconds), reversed(floor)))
        parts.append(f'<path class="area fill-{series.style}" d="{there}{back}Z"/>')
        floor = ceiling
    return parts


def draw_events(plot: Plot, scale: Scale) -> list[str]:
    parts, busy_until = [], -100.0
    for event in plot.events:
        x = scale.x(event.second)
        label_x = max(x, busy_until + 14)   # two at the same moment stand beside each other
        busy_until = label_x
        parts.append(f'<g class="event"><title>{escape(f"{event.second:.1f} s: {event.what}")}</title>'
                     f'<path d="M{x} {TOP - 4}V{plot.height - BOTTOM}"/>'
                     f'<circle cx="{label_x}" cy="{TOP - 10}" r="8"/><text x="{label_x}" y="{TOP - 6}" text-anchor="middle">{event.number}</text></g>')
    return parts


def draw_tips(plot: Plot, scale: Scale) -> list[str]:
    """Invisible columns that say their figures when a pointer rests on them."""
    if not plot.series:
        return []
    count = len(plot.series[0].points)
    step = -(-count // TIPS_MAX) or 1
    width = round((WIDTH - scale.left - RIGHT) * step / max(count, 1), 1)
    parts = []
    for place in range(0, count, step):
        second = plot.series[0].points[place][0]
        said = [f"{series.name} {number(series.points[place][1])}" for series in plot.series
                if place < len(series.points) and series.points[place][1] is not None]
        parts.append(f'<rect class="tip" x="{round(scale.x(second) - width / 2, 1)}" y="{TOP}" width="{width}" height="{plot.height - TOP - BOTTOM}">'
                     f'<title>{second:.0f} s\n{escape(chr(10).join(said))}</title></rect>')
    return parts


def draw_legend(series: list[Series], stacked: bool) -> str:
    keys = "".join(f'<li><span class="key {"fill" if stacked else "stroke"}-{each.style}{" dashed" if each.dashed else ""}"></span>'
                   f"{escape(each.name)}</li>" for each in series)
    return f'<ul class="legend">{keys}</ul>'
