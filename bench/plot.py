"""Charts over time as one SVG file, readable in light and dark, without a library."""

from collections.abc import Sequence
from html import escape

from msgspec import Struct

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 880, 130, 64, 20, 56, 46  # pixels
TICKS = 3
ROUND = (1, 2, 2.5, 5, 10)

STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; background: #ffffff; }
.title { font-size: 16px; font-weight: 600; } .name { font-weight: 600; } text { fill: #24292f; }
.quiet { fill: #6e7781; } .grid { stroke: #d8dee4; } .limit { stroke: #cf222e; stroke-dasharray: 5 4; }
.limit-name { fill: #cf222e; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .area { opacity: .10; stroke: none; }
.c0 { stroke: #0969da; fill: #0969da; } .c1 { stroke: #8250df; fill: #8250df; } .c2 { stroke: #1a7f37; fill: #1a7f37; }
.c3 { stroke: #bc4c00; fill: #bc4c00; } .line { fill: none; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } text { fill: #e6edf3; } .quiet { fill: #8b949e; } .grid { stroke: #30363d; }
  .limit { stroke: #ff7b72; } .limit-name { fill: #ff7b72; }
  .c0 { stroke: #58a6ff; fill: #58a6ff; } .c1 { stroke: #bc8cff; fill: #bc8cff; }
  .c2 { stroke: #3fb950; fill: #3fb950; } .c3 { stroke: #f0883e; fill: #f0883e; } .line { fill: none; }
}
"""


class Line(Struct, frozen=True):
    name: str
    values: Sequence[float | None]  # one a moment; None leaves a hole


class Panel(Struct, frozen=True):
    """One chart. `limit`: a line that values should stay below."""

    name: str
    unit: str
    lines: Sequence[Line]
    limit: float | None = None
    from_zero: bool = True


def svg(title: str, below: str, minutes: Sequence[float], panels: Sequence[Panel]) -> str:
    """Draw the panels one below the other over the same moments."""
    height = TOP + len(panels) * (PANEL + GAP) + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
        f'<text class="quiet" x="{LEFT}" y="42">{escape(below)}</text>',
    ]
    end = max(minutes, default=0.0) or 1.0
    for number, panel in enumerate(panels):
        parts.extend(_panel(panel, TOP + number * (PANEL + GAP) + 20, minutes, end, number))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, top: float, minutes: Sequence[float], end: float, number: int) -> list[str]:
    values = [value for line in panel.lines for value in line.values if value is not None]
    if panel.limit is not None:
        values.append(panel.limit)
    low, high = (0.0 if panel.from_zero else min(values, default=0.0)), max(values, default=1.0)
    ticks = _ticks(low, high)
    low, high = ticks[0], ticks[-1]
    bottom = top + PANEL

    def x(minute: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * minute / end

    def y(value: float) -> float:
        return bottom - PANEL * (value - low) / (high - low)

    parts = [f'<text class="name" x="{LEFT}" y="{top - 8}">{escape(panel.name)}</text>']
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        text = f"{tick:,g}{escape(panel.unit)}".replace(",", "\u2009")
        parts.append(f'<text class="quiet" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{text}</text>')
    for tick in _ticks(0.0, end)[:-1]:
        anchor = "start" if tick == 0 else "middle"
        parts.append(
            f'<text class="quiet" x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="{anchor}">{tick:g} min</text>'
        )
    if panel.limit is not None:
        at = y(panel.limit)
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="limit-name" x="{WIDTH - RIGHT}" y="{at - 5:.1f}" text-anchor="end">target</text>')
    named = WIDTH - RIGHT
    for place, line in reversed(list(enumerate(panel.lines))):
        colour = f"c{number if len(panel.lines) == 1 else place}"
        runs = _runs([(x(minute), y(value)) if value is not None else None for minute, value in _zip(minutes, line)])
        for run in runs:
            points = " ".join(f"{across:.1f},{down:.1f}" for across, down in run)
            if len(panel.lines) == 1:
                ends = f"{run[-1][0]:.1f},{bottom} {run[0][0]:.1f},{bottom}"
                parts.append(f'<polygon class="area {colour}" points="{points} {ends}"/>')
            parts.append(f'<polyline class="line {colour}" points="{points}"/>')
        if len(panel.lines) > 1:
            parts.append(
                f'<text class="name {colour}" stroke="none" style="stroke:none" x="{named}" y="{top - 8}" '
                f'text-anchor="end">{escape(line.name)}</text>'
            )
            named -= 10 + 8 * len(line.name)
    return parts


def _zip(minutes: Sequence[float], line: Line) -> list[tuple[float, float | None]]:
    return list(zip(minutes, line.values, strict=True))


def _runs(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """Split at the holes."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if run]


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, evenly spaced, that hold both ends between them."""
    span = max(high - low, 1e-9, abs(high) * 1e-6)
    power = 10.0 ** len(str(int(span / TICKS))) / 10 if span >= TICKS else 0.1
    while span / TICKS < power:
        power /= 10
    step = next(power * factor for factor in ROUND if power * factor >= span / TICKS)
    first = int(low // step)
    ticks = [round(first * step, 9)]
    while ticks[-1] < high - 1e-12:
        first += 1
        ticks.append(round(first * step, 9))
    if len(ticks) == 1:
        ticks.append(ticks[0] + step)
    return ticks
