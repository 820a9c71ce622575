"""Plans: which composition and which back-ends a block runs, measured on the device at hand.

The modules ask :func:`recall` and :func:`resolve`; users call :func:`fusedres.tune`, :func:`load`,
:func:`save`, :func:`explain` and :func:`clear`. Where nothing was measured the default rules hold, which are
``fusedres/_heuristic.json``.
"""

from fusedres.ops._planned import Choice
from fusedres.plan._explain import Explanation, explain
from fusedres.plan._files import load, save
from fusedres.plan._lookup import clear, generation, recall, resolve
from fusedres.plan._plan import Plan
from fusedres.plan._report import Report
from fusedres.plan._tune import tune

__all__ = [
    "Choice",
    "Explanation",
    "Plan",
    "Report",
    "clear",
    "explain",
    "generation",
    "load",
    "recall",
    "resolve",
    "save",
    "tune",
]
