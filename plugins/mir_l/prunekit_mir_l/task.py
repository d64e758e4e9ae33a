"""The options of the MIR-L task: one network that removes noise, rain and haze, on embedded photographs or a folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn

from prunekit.data import epoch_steps
from prunekit.errors import RecipeError, nearest
from prunekit.imaging import ImageCall, image_call
from prunekit.network import Network, bind_network
from prunekit.recipe import Bound
from prunekit_mir_l.cache import image_cache
from prunekit_mir_l.codecs import CODECS, need
from prunekit_mir_l.dataset import AUGMENT, Crops
from prunekit_mir_l.degrade import centre_window
from prunekit_mir_l.embedded import embedded
from prunekit_mir_l.folders import MIN_TEST_SIDE, folders
from prunekit_mir_l.images import size_of
from prunekit_mir_l.items import DEFAULT_QUALITIES, EVEN, SIGMAS, TASKS, WEB_TASKS, Item, Qualities, evened
from prunekit_mir_l.metrics import Metric, chosen
from prunekit_mir_l.restoration import MirL

CHANNELS = {"rgb": 3, "grey": 1}


def mir_l(
    *,
    data: str = "embedded",
    network: Network = "promptir_tiny",
    color: str | None = None,
    tasks: Sequence[str] | None = None,
    sigmas: Sequence[int] = SIGMAS,
    qualities: Sequence[int] = DEFAULT_QUALITIES.test,
    train_qualities: Sequence[int] = DEFAULT_QUALITIES.train,
    repeats: Mapping[str, int] | str | None = None,
    patch: int = 64,
    batch: int = 8,
    steps: int | None = None,
    epochs: int | None = None,
    warmup: int = 0,
    lr: float = 2e-4,
    weight_decay: float = 0.01,
    lr_per: str = "step",
    augment: str = "dihedral",
    test_crop: int | None = None,
    metrics: Sequence[str] | None = None,
    workers: int = 0,
    cache_mib: int = 512,
    seed: int = 0,
) -> MirL:
    """Build the task; lists the data, and reads the headers of a data folder's images.

    Args:
        data: ``"embedded"``, or a folder in the published layout.
        network: name of a restoration network that keeps the size of its images, and its options (see
            ``prunekit.network.bind_network``), or a factory. How it wants to be called is found by trying.
        color: ``"rgb"`` or ``"grey"`` (BT.601 luma, as grey denoisers are trained and tested); None takes RGB where the
            network does. Noise and JPEG files are made of what is seen, all else in colour.
        tasks: among ``"denoise"``, ``"derain"``, ``"dehaze"``; None takes all of these that the data has. On request
            ``"jpeg"`` (the traces of one file) and ``"web"`` (those of files and resizing, tested on web-v1), too.
        sigmas: noise levels of ``"denoise"``, on the 0..255 scale.
        qualities: at which ``"jpeg"`` is tested, 1..100, with 4:2:0 chroma.
        train_qualities: lowest and highest quality that ``"jpeg"`` is trained on, each in between as often.
        repeats: task -> visits of a training item in an epoch (at each sigma, for noise), where they are to differ from
            the embedded data's 1, 4, 2, 4, 9 or a folder's 3, 120, 1 (published), 3, 6 for denoise, derain, dehaze,
            jpeg, web; ``"even"`` visits all tasks about equally often, which suits a part of the published data.
        patch: side of the training crops in pixels, a multiple of what the network halves (8 for PromptIR).
        batch: samples per optimiser step, over all processes.
        steps: length of a training in optimiser steps; or
        epochs: its length in passes over the training set.
        warmup: units (see ``lr_per``) in which the rate rises from 0; 0 or 1 for none.
        lr: the base rate of AdamW.
        weight_decay: of every parameter.
        lr_per: ``"step"`` or ``"epoch"``: the unit in which the rate changes.
        augment: ``"dihedral"`` turns each crop by any symmetry of the square; ``"published"`` by any but the identity.
        test_crop: pixels that the sides of a test image are cropped to at most, a multiple of 16; None as published.
        metrics: among ``"psnr"``, ``"ssim"`` (published), ``"psnr_y"``, ``"ssim_y"`` (luma, in colour only), and
            ``"lpips"``, ``"dists"`` (extra ``perceptual``); None takes the first four. Short tables show the first.
        workers: loader processes.
        cache_mib: MiB of decoded training images held in memory, shared by all loader processes; those visited most
            often in an epoch first. Each process of a distributed run has its own.
        seed: of data order, crops and degradations. Test images are degraded alike whatever the seed.

    Raises:
        RecipeError: an option has no meaning, or the network makes no images of the size and colour that it is given.
        DataError: the data folder cannot be used.
    """
    even = repeats == EVEN
    repeats = dict.fromkeys((*TASKS, *WEB_TASKS), 1) if isinstance(repeats, str) and even else repeats
    if isinstance(repeats, str):
        raise RecipeError(f"repeats is {repeats!r}: give {EVEN!r}, or a number for each task, such as {{derain: 30}}.")
    for option, names in (("tasks", tasks), ("metrics", metrics)):
        _need(not isinstance(names, str), f"{option} is {names!r}: give a list, such as [{names}].")
    for name in (*(tasks or ()), *(repeats or ())):
        _known("task", name, (*TASKS, *WEB_TASKS))
    _need(all(often >= 1 for often in (repeats or {}).values()), f"repeats are {repeats}: each must be at least 1.")
    _need(
        workers >= 0 and cache_mib >= 0 and lr > 0 and weight_decay >= 0,
        "workers, cache_mib and weight_decay must not be negative, lr must be positive.",
    )
    _known("augment", augment, AUGMENT)
    _known("lr_per", lr_per, ("step", "epoch"))
    _known("color", color or "rgb", CHANNELS)
    _need(
        test_crop is None or (test_crop > 0 and test_crop % MIN_TEST_SIDE == 0),
        f"test_crop is {test_crop}: give a positive multiple of {MIN_TEST_SIDE}, or null.",
    )
    _need((steps is None) != (epochs is None), "give either steps or epochs, and leave the other out (or null).")
    _need(batch > 0 and (steps or epochs or 0) > 0, "batch, and steps or epochs, must be at least 1.")
    _need(all(s == int(s) > 0 for s in sigmas), f"sigmas are {list(sigmas)}: each must be a whole number above 0.")
    sigmas = [int(s) for s in sigmas]
    files = _qualities(qualities, train_qualities)
    for codec in CODECS if "web" in (tasks or ()) else ():
        need(codec)
    if data == "embedded":
        items = embedded(tasks or TASKS, sigmas, qualities=files, repeats=repeats)
    else:
        items = folders(data, tasks, sigmas, qualities=files, patch=patch, repeats=repeats)
    items = evened(items) if even else items
    _need(bool(items.train), "there is nothing to train on: name a task, and sigmas for denoise.")
    unit = 1 if lr_per == "step" else epoch_steps(len(items.train), batch)
    length = steps or (epochs or 0) * epoch_steps(len(items.train), batch)
    _need(0 <= warmup < math.ceil(length / unit), f"warmup is {warmup}: it must end before training does.")
    build = bind_network(network)
    call = _call(build, CHANNELS[color] if color else None)
    _need(
        patch > 0 and patch % call.multiple == 0,
        f"patch is {patch}: it must be a positive multiple of {call.multiple} for this network.",
    )
    in_grey = call.channels == 1
    measured = chosen(metrics, in_grey=in_grey)
    _large_enough(items.test, measured, test_crop)
    cache = image_cache(items.train, cache_mib * 2**20, copies=max(1, workers))
    crops = Crops(items.train, patch, seed, augment, cache, in_grey=in_grey)
    return MirL(
        *(build, call, crops, tuple(items.test), length, unit, warmup, lr, weight_decay, batch, workers, seed),
        test_crop=test_crop,
        metrics=measured,
    )


def _qualities(test: Sequence[int], train: Sequence[int]) -> Qualities:
    for quality in (*test, *train):
        known = quality == int(quality) and 1 <= quality <= 100
        _need(known, f"qualities or train_qualities hold {quality}: give whole numbers from 1 to 100.")
    _need(
        len(train) == 2 and train[0] <= train[1],
        f"train_qualities are {list(train)}: give the lowest and the highest, such as [5, 95].",
    )
    return Qualities(tuple(map(int, test)), tuple(map(int, train)))


def _call(build: Callable[[], nn.Module], channels: int | None) -> ImageCall:
    """Find out how the network wants to be called; raises RecipeError, naming it, where it restores no images."""
    with torch.random.fork_rng(devices=[]):
        model = build()
    try:
        return image_call(model, channels=channels)
    except RecipeError as error:
        name = build.tree["name"] if isinstance(build, Bound) else type(model).__name__
        raise RecipeError(f"task.network {name!r} cannot be trained to restore images: {error}") from error


def _large_enough(test: Iterable[Item], metrics: Iterable[Metric], limit: int | None) -> None:
    """Raise RecipeError, naming it, where a test image would be too small for a metric."""
    widest = max(metrics, key=lambda metric: metric.side)
    if widest.side <= MIN_TEST_SIDE:
        return
    for path in dict.fromkeys(item.target for item in test):
        window = centre_window(size_of(path), limit=limit)
        _need(
            min(window.height, window.width) >= widest.side,
            f"metric {widest.name!r} needs {widest.side} pixels a side, and of {path} {window.width} x {window.height} "
            "are measured: leave the metric out, raise test_crop, or remove the image.",
        )


def _known(option: str, name: str, known: Iterable[str]) -> None:
    _need(name in known, f"{option} {name!r} is unknown: {nearest(name, known)}")


def _need(met: bool, otherwise: str) -> None:
    if not met:
        raise RecipeError(otherwise)
