"""What charts share: the frame with its axes, and marks that say which trial they are of."""

from collections.abc import Sequence

from mlmesh_katib.report.markup import Markup, cut, element, join, number
from mlmesh_katib.report.scale import Scale

WIDTH = 860.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 16.0, 12.0, 40.0
LEVELS = 8
"""How many colours there are from the best (`q0`) to the worst."""


def svg(height: float, title: str, *children: str, width: float = WIDTH) -> Markup:
    """Draws a picture with a name for those who cannot see it."""
    return element("svg", *children, viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=title)


def frame(x: Scale, y: Scale, x_name: str, y_name: str, *, whole_x: bool = False) -> Markup:
    """Draws grid, ticks and names of two axes.

    Args:
        x, y: Their scales; `y.start` is the bottom.
        x_name, y_name: What they show.
        whole_x: Whether x has whole numbers only.
    """
    drawn = []
    for tick in x.ticks(8):
        if whole_x and not float(tick).is_integer():
            continue
        place = x(tick)
        drawn.append(element("line", class_="grid", x1=place, x2=place, y1=y.start, y2=y.end))
        drawn.append(element("text", number(tick), class_="tick", x=place, y=y.start + 15, text_anchor="middle"))
    for tick in y.ticks(6):
        place = y(tick)
        drawn.append(element("line", class_="grid", x1=x.start, x2=x.end, y1=place, y2=place))
        drawn.append(element("text", number(tick), class_="tick", x=x.start - 6, y=place + 4, text_anchor="end"))
    middle = (y.start + y.end) / 2
    drawn += [
        element("line", class_="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start),
        element("line", class_="axis", x1=x.start, x2=x.start, y1=y.start, y2=y.end),
        element("text", x_name, class_="name", x=(x.start + x.end) / 2, y=y.start + 33, text_anchor="middle"),
        element(
            "text",
            cut(y_name, 36),
            class_="name",
            transform=f"translate(13 {middle:.1f}) rotate(-90)",
            text_anchor="middle",
        ),
    ]
    return join(*drawn)


def dot(x: float, y: float, kind: str, trial: int, title: str, radius: float = 3.0) -> Markup:
    """Draws a trial as a point."""
    said = element("title", title)
    return element("circle", said, class_=f"dot {kind}", cx=x, cy=y, r=radius, data_t=str(trial))


def line(points: Sequence[tuple[float, float]], kind: str, trial: int | None = None, title: str = "") -> Markup:
    """Draws a line through points: of a trial, or, without a number, of none."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    said = element("title", title) if title else ""
    number_ = None if trial is None else str(trial)
    return element("polyline", said, class_=f"line {kind}", points=path, data_t=number_)


def legend(*entries: tuple[str, str]) -> Markup:
    """Explains kinds of marks: (kind, words) each."""
    items = []
    for kind, words in entries:
        if kind.startswith("line "):
            mark = element("line", class_=kind, x1="1", x2="19", y1="7", y2="7")
        else:
            mark = element("circle", class_=f"dot {kind}", cx="10", cy="7", r="4")
        picture = element("svg", mark, viewBox="0 0 20 14", width="20", height="14", aria_hidden="true")
        items.append(element("span", picture, words))
    return element("p", *items, class_="legend")
