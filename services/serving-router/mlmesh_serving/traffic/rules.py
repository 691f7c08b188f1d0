"""Header rules, made ready to be asked."""

from collections.abc import Callable, Iterable, Mapping

from mlmesh_kit.errors import InvalidArgument

from mlmesh_serving.traffic.settings import MAX_HEADER_VALUE, HeaderRule, Match

_REGEX_BYTES = 1 << 20
"""Memory of a compiled pattern at most; RE2 refuses larger ones."""


class HeaderRules:
    """Asks each rule, in order.

    Args:
        rules: Checked; their revisions are numbers of revisions.
    """

    __slots__ = ("_rules",)

    def __init__(self, rules: Iterable[HeaderRule]) -> None:
        self._rules = tuple((rule.header, _matcher(rule), rule.revision) for rule in rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def choose(self, headers: Mapping[str, str]) -> int | None:
        """Gives the revision of the first rule that matches; None: none does."""
        for header, matches, revision in self._rules:
            value = headers.get(header)
            if value is not None and len(value) <= MAX_HEADER_VALUE and matches(value):
                return revision
        return None


def check_patterns(rules: Iterable[HeaderRule]) -> None:
    """Compiles the patterns of rules, to find those that cannot be.

    Raises:
        InvalidArgument: One is no pattern, or is too large.
    """
    for index, rule in enumerate(rules):
        if rule.match is Match.REGEX:
            _compile(rule.value, f"rules[{index}].regex")


def _matcher(rule: HeaderRule) -> Callable[[str], object]:
    if rule.match is Match.REGEX:
        return _compile(rule.value, "rules.regex")
    wanted = rule.value
    if rule.match is Match.PREFIX:
        return lambda value: value.startswith(wanted)
    return lambda value: value == wanted


def _compile(pattern: str, field: str) -> Callable[[str], object]:
    import re2  # only where there is a pattern

    options = re2.Options()
    options.max_mem = _REGEX_BYTES
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "cannot be compiled"
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise InvalidArgument(f"is no pattern of RE2's: {text}", field=field) from error
    fullmatch: Callable[[str], object] = compiled.fullmatch
    return fullmatch
