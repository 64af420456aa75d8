"""Reads any known checkpoint, and loads it into a model, also of another resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor, nn

from mme_core.errors import UsageError, listed
from mme_core.model import Classifier, build_classifier
from mme_core.spec import TUBELET
from mme_core.tokens import interpolate_positions, sinusoid_table
from mme_core.transformer import SIZES, Encoder
from mme_core.weights import names
from mme_core.weights.files import find_file, read_file

# beginnings of names that tell files which are not read
_FOREIGN = {
    "pos_embed_spatial": "a checkpoint of MAE-ST (learned positions, a class token)",
    "predictor.": "a checkpoint of V-JEPA",
}
_LARGER = {1280: "ViT-H", 1408: "ViT-g of VideoMAE V2"}


@dataclass(frozen=True)
class Weights:
    """Weights under the names of `mme_core.model`, and what is known of their origin.

    tensors              encoder.*, fc_norm.*, head.*, and decoders.* of our own pre-training
    frames, image_size   the clip they were made for, where positions are not in the file (official
                         checkpoints: 16 frames of 224 pixels)
    ignored              names in the file that no model of ours has
    class_names          of the head, where known
    recipe               the run's configuration, where one of our runs wrote the file, else {}
    progress             (steps done, all steps of the run) of a run's checkpoint, where known
    """

    path: str
    tensors: dict[str, Tensor]
    frames: int
    image_size: int
    ignored: list[str]
    class_names: list[str] | None
    recipe: dict[str, Any]
    progress: tuple[int, int] | None = None

    @property
    def patch(self) -> int:
        return self.tensors["encoder.patch_embed.proj.weight"].shape[-1]

    @property
    def depth(self) -> int:
        return _blocks(self.tensors)

    @property
    def size(self) -> str:
        """The name among SIZES; the depth may differ. Raises UsageError for an unknown width."""
        width = self.tensors["encoder.patch_embed.proj.weight"].shape[0]
        for name, (w, _, _) in SIZES.items():
            if w == width:
                return name
        known = ", ".join(f"{name} {w}" for name, (w, _, _) in SIZES.items())
        what = f" ({_LARGER[width]})" if width in _LARGER else ""
        raise UsageError(f"{self.path}: width {width}{what} is none of the model's sizes ({known})")

    @property
    def num_classes(self) -> int | None:
        head = self.tensors.get("head.weight")
        return None if head is None else len(head)

    @property
    def grid(self) -> tuple[int, int, int]:
        side = self.image_size // self.patch
        return self.frames // TUBELET, side, side


@dataclass(frozen=True)
class LoadReport:
    """The result of loading weights into a model.

    loaded        number of tensors loaded
    missing       names in the model that the file lacks
    unexpected    names in the file that the model lacks
    interpolated  whether the positions were interpolated
    """

    loaded: int
    missing: list[str]
    unexpected: list[str]
    interpolated: bool

    def __str__(self) -> str:
        text = f"{self.loaded} tensors"
        if self.interpolated:
            text += ", positions interpolated"
        if self.missing:
            text += f"; left at their initial values: {listed(_modules(self.missing))}"
        if self.unexpected:
            text += f"; in the file but not in the model: {listed(_modules(self.unexpected))}"
        return text


def read_weights(path: str | Path, frames: int = 16, image_size: int = 224) -> Weights:
    """Reads our files and runs' folders, VideoMAE's and MME's checkpoints, transformers' folders.

    frames and image_size tell what clip the weights are for where the file does not. Raises
    UsageError for files that are missing, unreadable, unsafe to load or hold no encoder.
    """
    path = Path(path)
    top, state, meta = read_file(find_file(path))
    tensors, ignored = _rename(state, path)
    recipe = meta.get("recipe") or {}
    config = top.get("config")
    if isinstance(config, Mapping) and isinstance(config.get("model"), Mapping):
        recipe = _with_stride(config, top)  # of our checkpoints; another program's looks otherwise
    made_for = {"frames": frames, "image_size": image_size, **recipe.get("model", {}), **meta}
    return Weights(
        path=str(path),
        tensors={name: tensor.float() for name, tensor in tensors.items()},
        frames=int(made_for["frames"]),
        image_size=int(made_for["image_size"]),
        ignored=ignored,
        class_names=meta.get("class_names") or top.get("class_names"),
        recipe=recipe,
        progress=_progress(top, recipe),
    )


def _with_stride(config: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a checkpoint. Its data.stride is that of the store if it says none."""
    data, spec = config.get("data"), top.get("spec")
    if isinstance(data, Mapping) and data.get("stride") is None and isinstance(spec, Mapping):
        return {**config, "data": {**data, "stride": spec["stride"]}}
    return dict(config)


def _progress(top: Mapping[str, Any], recipe: Mapping[str, Any]) -> tuple[int, int] | None:
    """Of older checkpoints, the recipe alone may say how many steps the run has."""
    done, steps = top.get("step"), top.get("steps") or recipe.get("optim", {}).get("steps")
    return (done, steps) if isinstance(done, int) and isinstance(steps, int) else None


