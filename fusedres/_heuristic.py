"""The default heuristic: what is chosen where no plan has measured. Its rules are data, ``_heuristic.json``.

A table is a list of rules, and the first whose ``when`` holds is taken. A condition is a value that a fact
must equal, a list of such values, or bounds (``{"min": 32}``, both ends included); a fact that was not
given meets no condition. ``then`` lists what to choose, best first: the first that can run here is.
``why`` says what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_FILE = Path(__file__).with_name("_heuristic.json")


class Rule(NamedTuple):
    """One line of a table."""

    when: Mapping[str, Any]
    then: tuple[str, ...]
    why: str

    def holds(self, facts: Mapping[str, object]) -> bool:
        return all(_meets(facts.get(name), condition) for name, condition in self.when.items())


def _meets(fact: Any, condition: Any) -> bool:
    if fact is None:
        return False
    if isinstance(condition, dict):
        return bool(condition.get("min", fact) <= fact <= condition.get("max", fact))
    return fact in condition if isinstance(condition, list) else bool(fact == condition)


def parse_rules(text: str) -> dict[str, tuple[Rule, ...]]:
    """The tables of a file of rules.

    Raises:
        ValueError: a table without a last rule for everything, or a rule of another form.
    """
    tables: dict[str, tuple[Rule, ...]] = {}
    for name, rules in json.loads(text).items():
        for rule in rules:
            if set(rule) != {"when", "then", "why"} or not rule["then"]:
                raise ValueError(f"rules of {name!r}: each must have `when`, `then` and `why`; got {rule!r}")
            for condition in rule["when"].values():
                if isinstance(condition, dict) and not set(condition) <= {"min", "max"}:
                    raise ValueError(f"rules of {name!r}: bounds must be `min` and `max`; got {condition!r}")
        if not rules or rules[-1]["when"]:
            raise ValueError(f"rules of {name!r}: the last must hold for everything; got {rules[-1:]!r}")
        tables[name] = tuple(Rule(rule["when"], tuple(rule["then"]), rule["why"]) for rule in rules)
    return tables


@cache
def rules() -> dict[str, tuple[Rule, ...]]:
    """The tables that come with the package."""
    return parse_rules(_FILE.read_text(encoding="utf-8"))


def rule_for(table: str, facts: Mapping[str, object]) -> Rule:
    """The first rule of ``table`` that holds for ``facts``."""
    return next(rule for rule in rules()[table] if rule.holds(facts))
