"""How experiments are drawn, from answers that a service has given."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from mlmesh.cli.experiment_view import experiment_table, search_lines, search_picture
from mlmesh.cli.output import printable
from mlmesh.cli.search_state import Search, last_part
from mlmesh.cli.sparkline import sparkline
from rich.console import Console

RECORDED = Path(__file__).parent / "recorded"
EVIL = "[bold]x[/nothing] \x1b[2J\x07\u202e\n"


def recorded(name: str) -> Search:
    """An experiment as it was read once: `bounded` runs and has a constraint, `speed-and-size` has two objectives."""
    return Search(**json.loads((RECORDED / f"{name}.json").read_text()))


def drawn(thing: Any, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False, highlight=False).print(thing)
    return out.getvalue()


def block(text: str, title: str) -> list[str]:
    """The rows of a table below its title and head."""
    rows = text.partition(f"\n{title}\n")[2].partition("\n\n")[0]
    return rows.splitlines()[1:]


def test_the_picture_says_what_is_searched_for_and_how_far_it_is() -> None:
    search = recorded("bounded")
    text = drawn(search_picture(search))
    assert text.startswith("experiment bounded  Running")
    about = text.splitlines()[1]
    assert all(part in about for part in ("random", "minimize loss (goal 0.0001)", "size <= 4"))
    progress = text.splitlines()[2]
    assert "5 of 6 trials" in progress and "━" in progress
    assert "3 succeeded, 2 failed, 1 running" in progress


def test_trials_that_run_show_what_they_have_reported() -> None:
    search = recorded("bounded")
    search.reported = {"bounded-5": [4.0, 3.0, 2.25]}
    (row,) = block(drawn(search_picture(search)), "running")
    assert row.split()[:3] == ["bounded-5", r"b\x1b[31m", "3.9839"]
    assert "2.25 █▄▁" in row


def test_the_best_trials_come_first_and_those_beyond_a_constraint_last() -> None:
    search = recorded("bounded")
    rows = block(drawn(search_picture(search)), "best trials")
    assert [row.split()[0] for row in rows[:3]] == ["bounded-2", "bounded-6", "bounded-4"]
    assert "★" in rows[0] and "★" not in rows[1] and "✗" not in "".join(rows)
    tighter = copy.deepcopy(search.experiment)
    tighter["manifest"]["spec"]["objective"]["constraints"] = [{"metricName": "size", "min": 3}]
    rows = block(drawn(search_picture(Search(tighter, search.trials))), "best trials")
    assert [row.split()[0] for row in rows[:3]] == ["bounded-6", "bounded-4", "bounded-2"]
    assert "✗ size" in rows[2] and "✗" not in rows[0] + rows[1]


def test_a_constraint_on_a_metric_that_was_not_reported_is_not_kept() -> None:
    search = recorded("bounded")
    search.experiment["manifest"]["spec"]["objective"]["constraints"] = [{"metricName": "memory", "max": 1}]
    assert next(search.violated(one) for one in search.trials if one.get("observation")) == ["memory"]
    assert search.trend(search.targets[0]) == []


def test_trials_that_failed_are_named_with_their_reason_and_what_to_do() -> None:
    text = drawn(search_picture(recorded("bounded")))
    assert "bounded-3 Failed: Trial has failed: it exited with code 3" in text
    assert "mlmesh tune logs bounded bounded-3" in text


def test_of_several_objectives_the_front_is_shown_in_place_of_the_best() -> None:
    search = recorded("speed-and-size")
    text = drawn(search_picture(search))
    front = {one["best_trial_name"] for one in search.experiment["status"]["pareto_front"]}
    rows = block(text, "Pareto front")
    assert {row.split()[0] for row in rows if row.startswith("speed")} == front and len(front) > 1
    assert "best trials" not in text and "best: " not in text
    assert "maximize accuracy" in text and "minimize latency" in text
    assert "best accuracy so far" in text and "best latency so far" in text


def test_the_best_so_far_never_gets_worse() -> None:
    search = recorded("speed-and-size")
    accuracy, latency = (search.trend(target) for target in search.targets)
    assert len(accuracy) == len(latency) == 6
    assert accuracy == sorted(accuracy) and latency == sorted(latency, reverse=True)


def test_no_more_rows_than_asked_for() -> None:
    text = drawn(search_picture(recorded("speed-and-size"), shown=2))
    assert len([row for row in block(text, "Pareto front") if row.startswith("speed")]) == 2
    assert "and 2 more" in text


def test_lines_are_of_what_has_changed() -> None:
    search = recorded("bounded")
    assert list(search_lines(search)) == []
    search.changed = search.trials[1:3]
    lines = list(search_lines(search))
    assert len(lines) == 2
    assert lines[0].startswith("bounded-2 Succeeded") and "loss=30.018" in lines[0] and lines[0].endswith("★")
    assert lines[1].startswith("bounded-3 Failed")
    search.experiment["status"]["paused"] = True
    assert "paused" in list(search_lines(search))[-1]


def test_what_users_wrote_is_neither_markup_nor_control() -> None:
    search = recorded("bounded")
    text = json.dumps({"experiment": search.experiment, "trials": search.trials})
    for given in ("loss", "size", "kind", "bounded", "random", "exited"):
        text = text.replace(given, json.dumps(EVIL)[1:-1])
    evil = Search(**json.loads(text))
    evil.changed = evil.trials
    shown = drawn(search_picture(evil), 400) + drawn(experiment_table([evil.experiment]), 400)
    shown += "\n".join(map(printable, search_lines(evil)))
    assert printable(EVIL) in shown
    assert all(one.isprintable() or one == "\n" for one in shown)
    assert "[bold]x[/nothing]" in shown and "[red]a[/]" in shown


@pytest.mark.parametrize("experiment", [{}, {"name": "n", "manifest": {"spec": {"maxTrialCount": "many"}}}])
def test_an_experiment_of_which_little_is_known_can_be_drawn(experiment: dict[str, Any]) -> None:
    text = drawn(search_picture(Search(experiment)))
    assert "Created" in text and "0 trials" in text


def test_many_parameters_share_a_column() -> None:
    search = recorded("bounded")
    for trial in search.trials:
        trial["parameter_assignments"] += [{"name": f"p{n}", "value": str(n)} for n in range(10)]
    text = drawn(search_picture(search), 200)
    assert "parameters" in text and "p9=9, x=-2.4675" in text
    assert all(len(line) <= 200 for line in text.splitlines())
    rows = block(drawn(search_picture(search), 60), "best trials")
    assert [row.split()[0] for row in rows[:3]] == ["bounded-2", "bounded-6", "bounded-4"]  # one line each


def test_a_list_has_a_row_for_each_experiment() -> None:
    searches = [recorded("bounded"), recorded("speed-and-size")]
    text = drawn(experiment_table([one.experiment for one in searches]))
    first, second = text.splitlines()[1:]
    assert first.split()[:6] == ["bounded", "Running", "random", "5", "of", "6"]
    assert second.startswith(last_part(searches[1].experiment)) and "accuracy=0.9375" in second


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([3], "▁"),
        ([1, 1, 1], "▁▁▁"),
        ([8, 7, 6, 5, 4, 3, 2, 1], "█▇▆▅▄▃▂▁"),
        ([0, float("nan"), float("inf"), 1], "▁█"),
        ([-1.7e308, 1.7e308], "▁█"),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values: list[float], expected: str) -> None:
    assert sparkline(values) == expected


def test_a_long_sparkline_is_cut_into_parts_and_ends_with_the_last() -> None:
    line = sparkline([*range(1000), -1], width=10)
    assert len(line) == 10 and line[-1] == "▁" and line[-2] == "█"
