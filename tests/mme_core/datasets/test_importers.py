"""Kinetics, SSv2, UCF101 and HMDB51 in their official layouts, with the usual defects."""

import json
import os

import pytest

from mme_core.datasets import DATASETS, load_manifest
from mme_core.errors import UsageError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def write(root, name, *lines):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(manifest):
    names = (*manifest.class_names, None)
    return {item.id: names[item.label] for item in manifest.items}


@pytest.fixture
def kinetics(tmp_path):
    head = "label,youtube_id,time_start,time_end,split"
    write(
        tmp_path,
        "annotations/train.csv",
        head,
        "petting animal (not cat),--aBc_12345,3,13,train",
        '"testifying, in court",AAAAAAAAAAA,40,50,train',
        "zumba,BBBBBBBBBBB,0,10,train",
        "zumba,bbbbbbbbbbb,0,10,train",
        "zumba,GONE_______,7,17,train",
        "zumba,BBBBBBBBBBB,0,10,train",
        "abseiling,AAAAAAAAAAA,40,50,train",
    )
    write(tmp_path, "annotations/val.csv", head, "yoga,VVVVVVVVVVV,1,11,val")
    touch(
        tmp_path,
        "train/--aBc_12345_000003_000013.mp4",
        "train/AAAAAAAAAAA_000040_000050.mkv",
        "train/BBBBBBBBBBB.webm",
        "train/bbbbbbbbbbb_000000_000010.mp4",
        "train/not_listed_000000_000010.mp4",
        "replacement/fixed/bbbbbbbbbbb_000000_000010.mp4",
        "val/yoga/VVVVVVVVVVV_000001_000011.mp4",
    )
    return tmp_path


@pytest.mark.parametrize("dataset", ["k400", "k600", "k700"])
def test_kinetics(kinetics, dataset):
    train = load_manifest(dataset, kinetics, "train")
    assert train.dataset == dataset
    assert table(train) == {
        "train/--aBc_12345_000003_000013.mp4": "petting animal (not cat)",
        "train/AAAAAAAAAAA_000040_000050.mkv": "testifying, in court",
        "train/BBBBBBBBBBB.webm": "zumba",
        "replacement/fixed/bbbbbbbbbbb_000000_000010.mp4": "zumba",
    }
    assert train.notes == (
        "missing videos of the list: 1 (GONE_______ 7–17 s)",
        "lines that repeat a video, of which the first counts: 1 (BBBBBBBBBBB 0–10 s)",
        "lines that repeat a video with another label, of which the first counts: 1 "
        "(AAAAAAAAAAA 40–50 s)",
    )
    val = load_manifest(dataset, kinetics, "val")
    assert table(val) == {"val/yoga/VVVVVVVVVVV_000001_000011.mp4": "yoga"}
    assert val.class_names == train.class_names


def test_kinetics_of_class_folders(tmp_path):
    touch(tmp_path, "train/zumba/1.mp4", "train/air_drumming/2.mp4", "val/zumba/3.mp4")
    manifest = load_manifest("k400", tmp_path)
    assert table(manifest) == {
        "train/zumba/1.mp4": "zumba",
        "train/air_drumming/2.mp4": "air_drumming",
    }
    assert (manifest.dataset, manifest.split) == ("k400", "train")
    assert load_manifest("k400", tmp_path, "val").class_names == manifest.class_names


def test_kinetics_with_nothing_of_use(tmp_path):
    with pytest.raises(
        UsageError, match=r"no list of k400 in .*: looked for annotations/train\.csv"
    ):
        load_manifest("k400", tmp_path, "train")
    write(tmp_path, "train.csv", "a.mp4 0")
    with pytest.raises(UsageError, match=r"train\.csv:1: no column 'youtube_id'; .* dataset=csv"):
        load_manifest("k400", tmp_path, "train")
    for row in (
        "zumba,AAAAAAAAAAA,x,10",
        "zumba,AAAAAAAAAAA,3,",
        "zumba,AAAAAAAAAAA,1.2.3,4",
        "a,,1,2",
    ):
        write(tmp_path, "train.csv", "label,youtube_id,time_start,time_end", row)
        with pytest.raises(UsageError, match=r"train\.csv:2: needs a youtube_id and times"):
            load_manifest("k400", tmp_path, "train")
    write(tmp_path, "train.csv", "label,youtube_id,time_start,time_end", "zumba,AAAAAAAAAAA,0,10")
    with pytest.raises(UsageError, match="no video of the list is below"):
        load_manifest("k400", tmp_path, "train")
    with pytest.raises(UsageError, match="k400 has no split 'dev'"):
        load_manifest("k400", tmp_path, "dev")


