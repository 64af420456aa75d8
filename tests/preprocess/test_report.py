"""`mme report`: what it writes, and how that looks in a browser, wide and narrow."""

import json
import re
import shutil

import pytest
from browser import BROWSER, Browser
from made_up_runs import features, finetuning, pretraining, probing
from made_up_targets import SPEC, make_store

from mme_core.cli import main
from mme_core.extract.stages import STAGES
from mme_core.store import TargetStore
from mme_core.store.writer import ShardWriter

EVIL = "<script>alert(1)</script>.mp4"


@pytest.fixture(scope="module")
def pages(demo_store, tmp_path_factory):
    """A page of each kind, {name: path}."""
    folder = tmp_path_factory.mktemp("pages")
    videos = TargetStore(demo_store).videos
    made = folder / "f.npz"
    features(made, list(videos["id"]), [n % 3 for n in range(6)], f"store: {demo_store}\n")
    runs = [pretraining(folder / "mine"), finetuning(folder / "a very long name of a run " / "t")]
    runs.append(probing(folder / "probe"))
    asked = {"store": [demo_store], "runs": runs, "features": [made]}
    for name, what in asked.items():
        assert main(["report", *map(str, what), "-o", str(folder / f"{name}.html")]) == 0
    return {name: folder / f"{name}.html" for name in asked}


@pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_screenshots(pages, tmp_path, width):
    with Browser(tmp_path / "profile") as browser:
        for name, path in pages.items():
            look = browser.look(path, width)
            (tmp_path / f"{name}-{width}.png").write_bytes(look.png)
            assert look.problems == [], name
            assert look.width <= width, f"{name} is wider than the window"
            assert look.png.startswith(b"\x89PNG") and len(look.png) > 20_000


def test_pages_ask_for_no_network(pages):
    for path in pages.values():
        text = path.read_text()
        assert "http://" not in text and "https://" not in text
        assert len(text) < 2_000_000


def test_page_of_a_store(demo_store, pages):
    text = pages["store"].read_text()
    assert "Every 4th raw frame" in text and "Tracked points" in text
    assert text.count("data:image/webp") == 6  # a film of each video
    assert "None: every video is stored." in text
    assert "has no times" in text  # the fixture's ledger


def test_a_store_that_holds_a_run_is_shown_as_a_store(demo_store, tmp_path):
    both = shutil.copytree(demo_store, tmp_path / "both")
    (both / "metrics.jsonl").write_text("")
    assert main(["report", str(both), "-o", str(tmp_path / "r.html")]) == 0
    assert "<title>Store both" in (tmp_path / "r.html").read_text()


def test_neighbours_have_pictures_of_the_store(pages):
    text = pages["features"].read_text()
    assert "data:image/webp" in text and 'class="blank"' not in text


def test_neighbours_have_pictures_of_files(labelled_set, tmp_path):
    ids = [f"val/left/{n}.mp4" for n in range(3)] + ["lost.mp4"]
    config = "data: {dataset: folder, root: /nowhere}\nsplit: val\nstore: null\n"
    made = features(tmp_path / "f.npz", ids, [0, 0, 1, 1], config)
    words = ["report", str(made), "-o", str(tmp_path / "r.html"), "--root", str(labelled_set)]
    assert main(words) == 0
    text = (tmp_path / "r.html").read_text()
    assert "data:image/webp" in text and 'class="blank"' in text


def test_neighbours_have_pictures_of_a_moved_store(demo_store, tmp_path, capsys):
    ids = list(TargetStore(demo_store).videos["id"])
    made = features(tmp_path / "f.npz", ids, [n % 3 for n in range(6)], "store: /nowhere\n")
    words = ["report", str(made), "-o", str(tmp_path / "r.html")]
    assert main(words) == 2
    assert "/nowhere: the features' store is not there; name its" in capsys.readouterr().err
    assert main([*words, "--root", str(demo_store)]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "data:image/webp" in text and 'class="blank"' not in text


def test_names_of_others_are_escaped(tmp_path):
    store = make_store(tmp_path / "s", [{EVIL: 3, "b\udcff.mp4": 2}])
    with ShardWriter(store, 1, SPEC) as writer:
        writer.quarantine(
            {"id": f"1{EVIL}", "path": EVIL, "label": 0, "reason": f"cannot open {EVIL}"}
        )
    rows = [{"path": EVIL, "id": EVIL, "status": "ok", "seconds": 12.5, "frames": 21}]
    (store / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["report", str(store), "-o", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "1 × cannot open" in text and "12.5 s" in text


def test_time_is_split_into_stages(tmp_path):
    store = make_store(tmp_path / "s", [{"a": 3, "b": 2, "c": 1}])
    row = {"path": "", "status": "ok", "seconds": 10.0}
    stages = dict(zip(STAGES, (1.0, 5.0, 2.0, 1.0, 0.5)))
    rows = [{"id": "a", "stages": stages}, {"id": "b", "stages": stages}, {"id": "c"}]
    (store / "ledger.jsonl").write_text("".join(json.dumps(row | one) + "\n" for one in rows))
    assert main(["report", str(store), "-o", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text()
    table = text.partition("By stage (2 of 3 videos)")[2].partition("</table>")[0]
    assert re.findall(r">([\d.]+ s)<.*?>([\d.]+%)<", table) == [
        *(("2 s", "10.0%"), ("10 s", "50.0%"), ("4 s", "20.0%"), ("2 s", "10.0%")),
        *(("1 s", "5.0%"), ("1 s", "5.0%")),
    ]


def test_a_large_store_is_sampled(tmp_path):
    store = make_store(tmp_path / "s", [{f"{n}.mp4": 1 for n in range(30)}])
    words = ["report", str(store), "-o", str(tmp_path / "r.html"), "--sample", "10"]
    assert main(words) == 0
    text = (tmp_path / "r.html").read_text()
    assert "a sample of 10 videos" in text and "<b>30</b>" in text


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["{folder}", "-o", "r.html"], "is not a store"),
        (["{folder}/none", "-o", "r.html"], "does not exist; check the path"),
        (["{store}", "{store}", "-o", "{folder}/r.html"], "is not a run, and only runs"),
        (["{store}", "-o", "{folder}/r.pdf"], "must end in .html"),
        (["{store}", "-o", "{folder}/folder.html"], "is a folder: name a file"),
    ],
)
def test_wrong_words_are_one_line(demo_store, tmp_path, capsys, words, error):
    (tmp_path / "folder.html").mkdir()
    words = [word.format(folder=tmp_path, store=demo_store) for word in words]
    assert main(["report", *words]) == 2
    said = capsys.readouterr().err
    assert error in said and said.count("\n") == 1
