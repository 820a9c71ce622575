"""What tuning does with the blocks of one device: time candidates, choose, confirm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import torch

from fusedres.ops._dispatch import BACKENDS, resolve_backend
from fusedres.ops._planned import Choice, Convolution, convolutions_seen, tiles_learned
from fusedres.plan._candidates import PLAIN, candidates, joined, label, substitutions
from fusedres.plan._plan import Algorithm, Entry, Plan, empty
from fusedres.plan._record import Seen
from fusedres.plan._report import Outcome
from fusedres.plan._sample import Sample
from fusedres.plan._timing import Verdict, decide, interleave

#: A block with the plan's convolutions may take this share of its time with the default ones; else they go.
NO_WORSE = 0.99
#: The share of the budget that single convolutions get before whole blocks are timed.
CONVOLUTIONS_SHARE = 0.4

#: Called with a description before each step of a progress bar.
Step = Callable[[str], None]


@dataclass
class Session:
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