@pytest.mark.parametrize("names", ["labels/{}.json", "labels/something-something-v2-{}.json"])
def test_ssv2(tmp_path, names):
    labels = {"Holding something": "0", "Pushing something (not moving)": "1", "Poking": "2"}
    train = [
        {"id": "78", "label": "holding a pot", "template": "Holding [something]"},
        {"id": "79", "template": "Pushing [something] (not moving)"},
        {"id": "80", "template": "Juggling [something]"},
        {"id": "81", "template": "Poking"},
        {"id": "81", "template": "Poking"},
    ]
    for name, content in (("labels", labels), ("train", train), ("test", [{"id": "90"}])):
        write(tmp_path, names.format(name), json.dumps(content))
    clips = "20bn-something-something-v2"
    touch(tmp_path, f"{clips}/78.webm", f"{clips}/79.mp4", f"{clips}/80.webm", f"{clips}/90.webm")
    manifest = load_manifest("ssv2", tmp_path, "train")
    assert table(manifest) == {
        f"{clips}/78.webm": "Holding something",
        f"{clips}/79.mp4": "Pushing something (not moving)",
        f"{clips}/80.webm": None,
    }
    assert manifest.class_names == tuple(labels)
    assert manifest.notes == (
        "videos of unknown class, kept without a label: 1 (80: 'Juggling something')",
        "missing videos of the list: 1 (81)",
    )
    assert table(load_manifest("ssv2", tmp_path, "test")) == {f"{clips}/90.webm": None}
    with pytest.raises(
        UsageError, match=r"no validation of ssv2 in .*: looked for validation\.json"
    ):
        load_manifest("ssv2", tmp_path, "val")
    write(tmp_path, names.format("train"), json.dumps([{"id": "78", "template": ["Poking"]}]))
    with pytest.raises(UsageError, match=r"train\.json: entry 0 has a 'template' that is not text"):
        load_manifest("ssv2", tmp_path, "train")
    write(tmp_path, names.format("train"), "{")
    with pytest.raises(UsageError, match="is not valid JSON"):
        load_manifest("ssv2", tmp_path, "train")
    write(tmp_path, names.format("train"), "{}")
    with pytest.raises(UsageError, match="does not hold a list"):
        load_manifest("ssv2", tmp_path, "train")
    write(tmp_path, names.format("labels"), json.dumps({"Poking": "two"}))
    with pytest.raises(UsageError, match=r"labels\.json: 'Poking' has 'two' in place of a class"):
        load_manifest("ssv2", tmp_path, "train")


def test_ucf101(tmp_path):
    lists = "ucfTrainTestlist"
    write(tmp_path, f"{lists}/classInd.txt", "1 ApplyEyeMakeup", "2 HandstandPushups", "3 YoYo")
    write(
        tmp_path,
        f"{lists}/trainlist01.txt",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1",
        "HandstandPushups/v_HandStandPushups_g08_c01.avi 2",
        "YoYo/v_YoYo_g25_c05.avi 3",
    )
    write(tmp_path, f"{lists}/testlist02.txt", "YoYo/v_YoYo_g01_c01.avi", "")
    touch(
        tmp_path,
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
        "UCF-101/HandstandPushups/v_HandstandPushups_g08_c01.mp4",
        "UCF-101/YoYo/v_YoYo_g01_c01.avi",
    )
    train = load_manifest("ucf101", tmp_path, "train")
    assert table(train) == {
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": "ApplyEyeMakeup",
        "UCF-101/HandstandPushups/v_HandstandPushups_g08_c01.mp4": "HandstandPushups",
    }
    assert train.class_names == ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
    assert train.notes == ("missing videos of the list: 1 (YoYo/v_YoYo_g25_c05.avi)",)
    test = load_manifest("ucf101", tmp_path, "test02")
    assert table(test) == {"UCF-101/YoYo/v_YoYo_g01_c01.avi": "YoYo"}
    with pytest.raises(UsageError, match=r"no list of ucf101 in .*trainlist03\.txt"):
        load_manifest("ucf101", tmp_path, "train03")
    with pytest.raises(UsageError, match="no split 'train4'"):
        load_manifest("ucf101", tmp_path, "train4")
    write(tmp_path, f"{lists}/classInd.txt", "1 ApplyEyeMakeup", "3 YoYo")
    with pytest.raises(UsageError, match=r"classInd\.txt:2: '3 YoYo' is not `2 CLASS`"):
        load_manifest("ucf101", tmp_path)


def test_hmdb51(tmp_path):
    lists = "testTrainMulti_7030_splits"
    odd = "#122_Cleaning_Up_(The_Beach)_brush_hair_f_nm_np1_fr_med_0.avi"
    dotted = "a_b.c_wave_u_nm_np1_ba_goo_0.avi"
    write(
        tmp_path, f"{lists}/brush_hair_test_split1.txt", f"{odd} 1 ", "gone.avi 1", "unused.avi 0"
    )
    write(tmp_path, f"{lists}/wave_test_split1.txt", f"{dotted} 2 ", "other.avi 1 ")
    touch(tmp_path, f"brush_hair/{odd}", "brush_hair/unused.avi")
    touch(tmp_path, f"wave/{dotted}", "wave/other.avi")
    train = load_manifest("hmdb51", tmp_path)
    assert table(train) == {f"brush_hair/{odd}": "brush_hair", "wave/other.avi": "wave"}
    assert train.notes == ("missing videos of the list: 1 (brush_hair/gone.avi)",)
    assert table(load_manifest("hmdb51", tmp_path, "test1")) == {f"wave/{dotted}": "wave"}
    with pytest.raises(UsageError, match=r"no CLASS_test_split2\.txt in"):
        load_manifest("hmdb51", tmp_path, "train2")
    write(tmp_path, f"{lists}/wave_test_split1.txt", "other.avi one")
    with pytest.raises(UsageError, match=r"wave_test_split1\.txt:1: 'other\.avi one' is not"):
        load_manifest("hmdb51", tmp_path)


