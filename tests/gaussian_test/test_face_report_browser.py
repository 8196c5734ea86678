"""The report in a real browser, headless Chromium: it fits, it moves, it can be read by everybody, and nothing hostile runs."""

import os
import re
import shutil

import numpy as np
import pytest
from report_zoo import HOSTILE, NASTY, strip_pictures

import gaussian_test as gt
from gaussian_test.analysis.figures.drawing import as_rgb

playwright = pytest.importorskip("playwright.sync_api", reason="NOT RUN: the report in a browser needs playwright")


@pytest.fixture(scope="module")
def chromium():
    """Return a headless Chromium of the system."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("NOT RUN: the report in a browser needs Chromium, which is not installed (Debian: apt-get install chromium)")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(disk, rich, tiny_page, hostile, hostile_folder, tmp_path_factory):
    """Return the path of a page of each kind, by name."""
    comparison = gt.report((rich[0], disk), tmp_path_factory.mktemp("pages") / "comparison.html")
    return {"result": rich[1], "tiny": tiny_page, "hostile": hostile[1], "comparison": comparison, "sweep": hostile_folder[1]}


@pytest.fixture
def opened(chromium, pages):
    """Return a function that opens a page and, when the test is over, fails if the browser complained or asked for anything."""
    contexts, complaints = [], []

    def open_page(name, width=1280, **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        address = pages[name].as_uri()
        page.on("request", lambda r: r.url == address or r.url.startswith("data:") or complaints.append(f"asked: {r.url}"))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("name", ["result", "hostile", "comparison", "sweep"])
def test_nothing_is_wider_than_the_screen(opened, name):
    page = opened(name)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # what is wider than the screen itself scrolls in a region of its own, and nothing else reaches beyond the edge
        beyond = page.evaluate(
            """[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre, svg"))
               .filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
               .map(e => e.tagName + "." + e.className)"""
        )
        assert beyond == []


def test_the_slider_moves_the_pictures(opened, disk):
    """At every turn time the strips that are seen are those of the archive, and no others."""
    page = opened("tiny")
    result = gt.open_archive(disk)
    group = result.gaussian_test.group("pictures")
    slider = page.get_by_role("slider", name="Turn time")
    for turn, level in enumerate(result["noise_to_signal"].values):
        slider.fill(str(turn))
        assert page.get_by_text(f"turned at noise-to-signal {level:.3g}", exact=True).is_visible()
        assert slider.get_attribute("aria-valuetext") == f"turned at noise-to-signal {level:.3g}"
        seen = [image.get_attribute("src") for image in page.locator(".strip img:visible").all()]
        assert len(seen) == group.sizes["score"]
        for source, score in zip(seen, group["score"].values, strict=True):
            expected = (as_rgb(group["end"].sel(score=score).isel(turn_time=turn)) * 255).round()
            np.testing.assert_array_equal(strip_pictures(source, group.sizes["sample"]), expected)
    for key, turn in (("Home", "0"), ("ArrowRight", "1"), ("End", "3")):
        slider.press(key)
        assert slider.input_value() == turn
    assert page.locator(".strip img:visible").first.get_attribute("src") == seen[0]


def test_pictures_are_drawn_as_large_pixels(opened):
    page = opened("tiny", 390)
    image = page.locator(".strip img:visible").first
    shown = image.evaluate("e => [e.naturalWidth, e.naturalHeight, e.width, e.height, getComputedStyle(e).imageRendering]")
    assert shown[2] > 3 * shown[0]
    assert shown[2] / shown[3] == pytest.approx(shown[0] / shown[1], rel=0.05)
    assert shown[4] == "pixelated"


def contrast(first, second):
    """Return the contrast of two colours as WCAG defines it."""
    lights = []
    for colour in (first, second):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour[:3]) / 255]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


COLOURS = """selector => [...document.querySelectorAll(selector)].map(e => {
  const number = c => c.match(/[\\d.]+/g).map(Number);
  let under = e;
  while (number(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
  return [number(getComputedStyle(e).color), number(getComputedStyle(under).backgroundColor)];
})"""


INKS = """() => [...document.querySelectorAll("svg")].map(svg => [...svg.querySelectorAll("path, use, g, rect")].flatMap(e => {
  const style = getComputedStyle(e);
  return ["fill", "stroke"].filter(k => style[k].startsWith("rgb") && style[k + "Opacity"] > 0.5 && style.opacity > 0.5).map(
    k => style[k].match(/[\\d.]+/g).map(Number));
}))"""


def test_text_and_figures_can_be_read_in_light_and_dark(opened):
    """In every figure there is ink of the text's colour, and nothing that is drawn fades into the page."""
    page = opened("result")
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate(COLOURS, "h1, h2, h3, p, li, a, th, td, caption, summary, pre, dt, dd, small, label, output")
        assert len(found) > 100
        assert min(contrast(text, ground) for text, ground in found) >= 4.5  # WCAG AA
        text, ground = found[0]
        assert (sum(ground[:3]) < 3 * 128) == (scheme == "dark")
        figures = page.evaluate(INKS)
        assert len(figures) > 8
        for inks in figures:
            assert text in inks
            assert min(contrast(ink, ground) for ink in inks if ink != ground) > 1.3


def test_a_screen_reader_finds_its_way(opened):
    page = opened("result")
    tree = page.locator("body").aria_snapshot()
    assert re.search(r"heading .Gaussian Test of digits of 8 x 8 pixels .scikit-learn.. \[level=1\]", tree)
    assert '- region "Finding"' in tree
    assert re.search(r"columnheader .affine beyond.", tree)
    assert re.search(r"rowheader .empirical score.", tree)
    assert re.search(r"slider .Turn time.", tree)
    assert re.search(r"img .U-Turn auto-correlation\. autocorrelation over noise-to-signal 0.1 to 8", tree)
    assert 'navigation "Contents"' in tree

    links = page.locator("nav a").all()
    assert len(links) >= 5
    for link in links:
        link.click()
        target = page.evaluate("document.querySelector(':target').textContent")
        assert target
        assert page.evaluate("document.querySelector(':target').getBoundingClientRect().top") < 900


def test_paper_has_all_that_is_folded_and_no_slider(opened):
    page = opened("tiny")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.get_by_role("slider").is_visible()
    shown = page.locator(".strip:visible").evaluate_all("strips => strips.map(s => s.dataset.turn)")
    assert sorted(set(shown)) == ["0", "1", "2", "3"]
    assert page.get_by_text("turned at 0.7:").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_without_scripts_the_pictures_are_all_there(opened):
    page = opened("tiny", java_script_enabled=False)
    assert page.locator(".strip:visible").count() == 2 * 4
    assert not page.locator("input").is_visible()


def test_what_is_hostile_is_shown_and_not_executed(opened):
    """Had a name become markup, there would be an element, a dialog, a request or a complaint of the page's policy."""
    page = opened("hostile")
    said = page.locator("body").inner_text()
    for name in (HOSTILE, NASTY, "_mine; a: b"):
        assert name in said
    assert page.locator("[onerror]").count() == 0
    assert page.title() == f"Gaussian Test of {HOSTILE}.npz"


def test_the_policy_stops_what_the_page_did_not_bring(chromium, pages, tmp_path):
    """Were a name ever to become markup, the browser would refuse to run it or to load anything."""
    text = pages["tiny"].read_text(encoding="utf-8")
    foreign = '<script>document.title="taken"</script><img src="http://127.0.0.1:9/x.png" onerror="document.title=1">'
    spoiled = text.replace("<main>", f"<main>{foreign}")
    assert spoiled != text
    (tmp_path / "spoiled.html").write_text(spoiled, encoding="utf-8")
    context = chromium.new_context()
    page = context.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto((tmp_path / "spoiled.html").as_uri())
    assert page.title() == "Gaussian Test of digits of 8 x 8 pixels (scikit-learn)"
    assert sum("Content Security Policy" in text for text in refused) >= 2
    context.close()
