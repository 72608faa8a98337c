"""What becomes of an estimate from folds or levels: kept, shown, told of on the way, and interrupted."""

import pickle
import re

import numpy as np
import pytest

import mollikit as mk
from tests.core.test_combined import PATHWISE, Fixed, off
from tests.core.test_notebook import png_size
from tests.core.test_shrunk import SHAPE, SMOOTH_IMAGE, White

X = np.zeros(SHAPE)
VIEWS = {"seen": mk.ChannelSum(0), "<total>": lambda g: g.sum(axis=(1, 2, 3))}
COMBINED = mk.Combined(PATHWISE, Fixed(off(0.5)))
TWO = mk.TwoLevel(PATHWISE, White(SMOOTH_IMAGE, 0.5), price=0.25)


class Presses(White):
    """An oracle in the middle of whose k-th call Ctrl-C is pressed."""

    def __init__(self, k):
        super().__init__(SMOOTH_IMAGE, 1.0)
        self.left = k

    def value_and_gradient(self, points):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().value_and_gradient(points)


def biased(oracle=None, **options):
    oracle = oracle or White(SMOOTH_IMAGE, 1.0)
    return COMBINED.estimate(oracle, X, budget=mk.Evaluations(68), rng=7, views=VIEWS, **options)


def two_level(oracle=None, two=TWO, **options):
    oracle = oracle or White(SMOOTH_IMAGE, 1.0)
    return two.estimate(oracle, X, budget=mk.Evaluations(100), rng=7, **options)


def test_a_biased_estimate_is_kept(tmp_path):
    made = biased()
    made.save(tmp_path / "biased.npz")
    found = mk.BiasedEstimate.load(tmp_path / "biased.npz")
    assert repr(found) == repr(made)
    np.testing.assert_array_equal(found.gradient, made.gradient)
    assert found.risk_interval(0.9) == made.risk_interval(0.9)
    assert found.provenance == made.provenance
    for name in VIEWS:
        np.testing.assert_array_equal(found.views[name].value, made.views[name].value)
        assert found.views[name].relative_error == made.views[name].relative_error
    with np.load(tmp_path / "biased.npz", allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["gradient.mean"], made.gradient.ravel())


@pytest.mark.parametrize("known", [False, True])
def test_a_two_level_estimate_is_kept(tmp_path, known):
    two = TWO if not known else mk.TwoLevel(PATHWISE, TWO.coarse, price=0.25, mean=SMOOTH_IMAGE)
    made = two_level(two=two)
    made.save(tmp_path / "two.npz")
    found = mk.TwoLevelEstimate.load(tmp_path / "two.npz")
    assert repr(found) == repr(made)
    np.testing.assert_array_equal(found.interval(0.9), made.interval(0.9))
    assert (found.coarse is None) == known
    assert found.provenance == made.provenance


def test_inputs_by_name_are_kept(tmp_path):
    class Line:
        def value_and_gradient(self, points):
            return None, {"a": 1 + points["a"], "b": 2 + points["b"]}

    inputs = {"a": np.zeros(3, np.float32), "b": np.zeros((2, 2))}
    made = mk.Shrunk(PATHWISE).estimate(Line(), inputs, budget=mk.Evaluations(32), rng=0)
    made.save(tmp_path / "named.npz")
    found = mk.BiasedEstimate.load(tmp_path / "named.npz")
    for name, gradient in made.gradient.items():
        np.testing.assert_array_equal(found.gradient[name], gradient)
    assert found._repr_png_() is None


def test_one_kind_is_not_read_as_another(tmp_path):
    estimate = PATHWISE.estimate(White(SMOOTH_IMAGE, 1.0), X, budget=mk.Evaluations(16), rng=0)
    kinds = {mk.Estimate: estimate, mk.BiasedEstimate: biased(), mk.TwoLevelEstimate: two_level()}
    for kind, made in kinds.items():
        made.save(tmp_path / "kept.npz")
        for other in kinds.keys() - {kind}:
            with pytest.raises(
                ValueError, match=rf"holds a {kind.__name__}: read it by {kind.__name__}.load"
            ):
                other.load(tmp_path / "kept.npz")
    np.savez(tmp_path / "other.npz", x=X)
    with pytest.raises(ValueError, match=r"not an estimate that TwoLevelEstimate\.save wrote"):
        mk.TwoLevelEstimate.load(tmp_path / "other.npz")


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "kept.npz"
    made = biased()
    made.save(path)
    before = path.read_bytes()
    spoilt = mk.BiasedEstimate(**{**vars(made), "provenance": {"no": object()}})
    with pytest.raises(TypeError):
        spoilt.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_notebook_is_told_of_the_bias_and_the_interval():
    made = mk.Combined(PATHWISE, Fixed(off(0.5)[:1])).estimate(
        White(SMOOTH_IMAGE[:1], 1.0), X[:1], budget=mk.Evaluations(68), rng=7, views=VIEWS
    )
    table = re.sub(r"<[^>]*>", "|", made._repr_html_())
    low, high = made.relative_interval()
    for told in (
        "|biased|",
        "drawn towards a surrogate: fixed by hand",
        f"{100 * made.relative_error:.3g}% ({100 * low:.3g} to {100 * high:.3g}%)",
        "64 in 8 folds",
        "Gaussian(1)",
        "7, item 0",
        "&lt;total&gt;",
    ):
        assert told in table
    alone = png_size(mk.BiasedEstimate(**{**vars(made), "views": {}})._repr_png_())
    assert png_size(made._repr_png_()) == (2 * alone[0], alone[1])


