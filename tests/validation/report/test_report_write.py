"""The report page as a file: whole, escaped, on its own."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_pages import HOSTILE, make_data, prune_hostile, summary_alone

from srr_onnx.errors import OutputError
from srr_onnx.validation.report.data import Figure
from srr_onnx.validation.report.write import describe_change, render, write_figure, write_report


class Page(HTMLParser):
    """Elements with their attributes, and text by element."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self._open = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data):
        self.texts.append((self._open, data))

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(prune_hostile(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def html(data):
    return render(data)


def test_no_name_becomes_markup(html):
    page = Page(html)
    assert len(page.of("script")) == 1
    assert page.of("img") == []
    titles = [text for tag, text in page.texts if tag == "title"]
    assert titles[0].startswith(HOSTILE)
    assert any(text.startswith("6. " + HOSTILE) for text in titles)
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]


def test_the_page_refers_to_nothing_outside(html):
    page = Page(html)
    assert all(value.startswith(("#", "data:")) for tag in ("a", "link") for value in [d["href"] for d in page.of(tag)])
    assert not [attributes for _, attributes in page.tags if "src" in attributes]
    assert "url(" not in html and "@import" not in html
    assert "default-src 'none'" in html


def test_every_section_is_there_and_linked(html):
    page = Page(html)
    sections = [attributes["id"] for attributes in page.of("section")]
    assert sections == ["summary", "layers", "groups", "frozen", "latency", "damage", "reproduce"]
    assert [attributes["href"] for attributes in page.of("a")] == [f"#{name}" for name in sections]


def test_identifiers_are_unique(html):
    found = [attributes["id"] for _, attributes in Page(html).tags if "id" in attributes]
    assert len(found) == len(set(found))


def test_everything_but_the_summary_may_be_left_out(data):
    page = Page(render(summary_alone(data)))
    assert [attributes["id"] for attributes in page.of("section")] == ["summary"]
    assert page.of("table") == page.of("figure") == []


def test_characters_that_cannot_be_seen_show_as_codes(data):
    odd = "a\0b\u202ec\ud800d"
    html = render(type(data)(odd, ()))
    assert "a\\x00b\\u202ec\\ud800d" in html
    html.encode()


def test_the_file_is_written_whole_and_never_over_another(data, tmp_path):
    path = tmp_path / "page.html"
    write_report(path, summary_alone(data))
    first = path.read_bytes()
    assert first.endswith(b"</html>")
    with pytest.raises(OutputError, match="--force"):
        write_report(path, data)
    assert path.read_bytes() == first
    write_report(path, data, force=True)
    assert len(path.read_bytes()) > len(first)
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(OutputError, match="does not exist"):
        write_report(Path("missing/page.html"), data)


def test_the_same_data_make_the_same_page(data, html):
    assert render(data) == html


@pytest.mark.parametrize(
    ("figure", "before", "change"),
    [
        (Figure("MACs", 4e6, 3e6, "count"), "4.00 M", "-25.0 %"),
        (Figure("size", 2e6, 3e6, "bytes"), "2.00 MB", "+50.0 %"),
        (Figure("accuracy", 0.709, 0.157, "share"), "70.9 %", "-55.2 points"),
        (Figure("accuracy", 0.5, 0.52, "share"), "50.0 %", "+2.0 points"),
        (Figure("latency", 1.0, 0.5, "ms"), "1.00 ms", "-50.0 %"),
        (Figure("MACs", 0, 0, "count"), "0", "-"),
    ],
)
def test_figures_in_words(figure, before, change):
    assert write_figure(figure.before, figure.form) == before
    assert describe_change(figure) == change.replace("-", "\N{MINUS SIGN}")


def test_what_has_no_before_shows_itself():
    assert describe_change(Figure("same class", None, 0.953, "share")) == "95.3 %"


def test_a_large_network_stays_below_600_kb(data):
    row = data.structure.layers[0]
    structure = type(data.structure)((row,) * 200, data.structure.groups[:1] * 200, (), data.structure.measure)
    html = render(type(data)("large", (), structure=structure))
    assert len(html.encode()) < 600_000
    assert len(re.findall(r'class="after"', html)) > 800
