"""Drift and outlier detection: against scipy, and on data whose answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition
from mlmesh_serving.observers.detectors.conformal import ConformalTest
from mlmesh_serving.observers.detectors.correction import threshold
from mlmesh_serving.observers.detectors.detector import Detector, kept_file
from mlmesh_serving.observers.detectors.mmd import MMDTest
from mlmesh_serving.observers.detectors.reference import read_table
from mlmesh_serving.observers.detectors.scores import IsolationForest, Mahalanobis, NearestNeighbors
from mlmesh_serving.observers.detectors.two_sample import chi_squared, kolmogorov_smirnov
from mlmesh_serving.observers.spec import Detection
from mlmesh_serving.tensor import Tensor, as_tensor
from scipy import stats

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine may be busy


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def detector(tmp_path: Path, **spec) -> Detector:
    made = Detector(Detection("d", **spec), tmp_path / "kept.npy")
    made.load()
    return made


def with_reference(tmp_path: Path, rows: np.ndarray, **spec) -> Detector:
    np.save(tmp_path / "reference.npy", rows)
    made = detector(tmp_path, reference_uri="file:///r", reference_path=f"{tmp_path}/reference.npy", **spec)
    assert made.status.state == "READY", made.status.message
    return made


def tensor(rows) -> list[Tensor]:
    return [as_tensor("x", rows)]


def binomial_bounds(rate: float, count: int) -> tuple[float, float]:
    """Between which the number of alarms lies in all but one of 10,000 cases."""
    return stats.binom.ppf(5e-5, count, rate), stats.binom.ppf(1 - 5e-5, count, rate)


# --- tests of one feature ---


def test_chi_squared_is_scipys_where_counts_are_large():
    a, b = rng(1).choice(4, 3000, p=[0.4, 0.3, 0.2, 0.1]), rng(2).choice(4, 500, p=[0.35, 0.3, 0.2, 0.15])
    table = [[np.sum(part == k) for k in range(4)] for part in (a, b)]
    expected = stats.chi2_contingency(table, correction=False)
    p_value, distance = chi_squared(a, b, 0.01, rng())
    assert p_value == pytest.approx(expected.pvalue)
    assert distance == pytest.approx(math.sqrt(expected.statistic / 3500))


def test_chi_squared_of_small_counts_is_fishers_exact_test():
    a, b = np.array([0] * 12 + [1] * 3), np.array([0] * 3 + [1] * 7)
    p_value, _ = chi_squared(a, b, 0.0002, rng())
    assert p_value == pytest.approx(stats.fisher_exact([[12, 3], [3, 7]]).pvalue, abs=0.012)


def test_a_category_that_was_never_seen_is_found_even_when_it_is_rare():
    reference = rng(3).choice(3, 1000)
    window = np.concatenate([rng(4).choice(3, 194), np.full(6, 9)])
    assert chi_squared(reference, window, 0.001, rng())[0] < 0.001


def test_one_category_alone_is_no_drift():
    assert chi_squared(np.zeros(10), np.zeros(5), 0.01, rng()) == (1.0, 0.0)


def test_kolmogorov_smirnov_is_scipys():
    a, b = rng(1).normal(size=300), rng(2).normal(0.3, size=100)
    expected = stats.ks_2samp(a, b)
    assert kolmogorov_smirnov(a, b) == (expected.pvalue, expected.statistic)


# --- several features ---


@patient
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.floats(0.001, 0.3),
)
def test_corrections_agree_with_scipy(p_values, level):
    values = np.array(p_values)
    adjusted = stats.false_discovery_control(values, method="bh")
    limit = threshold(values, level, "bh")
    near = np.abs(adjusted - level) < 1e-12
    assert ((values <= limit) == (adjusted <= level))[~near].all()
    assert threshold(values, level, "bonferroni") == level / len(values)
    assert limit >= level / len(values)


# --- drift ---


@pytest.mark.parametrize("correction", ["bonferroni", "bh"])
def test_false_alarms_of_kolmogorov_smirnov_come_at_most_at_their_rate(tmp_path, correction):
    found = with_reference(
        tmp_path, rng(1).normal(size=(2000, 3)), type="ks", window=100, p_value=0.05, correction=correction
    )
    found.observe(tensor(rng(2).normal(size=(100 * 100, 3))))
    low, high = binomial_bounds(0.05, 100)
    assert found.status.windows == 100
    assert low <= found.status.drifts <= high


def test_a_shift_of_half_a_deviation_in_one_of_ten_features_is_found(tmp_path):
    found = with_reference(tmp_path, rng(1).normal(size=(2000, 10)), type="ks", window=200, p_value=0.01)
    rows = rng(2).normal(size=(200 * 20, 10))
    rows[:, 3] += 0.5
    results = found.observe(tensor(rows))
    assert sum(result.is_drift for result in results) >= 19
    assert all(np.argmin(result.p_values) == 3 for result in results if result.is_drift)


def test_categories_among_numbers_are_tested_as_such(tmp_path):
    def rows(seed, share, count):
        random = rng(seed)
        return np.column_stack([random.normal(size=count), random.random(count) < share])

    found = with_reference(tmp_path, rows(1, 0.1, 3000), type="ks", categorical=(1,), window=300, p_value=0.01)
    calm = found.observe(tensor(rows(2, 0.1, 300 * 20)))
    shifted = found.observe(tensor(rows(3, 0.25, 300 * 20)))
    assert sum(result.is_drift for result in calm) <= 3
    assert sum(result.is_drift for result in shifted) == 20
    reference = np.load(tmp_path / "reference.npy")[:, 1]
    window = rows(3, 0.25, 300 * 20)[:300, 1]
    assert shifted[0].p_values[1] == pytest.approx(chi_squared(reference, window, 0.01, rng())[0])


def test_texts_are_categories(tmp_path):
    found = detector(tmp_path, type="chi2", collect=400, window=100, p_value=0.01)
    random = rng(5)
    found.observe(tensor(random.choice(["red", "green"], size=(400, 1))))
    assert found.status.state == "READY"
    calm = found.observe(tensor(random.choice(["red", "green"], size=(1000, 1))))
    blue = found.observe(tensor(random.choice(["red", "green", "blue"], p=[0.45, 0.45, 0.1], size=(1000, 1))))
    assert [len(calm), len(blue)] == [10, 10]
    assert sum(r.is_drift for r in calm) <= 1
    assert sum(r.is_drift for r in blue) >= 9


def test_mmd_sees_how_features_hang_together_where_each_alone_shows_nothing(tmp_path):
    def pairs(seed, correlation, count):
        return rng(seed).multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=count)

    mmd = with_reference(tmp_path, pairs(1, 0.9, 500), type="mmd", window=100, p_value=0.05, permutations=99)
    marginal = with_reference(tmp_path, pairs(1, 0.9, 500), type="ks", window=100, p_value=0.05)
    changed = tensor(pairs(2, -0.9, 500))
    assert all(result.is_drift for result in mmd.observe(changed))
    assert sum(result.is_drift for result in marginal.observe(changed)) <= 2


def test_mmd_false_alarms_come_at_their_rate():
    random = rng(7)
    alarms = 0
    for _ in range(150):
        test = MMDTest(random.normal(size=(60, 3)), 39, random)
        alarms += test.test(random.normal(size=(30, 3)))[0] <= 0.1
    low, high = binomial_bounds(0.1, 150)
    assert low <= alarms <= high


def test_the_mmd_estimate_is_that_of_its_definition():
    random = rng(3)
    reference, window = random.normal(size=(12, 2)), random.normal(1, size=(7, 2))
    _, estimate = MMDTest(reference, 19, random).test(window)
    x, y = ((rows - reference.mean(axis=0)) / reference.std(axis=0) for rows in (reference, window))
    squared = [np.sum((x[i] - x[j]) ** 2) for i in range(12) for j in range(i)]

    def kernel(a, b):
        return math.exp(-np.sum((a - b) ** 2) / np.median(squared))

    within_x = sum(kernel(x[i], x[j]) for i in range(12) for j in range(12) if i != j) / (12 * 11)
    within_y = sum(kernel(y[i], y[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    between = sum(kernel(a, b) for a in x for b in y) / (12 * 7)
    assert estimate == pytest.approx(within_x + within_y - 2 * between)


# --- outliers ---

SCORES = {"mahalanobis": Mahalanobis, "isolation-forest": IsolationForest, "knn": lambda: NearestNeighbors(5)}


@pytest.mark.parametrize("kind", SCORES)
def test_outliers_are_found_and_false_alarms_come_at_their_rate(kind):
    random = rng(11)
    scale = np.array([1.0, 10.0, 0.1])
    test = ConformalTest(SCORES[kind](), random.standard_t(5, size=(2000, 3)) * scale, 0.02, random)
    usual, _ = test.p_values(random.standard_t(5, size=(4000, 3)) * scale)
    far, _ = test.p_values(np.sign(random.normal(size=(200, 3))) * 12 * scale)
    # Given the reference the rate itself varies: its distribution is Beta(k, n + 1 - k), k = floor(level (n + 1)).
    assert stats.beta.ppf(1e-4, 20, 981) * 0.7 < np.mean(usual <= 0.02) < stats.beta.ppf(1 - 1e-4, 20, 981) * 1.3
    assert np.mean(far <= 0.02) == 1.0


def test_conformal_p_values_are_uniform_whatever_the_distribution():
    random = rng(5)
    ranks = []
    for _ in range(250):
        rows = random.exponential(size=(41, 1)) ** 3
        test = ConformalTest(Mahalanobis(), rows[:40], 0.1, random)
        ranks.append(test.p_values(rows[40:])[0][0])
    assert stats.kstest(ranks, "uniform").statistic < 1.95 / math.sqrt(250) + 1 / 21


def test_a_reference_that_is_too_small_is_refused():
    with pytest.raises(FailedPrecondition, match="at least 198 rows, got 150"):
        ConformalTest(Mahalanobis(), rng().normal(size=(150, 2)), 0.01, rng())


def test_the_mahalanobis_distance_is_that_of_the_covariance():
    rows = rng(2).multivariate_normal([1, 2], [[2, 0.5], [0.5, 1]], size=20_000)
    score = Mahalanobis()
    score.fit(rows)
    difference = np.array([3.0, 0.0]) - rows.mean(axis=0)
    expected = difference @ np.linalg.inv(np.cov(rows.T)) @ difference
    assert score(np.array([[3.0, 0.0]]))[0] == pytest.approx(expected, rel=0.01)


def test_outliers_are_told_in_the_places_of_their_instances(tmp_path):
    found = with_reference(tmp_path, rng(1).normal(size=(400, 2)), type="knn", p_value=0.01)
    (result,) = found.observe(tensor([[0.0, 0.0], [math.nan, 0.0], [50.0, 50.0]]))
    assert result.is_outlier == [False, False, True]
    assert result.p_values[1] is None and result.scores[1] is None
    assert found.observe(tensor([[0.0, 0.0]])) == []
    status = found.status
    assert (status.instances, status.skipped, status.outliers) == (4, 1, 1)
    assert status.last["is_outlier"] == [0, 0, 1]


# --- references ---


def test_a_collected_reference_outlives_the_process(tmp_path):
    first = detector(tmp_path, type="ks", collect=100, window=50, p_value=0.01)
    rows = rng(1).normal(size=(160, 2))
    assert first.observe(tensor(rows[:60])) == []
    assert first.status.state == "COLLECTING"
    first.observe(tensor(rows[60:120]))
    second = detector(tmp_path, type="ks", collect=100, window=50, p_value=0.01)
    assert (second.status.state, second.status.reference) == ("READY", 100)
    (result,) = second.observe(tensor(rows[:50] + 3))
    assert result.is_drift
    assert np.array_equal(np.load(tmp_path / "kept.npy"), rows[:100])


def test_another_revision_collects_anew(tmp_path):
    spec = Detection("d", "ks")
    assert kept_file(tmp_path, "revisions/1", spec) != kept_file(tmp_path, "revisions/2", spec)
    assert kept_file(tmp_path, "revisions/1", spec) == kept_file(tmp_path, "revisions/1", spec)


def test_what_cannot_be_judged_is_told_and_harms_nothing(tmp_path):
    found = with_reference(tmp_path, rng(1).normal(size=(400, 2)), type="ks", window=50, p_value=0.01)
    for tensors, told in (
        (tensor(np.zeros((3, 5))), "2 features, got 5"),
        (tensor(["a", "b"]), "needs numbers"),
    ):
        assert found.observe(tensors) == []
        assert told in found.status.message
    named = with_reference(tmp_path, rng(1).normal(size=(400, 2)), type="ks", tensor="y")
    named.observe(tensor(np.zeros((3, 2))))
    assert "no tensor 'y'" in named.status.message
    assert len(found.observe(tensor(rng(2).normal(size=(50, 2))))) == 1


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.npy", b"no array", "cannot be read"),
        ("a.npz", b"PK no zip", "cannot be read"),
        ("a.csv", b"a,b\n1,x\n", "cannot be read"),
        ("a.csv", b"1,2\n", "at least two rows"),
        ("a.csv", b"1,2\n3\n", "cannot be read"),
        ("a.parquet", b"PAR1", "must be one of .npy, .npz, .csv"),
    ],
)
def test_references_that_are_none_fail_with_a_reason(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    made = detector(tmp_path, type="ks", reference_uri="file:///r", reference_path=f"{tmp_path}/{name}")
    assert made.status.state == "FAILED"
    assert told in made.status.message
    assert made.observe(tensor(np.zeros((3, 2)))) == []


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}, 2], dtype=object), allow_pickle=True)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        read_table(tmp_path / "a.npy", "", "f")


def test_tables_are_read_with_and_without_a_header(tmp_path):
    (tmp_path / "a.csv").write_text("length,width\n1,2.5\n3,\n")
    (tmp_path / "b.csv").write_text("1,2.5\n3,4\n")
    np.savez(tmp_path / "c.npz", x=np.ones((3, 2)), y=np.zeros((4, 2, 2)))
    header = read_table(tmp_path / "a.csv", "", "f")
    assert header[0].tolist() == [1, 2.5] and math.isnan(header[1, 1])
    assert read_table(tmp_path / "b.csv", "", "f").tolist() == [[1, 2.5], [3, 4]]
    assert read_table(tmp_path / "c.npz", "y", "f").shape == (4, 4)
    with pytest.raises(FailedPrecondition, match="must hold one array"):
        read_table(tmp_path / "c.npz", "z", "f")
    with pytest.raises(FailedPrecondition, match="exactly one"):
        read_table(tmp_path, "", "f")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(tmp_path / "secret.npy", np.ones((3, 2)))
    (folder / "a.npy").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(FailedPrecondition, match="leads out"):
        read_table(folder, "", "f")
