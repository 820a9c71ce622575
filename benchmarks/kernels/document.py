"""The results file, and the tables between the marks of docs/budgets.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.kernels.budgets import Finding
from benchmarks.kernels.device import ROOT
from benchmarks.kernels.report import Sheet

DOCUMENT = ROOT / "docs" / "budgets.md"
RESULTS = ROOT / "benchmarks" / "results" / "kernels" / "counted.json"


def save(sheets: Mapping[str, Sheet], found: Sequence[Finding]) -> None:
    """Every table and every budget, as JSON."""
    budgets = [{**finding._asdict(), "met": finding.met} for finding in found]
    _write_results({"tables": _tables(sheets), "budgets": budgets})


def replace(sheets: Mapping[str, Sheet]) -> None:
    """These tables in the results file, the others and the budgets as they are."""
    results = read()
    results["tables"] |= _tables(sheets)
    _write_results(results)


def with_others(key: str, sheet: Sheet) -> Sheet:
    """``sheet`` and those rows of the same table in the results file that it does not count anew.

    Rows are told apart, and sorted, by their first three columns.
    """
    table = read()["tables"].get(key) if RESULTS.exists() else None
    if table is None or table["columns"] != list(sheet.columns):
        return sheet
    rows = {tuple(row[:3]): row for row in [*table["rows"], *sheet.rows]}
    return sheet._replace(rows=[rows[name] for name in sorted(rows)])


def read() -> dict[str, Any]:
    """The results file."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    return results


def _tables(sheets: Mapping[str, Sheet]) -> dict[str, Any]:
    return {key: {"columns": list(sheet.columns), "rows": sheet.rows} for key, sheet in sheets.items()}


def _write_results(results: Mapping[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def write(sheets: Mapping[str, Sheet]) -> None:
    """Put each table between its marks; what stands between other marks stays."""
    text = DOCUMENT.read_text()
    for key, sheet in sheets.items():
        text = with_table(text, key, sheet.markdown())
    DOCUMENT.write_text(text)


def with_table(text: str, key: str, table: str) -> str:
    """``text`` with ``table`` between the marks of ``key``; a ValueError where they are not there."""
    begin, end = f"<!-- {key}: begin -->", f"<!-- {key}: end -->"
    if begin not in text or end not in text:
        raise ValueError(f"{DOCUMENT} lacks the marks {begin} and {end}")
    between = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return between.sub(lambda _: f"{begin}\n{table}\n{end}", text)
