"""The documentation builds as a site, without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_and_the_readme_are_in_the_site(site):
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    folders = [
        path.parent if path.stem in ("index", "README") else path.with_suffix("") for path in pages
    ]
    built = [*folders, Path("readme"), Path("contributing"), Path("examples/read_with_zarr")]
    assert [name for name in built if not (site / name / "index.html").exists()] == []


def test_reference_has_signatures_and_arguments(site):
    text = re.sub(r"<[^>]+>", "", (site / "api" / "index.html").read_text())
    for words in ("mask_ratio:", "Returns the feature of a video", "share of patches hidden"):
        assert words in text


def test_links_between_pages_lead_somewhere(site):
    for page in site.rglob("index.html"):
        for link in re.findall(r'href="([^":#?]+/)(?:#[^"]*)?"', page.read_text()):
            assert (page.parent / link / "index.html").exists(), f"{page}: {link}"