def _rename(state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Our names, and the names without a place here. Raises UsageError for other models' files."""
    convert = names.from_hf if names.is_hf(state) else names.from_videomae
    for name, what in _FOREIGN.items():
        if any(theirs.startswith(name) for theirs in state):
            raise UsageError(f"{path}: {what}, which is not read")
    try:
        tensors, ignored = convert(state)
    except KeyError as error:
        raise UsageError(f"{path}: not a whole model, it lacks {error.args[0]}") from error
    embedding = tensors.get("encoder.patch_embed.proj.weight")
    if embedding is None:
        raise UsageError(
            f"{path}: no encoder in it (no patch embedding under any known name); its first names "
            f"are {listed(list(state))}"
        )
    if embedding.ndim != 5:
        raise UsageError(
            f"{path}: a model of images (its patch embedding is {list(embedding.shape)}), and the "
            "models here take clips: use weights that were trained on videos, such as VideoMAE's"
        )
    return tensors, ignored


def load_weights(model: nn.Module, weights: Weights, *, head: bool = True) -> LoadReport:
    """Loads weights into a model of `mme_core.model`.

    Positions are interpolated where the model's clip differs. Decoders are loaded only if all of
    them fit. `head` also loads the classification head, which must have the same number of classes.
    Raises UsageError for weights of another size, and where no weight of the encoder is found.
    """
    own = model.state_dict()
    tensors = {n: t for n, t in weights.tensors.items() if head or not n.startswith("head.")}
    tables = {
        n: t for n, t in own.items() if n.startswith("decoders.") and n.endswith(".pos_embed")
    }
    tensors |= {name: table for name, table in tables.items() if name in tensors}  # never learned
    decoders = {n: t for n, t in tensors.items() if n.startswith("decoders.")}
    unused = []
    if not _fits(decoders, own):
        unused = list(decoders)
        tensors = {n: t for n, t in tensors.items() if n not in decoders}
    interpolated = False
    if "encoder.pos_embed" in own:
        table = tensors.get("encoder.pos_embed")
        if table is None:
            n, h, w = weights.grid
            table = sinusoid_table(n * h * w, own["encoder.pos_embed"].shape[-1])
        assert isinstance(model.encoder, Encoder)  # every model with this name has one
        moved = interpolate_positions(table, weights.grid, model.encoder.grid, weights.path)
        interpolated = moved is not table
        tensors["encoder.pos_embed"] = moved
    shared = {name: tensor for name, tensor in tensors.items() if name in own}
    missing = [name for name in own if name not in shared and name not in tables]
    unexpected = [name for name in tensors if name not in own] + unused + weights.ignored
    if not any(n.startswith("encoder.") and n != "encoder.pos_embed" for n in shared):
        raise UsageError(
            f"{weights.path}: the encoder got nothing from it; its names begin with "
            f"{listed(unexpected)}, the model's with {listed(missing)}"
        )
    _check_shapes(shared, own, weights)
    _check_whole(missing, weights)
    model.load_state_dict(shared, strict=False)
    return LoadReport(len(shared), missing, unexpected, interpolated)


def build_from(weights: Weights) -> Classifier:
    """The classifier that a fine-tuned file holds. Raises UsageError where it has no head."""
    if weights.num_classes is None:
        raise UsageError(
            f"{weights.path} has no classification head: it is a pre-trained encoder, to be "
            "fine-tuned first"
        )
    model = build_classifier(weights.size, weights.num_classes, **clip_arguments(weights))
    report = load_weights(model, weights)
    if report.missing:
        raise UsageError(
            f"{weights.path}: not a whole classifier of this kind, it lacks "
            f"{listed(report.missing)}; fine-tune it first"
        )
    return model.eval()


class ClipArguments(TypedDict):
    """Arguments of the builders in `mme_core.model`."""

    frames: int
    image_size: int
    patch: int
    depth: int


def clip_arguments(weights: Weights) -> ClipArguments:
    """Returns the clip and depth of the model that the weights belong to."""
    return {
        "frames": weights.frames,
        "image_size": weights.image_size,
        "patch": weights.patch,
        "depth": weights.depth,
    }


def _fits(decoders: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether these are all of the model's decoders, of the same shapes."""
    shapes = {name: tensor.shape for name, tensor in own.items() if name.startswith("decoders.")}
    return {name: tensor.shape for name, tensor in decoders.items()} == shapes


def _check_shapes(
    shared: Mapping[str, Tensor], own: Mapping[str, Tensor], weights: Weights
) -> None:
    for name, tensor in shared.items():
        if tensor.shape == own[name].shape:
            continue
        if name.startswith("head."):
            raise UsageError(
                f"{weights.path}: its head has {len(tensor)} classes, the data {len(own[name])}"
            )
        raise UsageError(
            f"{weights.path}: weights of another size: {name} is {list(tensor.shape)} there and "
            f"{list(own[name].shape)} in the model; {_build_advice(weights)}"
        )
    if (blocks := _blocks(own)) != weights.depth:
        raise UsageError(
            f"{weights.path}: weights of another size: {weights.depth} blocks, the model {blocks}; "
            f"{_build_advice(weights)}"
        )


def _check_whole(missing: Sequence[str], weights: Weights) -> None:
    """Raises UsageError where the patch embedding or a block would keep random weights."""
    absent = [
        name
        for name in missing
        if name.startswith(("encoder.patch_embed.", "encoder.blocks."))
        and not name.endswith(".attn.qkv.bias")  # a model may have none; the initial one is 0
    ]
    if absent:
        raise UsageError(
            f"{weights.path}: not a whole encoder, it lacks {listed(absent)}; "
            "download or export the file again"
        )


def _build_advice(weights: Weights) -> str:
    return (
        f"build it with size={weights.size} depth={weights.depth} patch={weights.patch}; its clips "
        f"are {weights.frames} frames of {weights.image_size} pixels"
    )


def _blocks(state: Mapping[str, Tensor]) -> int:
    return len({n.split(".")[2] for n in state if n.startswith("encoder.blocks.")})


def _modules(names: list[str]) -> list[str]:
    """The modules that tensors belong to, such as `head`, `encoder.norm` and `decoders.joint`."""
    owners = [
        ".".join(name.split(".")[:2]) if name.startswith("decoders.") else name.rpartition(".")[0]
        for name in names
    ]
    return list(dict.fromkeys(owner or name for owner, name in zip(owners, names)))
