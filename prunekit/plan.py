"""What a run will do, as data: rewinds, stages, and the strategies that build them (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from prunekit.amount import Density, Rate, Target
from prunekit.errors import RecipeError
from prunekit.schedule import Schedule, explicit, levels, refuse_rising


@final
@dataclass(frozen=True)
class Rewind:
    """Where retraining starts.

    Args:
        weights: optimiser step of the dense run whose weights and buffers are restored; None keeps the trained ones.
        clock: step at which data order and learning rate restart.
        keep: name patterns (globs) of parameters and buffers that are not rewound.
        reinit: seed of a fresh initialisation to start from, in place of the dense run's weights.
    """

    weights: int | None
    clock: int
    keep: tuple[str, ...] = ()
    reinit: int | None = None


@final
@dataclass(frozen=True)
class Stage:
    """Train from a rewind point to step ``end``, cutting at the named steps.

    Args:
        name: directory name within the run, unique in a plan.
        start: where training starts.
        end: optimiser step at which it ends (exclusive); equal to ``start.clock`` for no training.
        prune_at: (step, amount) pairs in order; a step equal to ``end`` cuts after training and evaluation.
        keep_steps: steps whose weights are kept for other runs, beside those that later stages rewind to.
    """

    name: str
    start: Rewind
    end: int
    prune_at: tuple[tuple[int, Target], ...] = ()
    keep_steps: tuple[int, ...] = ()


Plan = tuple[Stage, ...]


def rewind_point(text: str, *, steps: int, keep: Sequence[str] = ()) -> Rewind:
    """Read ``init``, ``step:K``, ``lr:T`` (the last T steps' rates), ``none`` or ``reinit:SEED``.

    ``none`` keeps the trained weights and restarts the whole schedule; ``reinit:SEED`` starts from another
    initialisation, the control that asks whether the ticket's own one mattered.

    Args:
        text: the point, as a recipe spells it.
        steps: length of one full training, in optimiser steps.
        keep: name patterns that are not rewound.

    Raises:
        RecipeError: not one of these, or a step outside the training.

    Example:
        >>> rewind_point("lr:200", steps=1000)
        Rewind(weights=None, clock=800, keep=(), reinit=None)

    Reference:
        Frankle et al. 2020 (arXiv 1912.05671) for step k; Renda et al. 2020 (arXiv 2003.02389) for learning rates.
    """
    kind, _, value = str(text).partition(":")
    if kind == "init" and not value:
        return Rewind(0, 0, tuple(keep))
    if kind == "none" and not value:
        return Rewind(None, 0, tuple(keep))
    if kind in ("step", "lr") and value.isdecimal():
        if int(value) > steps:
            raise RecipeError(f"rewind: {text}: the training has {steps} steps only; choose a step from 0 to {steps}.")
        return (
            Rewind(int(value), int(value), tuple(keep))
            if kind == "step"
            else Rewind(None, steps - int(value), tuple(keep))
        )
    if kind == "reinit" and value.isdecimal():
        return Rewind(0, 0, tuple(keep), int(value))
    raise RecipeError(f"rewind: {text!r} is not one of init, step:K, lr:T, none, reinit:SEED.")


def iterative(
    steps: int,
    schedule: Schedule | Rate,
    *,
    rounds: int,
    rewind: Rewind | str = "init",
    keep: Sequence[str] = (),
    dense: bool = True,
) -> Plan:
    """Train, cut, rewind, again: iterative pruning with rewinding; one-shot with ``rounds=1``.

    Args:
        steps: length of one full training, in optimiser steps.
        schedule: densities over the rounds, or a `Rate` removed in each.
        rounds: number of cuts, at least 1.
        rewind: where each retraining starts; see `rewind_point` for the spelling.
        keep: name patterns that are not rewound, added to those of ``rewind``.
        dense: train the dense network first; False cuts before any training (pretrained weights, pruning at
            initialisation).

    Returns:
        ``rounds + 1`` stages, the first dense.

    Raises:
        RecipeError: no round, or a rewind step that is never reached.

    Example:
        >>> from prunekit.schedule import geometric
        >>> [stage.name for stage in iterative(100, geometric(0.25), rounds=2)]
        ['00-1.0000', '01-0.5000', '02-0.2500']

    Reference:
        Frankle & Carbin 2019 (arXiv 1803.03635), strategy 1 of appendix B; Frankle et al. 2020 (arXiv 1912.05671).
    """
    if isinstance(schedule, Rate):
        densities = levels(lambda progress: (1 - schedule.value) ** (progress * rounds), rounds=rounds)
        amounts: tuple[Target, ...] = (schedule,) * rounds
    else:
        densities = levels(schedule, rounds=rounds)
        amounts = tuple(Density(density) for density in densities)
    point = rewind if isinstance(rewind, Rewind) else rewind_point(rewind, steps=steps)
    point = replace(point, keep=point.keep + tuple(keep))
    if point.weights is None and point.keep:
        raise RecipeError(f"keep: {list(point.keep)} has no meaning with rewind: {rewind}, which rewinds no weights.")
    first_end = steps if dense else 0
    stages = [Stage("00-1.0000", Rewind(0, 0), first_end, ((first_end, amounts[0]),))]
    for k, density in enumerate(densities, start=1):
        cuts = ((steps, amounts[k]),) if k < rounds else ()
        stages.append(Stage(f"{k:02d}-{density:.4f}", point, steps, cuts))
    return checked(tuple(stages))


def one_shot(steps: int, *, density: float, finetune: int, dense: bool = True) -> Plan:
    """Train, cut once, and fine-tune with the learning rates of the last ``finetune`` steps.

    Args:
        steps: length of one full training, in optimiser steps.
        density: share that is kept, in (0, 1].
        finetune: optimiser steps after the cut, at most ``steps``.
        dense: train the dense network first; False for pretrained weights.

    Raises:
        RecipeError: ``finetune`` is longer than the training.

    Example:
        >>> [(stage.name, stage.start.clock, stage.end) for stage in one_shot(100, density=0.1, finetune=20)]
        [('00-1.0000', 0, 100), ('01-0.1000', 80, 100)]

    Reference:
        Han et al. 2015, arXiv 1506.02626, section 3, with one cut.
    """
    return iterative(steps, explicit([density]), rounds=1, rewind=f"lr:{finetune}", dense=dense)


def at_init(steps: int, *, density: float, rewind: str = "init", keep: Sequence[str] = ()) -> Plan:
    """Cut once before any training, then train: SNIP, GraSP, SynFlow; random, shuffled and re-initialised controls.

    Args:
        steps: length of the training, in optimiser steps.
        density: share that is kept, in (0, 1].
        rewind: ``init``, or ``reinit:SEED`` to train another initialisation than the one that was scored.
        keep: name patterns that are not re-initialised.

    Example:
        >>> [(stage.name, stage.end) for stage in at_init(100, density=0.1)]
        [('00-1.0000', 0), ('01-0.1000', 100)]

    Reference:
        Lee et al. 2019, arXiv 1810.02340; the controls of Frankle et al. 2021, arXiv 2009.08576.
    """
    return iterative(steps, explicit([density]), rounds=1, rewind=rewind, keep=keep, dense=False)


def gradual(steps: int, schedule: Schedule, *, begin: int, end: int, every: int) -> Plan:
    """Cut during one training: at steps begin, begin + every, ..., end, along the schedule.

    Args:
        steps: length of the training, in optimiser steps.
        schedule: density over the progress from ``begin`` (0) to ``end`` (1).
        begin: first step of cutting, at least 0.
        end: last step of cutting, after ``begin`` and at most ``steps``.
        every: optimiser steps between cuts.

    Raises:
        RecipeError: the steps do not fit the training.

    Example:
        >>> from prunekit.schedule import cubic
        >>> [step for step, _ in gradual(100, cubic(0.1), begin=20, end=60, every=20)[0].prune_at]
        [20, 40, 60]

    Reference:
        Zhu & Gupta 2017 (arXiv 1710.01878), section 3.
    """
    if not (0 <= begin < end <= steps and every >= 1):
        raise RecipeError(f"gradual: 0 <= begin < end <= {steps} and every >= 1 needed, not {begin}, {end}, {every}.")
    at = [*range(begin, end, every), end]
    densities = [schedule((step - begin) / (end - begin)) for step in at]
    refuse_rising(densities)
    cuts = tuple((step, Density(density)) for step, density in zip(at, densities, strict=True))
    return checked((Stage(f"00-{cuts[-1][1].value:.4f}", Rewind(0, 0), steps, cuts),))


def dense(steps: int, *, keep_steps: Sequence[int] = ()) -> Plan:
    """Train and cut nothing: the network that tickets are compared with, and that several runs can start from.

    Args:
        steps: length of the training, in optimiser steps.
        keep_steps: steps whose weights are kept, for runs that rewind to them (``prunekit run --dense``).

    Raises:
        RecipeError: a step outside the training.

    Example:
        >>> dense(100, keep_steps=[5])
        (Stage(name='00-1.0000', start=Rewind(weights=0, clock=0, keep=(), reinit=None), end=100, prune_at=(), \
keep_steps=(5,)),)
    """
    return checked((Stage("00-1.0000", Rewind(0, 0), steps, keep_steps=tuple(sorted(set(keep_steps)))),))


def checked(plan: Plan) -> Plan:
    """Return the plan unchanged if it can be walked.

    Raises:
        RecipeError: no stage, two of one name, a cut or a kept step outside its stage, or a rewind to a step never
            reached.
    """
    if not plan:
        raise RecipeError("the plan is empty: the strategy returned no stage.")
    names = [stage.name for stage in plan]
    if len(set(names)) < len(names):
        raise RecipeError(f"stage names must be unique, not {names}.")
    for stage in plan:
        steps = [step for step, _ in stage.prune_at]
        if steps != sorted(set(steps)) or any(not stage.start.clock <= step <= stage.end for step in steps):
            raise RecipeError(f"stage {stage.name}: cuts at {steps} must rise from {stage.start.clock} to {stage.end}.")
        if outside := [step for step in stage.keep_steps if not 0 <= step <= stage.end]:
            raise RecipeError(f"keep_steps: {outside[0]} is not one of the steps 0 to {stage.end} of {stage.name}.")
        if stage.start.weights is not None and stage.start.weights > plan[0].end:
            raise RecipeError(
                f"stage {stage.name} rewinds to step {stage.start.weights}, but {plan[0].name} ends at {plan[0].end}."
            )
    return plan
