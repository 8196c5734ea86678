"""Figures show the numbers of the result, with labels, legends, bands and nothing clipped."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection

import gaussian_test as gt
from gaussian_test.analysis.figures import drawing, parts
from gaussian_test.result.findings import finding
from gaussian_test.result.views import view

# one for each observable of a default run
OBSERVED = (
    *("affinity", "change_field", "exchange", "explained", "normality", "normality_map", "quality", "sample_times", "score_norm"),
)


@pytest.fixture(scope="module")
def result():
    return gt.run({"samples": 48, "turn_times": {"noise_to_signal": [0.1, 0.4, 0.8, 1.2, 2.0, 5.0, 9.0]}, "keep": {"pictures": 3}})


@pytest.fixture(scope="module")
def drawn(result):
    return result.gaussian_test.plot()


def _texts(figure):
    """Yield labels, legends and texts of a figure; of its ticks those within the limits, others are not drawn."""
    yield from figure.legends
    for axis in figure.axes:
        yield from (axis.xaxis.label, axis.yaxis.label, *axis.texts, *filter(None, [axis.get_legend()]))
        for direction, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
            for tick in direction.get_major_ticks():
                if min(limits) <= tick.get_loc() <= max(limits):
                    yield from (label for label in (tick.label1, tick.label2) if label.get_visible() and label.get_text())


def test_there_is_a_figure_for_each_subject_and_nothing_is_clipped(drawn):
    """Every text and legend lies within the page; that of the gap covers no axis; axes are named and noise is logarithmic."""
    assert set(drawn) == {"autocorrelation", "gap", "times", "end_points", "pictures", *OBSERVED}
    for name in drawn:
        drawn[name].draw_without_rendering()
        page, texts = drawn[name].bbox, list(_texts(drawn[name]))
        assert len(texts) > 5
        for text in texts:
            box = text.get_window_extent()
            if box.width:
                assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1, (name, text)
                assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1, (name, text)
    (legend,) = drawn["gap"].legends
    assert legend.get_window_extent().y0 >= drawn["gap"].axes[0].bbox.y1
    for name in ("autocorrelation", "gap", "times"):
        *_, bottom = drawn[name].axes
        assert "noise-to-signal ratio" in bottom.get_xlabel()
        assert bottom.get_xscale() == "log"
        assert all(axis.get_ylabel() for axis in drawn[name].axes)
    assert "nat" in drawn["gap"].axes[1].get_ylabel()


def test_classes_are_named_at_the_ends_of_their_intervals(drawn, result):
    axis = drawn["sample_times"].axes[0]
    of_class, ends = (result[f"memorization_noise_to_signal_by_class{suffix}"] for suffix in ("", "_high"))
    there = np.isfinite(of_class.transpose("score", "class"))
    assert [text.get_text() for text in axis.texts] == [str(name) for row in there for name in row["class"].values[row.values]]
    assert axis.texts
    for text in axis.texts:
        here = ends.sel({"class": int(text.get_text())}).values.clip(max=float(result["noise_to_signal"][-1]))
        assert text.xy[0] in here


def test_curves_and_bands_are_those_of_the_result(drawn, result):
    axis = drawn["autocorrelation"].axes[0]
    curves = {line.get_label(): line.get_ydata() for line in axis.lines}
    bands = [band for band in axis.collections if isinstance(band, PolyCollection)]
    assert len(bands) == 2
    for score, band in zip(("empirical", "gaussian"), bands, strict=True):
        np.testing.assert_array_equal(curves[f"{score} score, 95% band"], result.autocorrelation.sel(score=score))
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.max() == pytest.approx(float(result.autocorrelation_high.sel(score=score).max()))
        assert heights.min() == pytest.approx(float(result.autocorrelation_low.sel(score=score).min()))
    np.testing.assert_array_equal(curves["gaussian score, closed form"], result.autocorrelation_exact.sel(score="gaussian"))


def test_times_are_marked_where_they_were_measured(drawn, result):
    top = drawn["times"].axes[0]
    marks = {line.get_label(): line.get_xdata()[0] for line in top.lines if line.get_label().startswith("$T_m$")}
    expected = result.memorization_noise_to_signal.values
    assert sorted(marks.values()) == pytest.approx(sorted([*expected, float(result.memorization_noise_to_signal_predicted[0])]))
    assert any("predicted" in label for label in marks)


def test_pictures_are_those_of_the_archive(drawn, result):
    pictures = result.gaussian_test.group("pictures")
    mosaic = drawn["pictures"].axes[0].images[0].get_array()
    np.testing.assert_allclose(mosaic[:8, :8, 0], (pictures.start.values[0, 0] + 1) / 2, atol=1e-6)
    first_end = np.clip((pictures.end.sel(score="empirical").values[0, 1, 0] + 1) / 2, 0, 1)
    np.testing.assert_allclose(mosaic[9:17, 9:17, 0], first_end, atol=1e-6)


def test_colour_pictures_stay_in_colour():
    rng = np.random.default_rng(0)
    pictures = xr.DataArray(rng.uniform(-1, 1, (2, 3, 4, 4)), dims=("sample", "channel", "row", "column"))
    rgb = drawing.as_rgb(pictures)
    np.testing.assert_allclose(rgb[1, :, :, 2], (pictures.values[1, 2] + 1) / 2)


def test_files_are_whole_and_the_same_again(drawn, result, tmp_path):
    """PNG bytes depend on the result alone; PDF is complete; nothing else is left in the folder."""
    first, second = (parts.save({"gap": drawn["gap"]}, tmp_path / folder, pdf=True) for folder in "ab")
    assert first[0].read_bytes() == second[0].read_bytes()
    pages = set()
    for settings in ({}, {"figure.autolayout": True}, {"figure.constrained_layout.use": True}):  # of a matplotlibrc
        with mpl.rc_context(settings):
            pages.add(parts.save({"gap": drawing.draw(result)["gap"]}, tmp_path / "c")[0].read_bytes())
    assert len(pages) == 1
    assert first[1].read_bytes().rstrip().endswith(b"%%EOF")
    assert b"CreationDate" not in first[1].read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["gap.pdf", "gap.png"]


def test_a_result_without_divergence_or_classes_is_drawn(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).uniform(-1, 1, (60, 5)))
    settings = {
        "data": {"source": "file", "path": str(tmp_path / "x.npy")},
        "scores": [{"kind": "gaussian"}],
        "samples": 20,
        "turn_times": {"noise_to_signal": [0.1, 1.0]},
    }
    drawn = gt.run(settings).gaussian_test.plot()
    assert set(drawn) == {"autocorrelation", "gap", "times", "end_points", *OBSERVED} - {"normality_map"}
    assert "no unconditional empirical score" in drawn["gap"].axes[1].texts[0].get_text()


@pytest.mark.parametrize("reverse", [{"kind": "sde", "steps": 4}, {"kind": "heun", "steps": 4}])
def test_the_balance_of_a_network_shows_its_three_estimators(reverse):
    """The lines are the archive's numbers, nothing is clipped, and what the flow leaves undefined is left out."""
    settings = {"scores": [{"kind": "network"}], "samples": 8, "turn_times": {"noise_to_signal": [0.3, 1.0, 5.0]}}
    result = gt.run(settings | {"reverse": reverse, "observables": "none", "keep": {"pictures": 0}})
    figure = result.gaussian_test.plot()["balance_network"]
    figure.draw_without_rendering()
    assert figure.get_tightbbox().extents[2] <= figure.get_figwidth() + 0.02
    above, below = figure.axes
    shown = [line.get_ydata() for line in above.get_lines() if len(line.get_ydata()) == 3]
    for name in ("autocorrelation", "autocorrelation_one_shot", "autocorrelation_one_shot_squared"):
        assert any(np.allclose(line, result[name].values[0]) for line in shown)
    labels = [text.get_text() for text in below.get_legend().get_texts()]
    assert len(labels) == (2 if reverse["kind"] == "sde" else 1)


