"""Reads the fields of a manifest's objects; what is wrong is refused with its path."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlmesh_kit.errors import InvalidArgument


class Fields:
    """The fields of one object.

    Args:
        value: What the manifest holds.
        where: Its path, for messages.
        known: The fields that may be there.

    Raises:
        InvalidArgument: It is no object, or holds an unknown field.
    """

    def __init__(self, value: Any, where: str, known: Sequence[str]) -> None:
        if not isinstance(value, Mapping):
            raise InvalidArgument("must be an object", field=where)
        for key in value:
            if key not in known:
                raise InvalidArgument(f"is not known; known are {', '.join(sorted(known))}", field=f"{where}.{key}")
        self.where = where
        self._value = value

    def __contains__(self, key: str) -> bool:
        return self._value.get(key) is not None

    def at(self, key: str) -> str:
        """Gives a field's path."""
        return f"{self.where}.{key}"

    def raw(self, key: str) -> Any:
        """Gives a field as it is; None: it is not there."""
        return self._value.get(key)

    def text(self, key: str, default: str | None = None, *, max_length: int = 2048) -> str:
        """Gives a text; without a default it must be there and not be empty.

        Raises:
            InvalidArgument: It is no text.
        """
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value or len(value) > max_length or not value.isprintable():
            raise InvalidArgument(f"must be a printable text of 1 to {max_length} characters", field=self.at(key))
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """Gives one of some texts.

        Raises:
            InvalidArgument: It is none of them.
        """
        value = self._value.get(key, default)
        if not isinstance(value, str) or value not in choices:
            raise InvalidArgument(f"must be one of {', '.join(choices)}, got {value!r}", field=self.at(key))
        return value

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """Gives an integer within bounds, both included.

        Raises:
            InvalidArgument: It is none.
        """
        value = self._value.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise InvalidArgument(f"must be an integer from {low} to {high}, got {value!r}", field=self.at(key))
        return value

    def fraction(self, key: str, default: float, low: float, high: float) -> float:
        """Gives a number strictly within bounds.

        Raises:
            InvalidArgument: It is none.
        """
        value = self._value.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value < high:
            raise InvalidArgument(f"must be a number between {low} and {high}, got {value!r}", field=self.at(key))
        return float(value)

    def texts(self, key: str, most: int = 64) -> tuple[str, ...]:
        """Gives a list of texts, empty where there is none.

        Raises:
            InvalidArgument: It is none, or longer than `most`.
        """
        value = self._value.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > most:
            raise InvalidArgument(f"must be a list of at most {most} texts", field=self.at(key))
        for index, item in enumerate(value):
            if not isinstance(item, str) or not item or len(item) > 256 or not item.isprintable():
                raise InvalidArgument("must be a printable text", field=f"{self.at(key)}[{index}]")
        return tuple(value)

    def columns(self, key: str, most: int = 4096) -> tuple[int, ...]:
        """Gives a list of column numbers, empty where there is none.

        Raises:
            InvalidArgument: It is none, or longer than `most`.
        """
        value = self._value.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > most or any(type(i) is not int or i < 0 for i in value):
            raise InvalidArgument(f"must be a list of at most {most} column numbers from 0", field=self.at(key))
        return tuple(value)
