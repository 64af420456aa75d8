"""Launch files: they parse, name only what exists, and stop, save and queue again on a signal.

Slurm's and Ray's commands are stand-ins here, scripts that write down how they were called.
"""

import configparser
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from waiting import wait_for

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
SCRIPTS = sorted([*CLUSTER.glob("*.sbatch"), *CLUSTER.glob("*.sh")])
IMAGES = {"Dockerfile.cpu": "preprocess", "Dockerfile.gpu": "train"}
FILES = sorted(path for path in CLUSTER.iterdir() if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_opens_with_how_to_use_it(path):
    lines = path.read_text().splitlines()
    head = [line for line in lines if not line.startswith("#!")][:5]
    assert all(line.startswith("#") for line in head)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_passes_bash_and_shellcheck(path):
    subprocess.run(["bash", "-n", path], check=True)
    shellcheck = shutil.which("shellcheck") or Path(sys.executable).with_name("shellcheck")
    if not Path(shellcheck).exists():
        pytest.skip("shellcheck is not installed")
    result = subprocess.run([shellcheck, "-s", "bash", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.sbatch")), ids=lambda path: path.name)
def test_slurm_reads_all_directives(path):
    """Slurm stops reading #SBATCH lines at the first command."""
    lines = path.read_text().splitlines()
    command = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[command:])
    options = {line.split("--")[1].split("=")[0] for line in lines if line.startswith("#SBATCH")}
    assert {"nodes", "time", "signal", "requeue", "open-mode", "output"} <= options


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("ray-*.yaml")), ids=lambda path: path.name)
def test_ray_accepts_its_cluster_file(path):
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = path.read_text()
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    # with a token asked for, every node has one and the driver is told to show it
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert [name for name in config["file_mounts"] if name.endswith("/.ray/auth_token")]
    assert re.search(r"ray exec [^\n]*RAY_AUTH_MODE=token", text)


def test_rayjob_has_the_fields_that_kuberay_requires():
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9-]+", job["metadata"]["name"])
    assert job["spec"]["shutdownAfterJobFinishes"]
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for group in groups[1:]:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    templates = [group["template"] for group in groups] + [job["spec"]["submitterPodTemplate"]]
    images = {box["image"] for each in templates for box in each["spec"]["containers"]}
    assert len(images) == 1  # Ray demands the same versions everywhere


