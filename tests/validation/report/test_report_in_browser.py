"""The report page in Chromium: what it loads, draws, sorts and finds, and how it fits screens and paper.

Left out where Playwright for Python or Chromium is missing: `pip install playwright`, `apt-get install chromium`.
"""

from __future__ import annotations

import shutil

import pytest
from report_pages import make_data, prune_hostile

from srr_onnx.validation.report.write import write_report

api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# A4 less the margins that the page sets, in CSS pixels.
PAPER = (680, 1017)

# The smallest contrast of any text with the background behind it (WCAG 2, 1.4.3).
WORST_CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = numbers(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > 0.99) return found.slice(0, 3);
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  for (const element of document.body.querySelectorAll("*:not(svg *):not(script)")) {
    const isText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!isText || !element.checkVisibility()) continue;
    const [a, b] = [numbers(getComputedStyle(element).color).slice(0, 3), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 80)];
  }
  return worst;
}"""

# Headings of one word that do not stand on one line.
BROKEN_HEADINGS = """() => [...document.querySelectorAll("thead th")].map((heading) => {
  const text = document.createTreeWalker(heading, NodeFilter.SHOW_TEXT).nextNode();
  const range = document.createRange();
  range.selectNodeContents(text);
  return [text.textContent.trim(), range.getClientRects().length];
}).filter(([text, lines]) => !text.includes(" ") && lines > 1)"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(prune_hostile(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def address(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_report(path, data)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def show(browser, address):
    """Open the page: `show(width=390, color_scheme="dark")`."""
    pages = []

    def open_page(width=1200, height=900, **options):
        pages.append(browser.new_page(viewport={"width": width, "height": height}, **options))
        pages[-1].goto(address)
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def column(page, table, number):
    """Texts of the rows that are shown, in their order."""
    cells = f"#{table} tbody tr:not([hidden]) > :nth-child({number})"
    return page.locator(cells).all_inner_texts()


def test_the_page_loads_itself_and_nothing_else(browser, address):
    page = browser.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(address, wait_until="networkidle")
    page.close()
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert said == []


def test_every_layer_is_drawn_in_every_chart(show, data):
    page = show()
    layers = data.structure.layers
    for chart, known in (("channels", layers), ("kept", layers), ("macs", layers)):
        for kind in ("before", "after"):
            marks = page.locator(f"#chart-{chart} rect.{kind}")
            assert marks.count() == len(known)
            assert all(mark.bounding_box()["height"] > 0.5 for mark in marks.all()[:5])
    assert page.locator("#chart-measure rect.measure").count() == len([x for x in layers if x.measure is not None])
    timed = [layer for layer in layers if layer.latency_ms]
    assert page.locator("#chart-milliseconds rect.after").count() == len(timed) == 11
    assert page.locator("#chart-damage path.dot").count() == 2 * len(data.damage.curve.points)
    assert page.locator("#chart-latency rect.pruned").count() > 3


def test_columns_keep_the_proportions_of_the_data(show, data):
    page = show()
    for number in (0, 4, 11):
        before, after = data.structure.layers[number].macs
        heights = [
            page.locator(f"#chart-macs rect.{kind}").nth(number).bounding_box()["height"]
            for kind in ("before", "after")
        ]
        assert heights[1] / heights[0] == pytest.approx(after / before, abs=0.02)


def test_headings_sort_up_and_down_by_mouse_and_keyboard(show, data):
    page = show()
    macs = [layer.macs[0] for layer in data.structure.layers]
    names = [layer.name for layer in data.structure.layers]
    heading = page.locator("#layer-table th", has_text="MACs")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    order = [int(text) - 1 for text in column(page, "layer-table", 1)]
    assert [macs[number] for number in order] == sorted(macs)
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    order = [int(text) - 1 for text in column(page, "layer-table", 1)]
    assert [macs[number] for number in order] == sorted(macs, reverse=True)
    page.locator("#layer-table th", has_text="#").get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "none"
    assert [int(text) for text in column(page, "layer-table", 1)] == list(range(1, len(names) + 1))


def test_the_search_box_leaves_the_rows_with_all_words(show):
    page = show()
    box = page.get_by_label("Search").first
    box.fill("block.1 CONV")
    assert column(page, "layer-table", 2) == [f"/block.{number}/conv/Conv" for number in (1, 10, 11)]
    assert page.locator(".finder output").first.inner_text() == "3 of 13 layers"
    box.fill("nothing has this")
    assert column(page, "layer-table", 2) == []
    box.fill("")
    assert len(column(page, "layer-table", 2)) == 13


def test_pointing_at_a_layer_names_it(show):
    page = show()
    page.locator("#chart-macs rect.hit").nth(2).hover()
    assert page.locator("#chart-macs output").inner_text().startswith("3. /block.2/conv/Conv: ")


@pytest.mark.parametrize("width", [390, 768, 1200])
def test_nothing_sticks_out_of_the_screen(show, width):
    page = show(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.querySelectorAll('.card')].every((e) => e.scrollWidth <= e.clientWidth)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(show, scheme):
    ratio, where = show(color_scheme=scheme).evaluate(WORST_CONTRAST)
    assert ratio >= 4.5, where


def test_the_switch_changes_the_scheme(show):
    page = show(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Light").click()
    light = page.evaluate(background)
    assert light != dark
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(background) == dark
    ratio, where = page.evaluate(WORST_CONTRAST)
    assert ratio >= 4.5, where


def test_print_is_light_and_cuts_nothing_off(show):
    page = show(*PAPER, color_scheme="dark")
    page.get_by_role("button", name="Light").click()
    page.get_by_role("button", name="Dark").click()
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == PAPER[0]
    for table in page.locator(".scroll").all():
        assert table.evaluate("(e) => e.scrollWidth <= e.clientWidth && e.scrollHeight <= e.clientHeight")
    assert page.evaluate(BROKEN_HEADINGS) == []
    ratio, where = page.evaluate(WORST_CONTRAST)
    assert ratio >= 4.5, where
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
