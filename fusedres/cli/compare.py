"""``fusedres compare``: torchvision's model and ours, same weights, real photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from fusedres._settings import PRECISION
from fusedres.cli import inference, training
from fusedres.cli.chart import draw_chart
from fusedres.cli.console import UserError, check_choice, out, pick_device, require, user_errors, warn
from fusedres.cli.crops import Batch, displayable, make_batch
from fusedres.cli.machine import device_name, versions
from fusedres.cli.networks import DTYPES, build_ours, build_plain
from fusedres.cli.photos import Photo, read_photos, shipped_photos
from fusedres.cli.report import as_json, markdown, print_report, write_json, write_text
from fusedres.cli.results import Comparison, Section
from fusedres.cli.tune import PRECISION_HELP, at_precision, cpu_threads
from fusedres.cli.weights import MODELS, WEIGHTS_HELP, Weights, find_weights


@dataclass(frozen=True)
class Settings:
    """The command's options, checked."""

    model: str
    batch: int
    dtype: str
    train: bool
    weights: str | None
    rounds: int
    device: torch.device
    size: int | None
    seed: int
    tune: bool


def compare(
    more: Annotated[list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="More photographs.")] = None,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "resnet50",
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 16,
    dtype: Annotated[str, typer.Option(help="fp32 or bf16 (in training: autocast).")] = "fp32",
    train: Annotated[bool, typer.Option("--train", help="Compare a training step too.")] = False,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH...",
            help="Photographs, or folders of them (default: scikit-learn's, scikit-image's)",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help=WEIGHTS_HELP),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the table, the JSON and the chart go.")
    ] = Path("fusedres-compare"),
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved timing rounds.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: torch's)")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    size: Annotated[
        int | None, typer.Option(min=32, help="Side of a crop (default: the weights' own)")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the crops, and of seeded weights.")] = 0,
    tune: Annotated[bool, typer.Option("--tune", help="Tune ours first, as `fusedres tune` does.")] = False,
    precision: Annotated[str | None, typer.Option(help=PRECISION_HELP)] = None,
) -> None:
    """Compare torchvision's model and ours on real photographs: the same answers, how fast.

    Exits with 1 where ours breaks the rule of docs/numerics.md, with 2 on bad input.
    """
    with user_errors():
        check_choice("--model", model, MODELS)
        check_choice("--dtype", dtype, tuple(DTYPES))
        settings = Settings(
            model, batch, dtype, train, weights, rounds, pick_device(device), size, seed, tune
        )
        require("matplotlib.figure", "the chart")  # before minutes of work rather than after
        _make_folder(folder)
        photos, unreadable = _photographs([*(images or []), *(more or [])])
        with cpu_threads(threads), at_precision(precision):
            comparison = _run_and_write(settings, photos, unreadable, folder)
    if not comparison.passed:
        raise typer.Exit(1)


def _run_and_write(
    settings: Settings, photos: list[Photo], unreadable: list[str], folder: Path
) -> Comparison:
    console = out()
    with console.status("finding weights"):
        weights = find_weights(
            settings.model, settings.weights, photos, seed=settings.seed, size=settings.size
        )
    batch = make_batch(photos, settings.batch, weights.preset, settings.seed)
    with _progress() as progress:
        sections = _run(settings, weights, batch, len(photos), progress)
    comparison = Comparison(
        model=settings.model,
        batch=settings.batch,
        size=batch.images.shape[-1],
        dtype=settings.dtype,
        device=device_name(settings.device),
        threads=torch.get_num_threads(),
        rounds=settings.rounds,
        seed=settings.seed,
        weights_kind=weights.kind,
        weights=weights.source,
        photos=tuple(dict.fromkeys(batch.photos)),
        unreadable=tuple(unreadable),
        sections=sections,
        versions=versions(),
        plan=_plan(settings, sections),
        precision=PRECISION.get(),
    )
    shown = len(sections[0].seen)
    thumbnails = [displayable(image, weights.preset) for image in batch.images[:shown]]
    table, data, chart = folder / "compare.md", folder / "compare.json", folder / "compare.png"
    write_json(data, as_json(comparison))
    write_text(table, markdown(comparison))
    draw_chart(comparison, thumbnails, weights.categories, chart)
    print_report(comparison, console)
    for what, path in (("table", table), ("data", data), ("chart", chart)):
        console.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)
    return comparison


def _run(
    settings: Settings, weights: Weights, batch: Batch, photos: int, progress: Progress
) -> tuple[Section, ...]:
    plain, ours = build_plain(settings.model, weights), build_ours(settings.model, weights)
    dtype = DTYPES[settings.dtype]
    step = _steps(progress, "inference", inference.CHECK_STEPS + settings.rounds)
    shown = batch.photos[:photos]
    sections = [
        inference.compare_inference(
            plain,
            ours,
            batch.images,
            shown,
            settings.device,
            dtype,
            settings.rounds,
            step,
            settings.tune,
        )
    ]
    if settings.train:
        step = _steps(progress, "training", training.CHECK_STEPS + settings.rounds)
        # a photograph's crops are a class of their own: labels that a network can learn
        names = list(dict.fromkeys(batch.photos))
        labels = torch.tensor([names.index(name) % weights.num_classes for name in batch.photos])
        sections.append(
            training.compare_training(
                plain,
                ours,
                batch.images,
                labels,
                settings.device,
                dtype,
                settings.rounds,
                step,
                settings.tune,
            )
        )
    return tuple(sections)


def _photographs(paths: list[Path]) -> tuple[list[Photo], list[str]]:
    if not paths:
        return shipped_photos(), []
    photos, failures = read_photos(paths)
    for message in failures:
        warn(f"{message}; going on without it")
    if not photos:
        raise UserError(
            f"--images must hold at least one image that can be read; got {len(failures)} that cannot"
        )
    return photos, failures


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out must be a folder that can be made; got {folder}: {error.strerror}") from error


def _progress() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=out(), transient=True)


def _steps(progress: Progress, description: str, total: int) -> Callable[[], None]:
    task = progress.add_task(description, total=total)
    return lambda: progress.advance(task)


def _plan(settings: Settings, sections: tuple[Section, ...]) -> str:
    """By what ours was run, in the words of the report."""
    if settings.tune:
        return "tuned just before"
    decided, blocks = (sum(counts) for counts in zip(*(section.planned for section in sections), strict=True))
    if not decided:
        return "the default rules, not tuned"
    return (
        "a stored plan" if decided == blocks else f"a stored plan for {decided} of {blocks} distinct blocks"
    )
