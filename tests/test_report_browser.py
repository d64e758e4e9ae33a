"""The HTML page in a real browser: the slider moves, plots answer, nothing is loaded and nothing complains."""

import pytest
from browser import PRESENT, Browser
from test_report import make
from test_report_html import add_worst

from prunekit.report.html import write_html

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PRESENT, reason="needs Chromium and its driver")]
RIGHT = "\ue014"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    run = make(tmp_path_factory.mktemp("runs") / "toy-1234")
    add_worst(run)
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        browser.open(write_html(run).as_uri())
        browser.wait("return document.documentElement.dataset.plots === 'drawn'")
        yield browser
    finally:
        browser.close()


def clip(shown):
    return shown.run("return getComputedStyle(document.querySelector('.scene .over')).clipPath")


def test_nothing_is_loaded_and_nothing_complains(shown):
    assert shown.run("return performance.getEntriesByType('resource').length") == 0
    assert shown.log() == []


def test_the_slider_moves_by_keyboard_and_by_pointer(shown):
    assert clip(shown) == "inset(0px 0px 0px 50%)"
    shown.press(".scene .slide input", RIGHT * 2)
    assert clip(shown) == "inset(0px 0px 0px 52%)"
    told = shown.run("return document.querySelector('.scene .slide input').getAttribute('aria-valuetext')")
    assert told == "52 % input: 20.00 dB, the rest 64.3 %: 29.00 dB"
    x, y = shown.run(
        "const pair = document.querySelector('.pair'); pair.scrollIntoView({block: 'center'});"
        "const box = pair.getBoundingClientRect(); return [box.x + box.width * 3 / 4, box.y + box.height / 2]"
    )
    shown.point(x, y, click=True)
    assert clip(shown) == "inset(0px 0px 0px 75%)"


def test_another_density_takes_the_place_of_a_picture(shown):
    scene = "const scene = document.querySelector('.scene'), strip = scene.querySelectorAll('.strip img');"
    place = scene + "return [...strip].map(e => e.src).indexOf(scene.querySelector('.over').src)"
    assert shown.run(place) in (1, 2)  # dense and ticket look alike here
    shown.press(".scene select.right", "target")
    assert shown.run(place) == 3


def test_plots_are_drawn_and_their_legends_switch_curves(shown):
    heights = shown.run("return [...document.querySelectorAll('.plot > div:first-child')].map(e => e.offsetHeight)")
    assert len(heights) == 5 and min(heights) >= 250
    count = "return Bokeh.documents[0].roots()[0].renderers.filter(drawn => drawn.visible).length"
    assert shown.run(count) == 5  # dense, input; interval, line and marks of the run
    shown.press("#quality-0 + .keys input[value='this run']", " ")
    assert shown.run(count) == 2


def test_a_plot_tells_what_is_under_the_pointer(shown):
    shown.run("document.getElementById('sparsity').scrollIntoView({block: 'center'})")
    x, y = shown.run(
        "const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].roots()[3].id), frame = view.frame;"
        "const box = view.el.getBoundingClientRect();"
        "return [box.x + frame.x_scale.compute(0), box.y + frame.y_scale.compute(5 / 6)]"
    )
    shown.point(x + 40, y + 40)
    shown.point(x, y)
    told = shown.wait(
        "const all = root => root ? [...root.querySelectorAll('*')].flatMap(e => [e, ...all(e.shadowRoot)]) : [];"
        "const tip = all(document).find(e => e.classList.contains('bk-Tooltip') && e.offsetHeight);"
        "return tip?.shadowRoot.textContent.trim()"
    )
    assert "b.weight" in told and "83.33 % (5 of 6)" in told


def test_no_phone_has_to_scroll_sideways(shown):
    shown.devtools("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    assert shown.run("return document.documentElement.scrollWidth") == 360
    shown.devtools("Emulation.clearDeviceMetricsOverride")


def test_in_print_pictures_stand_side_by_side(shown):
    shown.devtools("Emulation.setEmulatedMedia", media="print")
    visible = "return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetHeight > 0).length"
    assert shown.run(visible, ".pair, .slide, .choices") == 0
    assert shown.run(visible, ".strip img") == 8
    shown.devtools("Emulation.setEmulatedMedia", media="")
