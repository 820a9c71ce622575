"""Command line: ``python -m ptxemu run [options] -- COMMAND...`` and ``python -m ptxemu translate FILE``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import device
from .build import translate
from .errors import PtxError, ToolError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ptxemu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="run a program on the stand-in CUDA device")
    run.add_argument("--sm", type=int, default=90, choices=device.ARCHITECTURES)
    run.add_argument("--race", action="store_true", help="report shared memory races")
    run.add_argument("--check-init", action="store_true", help="report reads of shared memory never written")
    run.add_argument("--log", action="store_true", help="print each launch")
    run.add_argument("--counters", type=Path, help="append each launch's counters to this file")
    run.add_argument("--list", action="store_true", help="note launches in that file, but run none")
    run.add_argument("--seed", type=int, default=0, help="randomise the order of warps")
    run.add_argument("--threads", type=int, default=2, help="CTAs that run at once")
    run.add_argument(
        "--caching-allocator", action="store_true", help="keep torch's own (CUDA graphs need it)"
    )
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="COMMAND")

    build = commands.add_parser("translate", help="translate a PTX file; prints the shared object's path")
    build.add_argument("ptx", type=Path)
    build.add_argument("--only", help="translate this kernel alone")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "translate":
            print(translate(options.ptx.read_text(), [options.only] if options.only else None).library)
            return 0
        return _run(options)
    except (PtxError, ToolError) as error:
        print(error, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        print("ptxemu run: no command given", file=sys.stderr)
        return 2
    settings = device.DeviceOptions(
        sm=options.sm,
        race=options.race,
        check_init=options.check_init,
        log=options.log,
        counters=options.counters,
        list_only=options.list,
        seed=options.seed,
        threads=options.threads,
        caching_allocator=options.caching_allocator,
    )
    os.execvpe(program[0], program, device.environment(settings))


if __name__ == "__main__":
    sys.exit(main())
