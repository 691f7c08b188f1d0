"""The importance of parameters, as bars."""

from mlmesh_katib.report.chart import WIDTH, svg
from mlmesh_katib.report.importance import Importance
from mlmesh_katib.report.markup import Markup, cut, element, join

MAX_BARS = 20
_ROW = 22.0
_LEFT = 190.0
_METHOD = (
    "Permutation importance of a random forest (Breiman 2001) that predicts the rank of a trial from its parameters: "
    "how much worse it does when the values of one are shuffled, in parts of the sum."
)


def bars(found: Importance) -> Markup:
    """Draws the importances for an objective, and says how far they can be relied on."""
    shown = found.shares[:MAX_BARS]
    most = max(share for _, share in shown)
    room = WIDTH - _LEFT - 70
    drawn = []
    for place, (name, share) in enumerate(shown):
        top = place * _ROW
        width = room * share / most
        drawn += [
            element(
                "text",
                cut(name, 26),
                element("title", name),
                class_="label",
                x=_LEFT - 8,
                y=top + 15,
                text_anchor="end",
            ),
            element("rect", class_="bar", x=_LEFT, y=top + 4, width=max(width, 1.0), height=_ROW - 8, rx="2"),
            element("text", f"{share:.0%}", class_="tick", x=_LEFT + width + 6, y=top + 15),
        ]
    text = f"{_METHOD} {found.trials} trials. "
    if found.explained <= 0:
        text += "The forest explains nothing of trials that it has not seen: these bars say little."
    else:
        text += f"The forest explains {found.explained:.0%} of the variance of trials that a tree has not seen."
    if len(found.shares) > MAX_BARS:
        text += f" {len(found.shares) - MAX_BARS} parameters that matter less are left out."
    picture = svg(len(shown) * _ROW + 6, f"Importance of parameters for {found.metric}", *drawn)
    return join(picture, element("p", text, class_="note"))
