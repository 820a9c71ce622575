"""Instructions that exchange values within a warp."""

from __future__ import annotations

from ...ptx.model import Instr, Pair
from ..emitter import BlockEmitter
from .common import Lowering

SHUFFLE_MODE = {"up": 0, "down": 1, "bfly": 2, "idx": 3}
VOTE_KIND = {"ballot": 0, "any": 1, "all": 2, "uni": 3}
# ``enum ReduceOp`` of runtime/abi.hpp
REDUCE_LOGIC = {"add": 0, "and": 5, "or": 6, "xor": 7}
REDUCE_UNSIGNED = {"min": 1, "max": 2}
REDUCE_SIGNED = {"min": 3, "max": 4}
REDUCE_FLOAT = {"min": 8, "max": 9}


def _value_and_predicate(e: BlockEmitter, instr: Instr, value: str, predicate: str) -> None:
    """Write ``%r|%p``, or ``%r`` alone."""
    destination = instr.args[0]
    if isinstance(destination, Pair):
        e.assign(destination.first, 32, value)
        e.assign_predicate(destination.second, predicate)
    else:
        e.assign(destination, 32, value)


def _shfl(e: BlockEmitter, instr: Instr) -> None:
    operands = ", ".join(f"&{e.load(operand, 32)}" for operand in instr.args[1:5])
    result, in_range = e.result(32, zero=True), e.result(1, zero=True)
    e.call("pe_shfl", SHUFFLE_MODE[instr.parts[2]], operands, f"&{result}", f"&{in_range}")
    _value_and_predicate(e, instr, result, in_range)


def _vote(e: BlockEmitter, instr: Instr) -> None:
    synchronises = instr.parts[1] == "sync"
    kind = instr.parts[2] if synchronises else instr.parts[1]
    members = e.load(instr.args[2], 32) if synchronises else e.hold("bc32(m)", 32)
    predicate, ballot = e.predicate(instr.args[1]), e.result(32)
    result = e.hold(
        f"pe_vote(w, {e.mask}, {VOTE_KIND[kind]}, {predicate}, &{members}, &{ballot}, {instr.line})", 1
    )
    if kind == "ballot":
        e.assign(instr.args[0], 32, ballot)
    else:
        e.assign_predicate(instr.args[0], result)


def _activemask(e: BlockEmitter, instr: Instr) -> None:
    e.assign(instr.args[0], 32, "bc32(m)")


def _match(e: BlockEmitter, instr: Instr) -> None:
    value, members = e.load(instr.args[1], 64), e.load(instr.args[2], 32)
    result, all_equal = e.result(32, zero=True), e.result(1, zero=True)
    e.call("pe_warpsync", f"&{members}")
    arguments = f"{int(instr.has('all'))}, &{value}, &{members}, &{result}, &{all_equal}"
    e.line(f"pe_match(w, {e.mask}, {arguments});")
    _value_and_predicate(e, instr, result, all_equal)


def _redux(e: BlockEmitter, instr: Instr) -> None:
    operation, type_name = instr.parts[2], instr.type
    if operation in REDUCE_LOGIC:
        code = REDUCE_LOGIC[operation]
    elif type_name == "f32":
        code = REDUCE_FLOAT[operation]
    else:
        code = (REDUCE_UNSIGNED if type_name[0] == "u" else REDUCE_SIGNED)[operation]
    value, members = e.load(instr.args[1], 32), e.load(instr.args[2], 32)
    result = e.result(32, zero=True)
    e.call("pe_warpsync", f"&{members}")
    e.line(f"pe_redux(w, {e.mask}, {code}, &{value}, &{members}, &{result});")
    e.assign(instr.args[0], 32, result)


def _elect(e: BlockEmitter, instr: Instr) -> None:
    """The first of the executing lanes."""
    destination = instr.args[0]
    assert isinstance(destination, Pair)
    e.assign(destination.first, 32, f"bc32({e.mask} ? first({e.mask}) : 0)")
    e.assign_predicate(destination.second, f"({e.mask} & (0u - {e.mask}))")


def _bar_warp_sync(e: BlockEmitter, instr: Instr) -> None:
    """The CTA's barriers end a block (`cfg`); only bar.warp.sync is an instruction."""
    e.call("pe_warpsync", f"&{e.load(instr.args[0], 32)}")


def _cluster_arrive(e: BlockEmitter, instr: Instr) -> None:
    e.line(f"pe_cluster_arrive(w, {e.mask});")


def _barrier_result(e: BlockEmitter, instr: Instr) -> None:
    """The reduction of the bar.red that ended the block before."""
    if instr.type == "pred":
        e.assign_predicate(instr.args[0], "(w->bar_result ? ~0u : 0u)")
    else:
        e.assign(instr.args[0], 32, "bc32(w->bar_result)")


LOWERINGS: dict[str, Lowering] = {
    "shfl": _shfl,
    "vote": _vote,
    "activemask": _activemask,
    "match": _match,
    "redux": _redux,
    "elect": _elect,
    "bar": _bar_warp_sync,
    "barrier": _cluster_arrive,
    "__barres": _barrier_result,
}
