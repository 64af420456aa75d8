"""Each command in README, docs and recipes runs as written, or at least its words are valid."""

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from mme_core.cli import COMMANDS, main
from train.recipes import loading

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted(loading.RECIPES.rglob("*.yaml"))
LINE = re.compile(r"(?P<env>([A-Z_]+=\S+ )*)(?P<program>(\.venv/bin/)?(mme|make|python|torchrun)) ")


def blocks(page):
    """The lines of the indented and fenced blocks of a page, continuation lines joined.

    Of a recipe, the indented lines of its head.
    """
    text = page.read_text()
    if page.suffix == ".yaml":
        text = re.sub(r"^#   ", "    ", text, flags=re.M)
    text = re.sub(r"^```\w*\n(.*?)^```", _indented, text, flags=re.M | re.S)
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    return re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()


def _indented(match):
    return re.sub(r"^", "    ", match[1], flags=re.M)


def commands():
    """{command as written, without environment and comment: page}"""
    found = {}
    for page in PAGES:
        for line in blocks(page):
            if match := LINE.match(line.strip()):
                text = line.strip()[match.start("program") :].split("  #")[0].split(" # ")[0]
                found.setdefault(text.strip(), page.name)
    return found


FOUND = commands()


def words_of(command):
    """The words of `mme` in a command; those of make and torchrun are looked through."""
    command = re.sub(r" > \S+$", "", command)
    command = command.replace(" ...", "").replace(" …", "").replace("$layer", "tracks")
    words = shlex.split(re.sub(r"[\[\]](?=--|$| )", "", command))
    if words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed = done.stdout.replace("\\\n", " ")
        lines = [line for line in printed.splitlines() if re.search(r"bin/mme [a-z]", line)]
        words = shlex.split(lines[0]) if lines else []
    names = [number for number, word in enumerate(words) if re.fullmatch(r"(.*/)?mme", word)]
    return words[names[-1] + 1 :] if names else []


MME = [command for command in FOUND if words_of(command)]


class Understood(BaseException):
    """Raised where a command has read its arguments and would begin."""


@pytest.fixture
def only_arguments(monkeypatch):
    """Commands end when they have read their arguments."""
    merge = loading.merge

    def merged(*args, **options):
        merge(*args, **options)
        raise Understood

    def reading(original):
        def read(self, *args, **options):
            namespace = original(self, *args, **options)
            if hasattr(namespace, "config"):  # of a recipe, whose keys are read next
                return namespace
            raise Understood

        return read

    monkeypatch.setattr(loading, "merge", merged)
    for name in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, reading(original))


@pytest.mark.parametrize("command", MME)
def test_arguments_are_understood(command, only_arguments):
    with pytest.raises(Understood):
        main(words_of(command))


def test_wrong_arguments_are_noticed(only_arguments):
    assert main(["flows", "--dataset", "folder", "--rooot", "x"]) == 2
    assert main(["pretrain", "store=a", "out=b", "optim.lrr=1"]) == 2


def test_commands_are_found_in_all_kinds_of_blocks():
    assert "mme verify STORE" in FOUND and "make test" in FOUND  # with a comment
    assert any(command.startswith("torchrun") for command in FOUND)
    assert any("--demo-videos 300" in c and "spec.long_side=112" in c for c in FOUND)  # continued
    assert "tiny.yaml" in FOUND.values()
    assert len(MME) > 50


def test_options_of_benchmarks_exist():
    for command in FOUND:
        if match := re.match(r"python (benchmarks/\S+\.py)(.*)", command):
            source = (ROOT / match[1]).read_text()
            options = re.findall(r"(?<!\S)(--[a-z-]+)", match[2])
            assert [option for option in options if f'"{option}"' not in source] == [], command


