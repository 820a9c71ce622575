"""``python -m benchmarks.gpu_check``: tests, then benchmarks, then where the report lies and what to send.

The report is written anew after every part, so that a run that is cut off leaves what it had. Ends with 0
where all is well, 1 where something failed, 2 where there is no GPU.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.gpu_check import layers, networks, report, suite
from benchmarks.models.results import FOLDER
from benchmarks.shapes import LAYERS

app = typer.Typer(add_completion=False)

#: A folder of its own: what lies beside it are the results of `python -m benchmarks`.
REPORTS = FOLDER / "gpu"
LAYER_BATCH = 32


def refusal() -> str | None:
    """Why nothing can be checked here, or ``None``."""
    if torch.cuda.is_available():
        return None
    built = f"torch {torch.__version__} was built for " + (
        f"CUDA {torch.version.cuda}" if torch.version.cuda else "no GPU"
    )
    return f"gpu-check needs an NVIDIA GPU, and torch sees none ({built}; torch.cuda.is_available() is false)"


@app.command(help=__doc__)
def main(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = REPORTS,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds a benchmark.")] = 15,
    tests: Annotated[bool, typer.Option("--tests/--no-tests", help="Run pytest -m gpu.")] = True,
    benchmarks: Annotated[bool, typer.Option("--benchmarks/--no-benchmarks")] = True,
    pytest: Annotated[str, typer.Option(help="Further arguments of pytest.")] = "",
) -> None:
    if reason := refusal():
        print(reason, file=sys.stderr)
        raise typer.Exit(2)
    device = torch.device("cuda", torch.cuda.current_device())
    found = report.begun(device)
    name = "gpu-" + "-".join(re.findall(r"[a-z0-9]+", found["device"]["name"].lower()))
    out.mkdir(parents=True, exist_ok=True)
    if tests:
        print("pytest -m gpu", flush=True)
        found["tests"] = suite.run(out, pytest.split())
        report.write(found, out, name)
    if benchmarks:
        for network in networks.NETWORKS:
            print(network, flush=True)
            found["benchmarks"].append(report.entry(networks.contest(network, rounds, device)))
            report.write(found, out, name)
        for layer in LAYERS:
            print(layer, flush=True)
            found["benchmarks"].append(report.entry(layers.contest(layer, LAYER_BATCH, rounds, device)))
            report.write(found, out, name)
    raise typer.Exit(end(found, out, name))


def end(found: report.Report, out: Path, name: str) -> int:
    """Write the report, say what it says, and what to send where something failed; the exit status."""
    readable, full = report.write(found, out, name)
    wrong = report.failures(found)
    print(f"report: {readable}")
    if not wrong:
        return 0
    print("\n".join(["failed:", *(f"  {line}" for line in wrong)]), file=sys.stderr)
    logs = [] if found["tests"] is None else [found["tests"]["log"]]
    print(f"To report it, send these files: {', '.join(map(str, [readable, full, *logs]))}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    app()
