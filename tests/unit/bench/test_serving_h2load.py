"""What h2load 1.52 prints, taken apart; the reports are real ones, against the serving router."""

import pytest

from bench import bench_serving
from bench.serving_h2load import BadRun, Load, merged, parse

GRPC = """\
starting benchmark...
spawning thread #0: 2 total client(s). 5 total requests
Application protocol: h2c
progress: 100% done

finished in 9.81ms, 509.94 req/s, 83.86KB/s
requests: 5 total, 5 started, 5 done, 5 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 5 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 842B (842) total, 165B (165) headers (space savings 59.26%), 225B (225) data
                     min         max         mean         sd        +/- sd
time for request:      695us      2.74ms      1.71ms       804us    60.00%
time for connect:      246us       757us       502us       361us   100.00%
time to 1st byte:     2.85ms      3.57ms      3.21ms       509us   100.00%
req/s           :     422.91      478.35      450.63       39.21   100.00%
"""
GRPC_LOG = """\
1795643038441393\t200\t2140
1795643038441419\t200\t2735
1795643038444182\t200\t1155
1795643038444197\t200\t1825
1795643038446039\t200\t695
"""
NOBODY_LISTENS = """\
starting benchmark...
spawning thread #0: 4 total client(s). Timing-based test.
Main benchmark duration is over for thread #0. Stopping all clients.
Stopped all clients for thread #0

finished in 1.00s, 0.00 req/s, 0B/s
requests: 0 total, 0 started, 0 done, 0 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 0B (0) total, 0B (0) headers (space savings 0.00%), 0B (0) data
"""
CONNECTION_REFUSED = """\
finished in 341us, 0.00 req/s, 0B/s
requests: 100 total, 0 started, 0 done, 0 succeeded, 100 failed, 100 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 0B (0) total, 0B (0) headers (space savings 0.00%), 0B (0) data
"""
NOT_FOUND = """\
finished in 1.00s, 3679.00 req/s, 589.21KB/s
requests: 3 total, 5 started, 3 done, 0 succeeded, 3 failed, 0 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 3 4xx, 0 5xx
traffic: 589.21KB (603356) total, 323.61KB (331380) headers (space savings 0.00%), 115.06KB (117824) data
"""
NOT_FOUND_LOG = """\
1795642682836916\t404\t1773
1795642682836911\t404\t2327
1795642682836903\t404\t2999
"""


def report(done: int, statuses: int) -> str:
    """A report of answers that all succeeded, and how many of their statuses were counted."""
    text = GRPC.replace("5 done, 5 succeeded", f"{done} done, {done} succeeded")
    return text.replace("5 2xx", f"{statuses} 2xx")


def log(answers: int, microseconds: int = 500) -> str:
    return "".join(f"{1795643038000000 + n * microseconds}\t200\t{microseconds}\n" for n in range(answers))


def test_report_and_log():
    load = parse(GRPC, GRPC_LOG, 0.005)
    assert load == Load(509.94, 5, 225, [0.695, 1.155, 1.825, 2.14, 2.735])


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (1, 1.0), (50, 50.0), (99, 99.0), (99.5, 100.0), (100, 100.0)]
)
def test_percentiles_are_of_the_nearest_rank(percent, expected):
    assert Load(1, 100, 0, [float(n) for n in range(1, 101)]).percentile(percent) == expected


def test_percentile_of_one_answer():
    assert Load(1, 1, 0, [7.0]).percentile(50) == 7.0


@pytest.mark.parametrize("statuses", [99, 101])
def test_a_status_counted_in_another_phase_than_its_answer_is_no_error(statuses):
    assert parse(report(100, statuses), log(100), 0.05).answers == 100


@pytest.mark.parametrize("text", [NOBODY_LISTENS, CONNECTION_REFUSED])
def test_no_answers_are_no_result(text):
    with pytest.raises(BadRun, match="nothing was answered"):
        parse(text, "", 1)


@pytest.mark.parametrize("text", ["", "h2load: unrecognized option '--durations'\n"])
def test_no_report(text):
    with pytest.raises(BadRun, match="no report"):
        parse(text, "", 1)


def test_failed_answers_are_no_result():
    with pytest.raises(BadRun, match=r"3 of 3 requests failed.*404"):
        parse(NOT_FOUND, NOT_FOUND_LOG, 0.003)


def test_status_of_an_answer_that_began_while_it_warmed_up_is_not_known():
    assert parse(report(100, 99), log(100).replace("200", "0", 1), 0.05).answers == 100


def test_one_wrong_status_in_the_log_is_enough():
    with pytest.raises(BadRun, match="503"):
        parse(report(100, 100), log(99) + "1795643038049500\t503\t500\n", 0.05)


def test_a_log_that_does_not_fit_the_report():
    with pytest.raises(BadRun, match="100 answers, and 99 in the log"):
        parse(report(100, 100), log(99), 0.05)


def test_a_server_that_went_away_midway():
    with pytest.raises(BadRun, match=r"cover 0\.05 of 2 seconds"):
        parse(report(100, 100), log(100), 2)


def test_repeats_put_together():
    loads = [Load(100, 2, 20, [1.0, 9.0]), Load(300, 1, 10, [5.0]), Load(200, 1, 10, [2.0])]
    assert merged(loads) == Load(200, 4, 40, [1.0, 2.0, 5.0, 9.0])


def test_without_h2load_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["bench_serving"])
    assert bench_serving.main() == 2
    assert "apt-get install nghttp2-client" in capsys.readouterr().err
