"""`mme pretrain`: masked motion encoding on the targets of a store.

    mme pretrain --config pretrain/demo.yaml store=out/train val_store=out/val out=runs/pretrain
    torchrun --nproc-per-node=8 --no-python mme pretrain --config pretrain/k400.yaml store=… out=…

Later --config files and key=value words override earlier ones. OUT then holds config.yaml
(resolved), metrics.jsonl (a row for each logged step), checkpoints/ and pictures/. The same command
resumes a run that was stopped or killed. SIGTERM, SIGUSR1, SIGHUP and Ctrl-C save and stop with
exit status 75; a second Ctrl-C ends at once with 130.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from mme_core.clips.dataset import ClipDataset
from mme_core.errors import MMEError, listed
from mme_core.flops import pretraining_flops
from mme_core.report.words import counted
from mme_core.spec import TargetSpec
from mme_core.store import TargetStore
from mme_core.store.layout import shard_name
from mme_core.store.union import parts
from train.data.loader import make_clip_loader
from train.data.mix import Mix
from train.data.resident import DrawnClips, make_resident
from train.data.sampler import ClipSampler, videos_per_batch
from train.data.stores import check_root, check_spec, open_training
from train.engine import folder
from train.engine.distributed import Ranks, autocast_dtype, check_residual, connected
from train.engine.loop import Loop
from train.engine.runlog import RunLog
from train.engine.signals import STOPPED
from train.engine.task import Task
from train.engine.unread import Unread
from train.objective.reconstruction import Objective, PretrainStep, build_model
from train.recipes import loading
from train.recipes.pretraining import PretrainConfig, check_speeds, check_stores
from train.recipes.weights import RANDOM, fill
from train.scoring.heldout import HeldOut, clip_dataset


def main(argv: list[str]) -> int:
    config = loading.load(PretrainConfig, argv, "mme pretrain", __doc__)
    with connected(config.device) as ranks:
        return Pretraining(config, ranks).run()


class Pretraining:
    """One run: its store, objective and model."""

    def __init__(self, config: PretrainConfig, ranks: Ranks) -> None:
        folder.check_folder(config)
        check_stores(config)
        check_speeds(config)
        self.config, self.ranks = config, ranks
        data = config.data
        self.store = open_training(config.store, data.stage, data.stage_gb)
        check_spec(self.store, config)
        check_root(self.store, data.root, data.frames)
        clips = clip_dataset(self.store, config, training=True)
        self.short = clips.short_videos
        sampler = self._sampler(clips)
        resident, self.where = make_resident(data.resident, clips, ranks.device)
        self.loader = make_clip_loader(
            DrawnClips(clips, resident.unreadable) if resident else clips,
            sampler,
            data.workers,
            budget=data.bad_budget,
        )
        self.unread = Unread(data.bad_budget, self._mend)
        dtype = autocast_dtype(config.precision, ranks.device)
        check_residual(config.model.residual, dtype)
        self.objective = Objective.of(config, self.store.spec, ranks.device, dtype)
        self.contents = list(self.objective.weights)
        held_out = None
        if config.val_store:
            held_out = HeldOut(config, config.val_store, self.store, self.objective, ranks)
        self._build()
        self.task = Task(
            model=self.model,
            step=PretrainStep(self.model, self.objective),
            batches=self.unread.watch(self.loader, ranks),
            sampler=sampler,
            video_ids=self.store.videos["id"],
            lr_batch=data.batch_size * ranks.world * config.optim.accumulate,  # clips
            dtype=dtype,
            state={
                "config": loading.to_dict(config),
                "spec": self.store.spec.to_dict(),
                "spec_hashes": [store.spec.hash for store in parts(self.store)],
            },
            check=self._check,
            evaluate=partial(self._evaluate, held_out) if held_out else None,
            unread=self.unread,
            prepare=resident.sample if resident else None,
            ready=self.loader.ready,
            flops=3 * pretraining_flops(self.model, self.objective.hidden),
        )

    def _sampler(self, clips: ClipDataset) -> ClipSampler:
        data, sizes = self.config.data, [len(store.videos) for store in parts(self.store)]
        return ClipSampler(
            len(clips),
            videos_per_batch(data.batch_size, data.crops),
            rank=self.ranks.rank,
            world=self.ranks.world,
            accumulate=self.config.optim.accumulate,
            seed=self.config.seed,
            shards=clips.shards if data.shard_shuffle else None,
            mix=Mix(sizes, data.mix) if data.mix else None,
        )

    def _build(self) -> None:
        """The model: equal in every process at first; what each draws afterwards is its own."""
        seed = self.config.seed
        torch.manual_seed(seed)
        self.model = build_model(self.config, self.objective.sizes).to(self.ranks.device)
        self.loaded = fill(self.model, self.config.init or RANDOM)
        torch.manual_seed(seed + self.ranks.rank)

    def run(self) -> int:
        """Trains to the end, or to a signal; returns the exit status."""
        loop = Loop(self.config, self.ranks, self.task)
        with loop.begin() as log:
            self._introduce(log, loop.done)
            if loop.train():
                return STOPPED
            log.say(f"done: {self.config.out}")
        return 0

    def _mend(self, videos: Collection[int]) -> str:
        """What makes videos that cannot be read whole again."""
        text = "; ".join(_repair(*found) for found in self._by_store(videos))
        if self.config.data.frames == "store":
            return text
        root = self.config.data.root
        where = f"in data.root={root}" if root else "where the store names them"
        return f"put back the video files {where}, or {text}"

    def _by_store(self, videos: Collection[int]) -> Iterator[tuple[TargetStore, list[int]]]:
        """Each store that holds some of the videos, and the numbers of their shards there."""
        shards: dict[str, set[int]] = {}
        for video in videos:
            store, row = self.store.locate(video)
            shards.setdefault(store.url, set()).add(int(store.videos["shard"][row]))
        for store in parts(self.store):
            if store.url in shards:
                yield store, sorted(shards[store.url])

    def _evaluate(self, held_out: HeldOut, step: int, log: RunLog) -> tuple[dict[str, Any], str]:
        row = held_out(self.model, step, log)
        if "val_loss" not in row:
            return row, "no clip can be read"
        parts = [
            f"{name} {row[f'val_{name}']:.4f}, best constant {row[f'constant_{name}']:.4f}"
            for name in self.contents
        ]
        if "knn" in row:
            parts.append(f"kNN accuracy {row['knn']:.1%}")
        return row, "; ".join(parts)

    def _introduce(self, log: RunLog, done: int) -> None:
        data, model = self.config.data, self.config.model
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        weights = f"weights of step {done}" if done else self.loaded
        log.say(
            f"{self.store.url}: {counted(len(self.store.videos), 'video')}; model {model.size}, "
            f"{parameters:.1f} M parameters, {weights}; on {self.ranks.world} × "
            f"{self.ranks.device.type}, {str(self.task.dtype).removeprefix('torch.')}"
        )
        log.say(self.where)
        if self.short == len(self.store.videos):
            log.warn(
                f"every video of {self.store.url} is shorter than a clip of model.frames="
                f"{model.frames}: clips end in repeated frames, which have no target; use fewer "
                "frames, or make the store with a smaller spec.stride"
            )
        log.say(
            f"effective batch {self.task.lr_batch} clips = data.batch_size {data.batch_size} × "
            f"processes {self.ranks.world} × optim.accumulate {self.config.optim.accumulate}"
        )

    def _check(self, state: Mapping[str, Any], source: str) -> None:
        """Raises MMEError where a checkpoint was trained on a store of another specification."""
        # Checkpoints of older versions know one store alone.
        theirs = state.get("spec_hashes") or [state["spec_hash"]]
        mine = [store.spec.hash for store in parts(self.store)]
        if theirs[0] != mine[0]:
            before = TargetSpec.from_dict(state["spec"])
            found = self.store.spec.differences(before, f"in {self.store.url}", "in its store")
            raise MMEError(
                f"{source} was trained on a store of another specification: {'; '.join(found)}"
            )
        if theirs != mine:
            raise MMEError(f"{source} was trained on stores of other specifications than {mine}")


def _repair(store: TargetStore, shards: list[int]) -> str:
    """The command that mends these shards."""
    names = listed([shard_name(number) for number in shards])
    return f"run `mme repair {store.url}`, which mends {names}"
