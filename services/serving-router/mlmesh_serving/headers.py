"""Headers that are read only if somebody asks for one: most requests are routed without."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any


class LazyHeaders(Mapping[str, str]):
    """HTTP headers or gRPC metadata, names in lower case; of several with a name the first.

    Args:
        read: Gives them, as they came; values that are bytes are left out.
    """

    __slots__ = ("_found", "_read")

    def __init__(self, read: Callable[[], Iterable[tuple[str, str | bytes]]]) -> None:
        self._read = read
        self._found: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._found is None:
            found: dict[str, str] = {}
            for name, value in self._read():
                if isinstance(value, str):
                    found.setdefault(name.lower(), value)
            self._found = found
        return self._found

    def get(self, name: str, default: Any = None) -> Any:
        """Gives a header's value; see `Mapping.get`, which takes twice as long."""
        return self._all().get(name, default)

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