# What a reader types from own videos to features, in this order, as it stands in the pages.
WALK = [
    "mme estimate --dataset folder --root ROOT",
    "make flows DATASET=folder ROOT=path/to/videos STORE=data/stores/mine "
    'SPEC="spec.short_side=128 spec.long_side=160"',
    "mme flows --dataset folder --root ROOT --store data/stores/mine --workers 8 "
    "spec.short_side=128 spec.long_side=160",
    ".venv/bin/mme info data/stores/mine",
    ".venv/bin/mme report data/stores/mine -o report.html",
    ".venv/bin/mme visualize data/stores/mine --layer tracks -o look.mp4",
    "mme verify STORE",
    "mme repair STORE [--root DIR]",
    ".venv/bin/mme pretrain --config pretrain/small.yaml store=data/stores/mine out=runs/mine",
    ".venv/bin/mme features init=runs/mine store=data/stores/mine out=features.npz",
    ".venv/bin/mme report features.npz -o neighbours.html",
    "mme features init=runs/k400 data.dataset=folder data.root=DIR out=features.zarr view.clips=5",
    "mme export runs/k400 --to encoder -o out/encoder",
    "mme export runs/k400 --to encoder -o encoder.safetensors",
    "mme convert checkpoint.pth -o weights.safetensors [--frames 16 --image-size 224]",
    "mme export runs/ucf101-finetune --to videomae-hf -o out/hf",
    "mme finetune init=runs/mine data.dataset=csv data.root=train.csv data.val_root=val.csv "
    "out=runs/tuned",
    "mme predict VIDEO.mp4 --weights runs/ucf101-finetune -o prediction.png",
]
TINY = ["model.size=tiny", "model.depth=1", "model.frames=4", "model.image_size=32"]
TINY += ["decoder.width=48", "decoder.heads=3", "target.length=4"]
TUNING = ["data.workers=0", "data.batch_size=4", "data.stride=1", "optim.epochs=1"]
TUNING += ["eval.clips=1", "eval.crops=1"]
SMALL = {
    "flows": ["spec.short_side=32", "spec.long_side=48", "spec.stride=1"],
    "estimate": ["spec.short_side=32", "spec.long_side=48", "spec.stride=1"],
    "pretrain": ["device=cpu", *TINY, "data.batch_size=2", "data.workers=0", "optim.steps=1"],
    "features": ["device=cpu", "data.workers=0"],
    "finetune": ["device=cpu", *TINY[:4], *TUNING],
}


@pytest.fixture
def reader(labelled_set, tmp_path, monkeypatch):
    """The folder of a reader who has the videos and a classifier where the pages say."""
    import torch

    from mme_core.model import build_classifier
    from mme_core.weights.save import save_weights

    (tmp_path / "path" / "to").mkdir(parents=True)
    for name in ("ROOT", "DIR", "path/to/videos"):
        (tmp_path / name).symlink_to(labelled_set / "val")
    first = next((labelled_set / "val").rglob("*.mp4"))
    shutil.copy(first, tmp_path / "VIDEO.mp4")
    for split in ("train", "val"):
        paths = sorted((labelled_set / split).rglob("*.mp4"))
        classes = sorted({path.parent.name for path in paths})
        lines = [f"{path} {classes.index(path.parent.name)}\n" for path in paths]
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "k400").symlink_to(tmp_path / "runs" / "mine")
    (tmp_path / "STORE").symlink_to(tmp_path / "data" / "stores" / "mine")
    model = build_classifier("tiny", 2, depth=1, frames=4, image_size=32)
    clip = {"frames": 4, "image_size": 32, "class_names": ["a", "b"]}
    tuned = tmp_path / "runs" / "ucf101-finetune" / "model.safetensors"
    save_weights(tuned, model.state_dict(), **clip)
    torch.save({"model": model.state_dict()}, tmp_path / "checkpoint.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_from_own_videos_to_features_run(reader, capfd):
    for command in WALK:
        assert command in FOUND, command
        words = words_of(command)
        if words[0] == "convert":
            words = [*words[: words.index("--frames")], "--frames", "4", "--image-size", "32"]
        if words[0] == "flows":
            large = {"--workers", "8", "spec.short_side=128", "spec.long_side=160"}
            words = [*[word for word in words if word not in large], "--serial"]
        status = main([*words, *SMALL.get(words[0], [])])
        assert status == 0, (command, capfd.readouterr().err)
    for name in (
        "look.mp4",
        "report.html",
        "features.npz",
        "neighbours.html",
        "features.zarr",
        "out/encoder/README.md",
        "out/hf/README.md",
    ):
        assert (reader / name).exists()


def test_videos_packed_as_the_page_says_are_read(labelled_set, tmp_path, monkeypatch):
    from mme_core.datasets import hdf5

    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").symlink_to(labelled_set / "val")
    page = (ROOT / "docs" / "datasets" / "hdf5.md").read_text()
    exec(re.search(r"^```python\n(.*?)^```", page, re.M | re.S)[1], {})
    packed = hdf5.load(str(tmp_path), "train")
    assert len(packed.items) == len(list((labelled_set / "val").rglob("*.mp4")))
    assert len(packed.class_names) == 2


def test_every_command_of_mme_is_shown_in_a_page():
    shown = {words_of(command)[0] for command in MME}
    assert set(COMMANDS) <= shown
