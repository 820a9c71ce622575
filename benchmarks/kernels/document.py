"""The results file, and the tables between the marks of docs/budgets.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from benchmarks.kernels.budgets import Finding
from benchmarks.kernels.device import ROOT
from benchmarks.kernels.report import Sheet

DOCUMENT = ROOT / "docs" / "budgets.md"
RESULTS = ROOT / "benchmarks" / "results" / "kernels" / "counted.json"


def save(sheets: Mapping[str, Sheet], found: Sequence[Finding]) -> None:
    """Every table and every budget, as JSON."""
    tables = {key: {"columns": list(sheet.columns), "rows": sheet.rows} for key, sheet in sheets.items()}
    budgets = [{**finding._asdict(), "met": finding.met} for finding in found]
    RESULTS.write_text(json.dumps({"tables": tables, "budgets": budgets}, indent=1) + "\n")


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
