"""The report: it says what the archive says, holds all that it shows, and shows what is hostile without obeying it."""

import base64
import hashlib
import re

import numpy as np
import pytest
import yaml
from face_zoo import QUICK
from report_zoo import HOSTILE, NASTY, Page, noise_pictures, strip_pictures, table_rows

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.analysis.figures.drawing import as_rgb
from gaussian_test.html_report.result import warnings
from gaussian_test.result import findings
from gaussian_test.result.differences import curve_differences
from gaussian_test.result.views import view
from gaussian_test.store import files

TIMES = ("affine", "memorization", "speciation")
ENOUGH = 5_000_000  # bytes


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rich_page(rich):
    """Return the page of the rich archive."""
    return read(rich[1])


@pytest.fixture(scope="module")
def result(rich):
    """Return the rich archive."""
    return gt.open_archive(rich[0])


@pytest.fixture(scope="module")
def page(tiny_page):
    """Return the page of the tiny experiment's archive."""
    return read(tiny_page)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return two archives that share samples and noise, and their comparison."""
    folder = tmp_path_factory.mktemp("two")
    for name, steps in (("coarse", 2), ("fine", 16)):
        settings = QUICK | {"samples": 24, "turn_times": {"noise_to_signal": [0.2, 0.6, 1.5, 4.0, 10.0]}}
        settings |= {"reverse": {"kind": "heun", "steps": steps}, "statistics": {"bootstrap": 200}}
        gt.run(settings, folder / f"{name}.nc", progress=False)
    return folder / "coarse.nc", folder / "fine.nc"


@pytest.fixture(scope="module")
def two_page(two):
    return page_of(two, two[0].parent)


def page_of(source, folder, name="page.html"):
    return read(gt.report(source, folder / name))


def banded(row, name):
    """Return an estimate with its band, as it is written."""
    return "{:.3g} [{:.3g}, {:.3g}]".format(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))).replace("inf", "∞")


def test_the_finding_has_the_times_of_the_archive(result, rich_page):
    (section,) = (element for element in rich_page.root.all("section") if element.attributes.get("class") == "finding")
    sentences = [paragraph.said() for paragraph in section.all("p")]
    failures = [sentence for sentence in sentences if " is not exact: " in sentence]
    sentences = [sentence for sentence in sentences if sentence not in failures]
    assert [sentence.split()[1] for sentence in sentences] == ["empirical", "network", "gaussian"]
    assert all(sentence.startswith("The network score") for sentence in failures)
    known = 0
    for score, sentence in zip(("empirical", "network", "gaussian"), sentences, strict=True):
        row = result.sel(score=score)
        for time in TIMES:
            said = banded(row, f"{time}_noise_to_signal")
            if "nan" not in said and "∞" not in said:
                known += 1
                assert said in sentence
    assert known >= 4  # else nothing was compared
    assert "affine by construction" in sentences[2]


def test_a_network_that_is_no_score_is_said_to_be_none(tiny):
    """It shrinks what it is given whatever the noise: all three signs of an exact score are missing, each with its numbers."""
    shrinking = gt.sampler.NetworkScore.from_callable(lambda x, t, label: x / 4, (1, 8, 8), micro_batch=16)
    result = gt.run(tiny(reverse={"kind": "sde", "steps": 8}), scores={"mine": shrinking}, progress=False)
    (sentence,) = [said for said in findings.finding(view(result)) if " is not exact: " in said]
    row = result.sel(score="mine")
    for name, words in (("balance_squared", "estimates of C differ by"), ("balance_simulated", "differ from one evaluation by")):
        low, high = (row[f"{name}{end}"].values for end in ("_low", "_high"))
        outside = np.flatnonzero((low > 0) | (high < 0))
        at = outside[np.abs(row[name].values[outside]).argmax()]
        assert f"{words} {float(row[name][at]):+.3g} [{low[at]:+.3g}, {high[at]:+.3g}]" in sentence
    last = row.isel(turn_time=-1)
    assert last["end_square_low"] > 1 or last["end_square_high"] < 1
    assert f"{banded(last, 'end_square')} of the data's variance" in sentence


def test_what_is_undefined_says_why(tiny, tmp_path):
    """A single turn time far out: all is forgotten already, nothing is affine with confidence."""
    result = gt.run(tiny(turn_times={"noise_to_signal": [30.0, 40.0]}, keep={"pictures": 0}), progress=False)
    (empirical, _) = findings.finding(view(result))
    assert "when a sample is forgotten is undefined (the curve is below 0.5 already at the smallest turn time" in empirical
    assert table_rows(page_of(result, tmp_path), "Times")[1][2] == "undefined"


def test_the_table_of_times_is_that_of_the_archive(result, rich_page):
    for unit, title in (("noise_to_signal", "Times, as noise-to-signal"), ("time", "Times, in the time of the process")):
        rows = {row[0]: row[1:] for row in table_rows(rich_page, title)[1:]}
        for score in ("empirical", "network", "gaussian"):
            for cell, time in zip(rows[f"{score} score"], TIMES, strict=True):
                said = banded(result.sel(score=score), f"{time}_{unit}")
                if score == "gaussian" and time == "affine":
                    assert cell == "everywhere"
                else:
                    assert cell == ("undefined" if said.startswith("nan") else said)
        predicted = [float(result[f"{time}_{unit}_predicted"][0]) for time in TIMES]
        assert rows["predicted from the data"] == [f"{value:.3g}" for value in predicted]


def test_every_figure_of_the_archive_is_there_with_a_caption_of_its_own(result, rich_page):
    figures = list(rich_page.root.all("figure"))
    drawn = [name for name in result.gaussian_test.plot() if name != "pictures"]
    assert len(figures) == len(drawn)
    observed = {"explained", "affinity", "score_norm", "normality", "normality_map", "quality", "starts", "exchange"}
    assert observed | {"change_field", "sample_times", "chains"} <= set(drawn)
    headings = [next(figure.all("h3")).said() for figure in figures]
    assert len(set(headings)) == len(headings)
    assert not any(heading.islower() for heading in headings)  # a name that no caption knows is shown as it is
    for figure in figures:
        reading = next(figure.all("p")).said()
        assert reading.endswith(".")
        assert len(reading) > 40


def test_observables_of_the_user_are_on_the_page(hostile):
    (figure,) = (f for f in read(hostile[1]).root.all("figure") if next(f.all("h3")).said() == "Kept ink")
    first = float(hostile[0]["kept_ink"].sel(score=NASTY)[0])
    assert f" {first:.3g}, " in next(svg for svg in figure.all("svg")).parent.attributes["aria-label"]


def test_warnings_that_apply_are_there(result, rich_page):
    items = {item.said() for item in rich_page.root.all("li")}
    expected = warnings(view(result))
    assert any("discretisation error" in warning for warning in expected)
    assert {" ".join(warning.split()) for warning in expected} <= items


def test_settings_on_the_page_are_the_experiment(page, disk):
    (folded,) = (one for one in page.root.all("details") if next(one.all("summary")).said().startswith("Exp"))
    settings, archived = next(folded.all("pre")).text, gt.open_archive(disk).attrs["experiment"]
    assert gt.Experiment.load(yaml.safe_load(settings)) == gt.Experiment.load(yaml.safe_load(archived))


def test_provenance_has_every_digest(page, disk):
    said = page.root.said()
    attributes = gt.open_archive(disk).attrs
    digests = re.findall(r"[0-9a-f]{64}", attributes["data_digest"] + attributes["score_digest"])
    assert len(digests) == 3
    assert all(digest in said for digest in digests)
    assert attributes["date_created"] in said


def test_other_starts_speak_of_end_points(tiny, tmp_path):
    result = gt.run(tiny(start="isotropic", keep={"pictures": 0}), progress=False)
    page = page_of(result, tmp_path)
    last = result.sel(score="empirical").isel(turn_time=-1)
    sentence = findings.finding(view(result))[0]
    assert sentence.startswith("Started from noise alone at noise-to-signal 8, the empirical score ends with")
    assert banded(last, "end_square") in sentence
    assert sentence in page.root.said()
    assert not any("Times" in heading.said() for heading in page.root.all("h2"))


def test_the_pictures_are_those_of_the_archive(page, disk):
    group = gt.open_archive(disk).gaussian_test.group("pictures")
    (table,) = (table for table in page.root.all("table") if table.attributes.get("class") == "strips")
    rows = list(table.all("tr"))
    count = group.sizes["sample"]
    start = strip_pictures(next(rows[0].all("img")).attributes["src"], count)
    np.testing.assert_array_equal(start, (as_rgb(group["start"]) * 255).round())
    for row, score in zip(rows[1:], group["score"].values, strict=True):
        images = list(row.all("img"))
        assert len(images) == group.sizes["turn_time"]
        for turn, image in enumerate(images):
            expected = (as_rgb(group["end"].sel(score=score).isel(turn_time=turn)) * 255).round()
            np.testing.assert_array_equal(strip_pictures(image.attributes["src"], count), expected)


def test_what_became_of_the_pictured_samples_is_counted(page, disk):
    result = gt.open_archive(disk)
    shown = result.gaussian_test.group("pictures")["sample"].values
    strips = [e for e in page.root.all("div") if "strip" in e.attributes.get("class", "").split()]
    said = {}
    for strip in strips:
        score = next(strip.within("tr").all("th")).said().removesuffix(" score")
        said[score, int(strip.attributes["data-turn"])] = strip.said()
    for (score, turn), text in said.items():
        row = result.sel(score=score, sample=shown).isel(turn_time=turn, repeat=0)
        own, kept = int((row["nearest_sample"] == row["sample"]).sum()), int((row["label_after"] == row["label"]).sum())
        assert f"{own} of 3 their own sample, {kept} of 3 of their class" in text
    assert len(said) == 2 * 4


def test_a_page_of_large_noisy_pictures_stays_small(tmp_path):
    """Nothing compresses noise: 24 turn times, 2 scores and more and larger pictures than a page can hold as they are."""
    truth = noise_pictures(3, 56, 16)
    times = {"noise_to_signal": {"min": 0.2, "max": 20, "count": 24}}
    result = gt.run(QUICK | {"samples": 12, "turn_times": times, "keep": {"pictures": 12}}, truth=truth, progress=False)
    path = gt.report(result, tmp_path / "large.html")
    assert path.stat().st_size < ENOUGH
    assert "made smaller, to 48 pixels and compressed with loss" in Page(path.read_text(encoding="utf-8")).root.said()


def test_it_holds_all_that_it_shows(rich, rich_page):
    text = rich[1].read_text(encoding="utf-8")
    assert len(text.encode()) < ENOUGH
    for element in rich_page.root.all():
        for key in ("src", "href", "xlink:href", "data", "poster", "srcset", "action", "background"):
            value = element.attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (element.tag, key, value[:80])
        assert not any(key.startswith("on") for key in element.attributes), element.attributes
        assert element.tag not in ("iframe", "object", "embed", "base", "form")
    assert not re.search(r"@import|url\((?!#)", text)


def test_only_its_own_script_may_run(page):
    (script,) = page.root.all("script")
    meta = {element.attributes.get("http-equiv"): element.attributes.get("content") for element in page.root.all("meta")}
    policy = meta["Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_and_references_lead_somewhere(rich_page):
    ids = [element.attributes["id"] for element in rich_page.root.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    wanted = set()
    for element in rich_page.root.all():
        for key, value in element.attributes.items():
            if key in ("aria-labelledby", "aria-describedby", "for"):
                wanted |= set(value.split())
            elif key.endswith("href") and value.startswith("#"):
                wanted.add(value[1:])
            wanted |= set(re.findall(r"url\(#([^)]+)\)", value or ""))
    assert len(wanted) > 100  # clip paths and glyphs of the figures
    assert wanted <= set(ids)


def test_screen_readers_are_told_what_is_shown(rich_page):
    page = rich_page
    assert next(page.root.all("html")).attributes["lang"] == "en"
    assert [h.tag for h in page.root.all("h1", "h2", "h3")].count("h1") == 1
    for image in page.root.all("img"):
        assert image.attributes["alt"]
    for svg in page.root.all("svg"):
        assert svg.attributes["aria-hidden"] == "true"
        assert svg.parent.attributes["role"] == "img"
        assert len(svg.parent.attributes["aria-label"]) > 20
    alts = [svg.parent.attributes["aria-label"] for svg in page.root.all("svg")]
    assert len(set(alts)) == len(alts)
    for cell in page.root.all("th"):
        assert cell.attributes["scope"] in ("row", "col")
    for table in page.root.all("table"):
        assert list(table.all("caption")) or table.attributes["aria-label"]
    (slider,) = page.root.all("input")
    assert any(label.attributes.get("for") == slider.attributes["id"] for label in page.root.all("label"))


def test_what_stands_for_a_curve_in_words_has_its_values(result, rich_page):
    label = next(svg.parent.attributes["aria-label"] for svg in rich_page.root.all("svg"))
    curve = result["autocorrelation"].sel(score="network").values
    assert f"network {curve[0]:.3g}, {curve[3]:.3g} at 1.5, {curve[-1]:.3g} at the end" in label


def test_archive_and_memory_give_the_same_page_each_time(disk, memory, tiny_page, tmp_path):
    assert gt.report(disk, tmp_path / "again.html").read_bytes() == tiny_page.read_bytes()
    of_memory = memory.gaussian_test.report(str(tmp_path / "memory.html")).read_text(encoding="utf-8")
    unknown = "in memory, not archived"
    of_disk = tiny_page.read_text(encoding="utf-8").replace(gt.open_archive(disk).attrs["date_created"], unknown)
    assert of_disk == of_memory.replace(memory.attrs.get("date_created", unknown), unknown)


def test_hostile_names_are_shown_and_never_markup(hostile):
    result, path = hostile
    page = read(path)
    said = page.root.said()
    for name in result["score"].values.tolist():
        assert name in said  # no template within a template
    assert result["score"].values.tolist() == [HOSTILE, NASTY, "_mine; a: b"]
    assert f"Gaussian Test of {HOSTILE}.npz" in next(page.root.all("h1")).said()
    assert not any("onerror" in element.attributes for element in page.root.all())
    assert len(list(page.root.all("script"))) == 1


def test_hostile_names_of_files_are_shown_in_comparisons_and_overviews(hostile_folder, tmp_path):
    folder, overview = hostile_folder
    archives = sorted(folder.iterdir(), reverse=True)
    titles = f"<script>alert(1) and {archives[1].stem} compared", "Runs of <b onclick=alert(1)>"
    assert archives[0].stem == "<script>alert(1)"
    for page, title in zip((page_of(archives, tmp_path), read(overview)), titles, strict=True):
        assert next(page.root.all("h1")).said() == title
        assert not list(page.root.all("i", "b"))
        assert len(list(page.root.all("script"))) == 1


def test_a_comparison_has_the_differences_of_compare(two, two_page):
    page = two_page
    a, b = map(gt.open_archive, two)
    compared = gt.compare(a, b)
    rows = {row[0]: row[1:] for row in table_rows(page, "Times")[1:]}
    for time in ("memorization", "speciation"):
        for cell, side in zip(rows[f"{time}, gaussian"][:2], (a, b), strict=True):
            assert cell == banded(side.sel(score="gaussian"), f"{time}_noise_to_signal")
    assert rows["speciation, gaussian"][0] != rows["speciation, gaussian"][1]
    assert rows["memorization, empirical"][2] == banded(compared.sel(score="empirical"), "memorization_difference")
    of_gaussian = compared.sel(score="gaussian")
    errors = of_gaussian["autocorrelation_difference_se"].values
    at = int(np.abs(of_gaussian["autocorrelation_difference"].values / errors).argmax())
    value, low, high = (float(of_gaussian[f"autocorrelation_difference{end}"][at]) for end in ("", "_low", "_high"))
    found = [row for row in table_rows(page, "Where each curve differs most") if row[:2] == ["Auto-correlation", "gaussian"]]
    assert found[0][2:4] == [f"{value:+.3g}", f"[{low:+.3g}, {high:+.3g}]"]


def test_a_comparison_finds_what_differs_and_nothing_else(two, two_page):
    """Two steps of Heun's method are no sampler: the Gaussian's end points are off; one evaluation of a score has no steps."""
    (section,) = (element for element in two_page.root.all("section") if element.attributes.get("class") == "finding")
    assert "gaussian" in section.said()
    assert "one evaluation" not in section.said()
    compared = gt.compare(*map(gt.open_archive, two))
    for curve in curve_differences(compared):
        band = compared.sel(score=curve.score)
        low, high = (band[f"{curve.name}_difference{end}"] for end in ("_low", "_high"))
        assert curve.differs == bool(((low > 0) | (high < 0)).any())
    assert any(curve.differs for curve in curve_differences(compared))


def test_an_archive_does_not_differ_from_itself(two, tmp_path):
    page = page_of([two[0], gt.open_archive(two[0])], tmp_path)
    assert "No curve of the two differs beyond its band." in page.root.said()
    assert not list(page.root.all("figure"))


def test_a_sweep_gives_an_overview(tmp_path, tiny):
    sweep = gt.Sweep.load(tiny(sweep={"seed": [0, 1], "samples": [12, 100000]}))
    with pytest.raises(UserError):  # there are not that many samples
        gt.run_sweep(sweep, tmp_path / "runs", progress=False)
    page = page_of(tmp_path / "runs", tmp_path)
    rows = table_rows(page, "Runs and what they vary")
    assert rows[0] == ["run", "seed", "samples", "state"]
    states = {row[0]: row[3] for row in rows[1:]}
    assert [state.split(":")[0] for state in states.values()].count("finished") == 2
    assert sum(state.startswith("failed: ") and "100000" in state for state in states.values()) == 2
    finished = [name for name, state in states.items() if state == "finished"]
    times = {row[0]: row[1:] for row in table_rows(page, "Times")[1:]}
    for name in finished:
        result = gt.open_archive(tmp_path / "runs" / f"{name}.nc").sel(score="empirical")
        assert times[f"{name}, empirical"][0] == banded(result, "memorization_noise_to_signal")
    assert len(list(page.root.all("svg"))) == 2


@pytest.mark.parametrize(
    ("count", "output", "message"),
    [
        (1, "page.nc", "page.nc is not named like a page: let it end in .html"),
        (0, "page.html", "0 archives cannot be put on one page: give one, two to compare, or the folder of a sweep"),
        (3, "page.html", "3 archives cannot be put on one page"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(disk, tmp_path, count, output, message):
    with pytest.raises(UserError, match=re.escape(message)):
        gt.report([disk] * count, tmp_path / output)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_compared_and_an_empty_one_has_nothing(disk, tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="is a folder and cannot be compared"):
        gt.report([disk, tmp_path / "runs"], tmp_path / "page.html")
    with pytest.raises(UserError, match="holds no finished run"):
        gt.report(tmp_path / "runs", tmp_path / "page.html")


def test_a_page_appears_whole_or_the_old_one_stays(disk, tmp_path, monkeypatch):
    (tmp_path / "page.html").write_text("old", encoding="utf-8")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        gt.report([disk, disk], tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "old"