def test_usual_strides():
    assert {name: source.stride for name, source in DATASETS.items() if source.stride != 4} == {
        "ssv2": 3
    }


@pytest.mark.parametrize("made_by_windows", [True, False])
def test_windows_lists_and_non_utf8_names(tmp_path, made_by_windows):
    """A byte-order mark, CRLF, blank lines and bytes that are not UTF-8 change nothing."""
    odd = os.fsdecode(b"caf\xe9")
    head = "label,youtube_id,time_start,time_end"
    lists = {
        "k400/train.csv": f"{head}\n{odd},AAAAAAAAAAA,1,11\nzumba,BBBBBBBBBBB,1,11\n\n\n",
        "ssv2/labels.json": '{"Poking": "0"}',
        "ssv2/train.json": '[{"id": 7, "template": "Poking"}]',
        "ucf101/classInd.txt": "1 YoYo\n2 Punch\n\n",
        "ucf101/trainlist01.txt": f"YoYo/v_{odd}.avi 1\n\nPunch/v_1.avi 2\n\n",
        "hmdb51/wave_test_split1.txt": f"{odd}_wave.avi 1 \n\na (1) & b_wave.avi 1 \n",
    }
    for name, text in lists.items():
        if made_by_windows:
            text = "\ufeff" + text.replace("\n", "\r\n")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    touch(tmp_path, "k400/train/AAAAAAAAAAA_000001_000011.mp4", "k400/train/BBBBBBBBBBB.mp4")
    touch(tmp_path, "ssv2/7.webm", f"ucf101/YoYo/v_{odd}.avi", "ucf101/Punch/v_1.avi")
    touch(tmp_path, f"hmdb51/wave/{odd}_wave.avi", "hmdb51/wave/a (1) & b_wave.avi")
    classes = {"k400": [odd, "zumba"], "ssv2": ["Poking"], "ucf101": ["Punch", "YoYo"]}
    for dataset in ("k400", "ssv2", "ucf101", "hmdb51"):
        manifest = load_manifest(dataset, tmp_path / dataset)
        wanted = classes.get(dataset, ["wave", "wave"])
        assert (sorted(table(manifest).values()), manifest.notes) == (wanted, ())


@pytest.mark.parametrize(("encoding", "separator"), [("utf-16", ","), ("utf-8", ";")])
def test_tables_that_a_spreadsheet_saved(tmp_path, encoding, separator):
    touch(tmp_path, "train/AAAAAAAAAAA_000001_000011.mp4", "a/1.gif")
    rows = {
        "train.csv": ["label,youtube_id,time_start,time_end", "zumba,AAAAAAAAAAA,1,11"],
        "split.csv": ["path,class,split", "a/1.gif,a,train"],
    }
    for name, lines in rows.items():
        text = "\r\n".join(lines).replace(",", separator)
        (tmp_path / name).write_bytes(text.encode(encoding))
    assert list(table(load_manifest("k400", tmp_path, "train")).values()) == ["zumba"]
    assert table(load_manifest("folder", tmp_path, "train")) == {"a/1.gif": "a"}


def test_official_lists_find_folders_of_frames(tmp_path):
    ucf, hmdb, kinetics, ssv2 = (tmp_path / name for name in ("ucf", "hmdb", "k400", "ssv2"))
    write(ucf, "classInd.txt", "1 Yo")
    write(ucf, "trainlist01.txt", "Yo/v_Yo_g01_c01.avi 1")
    write(hmdb, "yo_test_split1.txt", "a.b_0.avi 1")
    write(kinetics, "train.csv", "label,youtube_id,time_start,time_end", "yo,AAAAAAAAAAA,1,11")
    write(ssv2, "labels.json", '{"Yo": "0"}')
    write(ssv2, "train.json", '[{"id": "7", "template": "Yo"}]')
    folders = {
        "ucf101": ucf / "frames/Yo/v_Yo_g01_c01",
        "hmdb51": hmdb / "frames/yo/a.b_0",
        "k400": kinetics / "train/AAAAAAAAAAA_000001_000011",
        "ssv2": ssv2 / "20bn/7",
    }
    for dataset, folder in folders.items():
        touch(folder, "00001.jpg", "00002.jpg")
        root = tmp_path / folder.relative_to(tmp_path).parts[0]
        (item,) = load_manifest(dataset, root).items
        assert (item.path, item.label) == (str(folder), 0)
