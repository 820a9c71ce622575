"""``fusedres.tune``: time what can run each block of a model, choose, and keep the choice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fusedres.plan import _store
from fusedres.plan._capture import capture, check_model, inputs_of, mode_of
from fusedres.plan._choosing import Session, Step
from fusedres.plan._lookup import in_force, put_in_force
from fusedres.plan._plan import Plan
from fusedres.plan._report import Outcome, Report


def tune(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Any],
    *,
    train: bool | None = None,
    budget_s: float | None = None,
    progress: bool = True,
    table: bool = True,
) -> Report:
    """Time what can run each distinct block of ``model`` on this device, and run the fastest from now on.

    Candidates are torchvision's own forward and every composition on every back-end that serves the block; a
    block stays with torchvision's unless another was clearly faster, and again so when it was confirmed. The
    choices hold at once, for every model, and are kept in the user's cache folder for this device, torch and
    fusedres. Blocks are told apart by shapes, dtype, threads and mode: tune as you will run, autocast and
    ``torch.set_num_threads`` included. The model is left as it was.

    Args:
        model: fused (``fusedres.resnet50()``, ``fusedres.fuse(model)``) and not compiled.
        example_inputs: a tensor, or a sequence of the model's positional arguments, on its device.
        train: tune the training step (forward and backward) or inference; ``None``: the mode the model is in.
        budget_s: seconds after which no further block is begun; what is left runs by the default rules.
        progress: show a progress bar on stderr.
        table: print the report on stderr.

    Returns:
        What was chosen for each block and why; ``print`` shows it as a table.

    Raises:
        TypeError, ValueError: an argument that does not fit, named with the rule and what was given.
    """
    inputs = inputs_of("tune", example_inputs)
    check_model("tune", model)
    _check_budget(budget_s)
    deadline = math.inf if budget_s is None else time.monotonic() + budget_s
    outcomes: dict[str, Outcome] = {}
    where = "nowhere"
    with mode_of("tune", model, train), _progress(progress) as add_steps:
        while True:
            # Until no new block turns up: a choice can change the layout that the next block is given.
            recorder = capture("tune", model, inputs)
            new = {name: seen for name, seen in recorder.seen.items() if name not in outcomes}
            if not new:
                break
            for device in {seen.x.device for seen in new.values()}:
                here = {name: seen for name, seen in new.items() if seen.x.device == device}
                session = Session(device, here, deadline, add_steps)
                outcomes.update(session.run())
                where = _keep(session.plan, device)
        names = {id(module): name for name, module in model.named_modules()}
        for key, modules in recorder.modules.items():
            outcomes[key].layers = [names.get(id(module), "") for module in modules]
    report = Report(list(outcomes.values()), where)
    if table:
        report.show()
    return report


def _check_budget(budget_s: object) -> None:
    if budget_s is None:
        return
    if isinstance(budget_s, bool) or not isinstance(budget_s, (int, float)) or not budget_s > 0:
        raise ValueError(f"tune: `budget_s` must be a positive number of seconds, or None; got {budget_s!r}")


@contextmanager
def _progress(show: bool) -> Iterator[Callable[[int], Step]]:
    """Gives a function that adds steps and returns what to call, with a description, before each."""
    if not show:
        yield lambda total: lambda words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("finding blocks", total=0)

        def add(total: int) -> Step:
            begun = False

            def step(words: str) -> None:
                nonlocal begun
                progress.update(task, description=words, advance=1 if begun else 0)
                begun = True

            progress.update(task, total=(progress.tasks[0].total or 0) + total)
            return step

        yield add


def _keep(plan: Plan, device: torch.device) -> str:
    """Have the plan hold, with what held before, and store it; where it was stored, or why not."""
    put_in_force(in_force(device).merged(plan))
    path = _store.path_of(plan)
    if path is None:
        return "nowhere: FUSEDRES_PLANS is 0"
    try:
        put_in_force(_store.write(path, in_force(device)))
    except OSError as error:
        return f"nowhere: {error}"
    return str(path)
