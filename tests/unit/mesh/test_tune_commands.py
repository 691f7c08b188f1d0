"""`mlmesh tune`, against a server that answers as a katib service does and counts what it is asked."""

import contextlib
import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import Result
from mlmesh.cli.app import app
from mlmesh.cli.client import Ingress
from mlmesh.cli.completion import complete_experiments, complete_trials
from mlmesh.cli.reading_trials import SearchReader
from typer.testing import CliRunner

PATH = "/katib/v1/namespaces/default/experiments/wide"
REPORT = b"<!doctype html><title>wide</title>" + b"x" * 100_000


class FakeKatib:
    """Experiments `wide` with many trials, and 120 others."""

    def __init__(self, trials: int) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        """Method, path, query and body of each request."""
        self.trials = [self.trial(number, "Succeeded") for number in range(1, trials + 1)]
        self.state = "Running"
        self.report: bytes | None = REPORT
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or "null")
                fake.asked.append((self.command, url.path, query, body))
                status, answer = fake.answer(self.command, url.path, query)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @staticmethod
    def trial(number: int, state: str) -> dict[str, Any]:
        reported = {"metrics": [{"name": "loss", "latest": f"{number % 7}", "min": f"{number % 7}", "max": "9"}]}
        return {
            "name": f"namespaces/default/experiments/wide/trials/wide-{number}",
            "parameter_assignments": [{"name": "x", "value": str(number)}, {"name": "word", "value": f'a,"{number}'}],
            "conditions": [{"type": state, "status": "True"}],
            "start_time": "2026-01-01T00:00:00Z",
            "completion_time": f"2026-01-01T01:{number // 60:02}:{number % 60:02}Z",
            **({"observation": reported} if state == "Succeeded" else {}),
        }

    def experiment(self, name: str = "wide") -> dict[str, Any]:
        spec = {"objective": {"objectiveMetricName": "loss", "type": "minimize"}, "maxTrialCount": 500.0}
        status = {
            "conditions": [{"type": self.state, "status": "True", "message": "because"}],
            "trials": len(self.trials),
            "trials_running": sum(one["conditions"][0]["type"] == "Running" for one in self.trials),
            "current_optimal_trial": {"best_trial_name": "wide-7"},
        }
        return {"name": f"namespaces/default/experiments/{name}", "manifest": {"spec": spec}, "status": status}

    def answer(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path == f"{PATH}/trials":
            return 200, self.page("trials", self.trials, query, 1000)
        if path.endswith("/experiments"):
            names = ["wide", *(f"other-{number}" for number in range(120))]
            return 200, self.page("experiments", [self.experiment(name) for name in names], query, 100)
        if path == f"{PATH}/report" and self.report is not None:
            return 200, self.report
        if path.endswith("/observations"):
            after = int(query["after"])
            size = min(int(query["page_size"]), max(0, 2500 - after))
            reports = [
                {"position": str(n), "metric": "loss", "value": str(1 / n), "time": "t"}
                for n in range(after + 1, after + size + 1)
            ]
            return 200, {"reports": reports, "next_position": str(after + size)}
        if path == f"{PATH}/trials/wide-7":
            return 200, self.trials[6]
        if path.split(":", maxsplit=1)[0] == PATH:
            return 200, {} if method == "DELETE" else self.experiment()
        return 404, {"code": 5, "message": f"{path.rsplit('/', 1)[-1]!r} not found"}

    @staticmethod
    def page(field: str, items: list[Any], query: dict[str, str], default: int) -> dict[str, Any]:
        begin, size = int(query.get("page_token") or 0), int(query.get("page_size") or default)
        page: dict[str, Any] = {field: items[begin : begin + size]}
        if begin + size < len(items):
            page["next_page_token"] = str(begin + size)
        return page

    def pages_asked(self) -> list[int]:
        """Where the pages of trials began that were asked for since this was asked last."""
        found = [int(query.get("page_token") or 0) for _, path, query, _ in self.asked if path == f"{PATH}/trials"]
        self.asked.clear()
        return found


@pytest.fixture
def katib() -> Iterator[FakeKatib]:
    fake = FakeKatib(350)
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield fake
    fake.server.shutdown()
    thread.join()
    fake.server.server_close()


def tune(katib: FakeKatib, *arguments: str) -> Result:
    done = CliRunner().invoke(app, ["tune", *arguments, "--ingress", katib.url])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


def test_only_pages_that_can_change_are_read_again(katib: FakeKatib) -> None:
    katib.trials[120] = katib.trial(121, "Running")
    with Ingress(katib.url) as mesh:
        reader = SearchReader(mesh, PATH)
        first = reader.read()
        assert katib.pages_asked() == [0, 100, 200, 300]
        assert len(first.trials) == len(first.changed) == 350
        assert reader.read().changed == [] and katib.pages_asked() == [100, 300]
        katib.trials[120] = katib.trial(121, "Succeeded")
        katib.trials += [katib.trial(number, "Running") for number in range(351, 405)]
        grown = reader.read()
        assert katib.pages_asked() == [100, 300, 400]
        assert [one["name"].rsplit("-")[-1] for one in grown.changed] == ["121", *map(str, range(351, 405))]
        assert [one["name"] for one in grown.trials] == [one["name"] for one in katib.trials]
        reader.read()
        assert katib.pages_asked() == [300, 400]


def test_reports_of_a_running_trial_are_read_once(katib: FakeKatib) -> None:
    katib.trials[6] = katib.trial(7, "Running")
    with Ingress(katib.url) as mesh:
        reader = SearchReader(mesh, PATH, with_reports=True)
        reported = reader.read().reported["wide-7"]
        assert reported[-1] == 1 / 2500
        katib.asked.clear()
        assert reader.read().reported["wide-7"] == reported
    asked = [query for _, path, query, _ in katib.asked if path.endswith("/observations")]
    assert asked == [{"after": "2500", "metric": "loss", "page_size": "1000"}]


def test_lists_of_more_than_a_page_are_followed(katib: FakeKatib) -> None:
    assert len(json.loads(tune(katib, "list", "--json").stdout)) == 121
    assert json.loads(tune(katib, "--json").stdout) == json.loads(tune(katib, "list", "--json").stdout)
    assert len(json.loads(tune(katib, "trials", "wide", "--json").stdout)) == 350
    assert len(json.loads(tune(katib, "metrics", "wide", "7", "--json").stdout)) == 2500


def test_trials_are_sorted_and_written_as_csv(katib: FakeKatib) -> None:
    def names(*arguments: str) -> list[str]:
        return [one["name"].rpartition("-")[2] for one in json.loads(tune(katib, "trials", "wide", *arguments).stdout)]

    assert names("--best", "3", "--format", "json") == ["7", "14", "21"]
    assert names("--sort", "x", "--reverse", "--json")[:2] == ["350", "349"]
    assert names("--sort", "objective", "--json")[:2] == ["7", "14"]
    assert names("--state", "failed", "--json") == []
    rows = list(csv.DictReader(io.StringIO(tune(katib, "trials", "wide", "--best", "1", "-f", "csv").stdout)))
    assert [(row["trial"], row["x"], row["word"], row["loss"]) for row in rows] == [("wide-7", "7", 'a,"7', "0")]
    wrong = tune(katib, "trials", "wide", "--sort", "los")
    assert wrong.exit_code == 2 and "loss" in wrong.stderr


def test_metrics_are_summed_up(katib: FakeKatib) -> None:
    row = tune(katib, "metrics", "wide", "best").stdout.splitlines()[1].split()
    assert row[:6] == ["loss", "2500", "1", "0.0004", "0.0004", "1"] and row[6].startswith("█")


def test_an_experiment_is_edited(katib: FakeKatib) -> None:
    done = tune(katib, "edit", "wide", "--max-trials", "600", "--parallel", "4", "--max-failed", "0", "--goal", "1e-3")
    assert done.exit_code == 0, done.stderr
    spec = {
        "maxTrialCount": 600,
        "parallelTrialCount": 4,
        "maxFailedTrialCount": 0,
        "objective": {"goal": 0.001},
    }
    assert katib.asked[-1] == ("PATCH", PATH, {}, {"manifest": {"spec": spec}})
    assert tune(katib, "edit", "wide", "--goal", "none").exit_code == 0
    assert katib.asked[-1][2:] == ({"update_mask": "manifest.spec.objective.goal"}, {"manifest": {"spec": {}}})
    for arguments in ([], ["--goal", "nan"], ["--max-trials", "0"], ["--goal", "none", "--parallel", "1"]):
        assert tune(katib, "edit", "wide", *arguments).exit_code == 2


def test_nothing_is_deleted_unasked(katib: FakeKatib) -> None:
    done = tune(katib, "delete", "wide")
    assert done.exit_code == 1 and "--yes" in done.stderr
    assert not [method for method, *_ in katib.asked if method == "DELETE"]
    assert tune(katib, "delete", "wide", "--yes").exit_code == 0
    assert katib.asked[-1][:2] == ("DELETE", PATH)


def test_the_report_is_saved_and_nothing_is_written_over(
    katib: FakeKatib, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tune(katib, "report", "wide").exit_code == 0
    assert (tmp_path / "wide.html").read_bytes() == REPORT
    katib.report = b"new"
    again = tune(katib, "report", "wide")
    assert again.exit_code == 1 and "--force" in again.stderr
    assert (tmp_path / "wide.html").read_bytes() == REPORT
    assert tune(katib, "report", "wide", "--force", "-o", "wide.html").exit_code == 0
    assert (tmp_path / "wide.html").read_bytes() == b"new"
    assert tune(katib, "report", "wide", "-o", "-").stdout == "new"
    katib.report = None
    missing = tune(katib, "report", "wide", "-o", "none.html")
    assert missing.exit_code == 1 and "makes no reports" in missing.stderr and not (tmp_path / "none.html").exists()
    nowhere = tune(katib, "report", "other", "-o", "none.html")
    assert nowhere.exit_code == 1 and "mlmesh tune list" in nowhere.stderr


def test_a_mistyped_command_is_no_file(katib: FakeKatib) -> None:
    done = tune(katib, "wach", "wide")
    assert done.exit_code == 2 and "Did you mean 'watch'?" in done.stderr
    assert tune(katib, "nofile.yaml").exit_code == 1 and not katib.asked


def test_errors_print_no_control_characters(katib: FakeKatib) -> None:
    done = tune(katib, "show", "evil\x1b[2J")
    assert done.exit_code == 1 and "mlmesh tune list" in done.stderr and "\x1b" not in done.stderr


def test_a_failed_experiment_ends_with_1(katib: FakeKatib) -> None:
    katib.state = "Failed"
    done = tune(katib, "watch", "wide")
    assert done.exit_code == 1 and "because" in done.stdout
    answer = tune(katib, "watch", "wide", "--json")
    assert answer.exit_code == 1 and len(json.loads(answer.stdout)["trials"]) == 350 and not answer.stderr


def test_an_interrupted_watcher_says_how_to_come_back(katib: FakeKatib) -> None:
    katib.trials[349] = katib.trial(350, "Running")
    command = [sys.executable, "-m", "mlmesh", "tune", "watch", "wide", "-n", "default", "--ingress", katib.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watcher:
        assert watcher.stderr is not None
        lines = [watcher.stderr.readline() for _ in range(350)]  # it is in the middle of watching
        watcher.send_signal(signal.SIGINT)
        rest = watcher.stderr.read()
    assert "wide-350 Running" in lines[-1]
    assert watcher.returncode == 130 and "the experiment goes on; watch it with: mlmesh tune watch wide" in rest
    assert {method for method, *_ in katib.asked} == {"GET"}


def test_on_a_terminal_the_picture_is_redrawn_until_the_end(katib: FakeKatib) -> None:
    katib.trials[6] = katib.trial(7, "Running")
    command = [sys.executable, "-m", "mlmesh", "tune", "watch", "wide", "--ingress", katib.url]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment) as watcher:
        os.close(theirs)
        shown = b""
        while shown.count(b"best trials") < 2:
            shown += os.read(ours, 1 << 16)
        katib.state = "Succeeded"
        with contextlib.suppress(OSError):  # the other end is closed
            while os.read(ours, 1 << 16):
                pass
        assert watcher.stdout is not None
        result = watcher.stdout.read()
    os.close(ours)
    assert watcher.returncode == 0 and result.startswith("experiment wide  Succeeded")
    text = shown.decode()
    assert "349 of 500 trials" in text and "\x1b[" in text
    running = text.partition("running")[2].partition("best trials")[0]
    assert "wide-7" in running and "0.0004 " in running  # what it has reported so far
    assert "★" not in running and "wide-14" in text.partition("best trials")[2]


def test_shells_complete_experiments_and_trials(katib: FakeKatib) -> None:
    class Context:
        params = {"ingress": katib.url, "experiment": "wide", "namespace": "", "data_dir": None}  # noqa: RUF012

    assert complete_experiments(Context, "wi") == [("wide", "Running")]  # type: ignore[arg-type]
    assert ("wide-350", "Succeeded") in complete_trials(Context, "wide-35")  # type: ignore[arg-type]
    assert complete_trials(Context, "be") == [("best", "the best so far")]  # type: ignore[arg-type]
    Context.params["ingress"] = "http://127.0.0.1:9"
    assert complete_trials(Context, "w") == complete_experiments(Context, "w") == []  # type: ignore[arg-type]
