"""h2load of nghttp2, the load generator of bench_serving: started, and what it prints taken apart.

It is one process of C beside the servers. Its report has no percentiles, so those are of its log, which has a line for
each request: microseconds since 1970 at its start, HTTP status, microseconds until the end of the answer. Requests of
the warm-up are in neither.
"""

import math
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALL = "h2load was not found: install it with `apt-get install nghttp2-client`, or from https://nghttp2.org"

_FINISHED = re.compile(r"^finished in \S+, (?P<rate>[\d.]+) req/s", re.MULTILINE)
_REQUESTS = re.compile(r"^requests: .* (?P<done>\d+) done, .* (?P<failed>\d+) failed, ", re.MULTILINE)
_TRAFFIC = re.compile(r"^traffic: .*\((?P<data>\d+)\) data", re.MULTILINE)


class BadRun(Exception):
    """A run whose numbers would mean nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run found.

    Attributes:
        rate: Answers in a second.
        answers: How many there were, all of status 2xx.
        body_bytes: Of all their bodies together.
        milliseconds: Of each, from the shortest to the longest.
    """

    rate: float
    answers: int
    body_bytes: int
    milliseconds: Sequence[float]

    def percentile(self, percent: float) -> float:
        """Gives the least time that so many percent of the answers took no longer than (nearest rank), in ms."""
        return self.milliseconds[max(0, math.ceil(len(self.milliseconds) * percent / 100) - 1)]


def parse(report: str, log: str, seconds: float) -> Load:
    """Takes apart what h2load printed, and its log.

    Args:
        report: What it printed.
        log: Its log.
        seconds: That it was to measure.

    Raises:
        BadRun: There is no report, nothing was answered, something was answered with another status than 2xx, or the
            answers ceased before the time was over.
    """
    finished, requests, traffic = (line.search(report) for line in (_FINISHED, _REQUESTS, _TRAFFIC))
    if not (finished and requests and traffic):
        raise BadRun(f"h2load printed no report:\n{report[-2000:]}")
    done, failed = int(requests["done"]), int(requests["failed"])
    if not done:  # it ends with 0 even when nobody listens
        raise BadRun(f"nothing was answered:\n{report[-2000:]}")
    rows = [line.split("\t") for line in log.splitlines()]
    if len(rows) != done:
        raise BadRun(f"{done} answers, and {len(rows)} in the log")
    # Its count of statuses, and the status in its log (0), miss answers whose headers came while it still warmed up;
    # whether a request failed it tells of all.
    statuses = sorted({row[1] for row in rows if row[1] != "0" and not row[1].startswith("2")})
    if failed or statuses:
        raise BadRun(f"{failed} of {done} requests failed; statuses other than 2xx: {', '.join(statuses) or 'none'}")
    # It takes no notice when the server is gone: the rest of the time just passes.
    covered = max(int(row[0]) + int(row[2]) for row in rows) / 1e6 - min(int(row[0]) for row in rows) / 1e6
    if covered < 0.7 * seconds:
        raise BadRun(f"the answers cover {covered:.2f} of {seconds:g} seconds")
    milliseconds = sorted(int(row[2]) / 1000 for row in rows)
    return Load(float(finished["rate"]), done, int(traffic["data"]), milliseconds)


def installed() -> bool:
    """Tells whether there is an h2load to run."""
    return shutil.which("h2load") is not None


def run(
    url: str,
    body: bytes,
    headers: Sequence[str],
    *,
    http1: bool = False,
    connections: int = 1,
    streams: int = 1,
    seconds: float = 3,
    warm_up: float = 1,
) -> Load:
    """Sends one request again and again.

    Args:
        url: Where to.
        body: Of each request, by POST.
        headers: `name: value`.
        http1: HTTP/1.1; otherwise HTTP/2 without TLS.
        connections: Clients; each sends its next request when it has the answer.
        streams: Requests of one connection at the same time; only of HTTP/2.
        seconds: To measure.
        warm_up: Seconds before that.

    Raises:
        BadRun: See `parse`.
        FileNotFoundError: There is no h2load.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, log = Path(folder, "body"), Path(folder, "log")
        data.write_bytes(body)
        command = ["h2load", f"--clients={connections}", f"--duration={round(seconds * 1000)}ms"]
        command += [f"--warm-up-time={round(warm_up * 1000)}ms", f"--data={data}", f"--log-file={log}"]
        command += ["--h1"] if http1 else [f"--max-concurrent-streams={streams}"]
        for header in headers:
            command += ["--header", header]
        done = subprocess.run([*command, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise BadRun(f"h2load ended with {done.returncode}:\n{done.stdout[-2000:]}")
        return parse(done.stdout, log.read_text(), seconds)


def merged(loads: Sequence[Load]) -> Load:
    """Puts repeats together: the median of their rates, and all their times."""
    return Load(
        statistics.median(load.rate for load in loads),
        sum(load.answers for load in loads),
        sum(load.body_bytes for load in loads),
        sorted(one for load in loads for one in load.milliseconds),
    )
