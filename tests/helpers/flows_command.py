"""Runs `mme flows` without Ray, and reads what it leaves."""

import json

from small_files import SPEC

from mme_core.cli import main as mme


def flows(root, store, *more, dataset="folder", spec=SPEC):
    arguments = ["--dataset", dataset, "--root", str(root), "--store", str(store), "--serial"]
    return mme(["flows", *arguments, *spec, *map(str, more)])


def ledger(store):
    rows = [json.loads(line) for line in (store / "ledger.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["reason"] or row["status"] for row in rows}


def tree(folder):
    """Returns the bytes and time of every file, except the table's cache."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "index.npz"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
