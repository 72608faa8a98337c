from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import mollikit as mk
from mollikit import axioms
from mollikit.cli import main
from mollikit.kernels import Kernel

INF = np.inf
# What the textbooks say: (k of C^k, moments below, end of the support).
STATED = {
    mk.Gaussian(1.0): (INF, INF, INF),
    mk.Uniform(1.0): (-1, INF, 1),
    mk.Logistic(1.0): (INF, INF, INF),
    mk.Laplace(1.0): (0, INF, INF),
    mk.Cauchy(1.0): (INF, 1, INF),
    mk.HyperbolicSecant(1.0): (INF, INF, INF),
    mk.StudentT(1.0, nu=2.5): (INF, 2.5, INF),
    mk.Triangular(1.0): (0, INF, 1),
    mk.Epanechnikov(1.0): (0, INF, 1),
    mk.Bump(1.0): (INF, INF, 1),
}


@pytest.mark.parametrize("kernel", STATED, ids=repr)
def test_the_built_in_families(kernel):
    report = axioms.check(kernel)
    smooth, moments, reach = STATED[kernel]
    for name in ("non-negative", "unit mass", "even", "integrable tail", "concentration"):
        assert report[name].holds, report
    assert (report["smoothness"].value, report["smoothness"].holds) == (smooth, smooth == INF)
    assert report["integrable tail"].value == moments
    assert (report["compact support"].value, report["compact support"].holds) == (reach, np.isfinite(reach))
    assert all(report[name].exact for name in ("smoothness", "integrable tail", "compact support"))
    assert abs(report["unit mass"].value - 1) <= max(1e-10, report["unit mass"].error)
    assert report.approximate_identity is True


def test_the_bump_alone_is_a_mollifier():
    assert [type(k).__name__ for k in STATED if axioms.check(k).mollifier] == ["Bump"]


@pytest.mark.parametrize("kernel", STATED, ids=repr)
def test_the_concentration_is_the_radius_that_holds_99_percent(kernel):
    radius = axioms.check(kernel)["concentration"].value
    for scale in (1.0, 0.1, 0.001):
        outside = 2 * kernel.cdf(-radius / scale * scale)
        assert float(outside) == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("formula", "reach", "smoothness", "holds"),
    [
        (lambda t: 1.0, 1.0, -1, False),
        (lambda t: 1 - abs(t), 1.0, 0, False),
        (lambda t: (1 - t * t) ** 2, 1.0, 1, False),
        (lambda t: (1 - t * t) ** 3, 1.0, 2, False),
        (lambda t: (1 + abs(t)) * np.exp(-abs(t)), INF, 2, False),
        (lambda t: np.exp(-t * t), INF, 3, None),
    ],
)
def test_the_smoothness_of_a_formula_is_measured(formula, reach, smoothness, holds):
    found = axioms.check(mk.from_density(formula, 1.0, reach=reach))["smoothness"]
    assert (found.value, found.holds, found.exact) == (smoothness, holds, False)
    assert found.error < 0.05


def test_the_tail_of_a_formula_is_measured():
    found = axioms.check(mk.from_density(lambda t: (1 + t * t) ** -1.6, 1.0))["integrable tail"]
    assert found.value == pytest.approx(2.2, abs=found.error)
    assert (found.holds, found.exact) == (True, False)


def test_what_cannot_be_seen_is_not_claimed():
    report = axioms.check(mk.from_density(lambda t: np.exp(-1 / (1 - t * t)), 1.0, reach=1.0))
    assert report["smoothness"].holds is None
    assert report.mollifier is None
    assert report.approximate_identity is True


class Broken(Kernel):
    """A control: a Gaussian with one law broken at a time, by a factor on its density."""

    variance = 1.0
    fisher_information = 1.0

    def __init__(self, factor):
        super().__init__(1.0)
        object.__setattr__(self, "factor", factor)

    def density(self, t):
        return self.factor(np.asarray(t, dtype=float)) * mk.Gaussian(1.0).density(t)

    def cdf(self, t):
        return mk.Gaussian(1.0).cdf(t)

    def inverse_cdf(self, u):
        return mk.Gaussian(1.0).inverse_cdf(u)

    def score(self, t):
        return mk.Gaussian(1.0).score(t)

    def characteristic_function(self, omega):
        return mk.Gaussian(1.0).characteristic_function(omega)


@pytest.mark.parametrize(
    ("factor", "broken"),
    [
        (lambda t: 1 + 0 * t, set()),
        (lambda t: 1.001 + 0 * t, {"unit mass"}),
        (lambda t: 1 + 1e-6 * np.sin(t), {"even"}),
        (lambda t: (3 - t**2) / 2, {"non-negative"}),
        (lambda t: 1 + 0.01 * np.sign(t), {"even", "smoothness"}),
        (lambda t: np.where(np.abs(t) < 1, 1.0, 0.999), {"unit mass", "smoothness"}),
    ],
)
def test_a_broken_law_is_found_and_no_other(factor, broken):
    report = axioms.check(Broken(factor))
    found = {axiom.name for axiom in report.axioms if axiom.holds is False}
    assert found == broken | {"compact support"}
    assert report.approximate_identity is ("unit mass" not in broken)
    assert report.mollifier is False


def test_a_kernel_without_a_width_is_refused():
    class Flat(Broken):
        def inverse_cdf(self, u):
            return np.zeros_like(u)

    with pytest.raises(ValueError, match=r"its upper quartile is 0\.0; a kernel has a positive width"):
        axioms.check(Flat(lambda t: 1))


def test_the_report_reads_as_a_table_and_as_rows():
    report = axioms.check(mk.Cauchy(0.3))
    lines = repr(report).splitlines()
    assert lines[0] == "Cauchy(0.3)"
    assert len(lines) == len(report.axioms) + 2
    assert lines[-1] == "mollifier: no; approximate identity: yes"
    rows = report.rows()
    assert [row["name"] for row in rows] == [axiom.name for axiom in report.axioms]
    assert rows[3] == {
        "kernel": "Cauchy(0.3)",
        "name": "integrable tail",
        "holds": True,
        "value": 1.0,
        "error": 0.0,
        "exact": True,
        "meaning": "moments of every order below this",
    }
    unknown = axioms.Report("K", tuple(replace(axiom, holds=None) for axiom in report.axioms))
    assert repr(unknown).endswith("mollifier: ?; approximate identity: ?")


def test_the_command_line_prints_the_table(capsys):
    assert main(["kernels"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["kernel", "support"]
    assert len(lines) == 1 + len(STATED)
    row = next(line for line in lines if line.startswith("bump")).split()
    assert row[1:4] == ["+-1", "inf", "inf"]
    assert row[-2:] == ["yes", "yes"]


def test_the_command_line_prints_json(capsys):
    assert main(["kernels", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
    assert len(rows) == len(STATED) * 7
    assert {"kernel", "name", "holds", "value", "error", "exact", "meaning"} == set(rows[0])


def test_the_command_line_draws_the_kernels(tmp_path, capsys):
    matplotlib_image = pytest.importorskip("matplotlib.image")
    assert main(["kernels", "--plot", str(tmp_path / "kernels.png")]) == 0
    picture = matplotlib_image.imread(tmp_path / "kernels.png")
    assert picture.shape[0] > 500
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.png"]
    capsys.readouterr()


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path, capsys):
    assert main(["kernels", "--plot", str(tmp_path / "absent" / "kernels.png")]) == 1
    assert "kernels.png' cannot be written" in capsys.readouterr().err
