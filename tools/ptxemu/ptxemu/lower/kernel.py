"""A kernel: one C++ function per basic block, and the tables the runtime reads."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..ptx.model import TYPE_BYTES, Function, Imm, Instr, Module
from .cfg import Block, build_blocks
from .classes import CLASSES, classify
from .emitter import BlockEmitter
from .flatten import flatten
from .instructions import LOWERINGS
from .layout import Layout, lay_out
from .registers import Registers, accumulator_ids

C_TYPE = {1: "P", 16: "V16", 32: "V32", 64: "V64"}  # of a register, by its width
EXIT_TARGET = 0xFFFFFFFF  # PC_EXIT in runtime/abi.hpp
BARRIER_ARRIVE, BARRIER_SYNC, BARRIER_REDUCE = 1, 0, 2  # Warp::bar_kind
REDUCE_POPC, REDUCE_AND, REDUCE_OR = 1, 2, 3  # Warp::bar_op


@dataclass(frozen=True)
class LoweredKernel:
    """C++ source of a kernel's blocks and tables, and the initialiser of its ``KernelDesc``."""

    source: str
    descriptor: str


def lower_kernel(
    module: Module, function: Function, globals_: Mapping[str, str], prefix: str
) -> LoweredKernel:
    """Translate one kernel; `prefix` starts the names of its C++ functions and tables.

    Raises:
        PtxError: naming the line and the instruction that cannot be translated.
    """
    return _KernelLowering(module, function, globals_, prefix).lower()


