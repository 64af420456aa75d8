"""Foreign text stays text, whatever it holds."""

import pytest

from mme_core.report.html import Html, page, section, table, tag, text


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>.mp4", '"><img src=x onerror=y>', "a&b"]
)
def test_foreign_text_is_escaped(name):
    made = tag("p", name, title=name) + table((name,), [(name,)]) + section(name, name, note=name)
    made += page(name, name, [section("x", name)])
    assert name not in made
    assert "<script" not in made and "<img" not in made and "onerror=y>" not in made


def test_markup_is_not_escaped_twice():
    assert tag("p", tag("b", "a & b")) == "<p><b>a &amp; b</b></p>"
    assert text(Html("<b>")) == "<b>"


def test_names_that_are_not_utf8_can_be_written():
    assert text("b\udcff.mp4").encode() == b"b\\udcff.mp4"
    assert text("a\x1b[2J\u202eb") == "a\\x1b[2J\\u202eb"


def test_page_links_its_parts():
    made = page("t", "s", [section("One part", "x"), section("Two & three", "y")])
    assert '<a href="#one-part">One part</a>' in made
    assert '<a href="#two---three">Two &amp; three</a>' in made
    assert 'id="two---three"' in made
    assert made.startswith("<!doctype html>") and "http-equiv" not in made