@pytest.mark.parametrize("name", IMAGES)
def test_image_copies_what_exists_and_installs_its_half(name):
    text = (CLUSTER / name).read_text()
    sources = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY")]
    assert all((ROOT / source).exists() for line in sources for source in line)
    assert re.findall(r"'\.\[(\w+)\]'", text) == [IMAGES[name]]
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    other = {"Dockerfile.cpu": "torch", "Dockerfile.gpu": "ray"}[name]
    needed = setup["options"]["install_requires"] + setup["options.extras_require"][IMAGES[name]]
    assert other not in [re.split(r"[>=\[]", line)[0] for line in needed.split()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_named_recipes_exist(path):
    for recipe in re.findall(r"train/configs/[\w/]+\.yaml", path.read_text()):
        assert (ROOT / recipe).is_file()


def test_options_of_flows_exist(capsys):
    from mme_core.cli import main

    with pytest.raises(SystemExit):
        main(["flows", "--help"])
    known = capsys.readouterr().out
    for path in FILES:
        text = path.read_text().replace("\\\n#", " ").replace("\\\n", " ")
        for call in re.findall(r"mme\"? flows ((?:--|[^\n])*)", text):
            for option in re.findall(r"(?<![\w-])--[a-z-]+", call):
                assert option in known, f"{path.name}: mme flows {option}"


def would_run(*words):
    """The last command of `make -n`, as the words that the shell makes of it."""
    make = ["make", "-n", "--no-print-directory", *words]  # the tests may run under make themselves
    dry = subprocess.run(make, cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr
    return shlex.split(dry.stdout.replace("\\\n", " ").splitlines()[-1])


def test_make_keeps_spaces_in_names():
    words = would_run("flows", "DATASET=csv", "LIST=/my data/train list.csv", "STORE=a b")
    assert words[words.index("--root") + 1] == "/my data"
    assert words[words.index("--list") + 1] == "/my data/train list.csv"
    assert words[words.index("--store") + 1] == "a b"
    words = would_run("finetune", "DATASET=k400", "ROOT=/my data", "OUT=r 1", "INIT=r 0")
    assert {"data.root=/my data", "out=r 1", "init=r 0"} <= set(words)


@pytest.mark.parametrize("target", ["pretrain", "finetune", "probe"])
@pytest.mark.parametrize("dataset", ["demo", "k400", "k600", "k700", "ssv2", "ucf101", "hmdb51"])
def test_make_knows_the_recipe_of_a_data_set(target, dataset):
    words = would_run(target, f"DATASET={dataset}", "STORE=.")
    assert (ROOT / "train/configs" / words[words.index("--config") + 1]).is_file()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder of stand-ins first on PATH, and the variables that Slurm would set."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()

    def command(name, body):
        path = bin_folder / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "{tmp_path}/calls"\n{body}\n')
        path.chmod(0o755)

    # srun runs what follows its own options
    command("srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
    command("scontrol", 'if [[ $1 == show ]]; then printf "node-a\\nnode-b\\n"; fi')
    command("scancel", f'kill -USR1 "$(cat {tmp_path}/node.pid)"')
    command("ray", "[[ $1 == status ]] || exec sleep 60 < /dev/null")
    variables = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "BIN": str(bin_folder),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "32",
        "SLURM_GPUS_ON_NODE": "8",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    return command


def start(*words, **variables):
    return subprocess.Popen(
        ["bash", *map(str, words)],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """Exit status, and an end to what the stand-ins left running."""
    try:
        return process.wait(120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def calls(tmp_path, name):
    lines = (tmp_path / "calls").read_text().splitlines()
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


FLOWS = {"ROOT": "/videos", "STORE": "/store", "OPTS": "spec.stride=2 --limit 3", "SPLIT": "train"}


def test_flows_starts_head_and_workers_and_runs_the_driver(slurm, tmp_path):
    both = f"[ $(grep -c '^ray start' {tmp_path}/calls) = 2 ]"  # on a busy machine one is late
    slurm("mme", f"until {both}; do sleep 0.05; done")
    assert finish(start(CLUSTER / "flows.sbatch", **FLOWS)) == 0
    head, worker = (call for call in calls(tmp_path, "ray") if call.startswith("start"))
    if "--head" not in head:
        head, worker = worker, head
    port = 20000 + 4711
    assert f"--head --port={port}" in head and "--num-cpus=32" in head
    assert f"--address=node-a:{port}" in worker
    assert all("--cpus-per-task=32" in call for call in calls(tmp_path, "srun"))
    (driver,) = calls(tmp_path, "mme")
    assert driver == (
        "flows --dataset folder --root /videos --store /store --split train "
        f"--address node-a:{port} spec.stride=2 --limit 3"
    )
    assert not [call for call in calls(tmp_path, "scontrol") if call.startswith("requeue")]


@pytest.mark.parametrize(
    "on_signal, status, queued", [("exit 143", 143, True), ("exit 0", 0, False)]
)
def test_flows_queues_again_when_it_is_stopped(slurm, tmp_path, on_signal, status, queued):
    slurm("mme", f"trap '{on_signal}' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done")
    process = start(CLUSTER / "flows.sbatch", **FLOWS)
    wait_for((tmp_path / "up").exists)
    process.terminate()
    assert finish(process) == status
    assert ("requeue 4711" in calls(tmp_path, "scontrol")) == queued


def test_flows_that_fails_is_not_queued_again(slurm, tmp_path):
    slurm("mme", "exit 3")
    assert finish(start(CLUSTER / "flows.sbatch", **FLOWS)) == 3
    assert "requeue 4711" not in calls(tmp_path, "scontrol")


def test_flows_without_a_store_says_so():
    process = start(CLUSTER / "flows.sbatch", ROOT="/videos")
    assert process.wait(120) != 0 and "STORE=" in process.stderr.read()


# what torchrun does: a child that trains, and exit status 1 whatever the child's was
TORCHRUN = f"""
{sys.executable} - <<'PY' &
import pathlib, sys, time
sys.path.insert(0, "{ROOT}")
from train.engine.signals import StopRequest
with StopRequest() as stop:
    pathlib.Path("{{0}}/up").touch()
    for _ in range(2400):
        if stop:
            pathlib.Path("{{0}}/saved").touch()
            sys.exit(75)
        time.sleep(0.05)
PY
wait $! && exit 0 || exit 1
"""


@pytest.mark.parametrize("name", ["USR1", "TERM"])
def test_node_passes_the_warning_to_the_training_processes(slurm, tmp_path, name):
    slurm("torchrun", TORCHRUN.format(tmp_path))
    process = start(
        CLUSTER / "torchrun-node.sh", "pretrain", "a=b c", MASTER_ADDR="node-a", MASTER_PORT="29500"
    )
    wait_for((tmp_path / "up").exists)
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert finish(process) == 1 and (tmp_path / "saved").exists()
    (call,) = calls(tmp_path, "torchrun")
    assert "--nnodes=2 --nproc-per-node=8" in call
    assert "--rdzv-endpoint=node-a:29500 --no-python " in call and call.endswith(
        "/mme pretrain a=b c"
    )


def test_pretrain_saves_and_queues_again_before_the_limit(slurm, tmp_path):
    slurm("torchrun", TORCHRUN.format(tmp_path))
    slurm("srun", f'shift 3; echo $$ > {tmp_path}/node.pid; exec "$@"')
    process = start(CLUSTER / "pretrain.sbatch", "--config", "x.yaml", "out=runs/x")
    wait_for((tmp_path / "up").exists)
    process.send_signal(signal.SIGUSR1)
    assert finish(process) == 1 and (tmp_path / "saved").exists()
    assert calls(tmp_path, "scancel") == ["--signal=USR1 4711.0"]
    assert "requeue 4711" in calls(tmp_path, "scontrol")
    assert calls(tmp_path, "torchrun")[0].endswith("pretrain --config x.yaml out=runs/x")


@pytest.mark.parametrize("status", [0, 1])
def test_pretrain_that_ends_by_itself_is_not_queued_again(slurm, tmp_path, status):
    slurm("torchrun", f"exit {status}")
    assert finish(start(CLUSTER / "pretrain.sbatch", "out=runs/x")) == status
    assert "requeue 4711" not in calls(tmp_path, "scontrol")
