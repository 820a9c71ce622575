"""``fusedres classify``: what our model sees in photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from fusedres.cli.console import UserError, check_choice, out, pick_device, refusals, user_errors, warn
from fusedres.cli.networks import build_ours
from fusedres.cli.photos import read_photos
from fusedres.cli.weights import MODELS, WEIGHTS_HELP, find_weights


def classify(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Photographs, or folders of them.")
    ],
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "resnet50",
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help=WEIGHTS_HELP),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of seeded weights.")] = 0,
) -> None:
    """Name the five likeliest classes of each photograph.

    Exits with 1 where an image could not be read (the others are classified), with 2 on other bad input.
    """
    with user_errors():
        check_choice("--model", model, MODELS)
        where = pick_device(device)
        photos, failures = read_photos(images)
        for message in failures:
            warn(f"{message}; going on without it")
        if not photos:
            raise UserError(
                f"IMAGE must name at least one image that can be read; got {len(failures)} that cannot"
            )
        console = out()
        with console.status("finding weights"):
            found = find_weights(model, weights, photos, seed=seed, size=None)
        network = build_ours(model, found).eval().to(where)
        if found.kind == "seeded":
            warn(f"weights: {found.source}. They were never trained, so the classes below mean nothing")
        with torch.inference_mode():
            for photo in photos:
                image = found.preset(photo.image).unsqueeze(0).to(where)
                with refusals():
                    logits = network(image)[0]
                top = logits.float().softmax(dim=0).topk(min(5, found.num_classes))
                table = Table(title=photo.name, title_style="bold", title_justify="left", min_width=40)
                table.add_column("class")
                table.add_column("probability", justify="right")
                for value, index in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                    table.add_row(found.class_name(index), f"{value:.1%}")
                console.print(table)
    if failures:
        raise typer.Exit(1)
