"""The one training loop: step, cut, save, stop. Devices, precision and DDP are accelerate's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from prunekit.amount import Target
from prunekit.data import generator
from prunekit.errors import CheckpointError, Failed, Interrupted
from prunekit.files import read_tree, write_tensors, write_tree
from prunekit.masks import Masks, hold
from prunekit.plan import Stage
from prunekit.pruner import Cut
from prunekit.rewind import restore, snapshot
from prunekit.store import LAST
from prunekit.task import Task, to_device
from prunekit.tracking import track
from prunekit.trainlog import TrainLog
from prunekit.watch import Watch

Movement = Mapping[str, Tensor] | None
"""What `prunekit.tracking.track` gathers, where the scorer wants it."""

SAVE_EVERY_S = 5.0
SAVE_SHARE = 0.03  # of the time, at most, goes into checkpoints


@final
@dataclass(frozen=True)
class Loop:
    """Everything one stage's training needs besides its weights.

    Args:
        task, stage: what is trained, from where to where.
        accelerator: device, autocast, DDP.
        folder: where the checkpoint and the log go.
        seed: with stage and step, the key of all randomness in the network.
        decide: makes a cut of the model at a step, the same one on every process.
        watch: told of every step.
        stop: asked after every step whether the user wants to stop.
        snapshots: step -> file for the weights that later stages rewind to.
        tracks: whether the scorer wants to know how training moves the weights.
    """

    task: Task
    stage: Stage
    accelerator: Accelerator
    folder: Path
    seed: int
    decide: Callable[[nn.Module, Cut, Target, Movement], Cut]
    watch: Watch
    stop: Callable[[], bool]
    snapshots: Mapping[int, Path]
    tracks: bool = False

    @property
    def checkpoint(self) -> Path:
        """The stage's training checkpoint."""
        return self.folder / LAST

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.accelerator.is_main_process)


def reseed(accelerator: Accelerator, *key: int | str) -> None:
    """Seed every generator from a key and the rank, so that random state never has to be saved."""
    set_seed(int(generator(*key, accelerator.process_index).integers(2**32)))


def train(loop: Loop, model: nn.Module, cut: Cut, load: Callable[[Mapping[str, Any]], Cut]) -> Trained:
    """Train one stage in place, from its checkpoint if there is one.

    Args:
        model: at the stage's rewind point, cut; left at the trained weights.
        cut: the cut that ``model`` obeys.
        load: rebuilds a cut from its ``state_dict``.

    Raises:
        Failed: the loss is not finite, or the disk is full; the last good checkpoint stays.
        Interrupted: ``loop.stop`` said so; the checkpoint is at that step.
    """
    state = _State(loop, model, cut)
    with closing(state.log):
        clock = state.resume(load)
        loop.accelerator.wait_for_everyone()
        live = _prepare(loop, model, clock)
        loop.watch.stage(loop.stage, state.cut.density, clock)
        batches = loop.task.batches(clock)
        try:
            state.run(live, batches, clock)
        finally:
            getattr(batches, "close", lambda: None)()  # ends loader workers
    loop.accelerator.free_memory()
    unused = None if state.unused is None else sorted(state.unused)
    return Trained(state.cut, unused, state.seconds_before, state.movement)


def held(model: nn.Module, cut: Cut) -> AbstractContextManager[object]:
    """Hold masks; a structured cut has nothing that could come back."""
    return hold(model, cut) if isinstance(cut, Masks) else nullcontext()


@final
@dataclass(frozen=True)
class Trained:
    """What a stage's training leaves besides the weights.

    Args:
        cut: the cut obeyed at its end.
        unused: names of parameters that never had a gradient; None without a step.
        seconds_before: time that went into it before it was interrupted and taken up again.
        movement: how its training moved the weights.
    """

    cut: Cut
    unused: list[str] | None
    seconds_before: float
    movement: Movement


