"""Trials, read again and again: each time only the pages on which something may have changed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlmesh.cli.search_state import ACTIVE, Search, as_number, last_part, state_of

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_PAGE = 100
_REPORTS = 1000
_FOLLOWED = 8
"""Trials of which the reports are read while they run."""
_KEPT = 500
"""Values of a running trial that are kept, to be drawn."""
_PAGES_OF_REPORTS = 5
"""Read of one trial at a time; the rest when it is read again."""


@dataclass
class _Page:
    """A page of the list: where it begins, and what was on it."""

    token: str | None
    trials: list[dict[str, Any]] = field(default_factory=list)
    next_token: str = ""

    @property
    def settled(self) -> bool:
        """Whether nothing on it can change: it is full, and its trials have ended. What has ended stays as it is."""
        return bool(self.next_token) and not any(state_of(one) in ACTIVE for one in self.trials)


class SearchReader:
    """Reads an experiment and its trials.

    Of an experiment with thousands of trials one reading asks for the pages that have trials which have not ended, and
    for the last one: tokens of pages stay good, since trials are listed in the order they are made.

    Args:
        mesh: Where it is.
        path: Of the experiment, at the ingress.
        with_reports: Read what running trials have reported so far of the (first) objective, too.
        patience_seconds: How long a service that restarts is waited for.
    """

    def __init__(self, mesh: "Ingress", path: str, *, with_reports: bool = False, patience_seconds: float = 0) -> None:
        self._mesh = mesh
        self._path = path
        self._with_reports = with_reports
        self._patience = patience_seconds
        self._pages: list[_Page] = [_Page(None)]
        self._reports: dict[str, _Reports] = {}

    def read(self) -> Search:
        """Reads what is new.

        Raises:
            IngressError: There was no answer, or it was an error.
        """
        changed = self._read_pages()
        experiment = self._get("")
        search = self._search(experiment, changed)
        if search.ended:
            # The trials were read first: those of an experiment that has ended since are read once more.
            search = self._search(experiment, [*changed, *self._read_pages()])
        if self._with_reports:
            search.reported = {**self._read_reports(search)}
        return search

    def _search(self, experiment: dict[str, Any], changed: list[dict[str, Any]]) -> Search:
        return Search(experiment, [trial for page in self._pages for trial in page.trials], changed)

    def _read_pages(self) -> list[dict[str, Any]]:
        changed: list[dict[str, Any]] = []
        place = 0
        while place < len(self._pages):
            page = self._pages[place]
            place += 1
            if page.settled:
                continue
            answer = self._get("/trials", page_size=_PAGE, page_token=page.token)
            before = {last_part(one): one for one in page.trials}
            page.trials = answer.get("trials", [])
            changed += [one for one in page.trials if before.get(last_part(one)) != one]
            page.next_token = answer.get("next_page_token", "")
            if page.next_token and place == len(self._pages):
                self._pages.append(_Page(page.next_token))
        return changed

    def _read_reports(self, search: Search) -> dict[str, list[float]]:
        running = [last_part(one) for one in search.trials if state_of(one) == "Running"][:_FOLLOWED]
        self._reports = {name: self._reports.get(name) or _Reports() for name in running}
        for name, reports in self._reports.items():
            self._follow(name, reports, search.metric)
        return {name: reports.values for name, reports in self._reports.items()}

    def _follow(self, trial: str, reports: "_Reports", metric: str) -> None:
        from urllib.parse import quote

        for _ in range(_PAGES_OF_REPORTS):
            answer = self._get(
                f"/trials/{quote(trial, safe='')}/observations",
                after=reports.position,
                metric=metric,
                page_size=_REPORTS,
            )
            found = answer.get("reports", [])
            reports.add(found, int(answer.get("next_position", reports.position)))
            if len(found) < _REPORTS:
                return

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._mesh.get(f"{self._path}{path}", patience_seconds=self._patience, **query)
        return found


@dataclass
class _Reports:
    """What a trial has reported so far, and up to which position that was read."""

    position: int = 0
    values: list[float] = field(default_factory=list)

    def add(self, reports: Iterable[dict[str, Any]], position: int) -> None:
        """Adds the numbers among new reports."""
        numbers = (as_number(one.get("value")) for one in reports)
        self.values = [*self.values, *(one for one in numbers if one is not None)][-_KEPT:]
        self.position = position
