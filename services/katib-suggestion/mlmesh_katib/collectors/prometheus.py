"""Katib's collector PrometheusMetric: metrics that a trial serves by HTTP while it runs."""

import asyncio
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_katib.collectors.base import CollectionError, Collector, CollectorSpec, MetricLog, Place
from mlmesh_katib.collectors.limits import MAX_REPORTS
from mlmesh_katib.collectors.source import read_filters, read_object
from mlmesh_katib.collectors.text import MAX_LINE
from mlmesh_katib.collectors.times import Clock, from_seconds

DEFAULT_PATH = "/metrics"
DEFAULT_PORT = 8080
MAX_PATH = 1024
MAX_BYTES = 1 << 20
TIMEOUT_SECONDS = 2.0
_NAME = re.compile(r"\s*([a-zA-Z_:][\w:]*)", re.ASCII)
_OWN_HOSTS = ("", "localhost", "127.0.0.1")


class PrometheusCollector(Collector):
    """Asks a trial for its metrics, and reports those that have changed.

    The trial is asked at its own host alone: no redirect is followed and no proxy used. When it has ended nobody
    answers any more, so that what counts has to be served for a moment longer than `interval_seconds`.

    Args:
        metrics: The names that count.
        host: Of the trial.
        port: Where it serves them.
        path: And under which path.
        process_group: If given, nobody is asked unless one of these processes listens at the port: it may be that of
            another trial, which runs at the same time.
    """

    interval_seconds = 0.5

    def __init__(self, metrics: Sequence[str], host: str, port: int, path: str, process_group: int | None) -> None:
        self._metrics = metrics
        self._port = port
        self._group = process_group
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
        self._clock = Clock()
        self._last: dict[str, tuple[str, float | None]] = {}
        self._reports = 0
        self._problem = "it ended before it was asked for its metrics"

    def poll(self, *, ended: bool = False) -> Sequence[MetricLog]:
        """See `Collector.poll`. That nobody answers is said only where nothing was ever found."""
        found: list[MetricLog] = []
        if not ended and self._reports < MAX_REPORTS:
            try:
                if self._group is not None and not listens(self._group, self._port):
                    raise CollectionError("no process of the trial listens there")
                found = list(self._changed(asyncio.run(self._fetch())))
            except CollectionError as error:
                self._problem = f"{self._url}: {error}"
        self._reports += len(found)
        if ended and self._reports == 0:
            raise CollectionError(self._problem)
        return found

    async def _fetch(self) -> str:
        import httpx

        body = bytearray()
        try:
            # Of the whole exchange: httpx's own time-outs are for each piece, of which there may be many.
            async with asyncio.timeout(TIMEOUT_SECONDS):
                async with httpx.AsyncClient(
                    trust_env=False, follow_redirects=False, timeout=TIMEOUT_SECONDS
                ) as client:
                    headers = {"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "identity"}
                    async with client.stream("GET", self._url, headers=headers) as response:
                        if response.status_code != httpx.codes.OK:
                            raise CollectionError(f"answers with status {response.status_code}")
                        async for piece in response.aiter_raw():
                            body += piece
                            if len(body) > MAX_BYTES:
                                raise CollectionError(f"answers with more than {MAX_BYTES} bytes")
        except TimeoutError as error:
            raise CollectionError(f"did not answer within {TIMEOUT_SECONDS:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise CollectionError(f"cannot be read: {error or type(error).__name__}") from error
        return body.decode("utf-8", "replace")

    def _changed(self, text: str) -> Iterator[MetricLog]:
        for name, value, seconds in read_samples(text, self._metrics):
            if self._last.get(name) != (value, seconds):
                self._last[name] = (value, seconds)
                at = None if seconds is None else from_seconds(seconds)
                yield MetricLog(at or self._clock.now(), name, value)


def listens(group: int, port: int) -> bool:
    """Tells whether a process of a group listens at a port."""
    import psutil

    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == group and any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for connection in psutil.Process(pid).net_connections("tcp")
            ):
                return True
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue  # it has ended meanwhile, or is another user's
    return False


def read_samples(text: str, metrics: Sequence[str]) -> list[tuple[str, str, float | None]]:
    """Finds metrics in Prometheus' text format (0.0.4).

    Args:
        text: Of the format.
        metrics: The names that count.

    Returns:
        (name, value, seconds since 1970 or None where no time is given), in the order of the text.

    Raises:
        CollectionError: It is not of this format, or has several series of a name, which labels tell apart.
    """
    from prometheus_client.parser import text_string_to_metric_families

    # Only the lines that matter: the rest of a large answer costs little, and may be what it wants.
    lines: dict[str, str] = {}
    for line in text.split("\n"):
        start = _NAME.match(line)
        if start is not None and start[1] in metrics and len(line) <= MAX_LINE:
            if start[1] in lines:
                raise CollectionError(f"has several series of {start[1]}; a metric must be one")
            lines[start[1]] = line
    try:
        families = list(text_string_to_metric_families("".join(f"{line}\n" for line in lines.values())))
    except Exception as error:  # the parser has no exceptions of its own; what it raises depends on how the text is bad
        raise CollectionError("does not answer in Prometheus' text format") from error
    return [
        (sample.name, repr(float(sample.value)), None if sample.timestamp is None else float(sample.timestamp))
        for family in families
        for sample in family.samples
        if sample.name in metrics
    ]


def parse_source(source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks a `source`: the port and the path.

    Raises:
        InvalidArgument: A field is wrong.
        FailedPrecondition: It asks for another host, TLS or headers.
    """
    path = f"{where}.httpGet"
    given = read_object(source.get("httpGet"), path)
    port, target = _port(given.get("port"), f"{path}.port"), given.get("path") or DEFAULT_PATH
    if not isinstance(target, str) or not target.startswith("/") or len(target) > MAX_PATH or not target.isprintable():
        raise InvalidArgument(f"must be at most {MAX_PATH} characters that begin with /", field=f"{path}.path")
    if given.get("host") and given["host"] not in _OWN_HOSTS:
        raise FailedPrecondition(f"{path}.host: only the trial's own host is asked; leave it out")
    if str(given.get("scheme") or "HTTP").upper() != "HTTP":
        raise FailedPrecondition(f"{path}.scheme: only HTTP is served")
    if given.get("httpHeaders"):
        raise FailedPrecondition(f"{path}.httpHeaders: is not served")
    read_filters(source, where)  # not used; Katib looks at those of all kinds
    return {"port": port, "target": target}


def _port(port: Any, field: str) -> int:
    """Reads a port, which may be a text; 0 or none is the default, as in Katib."""
    text = str(port) if isinstance(port, int | str) and not isinstance(port, bool) else "-"
    if port is None or text in ("", "0"):
        return DEFAULT_PORT
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 0 < int(text) <= 65535:
        raise InvalidArgument("must be a number from 1 to 65535", field=field)
    return int(text)


def make(spec: CollectorSpec, place: Place) -> Collector:
    """Makes the collector of one start of a trial."""
    return PrometheusCollector(
        spec.metrics, place.host, spec.source["port"], spec.source["target"], place.process_group
    )