def test_a_notebook_is_told_of_both_levels():
    two = mk.TwoLevel(PATHWISE, White(SMOOTH_IMAGE[:1], 0.5), price=0.25)
    made = two.estimate(White(SMOOTH_IMAGE[:1], 1.0), X[:1], budget=mk.Evaluations(100), rng=7)
    table = re.sub(r"<[^>]*>", "|", made._repr_html_())
    for told in (f"{made.coarse.n_evaluations} gradients", f"{made.difference.n_evaluations} common points"):
        assert told in table
    assert made._repr_png_() is not None


@pytest.mark.parametrize("run", [biased, two_level])
def test_progress_goes_from_what_the_surrogate_costs_to_the_end(run):
    seen = []
    made = run(progress=seen.append)
    shares = [p.share for p in seen]
    assert shares == sorted(shares)
    assert [p.done for p in seen] == [False] * (len(seen) - 1) + [True]
    assert shares[-1] == 1
    assert len(seen) > 2
    assert seen[-1].relative_error == made.relative_error
    assert seen[-1].n_evaluations == round(made.n_evaluations)
    if run is biased:
        assert seen[0].n_evaluations > COMBINED.surrogate.cost


# Each fold is one call of 8 points.
@pytest.mark.parametrize("call", [1, 3, 4, 6, 8])
def test_an_interrupt_keeps_the_folds_that_were_whole(call):
    with pytest.raises(mk.Interrupted) as caught:
        biased(Presses(call))
    partial = caught.value.partial
    if call <= 3:
        assert partial is None
        assert "before there was anything to keep" in str(caught.value)
        return
    assert isinstance(partial, mk.BiasedEstimate)
    assert partial.partial
    assert "partial" in repr(partial)
    assert (partial.n_folds, partial.n_gradients) == (call - 1, 8 * (call - 1))
    assert partial.n_evaluations == partial.n_gradients + 4
    assert f"after {8 * (call - 1) + 4} evaluations" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).partial.risk == partial.risk
    # Of few folds: between a half and twice what is real, which all 8 tell within a tenth.
    assert 0.5 < partial.risk / np.square(partial.gradient - SMOOTH_IMAGE).sum() < 2


def test_an_interrupt_while_the_map_is_put_together_keeps_all_folds():
    def stop(progress):
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(mk.Interrupted) as caught:
        biased(progress=stop)
    np.testing.assert_array_equal(caught.value.partial.gradient, biased().gradient)


def test_an_interrupt_in_the_surrogate_keeps_nothing_of_another_model():
    coarse = mk.Coarse(Presses(3), mk.Pathwise(mk.Gaussian(1.0), block=8), mk.Evaluations(64), price=0.1)
    with pytest.raises(mk.Interrupted) as caught:
        mk.Combined(PATHWISE, coarse).estimate(White(SMOOTH_IMAGE, 1.0), X, budget=mk.Evaluations(68), rng=0)
    assert caught.value.partial is None


# Calls of the model itself: the pilot of the difference, then, after the cheaper model's, the rest of it.
@pytest.mark.parametrize("call", [1, 2, 4])
def test_an_interrupt_of_two_levels_keeps_the_pilots_and_more(call):
    pathwise = mk.Pathwise(mk.Gaussian(1.0), mk.Independent(), block=8)
    two = mk.TwoLevel(pathwise, White(SMOOTH_IMAGE, 0.5), price=0.25)
    with pytest.raises(mk.Interrupted) as caught:
        two_level(Presses(call), two)
    partial = caught.value.partial
    if call == 1:
        assert partial is None
        return
    assert isinstance(partial, mk.TwoLevelEstimate)
    assert partial.partial
    assert partial.difference.n_evaluations == 8 * (call - 1)
    assert partial.difference.provenance["n_evaluations"] == partial.difference.n_evaluations
    assert partial.coarse.n_evaluations == 8
    low, high = partial.interval(0.95)
    assert np.mean((low <= SMOOTH_IMAGE) & (high >= SMOOTH_IMAGE)) > 0.85
