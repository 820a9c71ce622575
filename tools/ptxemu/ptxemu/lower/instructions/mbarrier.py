"""mbarrier: asynchronous barriers in shared memory."""

from __future__ import annotations

from ...ptx.model import Instr, Memory
from ..emitter import BlockEmitter
from .common import Lowering

# ``enum MbarArrive`` of runtime/abi.hpp
ARRIVE, ARRIVE_DROP, ARRIVE_EXPECT_TX, EXPECT_TX, COMPLETE_TX = range(5)
ARRIVE_KIND = {
    "arrive": ARRIVE,
    "arrive_drop": ARRIVE_DROP,
    "expect_tx": EXPECT_TX,
    "complete_tx": COMPLETE_TX,
}


def _mbarrier(e: BlockEmitter, instr: Instr) -> None:
    operation = instr.parts[1]
    if operation == "init":
        address, count = e.address(instr.args[0], "shared"), e.load(instr.args[1], 32)
        e.call("pe_mbar_init", address, f"&{count}")
    elif operation == "inval":
        e.call("pe_mbar_inval", e.address(instr.args[0], "shared"))
    elif operation in ARRIVE_KIND:
        _arrive(e, instr)
    elif operation in ("test_wait", "try_wait"):
        _wait(e, instr)
    else:
        raise e.unsupported()


def _arrive(e: BlockEmitter, instr: Instr) -> None:
    """Operands: the phase token if it is wanted, the barrier, a count if it is not 1."""
    args = list(instr.args)
    token = None if isinstance(args[0], Memory) else args.pop(0)
    address = e.address(args[0], "shared")
    kind = ARRIVE_KIND[instr.parts[1]]
    if kind == ARRIVE and instr.has("expect_tx"):
        kind = ARRIVE_EXPECT_TX
    count = f"&{e.load(args[1], 32)}" if len(args) > 1 else "nullptr"
    state = e.result(64, zero=True)
    e.call("pe_mbar_arrive", address, kind, count, f"&{state}")
    if token is not None:
        e.assign(token, 64, state)


def _wait(e: BlockEmitter, instr: Instr) -> None:
    """Waits for a phase, named by its parity or by the token of an arrive."""
    address, by_parity = e.address(instr.args[1], "shared"), instr.has("parity")
    phase = e.hold(f"zx64({e.value(instr.args[2], 32)})", 64) if by_parity else e.load(instr.args[2], 64)
    is_try = int(instr.parts[1] == "try_wait")
    done = f"pe_mbar_test(w, {e.mask}, {address}, {int(by_parity)}, &{phase}, {is_try}, {instr.line})"
    e.assign_predicate(instr.args[0], done)


LOWERINGS: dict[str, Lowering] = {"mbarrier": _mbarrier}
