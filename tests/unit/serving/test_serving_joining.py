"""Requests joined by rows: each gets its own answer, whatever the others are."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import Internal, InvalidArgument
from mlmesh_serving.joining import RowJoiner
from mlmesh_serving.tensor import Tensor


class Model:
    """Doubles; refuses negative numbers."""

    def __init__(self, result=lambda data: data * 2):
        self.calls = []
        self._result = result

    def __call__(self, tensors):
        self.calls.append(tensors[0].data.shape)
        if (tensors[0].data < 0).any():
            raise InvalidArgument("negative", field="inputs")
        return [Tensor("y", self._result(tensors[0].data))]


def one(*values, width=2, dtype=np.float64):
    return [Tensor("x", np.array([[value] * width for value in values], dtype))]


def values(outcome):
    return outcome[0].data[:, 0].tolist()


def test_what_fits_is_predicted_at_once_and_split_by_rows():
    model = Model()
    found = RowJoiner(model, 100).predict([one(1), one(2, 3), one(4, 5, 6)])
    assert [values(outcome) for outcome in found] == [[2], [4, 6], [8, 10, 12]]
    assert model.calls == [(6, 2)]


def test_other_shapes_and_datatypes_are_apart():
    model = Model()
    inputs = [one(1), one(2, width=3), one(3, dtype=np.float32), one(4), one(5, width=3)]
    found = RowJoiner(model, 100).predict(inputs)
    assert [values(outcome) for outcome in found] == [[2], [4], [6], [8], [10]]
    assert found[2][0].datatype == "FP32"
    assert sorted(model.calls) == [(1, 2), (2, 2), (2, 3)]


def test_a_batch_holds_no_more_rows_than_allowed():
    model = Model()
    RowJoiner(model, 3).predict([one(1), one(2), one(3, 4), one(5), one(6, 7, 8, 9)])
    assert model.calls == [(2, 2), (3, 2), (4, 2)]  # what is larger by itself goes by itself


def test_a_bad_one_spoils_no_other():
    model = Model()
    found = RowJoiner(model, 100).predict([one(1), one(-1), one(3)])
    assert (values(found[0]), values(found[2])) == ([2], [6])
    assert isinstance(found[1], InvalidArgument)


def test_a_model_that_loses_the_rows_is_asked_one_by_one():
    model = Model(lambda data: data.sum(axis=0, keepdims=True))
    joiner = RowJoiner(model, 100)
    for _ in range(2):
        model.calls.clear()
        found = joiner.predict([one(1, 2), one(3)])
        assert [values(outcome) for outcome in found] == [[3], [3]]
    assert model.calls == [(2, 2), (1, 2)] and not joiner.joins


def test_scalars_and_empty_inputs_are_not_joined():
    model = Model()
    scalar = [Tensor("x", np.array(4.0))]
    empty = [Tensor("x", np.zeros((0, 2)))]
    found = RowJoiner(model, 100).predict([scalar, empty, one(1), one(2)])
    assert found[0][0].data == 8 and found[1][0].data.shape == (0, 2)
    assert model.calls == [(), (0, 2), (2, 2)]


def test_several_tensors_are_joined_if_they_have_the_same_rows():
    def add(tensors):
        assert {tensor.data.shape[0] for tensor in tensors} == {3}
        return [Tensor("sum", tensors[0].data + tensors[1].data)]

    inputs = [[Tensor("a", np.full(n, 1.0)), Tensor("b", np.full(n, 2.0))] for n in (1, 2)]
    found = RowJoiner(add, 100).predict(inputs)
    assert [outcome[0].data.tolist() for outcome in found] == [[3], [3, 3]]


def test_what_fails_altogether_fails_for_each():
    def fail(tensors):
        raise Internal("broken")

    found = RowJoiner(fail, 100).predict([one(1), one(2)])
    assert [type(outcome) for outcome in found] == [Internal, Internal]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 2), st.booleans()), max_size=12), st.integers(1, 8))
def test_joined_or_alone_the_answers_are_the_same(shapes, max_rows):
    inputs = [
        [Tensor("x", np.full((rows, width), -1.0 if bad and rows else float(index)))]
        for index, (rows, width, bad) in enumerate(shapes)
    ]
    alone, joined = RowJoiner(Model(), 1).predict(inputs), RowJoiner(Model(), max_rows).predict(inputs)
    for expected, found in zip(alone, joined, strict=True):
        assert type(expected) is type(found)
        if isinstance(found, list):
            assert np.array_equal(expected[0].data, found[0].data)
