"""``fusedres.tune``: time what can run each block of a model, choose, and keep the choice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor, nn

from fusedres.ops._dispatch import BACKENDS, resolve_backend
from fusedres.ops._planned import Choice, Convolution, convolutions_seen, tiles_learned
from fusedres.plan import _store
from fusedres.plan._candidates import PLAIN, candidates, joined, label, substitutions
from fusedres.plan._capture import capture, check_model, inputs_of, mode_of
from fusedres.plan._lookup import Seen, in_force, put_in_force
from fusedres.plan._plan import Algorithm, Entry, Plan, empty
from fusedres.plan._report import Outcome, Report
from fusedres.plan._sample import Sample
from fusedres.plan._timing import Verdict, decide, interleave

#: A block with the plan's convolutions may take this share of its time with the default ones; else they go.
NO_WORSE = 0.99
#: The share of the budget that single convolutions get before whole blocks are timed.
CONVOLUTIONS_SHARE = 0.4

Step = Callable[[str], None]


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
    inputs = inputs_of(example_inputs)
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
                session = _Session(device, here, deadline, add_steps)
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


@dataclass
class _Session:
    """One pass over new blocks of one device; ``plan`` collects what it finds."""

    device: torch.device
    seen: dict[str, Seen]
    deadline: float
    add_steps: Callable[[int], Step]
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self.plan = empty(self.device)

    def run(self) -> dict[str, Outcome]:
        asked = {name: self._convolutions_of(seen) for name, seen in self.seen.items()}
        self._tune_convolutions(list({c: None for found in asked.values() for c in found}))
        self._give_up_convolutions(asked)
        step = self.add_steps(len(self.seen))
        outcomes = {}
        for number, (name, seen) in enumerate(self.seen.items()):
            step(name)
            outcomes[name] = self._tune_block(seen, self._slice(len(self.seen) - number, self.deadline))
        return outcomes

    @property
    def spent(self) -> bool:
        return time.monotonic() > self.deadline

    def _slice(self, items: int, deadline: float) -> float:
        """When the next of ``items`` has used up its part of the time that is left."""
        now = time.monotonic()
        return now + max(0.0, deadline - now) / items

    @property
    def table(self) -> dict[Convolution, str]:
        return {key: found.algorithm for key, found in self.plan.convolutions.items()}

    # --- single convolutions -------------------------------------------------------------------------

    def _convolutions_of(self, seen: Seen) -> list[Convolution]:
        """The convolutions of a block that its default back-end has several algorithms for."""
        backend = BACKENDS[resolve_backend(seen.x)]
        if backend.algorithms is None:
            return []
        with convolutions_seen() as found:
            Sample(seen, {}).call(Choice())()
        return list(found)

    def _tune_convolutions(self, convolutions: list[Convolution]) -> None:
        step = self.add_steps(len(convolutions))
        now = time.monotonic()
        deadline = now + CONVOLUTIONS_SHARE * (self.deadline - now)
        for number, convolution in enumerate(convolutions):
            if time.monotonic() > deadline:
                break
            step(f"convolution {convolution.use} {convolution.x} * {convolution.w}")
            algorithms = BACKENDS[convolution.backend].algorithms
            assert algorithms is not None
            with torch.no_grad():
                calls = dict(algorithms(convolution))
                default = next(iter(calls))
                verdict = self._judge(calls, default, self._slice(len(convolutions) - number, deadline))
            self.plan.convolutions[convolution] = Algorithm(
                verdict.chosen, f"measured: {verdict.why}", _now()
            )

    def _give_up_convolutions(self, asked: dict[str, list[Convolution]]) -> None:
        """Drop algorithms that win alone but do not make their block faster: it may be one call without."""
        for name, convolutions in asked.items():
            changed = [c for c in convolutions if c in self.plan.convolutions and self._deviates(c)]
            if not changed:
                continue
            tables: dict[str, dict[Convolution, str]] = {"default": {}, "planned": self.table}
            calls = {which: Sample(self.seen[name], table).call(Choice()) for which, table in tables.items()}
            samples = interleave(calls, "default", self.device, self.deadline)
            if decide(samples, "default").chosen == "planned" or _median_ratio(samples) <= NO_WORSE:
                continue
            for convolution in changed:
                del self.plan.convolutions[convolution]

    def _deviates(self, convolution: Convolution) -> bool:
        rule = BACKENDS[convolution.backend].rule
        return rule is None or self.plan.convolutions[convolution].algorithm != rule(convolution)[0]

    # --- whole blocks --------------------------------------------------------------------------------

    def _tune_block(self, seen: Seen, deadline: float) -> Outcome:
        outcome = Outcome(seen.block)
        if self.spent:
            outcome.why = "not timed: the budget was spent"
            return outcome
        sample = Sample(seen, self.table)
        choices, failed = self._that_run(sample)
        calls = {label(choice): sample.call(choice) for choice in choices}
        samples = interleave(calls, PLAIN, self.device, deadline)
        outcome.seconds = {name: _median(values) for name, values in samples.items()}
        verdict = decide(samples, PLAIN)
        chosen = next(choice for choice in choices if label(choice) == verdict.chosen)
        chosen = self._exchange_ops(sample, chosen)
        if chosen.composition != PLAIN:
            confirmed = self._judge(
                {PLAIN: calls[PLAIN], label(chosen): sample.call(chosen)}, PLAIN, deadline
            )
            outcome.why = f"measured: {verdict.why}"
            if confirmed.chosen == PLAIN:
                outcome.why += f"; measured again, {confirmed.why}"
                chosen = choices[0]
        else:
            outcome.why = f"measured: {verdict.why}"
        outcome.why += "".join(f"; {name} cannot run: {reason}" for name, reason in failed.items())
        outcome.choice = chosen
        self.plan.blocks[str(seen.block)] = Entry(*chosen, outcome.why, _now(), outcome.seconds)
        return outcome

    def _that_run(self, sample: Sample) -> tuple[list[Choice], dict[str, str]]:
        """The candidates that do not fail, and why others do; Triton's tiles are timed on the way."""
        good, failed = [], {}
        for choice in candidates(sample.block, self.device):
            try:
                with tiles_learned() as tiles:
                    sample.call(choice)()
                self.plan.tiles.update(tiles)
                good.append(choice)
            except Exception as error:  # whatever a back-end raises is its result here
                if choice.composition == PLAIN:
                    raise
                failed[label(choice)] = f"{type(error).__name__}: {error}".splitlines()[0]
        return good, failed

    def _exchange_ops(self, sample: Sample, choice: Choice) -> Choice:
        """``choice`` with each op on the back-end that makes the block clearly faster."""
        changes = []
        for alternatives in substitutions(sample.block, choice, self.device):
            if self.spent:
                break
            calls = {label(choice): sample.call(choice)}
            calls |= {label(other): sample.call(other) for other in alternatives}
            verdict = decide(interleave(calls, label(choice), self.device, self.deadline), label(choice))
            changes += [other for other in alternatives if label(other) == verdict.chosen]
        return joined(choice, changes) if changes else choice

    def _judge(self, calls: dict[str, Callable[[], object]], baseline: str, deadline: float) -> Verdict:
        """The verdict of one interleaved run; one that leaves the baseline must be confirmed by a second."""
        verdict = decide(interleave(calls, baseline, self.device, deadline), baseline)
        if verdict.chosen == baseline:
            return verdict
        pair = {name: calls[name] for name in (baseline, verdict.chosen)}
        again = decide(interleave(pair, baseline, self.device, deadline), baseline)
        return verdict if again.chosen == verdict.chosen else again


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _median_ratio(samples: dict[str, list[float]]) -> float:
    return _median([a / b for a, b in zip(samples["planned"], samples["default"], strict=True)])


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
