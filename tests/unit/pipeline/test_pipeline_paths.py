from hypothesis import given
from hypothesis import strategies as st
from mlmesh_pipeline.engine.paths import distinct

NAMES = st.text(st.sampled_from("ab .-_~[]1\u00e9"), min_size=1, max_size=6)


@given(NAMES, NAMES)
def test_two_names_have_two_folders(one, other):
    assert (distinct(one) == distinct(other)) == (one == other)


@given(st.text(min_size=1, max_size=20))
def test_a_folder_is_one_part_of_a_path(name):
    made = distinct(name)
    assert made and "/" not in made and "\0" not in made and made.strip(".")


def test_names_that_can_stay_do():
    assert distinct("train-2") == "train-2"
    assert distinct("for-loop-1[12]") == "for-loop-1~12"
