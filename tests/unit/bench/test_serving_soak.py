"""What the soak calls wrong, lost and good."""

import collections

import pytest

from bench.serving_models import iris
from bench.serving_servers import Server
from bench.serving_soak import Soak, Tally, report

ROWS = slice(10, 13)


@pytest.fixture(scope="module")
def models():
    return iris("strong", 1.0), iris("weak", 0.01)


@pytest.fixture
def soak(tmp_path, models):
    return Soak(Server("none", "127.0.0.1:1", "http://127.0.0.1:1", 0), tmp_path, models)


def answer(model, rows=ROWS):
    from sklearn.datasets import load_iris

    return model.estimator.predict_proba(load_iris().data)[rows].ravel().tolist()


@pytest.mark.parametrize("allowed", [{0}, {1}, {0, 1}])
def test_the_model_whose_turn_it_was_when_asked_or_when_answered(soak, models, allowed):
    soak._may_answer = {0}
    soak._check("gRPC", ROWS, answer(models[0]), allowed)
    assert not soak.tally.wrong
    assert soak.tally.answers == {"gRPC": 1}


def test_a_model_whose_turn_is_over(soak, models):
    soak._may_answer = {1}
    soak._check("gRPC", ROWS, answer(models[0]), {1})
    assert soak.tally.wrong == ["gRPC: model 0 answered when it was not its turn"]


@pytest.mark.parametrize("rows", [slice(60, 63), slice(10, 12), slice(0, 0)])
def test_answers_to_other_rows_are_wrong(soak, models, rows):
    soak._check("REST", ROWS, answer(models[0], rows), {0, 1})
    assert "neither model" in soak.tally.wrong[0]


def test_rows_in_another_order_are_wrong(soak, models):
    found = answer(models[0])
    soak._check("REST", ROWS, found[3:] + found[:3], {0, 1})
    assert soak.tally.wrong


@pytest.mark.parametrize(
    ("change", "code"),
    [({}, 0), ({"lost": collections.Counter(["UNAVAILABLE"])}, 1), ({"wrong": ["x"]}, 1), ({"answers": {}}, 1)],
)
def test_exit_code(change, code, capsys):
    good = {"answers": collections.Counter(["gRPC"]), "memory": [100.0] * 10}
    assert report(Tally(**{**good, **change}), 10) == code
    assert "lost" in capsys.readouterr().out
