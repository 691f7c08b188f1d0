"""HTML and SVG, written so that text cannot become markup: what is no `Markup` is escaped."""

import html
import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_VOID = frozenset({"meta", "br"})


class Markup(str):
    """Text that is HTML already; only this module makes it of anything but constants."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Makes text safe within elements and attributes; characters that HTML has not are replaced."""
    return Markup(html.escape(_CONTROLS.sub("�", text), quote=True))


def element(name: str, *children: str | float, **attributes: str | float | None) -> Markup:
    """Writes an element.

    Args:
        name: Of the element, a constant.
        children: Text and numbers are escaped, `Markup` is not.
        attributes: Name → value, always escaped; None: left out. `_` stands for `-`, and one at the end for nothing.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str | float) -> Markup:
    """Writes things one after the other, escaped as children of `element` are."""
    return Markup("".join(child if isinstance(child, Markup) else escape(_text(child)) for child in children))


def cut(text: str, most: int) -> str:
    """Shortens a text to a number of characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(value: float) -> str:
    """Writes a number in few digits."""
    return f"{value:.5g}"


def _text(value: str | float) -> str:
    """Writes a coordinate in tenths: a pixel has no more."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