@final
class _State:
    """What changes while a stage trains, and how it is saved."""

    def __init__(self, loop: Loop, model: nn.Module, cut: Cut) -> None:
        self.loop, self.model, self.cut = loop, model, cut
        self.optimizer = loop.task.optimizer(model)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.log = TrainLog(loop.folder / "log.jsonl", steps=loop.stage.end - loop.stage.start.clock)
        self.unused: set[str] | None = None
        self.movement: Movement = None
        self.saved_clock = -1
        self.seconds_before, self.began_s = 0.0, time.monotonic()
        self.next_save_s = time.monotonic() + SAVE_EVERY_S

    def resume(self, load: Callable[[Mapping[str, Any]], Cut]) -> int:
        """Take up the checkpoint if there is one; return the step to go on from."""
        clock = self.loop.stage.start.clock
        if self.loop.checkpoint.exists():
            try:
                saved = read_tree(self.loop.checkpoint)
            except CheckpointError as cause:
                raise CheckpointError(f"{cause} Delete it, and this stage starts over.") from cause
            restore(self.model, saved["model"])
            self.cut = load(saved["cut"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.unused = None if saved["unused"] is None else set(saved["unused"])
            self.saved_clock = clock = int(saved["clock"])
            self.seconds_before = float(saved["seconds"])
            self.movement = saved.get("movement")
        if self.loop.writes:
            self.log.cut_back(clock)
        return clock

    def run(self, live: nn.Module, batches: Iterator[Any], clock: int) -> None:
        """Train from step ``clock`` to the stage's end, cutting, saving and taking snapshots where the plan says so."""
        loop, model = self.loop, self.model
        cuts = dict(loop.stage.prune_at)
        while True:
            if clock in loop.snapshots and loop.writes and not loop.snapshots[clock].exists():
                write_tensors(loop.snapshots[clock], snapshot(model))
            if clock > loop.stage.start.clock and (clock in cuts or clock == loop.stage.end):
                self.save(clock)  # before the cut: a replay repeats it
            if clock == loop.stage.end:
                return
            if clock in cuts:
                self.cut = loop.decide(model, self.cut, cuts[clock], self.movement)
            pauses = [step for step in (*cuts, *loop.snapshots, loop.stage.end) if step > clock]
            tracking = track(model, self.movement) if loop.tracks else nullcontext()
            with held(model, self.cut), tracking as self.movement:
                clock = self.advance(live, batches, clock, min(pauses))

    def save(self, clock: int) -> None:
        """Write the checkpoint, unless this step's is there already; only one process writes."""
        if not self.loop.writes or clock == self.saved_clock:
            return
        began_s = time.monotonic()
        for name, weight in self.model.named_parameters():
            if not torch.isfinite(weight).all():
                raise Failed(
                    f"{name} is no longer finite in stage {self.loop.stage.name} at step {clock}; the last good "
                    f"checkpoint, of step {max(self.saved_clock, self.loop.stage.start.clock)}, is kept. A lower "
                    "learning rate usually helps."
                )
        self.log.sync()
        tree = {
            "clock": clock,
            "model": snapshot(self.model),
            "optimizer": self.optimizer.state_dict(),
            "cut": dict(self.cut.state_dict()),
            "unused": None if self.unused is None else sorted(self.unused),
            "seconds": self.seconds_before + time.monotonic() - self.began_s,
            **({"movement": dict(self.movement)} if self.movement is not None else {}),
        }
        write_tree(self.loop.checkpoint, tree)
        self.saved_clock = clock
        now_s = time.monotonic()
        self.next_save_s = now_s + max(SAVE_EVERY_S, (now_s - began_s) / SAVE_SHARE)

    def advance(self, live: nn.Module, batches: Iterator[Any], clock: int, until: int) -> int:
        """Train to step ``until``."""
        while clock < until:
            loss, images, stop = self.step(live, next(batches), clock)
            if self.loop.writes:
                self.log.write(clock, loss, self.loop.task.lr(clock))
            self.loop.watch.step(self.loop.stage, clock, loss, images)
            clock += 1
            if stop:
                self.save(clock)
                raise Interrupted(f"stopped in stage {self.loop.stage.name} after step {clock} was saved.")
            if time.monotonic() >= self.next_save_s and clock < until:
                self.save(clock)
        return clock

    def step(self, live: nn.Module, batch: Any, clock: int) -> tuple[float, int, bool]:
        """Take one optimiser step; return the loss, this process's number of images, and whether to stop."""
        accelerator, task = self.loop.accelerator, self.loop.task
        reseed(accelerator, self.loop.seed, self.loop.stage.name, clock)
        factor = task.lr(clock)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        batch = to_device(batch, accelerator.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss = task.loss(live, batch)
        value, stop = self._agreed(float(loss.detach()))
        if not math.isfinite(value):
            raise Failed(
                f"the loss became {value} in stage {self.loop.stage.name} at step {clock} (learning rate "
                f"{self.optimizer.param_groups[0]['lr']:.3g}); the last good checkpoint, of step "
                f"{max(self.saved_clock, self.loop.stage.start.clock)}, is kept. A lower learning rate or a longer "
                "warm-up usually helps; look at the data, too."
            )
        accelerator.backward(loss)
        self._note_unused()
        self.optimizer.step()
        leaves = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim]
        return value, len(leaves[0]) if leaves else 1, stop

    def _agreed(self, loss: float) -> tuple[float, bool]:
        """Return the mean loss over processes and whether any was asked to stop, so that all fail or stop at once."""
        stop = self.loop.stop()
        if self.loop.accelerator.num_processes == 1:
            return loss, stop
        mine = torch.tensor([loss, float(stop)], device=self.loop.accelerator.device)
        mean_loss, stopping = self.loop.accelerator.reduce(mine, reduction="mean").tolist()
        return mean_loss, stopping > 0

    def _note_unused(self) -> None:
        if self.unused == set():
            return
        without = {
            name for name, weight in self.model.named_parameters() if weight.requires_grad and weight.grad is None
        }
        self.unused = without if self.unused is None else self.unused & without


def _prepare(loop: Loop, model: nn.Module, clock: int) -> nn.Module:
    """Move the model to its device and, with several processes, wrap it; DDP hangs unless told of unused parameters."""
    accelerator = loop.accelerator
    model.to(accelerator.device)
    if accelerator.num_processes > 1 and clock < loop.stage.end:
        before = snapshot(model)
        batch = to_device(next(loop.task.batches(clock)), accelerator.device)
        loop.task.loss(model, batch).backward()
        unused = any(weight.grad is None for weight in model.parameters() if weight.requires_grad)
        model.zero_grad(set_to_none=True)
        restore(model, before)  # the statistics of its norms have moved
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=unused)
    prepared: nn.Module = accelerator.prepare_model(model)
    return prepared