class _KernelLowering:
    def __init__(self, module: Module, function: Function, globals_: Mapping[str, str], prefix: str) -> None:
        self.module = module
        self.function = function
        self.globals = globals_
        self.prefix = prefix
        flat = flatten(module, function)
        self.layout: Layout = lay_out(flat, flat.code)
        self.blocks = build_blocks(flat.code, flat.branch_targets)
        self.registers = Registers(flat.registers)
        self.registers.allocate(self.blocks)
        self.accumulators = accumulator_ids(flat.code, self.registers)

    def lower(self) -> LoweredKernel:
        functions = [self.lower_block(block) for block in self.blocks]
        rows = ",\n".join(self.block_row(block) for block in self.blocks)
        offsets = ",".join(str(offset) for offset, _ in self.layout.params) or "0"
        sizes = ",".join(str(size) for _, size in self.layout.params) or "0"
        tables = [
            f"static const BlockDesc {self.prefix}_blocks[] = {{\n{rows}}};",
            f"static const uint32_t {self.prefix}_param_off[] = {{{offsets}}};",
            f"static const uint32_t {self.prefix}_param_size[] = {{{sizes}}};",
        ]
        return LoweredKernel("\n".join(functions + tables), self.descriptor())

    # ---- tables

    def block_row(self, block: Block) -> str:
        target = 0
        if block.target is not None:
            target = block.target.index
        elif block.terminator is not None and block.terminator.base in ("exit", "ret"):
            target = EXIT_TARGET
        counts = dict.fromkeys(CLASSES, 0)
        for instr in block.instructions():
            if instr.base != "__barres":  # the second half of one bar.red
                counts[classify(instr)] += 1
        name = f"{self.prefix}_b{block.index}"
        row = ",".join(map(str, counts.values()))
        return f"  {{{name}, {target}u, {block.flags}u, {block.line}u, {{{row}}}}}"

    def descriptor(self) -> str:
        layout, attributes = self.layout, self.function.attributes
        max_threads = attributes.get("maxntid") or attributes.get("reqntid") or ""
        cluster = [int(n) for n in attributes.get("reqnctapercluster", "0,0,0").split(",")]
        target = re.search(r"sm_(\d+)", self.module.target)
        instrs = [instr for block in self.blocks for instr in block.body]
        fields = [
            f'"{self.function.name}"',
            f"{self.prefix}_blocks",
            f"{len(self.blocks)}u",
            f"{self.registers.file_bytes}u",
            f"{layout.shared_bytes}u",
            f"{layout.shared_align}u",
            f"{layout.local_bytes}u",
            f"{len(layout.params)}u",
            f"{layout.param_bytes}u",
            f"{self.prefix}_param_off",
            f"{self.prefix}_param_size",
            f"{_race_granularity(instrs)}u",
            f"{math.prod(int(n) for n in max_threads.split(',')) if max_threads else 0}u",
            f"{{{','.join(map(str, [*cluster, 1, 1][:3]))}}}",
            f"{int(any(instr.base == 'mbarrier' for instr in instrs))}u",
            f"{int(target.group(1)) if target else 0}u",
            f"{int(layout.has_dynamic_shared)}u",
            "locations_, location_count_, files_",
        ]
        return f"{{{', '.join(fields)}}}"

    # ---- blocks

    def lower_block(self, block: Block) -> str:
        emitter = BlockEmitter(self.registers, self.layout, self.globals)
        for instr in block.body:
            self.lower_instruction(emitter, instr)
        jump = self.lower_terminator(emitter, block)
        loads, stores = self.load_and_store(block)
        return "\n".join(
            [
                f"static uint64_t {self.prefix}_b{block.index}(Warp* w, uint32_t m) {{",
                "  char* rf = w->rf; (void)rf;",
                *(f"  {line}" for line in [*loads, *emitter.lines, *stores, jump]),
                "}",
            ]
        )

    def load_and_store(self, block: Block) -> tuple[list[str], list[str]]:
        """Declarations of the block's registers (loaded where live), and the stores of those that live on."""
        used: dict[str, None] = {}
        for instr in block.instructions():
            written, read = self.registers.written_and_read(instr)
            used.update(dict.fromkeys(written + read))
        loads, stores = [], []
        for name in used:
            width, variable = self.registers.width(name), self.registers.variable(name)
            value = ""
            if self.registers.is_loaded(block, name):
                slot = f"rf+{self.registers.slots[name]}"
                value = f" = *(P*)({slot})" if width == 1 else f" = ldv{width}({slot})"
            loads.append(f"{C_TYPE[width]} {variable}{value};")
            if self.registers.is_stored(block, name):
                suffix = "p" if width == 1 else width
                stores.append(f"stv{suffix}(rf+{self.registers.slots[name]}, m, {variable});")
        return loads, stores

    def lower_instruction(self, emitter: BlockEmitter, instr: Instr) -> None:
        emitter.begin(instr)
        lowering = LOWERINGS.get(instr.base)
        if lowering is None:
            raise emitter.error(f"unsupported instruction {instr.text!r}")
        try:
            before, after = self.track_accumulators(emitter, instr) if self.accumulators else ("", "")
            if before:
                emitter.line(before)
            lowering(emitter, instr)
            if after:
                emitter.line(after)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, StopIteration) as error:
            # modifiers or operands that the lowering does not expect
            raise emitter.error(f"cannot lower {instr.text!r}: {type(error).__name__} {error}") from error

    def lower_terminator(self, emitter: BlockEmitter, block: Block) -> str:
        """Write the terminator; gives the block's ``return``: the next block and the lanes that jump."""
        next_index = block.fall_through.index if block.fall_through else 0
        terminator = block.terminator
        if terminator is None:
            return f"return R64({next_index}, 0);"
        emitter.begin(terminator)
        if terminator.base in ("bra", "exit", "ret"):
            if terminator.guard:
                emitter.line(f"P taken_ = {emitter.guard_mask(terminator)};")
                return f"return R64({next_index}, taken_);"
            return f"return R64({block.target.index if block.target else 'PC_EXIT'}, 0);"
        if terminator.base == "brx":
            table = ",".join(str(target.index) for target in block.targets)
            emitter.line(f"static const uint32_t table_[] = {{{table}}};")
            index = emitter.value(terminator.args[0], 32)
            emitter.line(f"pe_branch_table(w, m, {index}, table_, {len(block.targets)}u);")
            return "return R64(PC_MULTI, 0);"
        if terminator.base == "__clusterwait":
            emitter.line("uint32_t ready_ = pe_cluster_wait(w, m);")
            return f"return ready_ ? R64({next_index}, 0) : R64({block.index}, 0);"
        self.lower_barrier(emitter, terminator)
        return f"return R64({next_index}, 0);"

    def lower_barrier(self, emitter: BlockEmitter, instr: Instr) -> None:
        """bar.sync / arrive / red: the arguments go to the warp, the scheduler does the rest."""
        kind = BARRIER_ARRIVE if instr.has("arrive") else BARRIER_REDUCE if instr.has("red") else BARRIER_SYNC
        args = list(instr.args)
        predicate = args.pop() if kind == BARRIER_REDUCE else None
        barrier = emitter.value(args[0] if args else Imm(0), 32)
        count = f"uni32({emitter.value(args[1], 32)}, m)" if len(args) > 1 else "0"
        emitter.line(f"w->bar_kind = {kind}; w->bar_id = uni32({barrier}, m); w->bar_cnt = {count};")
        if predicate is not None:
            reduce = REDUCE_POPC if instr.has("popc") else REDUCE_AND if instr.has("and") else REDUCE_OR
            emitter.line(f"w->bar_op = {reduce}; w->bar_pred = {emitter.predicate(predicate)};")

    # ---- wgmma accumulators in flight (race mode)

    def track_accumulators(self, emitter: BlockEmitter, instr: Instr) -> tuple[str, str]:
        """Statements before and after `instr` that follow accumulators in flight through registers."""

        def ids(names: list[str]) -> str:
            numbers = ", ".join(str(self.accumulators[name]) for name in names)
            return f"(const uint16_t[]){{{numbers}}}, {len(names)}"

        def tracked(names: list[str]) -> list[str]:
            return [name for name in dict.fromkeys(names) if name in self.accumulators]

        def check(names: list[str]) -> str:
            if not names:
                return ""
            return f"if (w->wg_pend) pe_wg_read(w, {emitter.mask}, {ids(names)}, {instr.line});"

        if instr.op.startswith("wgmma.mma_async"):
            accumulators = tracked(self.registers.in_operands(instr.args[:1]))
            operands = tracked(self.registers.in_operands(instr.args[1:2]))
            return check(operands), f"pe_wg_issue(w, {emitter.mask}, {ids(accumulators)});"
        written, _ = self.registers.written_and_read(instr.guarded_by(None))
        targets = [name for name in written if name in self.accumulators]
        sources = tracked(self.registers.in_operands(instr.args[1:] if targets else instr.args))
        if instr.base == "mov":
            copy = f"if (w->wg_pend) pe_wg_copy(w, {emitter.mask}, {ids(targets)}, {ids(sources)});"
            return "", copy if targets else ""
        clear = f"if (w->wg_pend) pe_wg_copy(w, {emitter.mask}, {ids(targets)}, nullptr, 0);"
        return check(sources), clear if targets and not instr.guard else ""


def _race_granularity(instrs: list[Instr]) -> int:
    """Bytes of shared memory that the race detector tracks as one: the smallest scalar access, at most 4."""
    sizes = [
        TYPE_BYTES[instr.type]
        for instr in instrs
        if instr.base in ("ld", "st", "atom", "red")
        and TYPE_BYTES.get(instr.type)
        and not (instr.has("v2") or instr.has("v4"))
    ]
    return min([4, *sizes])