def test_the_figures_of_the_observables_show_their_numbers_with_labels(drawn, result):
    for figure, panel, name in (
        ("affinity", 0, "denoiser_gap"),
        ("change_field", 0, "change_susceptibility"),
        ("exchange", 1, "exchange_moments_pvalue"),
        ("quality", 1, "kid"),
        ("score_norm", 1, "score_norm"),
    ):
        axis = drawn[figure].axes[panel]
        values = result[name].sel(score="empirical")
        assert any(np.allclose(line.get_ydata(), values, equal_nan=True) for line in axis.lines), figure
        assert axis.get_ylabel()
        assert drawn[figure].axes[-1].get_xscale() == "log"
    shown = drawn["explained"].axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(shown, result["score_explained"].sel(score="empirical", reference="isotropic"))
    np.testing.assert_allclose(drawn["normality"].axes[0].lines[0].get_ydata(), result["ks_mean"])


@pytest.mark.parametrize("affine", ["one_shot", "uturn"])
@pytest.mark.parametrize("kernel", [{"kind": "exact"}, {"kind": "sde", "steps": 24}, {"kind": "heun", "steps": 16}])
def test_the_affine_time_is_read_off_the_gap_that_is_drawn_solid(kernel, affine):
    """T_G was read off one gap and another one drawn, which rose above the tolerance beyond it; all say which, and draw both."""
    settings = {"samples": 96, "observables": "none", "scores": [{"kind": "empirical"}, {"kind": "gaussian"}]}
    settings |= {"turn_times": {"noise_to_signal": {"min": 0.3, "max": 12, "count": 10}}, "reverse": kernel}
    settings |= {"statistics": {"bootstrap": 100, "affine": affine, "tolerance": 0.15 if affine == "uturn" else 0.03}}
    result = gt.run(settings, progress=False)
    figure = result.gaussian_test.plot()["gap"]
    axis, row = figure.axes[0], result.sel(score="empirical")
    lines = {line.get_label(): line for line in axis.lines}
    steps, used = kernel["kind"] != "exact", "gap_one_shot" if affine == "one_shot" else "gap"
    of = {"gap_one_shot": "empirical score, one evaluation", "gap": "empirical score, U-Turns"}
    drawn = {name: lines[f"{said if steps else 'empirical score'}, 95% band"] for name, said in of.items() if steps or name == used}
    for name, line in drawn.items():
        np.testing.assert_array_equal(line.get_ydata(), row[name])
        assert line.get_linestyle() == ("-" if name == used else ":")
    assert any(f"tolerance $\\pm${settings['statistics']['tolerance']:g}" == patch.get_label() for patch in axis.patches)
    marked = float(row["affine_noise_to_signal"])
    told = finding(view(result))[0]
    if np.isfinite(marked):
        beyond = row[used].values[row["noise_to_signal"].values > marked]
        assert (np.abs(beyond) <= settings["statistics"]["tolerance"]).all()
        (label,) = (label for label in lines if "T_G" in label)
        by = {"gap_one_shot": "one evaluation", "gap": "U-Turns"}[used]
        assert (f"({by})" in label) == steps
        assert (by in told) == steps
    else:
        assert "no affine time" in told
    text = result.gaussian_test.show()
    assert ("gap, one evaluation" in text) == steps
    assert ("read off the gap of one evaluation" in text) == (steps and affine == "one_shot")


RC = {"text.usetex": True, "font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red", "savefig.bbox": "tight"}


def test_a_matplotlibrc_changes_no_figure_and_no_file_stays_open(result, tmp_path):
    def files():
        gc.collect()
        return [path.resolve().name for path in Path("/proc/self/fd").iterdir() if path.resolve().suffix == ".ttf"]

    parts.save({"figure": drawing.draw(result)["gap"]}, tmp_path / "plain", pdf=True)
    with mpl.rc_context(RC):
        parts.save({"figure": drawing.draw(result)["gap"]}, tmp_path / "theirs", pdf=True)
        assert mpl.rcParams["font.size"] == 30
    for name in ("figure.png", "figure.pdf"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    assert files() == []


@pytest.mark.parametrize("backend", ["Qt4Agg", "QtAgg", "nonsense", "pdf", ""])
def test_whatever_window_system_is_named_figures_are_drawn(backend):
    code = (
        "import os\nfrom gaussian_test.analysis.figures import parts, drawing\nimport matplotlib\n"
        f"assert os.environ['MPLBACKEND'] == {backend!r}\n"
        f"assert {backend!r} != 'pdf' or matplotlib.get_backend() == 'pdf'"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"MPLBACKEND": backend}, check=True)
