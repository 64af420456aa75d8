import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mme_core.report import plots
from mme_core.report.plots import Curve


def bars(figure):
    """The numbers that the bars of a histogram count."""
    return [int(count) for count in re.findall(r": (\d+)</title>", figure)]


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 10, [0, 2.5, 5, 7.5, 10]), (0.9, 1.1, [0.9, 0.95, 1.0, 1.05, 1.1]), (3, 3, [3])],
)
def test_ticks_are_round(low, high, want):
    assert plots.ticks(low, high) == pytest.approx(want)


def test_ticks_of_counts_are_whole():
    assert plots.ticks(0, 2, whole=True) == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "want"),
    [(0.03123, "0.0312"), (12.34, "12.3"), (1234.5, "1,234"), (0, "0"), (1e-6, "1.00e-06")],
)
def test_numbers_have_three_digits(value, want):
    assert plots.number(value) == want


def test_histogram_counts_every_finite_value_once():
    values = np.array([1.0, 2, 2, 3, np.nan, np.inf])
    assert sum(bars(plots.histogram(values, "t", "px"))) == 4


def test_outliers_do_not_flatten_a_histogram():
    figure = plots.histogram(np.append(np.linspace(0, 1, 995), [1000] * 5), "t", "px")
    assert sum(bars(figure)) == 1000 and max(bars(figure)) < 100
    assert "the last bar holds all up to 1,000" in figure


@pytest.mark.parametrize("other", [25.0, np.nextafter(25.0, 0), np.nextafter(25.0, 30)])
def test_values_that_are_equal_but_for_rounding_make_one_bar(other):
    values = np.array([25.0, 25.0, other, 25.0, 25.0])
    assert bars(plots.histogram(values, "t", "fps")) == [5]


@pytest.mark.parametrize("values", [[], [np.nan]])
def test_no_values_are_said_so(values):
    assert "no values" in plots.histogram(np.array(values), "t", "px")
    assert "no values" in plots.curves("t", [Curve("a", range(len(values)), values, "red")])


def test_curves_show_their_last_value_and_the_constant_dashed():
    figure = plots.curves(
        "t",
        [
            Curve("mine", [1, 2], [3.0, 2.5], "#123"),
            Curve("constant", [1, 2], [2, 2], "#456", True),
        ],
    )
    assert "mine 2.50" in figure and "constant 2.00" in figure
    assert figure.count("curve dashed") == 1


def test_long_curves_are_thinned():
    steps = list(range(20_000))
    figure = plots.curves("t", [Curve("a", steps, [float(s) for s in steps], "red")])
    assert figure.count("L") < 400 and "a 19,9" in figure


def test_plots_are_well_formed():
    made = plots.curves("a & b", [Curve("<x>", [1, 2, 3], [1.0, np.nan, 2.0], "#123")])
    made += plots.histogram(np.arange(9.0), "<t>", "px")
    made += plots.confusion(np.array([[2, 1], [0, 3]]), ["<a>", "b & c"])
    made += plots.scatter(np.array([[0.0, 1], [1, 0]]), [0, 1], ["<p>", "q"])
    root = ElementTree.fromstring(f"<all>{made}</all>")
    assert len(root.findall(".//svg")) == 4


def test_confusion_shades_what_was_predicted():
    made = plots.confusion(np.array([[2, 2], [0, 3]]), ["a", "b"])
    assert "a as b: 2 (50%)" in made and "b as b: 3 (100%)" in made and "b as a" not in made
