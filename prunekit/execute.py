"""Walk the plan: skip what is done; for each other stage rewind, cut, train, evaluate, and publish in one step."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list, gather_object
from torch import Tensor, nn

from prunekit.amount import Target
from prunekit.errors import Failed, RunError
from prunekit.facts import facts_of
from prunekit.files import read_json, read_tensors, write_json, write_tensors
from prunekit.job import Job
from prunekit.measure import evaluating, latency_ms, peak_mib
from prunekit.plan import Stage
from prunekit.pruner import Cut
from prunekit.rewind import recalibrate, restore, snapshot
from prunekit.sharing import copy_beside, copy_dense, dense_results, log_of
from prunekit.store import LAST, WORST, Run
from prunekit.task import Measure, Pictured, Sample, task_data, to_device, worst
from prunekit.train import Loop, Movement, reseed, train
from prunekit.watch import Watch
from prunekit.weights import load_weights


@final
@dataclass(frozen=True)
class Execution:
    """One walk over one run directory; ``dense`` is another run, whose dense stage is taken over."""

    job: Job
    run: Run
    accelerator: Accelerator
    watch: Watch
    stop: Callable[[], bool]
    dense: Path | None = None

    def walk(self) -> None:
        """Do every stage that is not done.

        Raises:
            Failed, Interrupted: as `prunekit.train.train`.
            RunError: processes disagree about a cut.
        """
        if self.dense is not None and self.run.done(self.job.plan[0]) is None:
            self._take_over(self.job.plan[0], self.dense)
        self._write_start()
        for index, stage in enumerate(self.job.plan):
            if self.run.done(stage) is None:
                self._do(index, stage)
            elif self.accelerator.is_main_process:
                (self.run.folder(stage) / LAST).unlink(missing_ok=True)  # of a run killed between the two
            self.accelerator.wait_for_everyone()
            self.watch.done(stage, self.run.folder(stage) / "done")

    def _write_start(self) -> None:
        start = self.run.snapshot(0)
        if self.accelerator.is_main_process and not start.exists():
            model = self.job.model()
            if self.job.recipe.weights is not None:
                load_weights(model, Path(self.job.recipe.weights))
            write_tensors(start, snapshot(model))
        self.accelerator.wait_for_everyone()

    def _do(self, index: int, stage: Stage) -> None:
        began_s = time.monotonic()
        model, cut = self._begin(index, stage)
        snapshots = {} if index else {step: self.run.snapshot(step) for step in self._rewind_steps()}
        loop = Loop(
            task=self.job.task,
            stage=stage,
            accelerator=self.accelerator,
            folder=self.run.folder(stage),
            seed=self.job.recipe.seed,
            decide=lambda model, cut, target, movement: self._decide(model, cut, target, movement, calibrate=True),
            watch=self.watch,
            stop=self.stop,
            snapshots=snapshots,
            tracks=self.job.tracks,
        )
        trained = train(loop, model, cut, self.job.pruner.load)
        cut = trained.cut
        measures, samples = self._evaluate(stage, model)
        failures = self._worst(model, measures)
        at_end = [target for step, target in stage.prune_at if step == stage.end]
        following = self._decide(model, cut, at_end[0], trained.movement, calibrate=False) if at_end else None
        if self.accelerator.is_main_process:
            facts = facts_of(self.job, stage, cut, trained.unused)
            seconds = trained.seconds_before + time.monotonic() - began_s
            cost = {"seconds": seconds, "latency_ms": self._latency(model), "peak_mib": peak_mib()}

            def fill(folder: Path) -> None:
                write_tensors(folder / "weights.safetensors", snapshot(model))
                write_tensors(folder / "cut.safetensors", cut.state_dict())
                if following is not None:
                    write_tensors(folder / "next.safetensors", following.state_dict())
                if samples:
                    write_tensors(folder / "samples.safetensors", _pictures(samples))
                if failures:
                    write_tensors(folder / WORST, _pictures(failures))
                write_json(folder / "metrics.json", measures)
                write_json(folder / "stage.json", facts)
                write_json(folder / "cost.json", cost)

            self.run.finish(stage, fill)

    def _take_over(self, stage: Stage, dense: Path) -> None:
        """Publish another run's dense stage as this run's, and decide the first cut."""
        results = dense_results(self.job, dense, {0, *self._rewind_steps()})
        model = self.job.model()
        restore(model, read_tensors(results / "weights.safetensors"))
        model.to(self.accelerator.device)
        cut = self.job.pruner.start(model)
        following = None
        if stage.prune_at:
            following = self._decide(model, cut, stage.prune_at[-1][1], None, calibrate=False)
        if self.accelerator.is_main_process:
            for step in {0, *self._rewind_steps()}:
                copy_beside(dense / self.run.snapshot(step).name, self.run.snapshot(step))
            copy_beside(log_of(results), self.run.folder(stage) / "log.jsonl")
            facts = facts_of(self.job, stage, cut, read_json(results / "stage.json")["unused"])

            def fill(folder: Path) -> None:
                copy_dense(results, folder)
                write_tensors(folder / "cut.safetensors", cut.state_dict())
                if following is not None:
                    write_tensors(folder / "next.safetensors", following.state_dict())
                write_json(folder / "stage.json", facts)

            self.run.finish(stage, fill)
        self.accelerator.wait_for_everyone()

    def _rewind_steps(self) -> set[int]:
        later = {stage.start.weights for stage in self.job.plan[1:] if stage.start.weights}
        return later | {step for step in self.job.plan[0].keep_steps if step}

    def _begin(self, index: int, stage: Stage) -> tuple[nn.Module, Cut]:
        """Return a fresh model at the stage's rewind point, and the cut it starts with."""
        if index:
            model, cut = self._ended(self.job.plan[index - 1])
        else:
            model = self.job.model()
            cut = self.job.pruner.start(model)
        if stage.start.weights is not None:
            origin = self._origin(stage)
            cut.apply_(origin)
            restore(model, snapshot(origin), keep=stage.start.keep)
        model.to(self.accelerator.device)
        if stage.start.weights is None and not self._resuming(stage):
            self._recalibrate(model)
        return model, cut

    def _ended(self, stage: Stage) -> tuple[nn.Module, Cut]:
        """Return what a stage has trained, cut as was decided at its end."""
        folder = self.run.folder(stage) / "done"
        model, trained = self.job.trained(folder)
        if all(step != stage.end for step, _ in stage.prune_at):
            return model, trained
        following: Cut = self.job.pruner.load(read_tensors(folder / "next.safetensors"))
        following.apply_(model, since=trained)
        return model, following

    def _origin(self, stage: Stage) -> nn.Module:
        """Return the dense network that a stage rewinds to."""
        if stage.start.reinit is not None:
            return self.job.model(seed=stage.start.reinit)
        model = self.job.model()
        restore(model, read_tensors(self.run.snapshot(stage.start.weights or 0)))
        return model

    def _resuming(self, stage: Stage) -> bool:
        return (self.run.folder(stage) / LAST).exists()

    def _decide(self, model: nn.Module, cut: Cut, target: Target, movement: Movement, *, calibrate: bool) -> Cut:
        """Cut on rank 0 and share it; check that all processes hold the same; apply it if training goes on."""
        reseed(self.accelerator, self.job.recipe.seed, "cut")
        state: list[Any] = [None]
        if self.accelerator.is_main_process:
            data = task_data(self.job.task, self.accelerator.device, movement)
            state = [dict(self.job.pruner.cut(model, cut, target, data).state_dict())]
        decided: Cut = self.job.pruner.load(broadcast_object_list(state)[0])
        if len(set(gather_object([decided.digest()]))) > 1:
            raise RunError("the processes hold different cuts; this is a bug: please report it with the recipe.")
        if empty := set(decided.emptied()) - set(cut.emptied()):
            self.watch.note(f"nothing is left of {', '.join(sorted(empty))}: their layers now pass on zeros.")
        if calibrate:
            decided.apply_(model, cut)
            self._recalibrate(model)
        return decided

    def _recalibrate(self, model: nn.Module) -> None:
        recalibrate(model, task_data(self.job.task, self.accelerator.device).inputs(model))
        if self.accelerator.num_processes > 1:
            for buffer in model.buffers():
                buffer.copy_(broadcast(buffer))

    def _evaluate(self, stage: Stage, model: nn.Module) -> tuple[list[dict[str, Any]], Sequence[Sample]]:
        reseed(self.accelerator, self.job.recipe.seed, stage.name, "evaluate")
        with evaluating(model):
            mine = [dataclasses.asdict(measure) for measure in self.job.task.evaluate(model)]
            samples = self.job.task.samples(model) if self.accelerator.is_main_process else ()
        measures = gather_object(mine) if self.accelerator.num_processes > 1 else mine
        bad = [measure for measure in measures if measure["value"] != measure["value"]]
        if bad:
            raise Failed(f"stage {stage.name}: {bad[0]['metric']} of {bad[0]['item']} is not a number.")
        return sorted(measures, key=_identity), samples

    def _worst(self, model: nn.Module, measures: Sequence[Mapping[str, Any]]) -> Sequence[Sample]:
        """Return pictures of the worst item of each task, if the task can make them."""
        task = self.job.task
        if not isinstance(task, Pictured) or not self.accelerator.is_main_process:
            return ()
        with evaluating(model):
            return [task.picture(model, each) for each in worst(Measure(**measure) for measure in measures)]

    def _latency(self, model: nn.Module) -> float:
        return latency_ms(model, to_device(self.job.task.example(), self.accelerator.device))


def _identity(measure: Mapping[str, Any]) -> str:
    return json.dumps([measure[key] for key in ("task", "dataset", "item")])  # metrics stay in the task's order


def _pictures(samples: Sequence[Sample]) -> dict[str, Tensor]:
    return {f"{sample.task}/{sample.item}/{part}": image for sample in samples for part, image in sample.images.items()}
