"""`metricsCollectorSpec`: what Katib takes is taken, with Katib's defaults; what is wrong is named."""

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_katib.collectors import KINDS, CollectionError, Place, make, parse, prepare
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

WHERE = "manifest.spec.metricsCollectorSpec"


def of(kind: str, **source: Any) -> dict[str, Any]:
    return {"collector": {"kind": kind}, "source": source}


@pytest.mark.parametrize(
    ("spec", "kind", "source"),
    [
        (None, "StdOut", {"filters": ()}),
        ({}, "StdOut", {"filters": ()}),
        ({"source": {"filter": {"metricsFormat": [r"(\w+):(\S+)"]}}}, "StdOut", {"filters": (r"(\w+):(\S+)",)}),
        (
            {"collector": {"kind": "File"}},
            "File",
            {"path": PurePosixPath("var/log/katib/metrics.log"), "format": "TEXT", "filters": ()},
        ),
        (
            of("File", fileSystemPath={"path": "/katib/m.json", "kind": "File", "format": "JSON"}),
            "File",
            {"path": PurePosixPath("katib/m.json"), "format": "JSON", "filters": ()},
        ),
        (of("TensorFlowEvent"), "TensorFlowEvent", {"path": PurePosixPath("var/log/katib/tfevent")}),
        (
            of("TensorFlowEvent", fileSystemPath={"path": "runs", "kind": "Directory"}),
            "TensorFlowEvent",
            {"path": PurePosixPath("runs")},
        ),
        (of("PrometheusMetric"), "PrometheusMetric", {"port": 8080, "target": "/metrics"}),
        (
            of("PrometheusMetric", httpGet={"port": "9100", "path": "/m", "host": "localhost", "scheme": "HTTP"}),
            "PrometheusMetric",
            {"port": 9100, "target": "/m"},
        ),
        (of("Push"), "Push", {}),
        (of("None"), "None", {}),
        ({"collector": {"kind": "Custom", "customCollector": {"image": "mine"}}}, "Custom", {}),
    ],
)
def test_katib_s_defaults(spec: Any, kind: str, source: dict[str, Any]) -> None:
    found = parse(spec, ["loss", "accuracy"])
    assert (found.kind, found.metrics, dict(found.source)) == (kind, ("loss", "accuracy"), source)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ([], ""),
        ({"collector": "StdOut"}, ".collector"),
        ({"collector": {"kind": "Stdout"}}, ".collector.kind"),
        ({"collector": {"kind": ["StdOut"]}}, ".collector.kind"),
        ({"collector": {"kind": "Custom"}}, ".collector.customCollector"),
        (of("StdOut", filter={"metricsFormat": "(a)(b)"}), ".source.filter.metricsFormat"),
        (of("StdOut", filter={"metricsFormat": ["(a)(b)"] * 21}), ".source.filter.metricsFormat"),
        (of("StdOut", filter={"metricsFormat": ["(a)(b)", "(a)"]}), ".source.filter.metricsFormat[1]"),
        (of("StdOut", filter={"metricsFormat": [""]}), ".source.filter.metricsFormat[0]"),
        (of("Push", filter={"metricsFormat": ["("]}), ".source.filter.metricsFormat[0]"),
        (of("File", fileSystemPath={"kind": "Directory"}), ".source.fileSystemPath.kind"),
        (of("File", fileSystemPath={"path": "/a/../../b"}), ".source.fileSystemPath.path"),
        (of("File", fileSystemPath={"path": "/"}), ".source.fileSystemPath.path"),
        (of("File", fileSystemPath={"path": "a\0b"}), ".source.fileSystemPath.path"),
        (of("File", fileSystemPath={"path": 7}), ".source.fileSystemPath.path"),
        (of("File", fileSystemPath={"format": "YAML"}), ".source.fileSystemPath.format"),
        (of("File", fileSystemPath={"format": "JSON"}, filter={"metricsFormat": ["(a)(b)"]}), ".source.filter"),
        (of("TensorFlowEvent", fileSystemPath={"kind": "File"}), ".source.fileSystemPath.kind"),
        (of("TensorFlowEvent", fileSystemPath={"format": "TEXT"}), ".source.fileSystemPath.format"),
        (of("PrometheusMetric", httpGet={"port": "http"}), ".source.httpGet.port"),
        (of("PrometheusMetric", httpGet={"port": -1}), ".source.httpGet.port"),
        (of("PrometheusMetric", httpGet={"port": 70000}), ".source.httpGet.port"),
        (of("PrometheusMetric", httpGet={"path": "metrics"}), ".source.httpGet.path"),
        (of("PrometheusMetric", httpGet={"path": "/\r\nX: y"}), ".source.httpGet.path"),
    ],
)
def test_what_is_wrong_is_named(spec: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(spec, ["loss"])
    assert caught.value.violations[0][0] == WHERE + field


@pytest.mark.parametrize(
    "spec",
    [
        of("PrometheusMetric", httpGet={"host": "169.254.169.254"}),
        of("PrometheusMetric", httpGet={"scheme": "HTTPS"}),
        of("PrometheusMetric", httpGet={"httpHeaders": [{"name": "Authorization", "value": "x"}]}),
    ],
)
def test_what_is_not_served_is_refused(spec: Any) -> None:
    with pytest.raises(FailedPrecondition):
        parse(spec, ["loss"])


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        (r"(\w+)=(\d+)\1", "escape"),  # no back-references: they cannot be matched in linear time
        (r"(?=x)(\w+)=(\d+)", "(?="),
        (r"(\w+)=((\d+)", "missing"),
        (r"(\pL{1000})=(\d)", "too large"),
        (r"((\w|\pL)*x){40}(y)", "too large"),
        (r"(a){1001}(b)", "repetition"),
        ("(a)(b)" + "c" * 500, "500 characters"),
        ("(a)(b)\ud800", "Unicode"),
    ],
)
def test_expressions_that_are_refused(expression: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(of("StdOut", filter={"metricsFormat": [expression]}), ["loss"])
    assert says in caught.value.message


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["/x", "..", "JSON", "(a)(b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
KEYS = ["fileSystemPath", "httpGet", "filter", "path", "kind", "format", "port", "host", "scheme", "metricsFormat"]


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    source=JSON_VALUES
    | st.dictionaries(st.sampled_from(KEYS), JSON_VALUES | st.dictionaries(st.sampled_from(KEYS), JSON_VALUES)),
)
def test_whatever_is_written_there_is_answered(kind: str, source: Any) -> None:
    try:
        found = parse({"collector": {"kind": kind}, "source": source}, ["loss"])
    except (InvalidArgument, FailedPrecondition) as error:
        assert error.message
    else:
        make(found, Place(None, None)).close()


def test_who_reports_by_itself_is_not_read() -> None:
    for kind in ("Push", "None"):
        assert make(parse(of(kind), ["loss"]), Place(None, None)).poll(ended=True) == ()
    custom = {"collector": {"kind": "Custom", "customCollector": {"image": "mine"}}}
    collector = make(parse(custom, ["loss"]), Place(None, None))
    assert collector.poll() == ()
    with pytest.raises(CollectionError, match="Custom"):
        collector.poll(ended=True)


def test_a_trial_is_told_where_to_write(tmp_path: Path) -> None:
    assert prepare(parse(None, ["loss"]), tmp_path) == {}
    assert prepare(parse(of("Push"), ["loss"]), tmp_path) == {}
    variables = prepare(parse(of("File"), ["loss"]), tmp_path)
    written = tmp_path / "var/log/katib/metrics.log"
    assert (variables, written.parent.is_dir()) == ({"MLMESH_METRICS_PATH": str(written)}, True)
    variables = prepare(parse(of("TensorFlowEvent"), ["loss"]), tmp_path)
    folder = tmp_path / "var/log/katib/tfevent"
    assert (variables, folder.is_dir()) == ({"MLMESH_METRICS_PATH": str(folder)}, True)


def test_what_an_earlier_attempt_wrote_does_not_count(tmp_path: Path) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    (outside / "log/katib").mkdir(parents=True)
    kept = outside / "log/katib/metrics.log"
    kept.write_text("loss=1\n")
    work.mkdir()
    (work / "var").symlink_to(outside)
    prepare(parse(of("File"), ["loss"]), work)
    assert kept.read_text() == "loss=1\n"  # a link that the attempt left is removed, not followed
    (work / "var/log/katib/metrics.log").write_text("loss=1\n")
    spec = parse(of("File"), ["loss"])
    prepare(spec, work)
    assert make(spec, Place(None, work)).poll(ended=True) == []
    (work / "var/log/katib/tfevent/run").mkdir(parents=True)
    prepare(parse(of("TensorFlowEvent"), ["loss"]), work)
    assert list((work / "var/log/katib/tfevent").iterdir()) == []
