"""cvt: the common conversions are lane-vector expressions, the others go through ``pe_cvt``."""

from __future__ import annotations

from ...ptx.model import FLOAT_TYPES, TYPE_BYTES, Instr, container_bits
from ..emitter import BlockEmitter, convert
from .common import Lowering, rounding

# ``enum ConvertType`` of runtime/abi.hpp
TYPE_CODE = {
    "u8": 0, "b8": 0, "s8": 1, "u16": 2, "b16": 2, "s16": 3, "u32": 4, "b32": 4, "s32": 5, "u64": 6, "b64": 6,
    "s64": 7, "f16": 8, "bf16": 9, "f32": 10, "f64": 11, "e4m3x2": 12, "e5m2x2": 13,
}  # fmt: skip
FP8_PAIRS = ("e4m3x2", "e5m2x2")
DIRECT = {
    ("f32", "s32"), ("f32", "u32"), ("f32", "s64"), ("f32", "u64"), ("f64", "s64"), ("f64", "u64"),
    ("s32", "f32"), ("u32", "f32"), ("f32", "f64"),
}  # fmt: skip
NARROW_TO_32 = {"s16": "sx32({})", "u16": "zx32({})", "s8": "sx32(sx8_16({}))", "u8": "zx32(zx8_16({}))"}
INTEGRAL_ROUNDING = ("rni", "rzi", "rmi", "rpi")


def _cvt(e: BlockEmitter, instr: Instr) -> None:
    if instr.has("pack"):
        raise e.unsupported()
    types = [part for part in instr.parts[1:] if part in TYPE_BYTES or part in (*FP8_PAIRS, "ue8m0x2")]
    to, source = types[-2:]
    if to in FP8_PAIRS:
        _to_fp8(e, instr, to, source)
    elif source in FP8_PAIRS:
        _from_fp8(e, instr, source)
    elif to in ("f16x2", "bf16x2"):
        _to_half_pair(e, instr, to)
    elif to == "tf32":
        function = next((f"tf32_{mode}" for mode in ("rna", "rz") if instr.has(mode)), "tf32_rn")
        e.assign(instr.args[0], 32, f"{function}({e.value(instr.args[1], 32)})")
    elif to not in FLOAT_TYPES and source not in FLOAT_TYPES and not instr.has("sat"):
        _integer_to_integer(e, instr, to, source)
    else:
        _general(e, instr, to, source)


def _to_half_pair(e: BlockEmitter, instr: Instr, to: str) -> None:
    form = "relu_f32({})" if instr.has("relu") else "{}"
    high, low = (form.format(e.value(operand, 32)) for operand in instr.args[1:3])
    e.assign(instr.args[0], 32, f"cvt_{to}<{rounding(instr)}>({high}, {low})")


def _integer_to_integer(e: BlockEmitter, instr: Instr, to: str, source: str) -> None:
    byte_extension = {"u8": "zx8_16({})", "b8": "zx8_16({})", "s8": "sx8_16({})"}
    value = e.value(instr.args[1], container_bits(source))
    value = byte_extension.get(source, "{}").format(value)
    value = convert(value, container_bits(source), container_bits(to), source[0] == "s")
    if to in ("u8", "s8"):
        value = byte_extension[to].format(value)
    e.assign(instr.args[0], container_bits(to), value, signed=to[0] == "s")


def _general(e: BlockEmitter, instr: Instr, to: str, source: str) -> None:
    """At least one side is a float, or the result saturates."""
    from_width, to_width = container_bits(source), container_bits(to)
    value = e.value(instr.args[1], from_width)
    if instr.has("ftz") and source == "f32":
        value = f"ftz({value})"
    result = _direct(instr, to, source, value)
    if result is None:
        held, converted = e.hold(value, from_width), e.result(to_width)
        codes = f"{TYPE_CODE[to]}, {TYPE_CODE[source]}, {rounding(instr)}, {int(instr.has('sat'))}"
        e.line(f"pe_cvt({codes}, &{held}, &{converted});")
        result = converted
    elif instr.has("sat") and to == "f32":
        result = f"sat_f32({result})"
    if instr.has("ftz") and to == "f32":
        result = f"ftz({result})"
    e.assign(instr.args[0], to_width, result, signed=to[0] == "s")


def _direct(instr: Instr, to: str, source: str, value: str) -> str | None:
    """A lane-vector expression for the conversion, if there is one."""
    mode = rounding(instr)
    if to == source and to in ("f32", "f64"):
        return f"rint_{to}<{mode}>({value})" if any(map(instr.has, INTEGRAL_ROUNDING)) else value
    if (to, source) in DIRECT:
        return f"cvt_{to}_{source}<{mode}>({value})"
    if to == "f64" and source in ("s32", "u32"):
        return f"cvt_f64_{source[0]}64<0>({'sx64' if source[0] == 's' else 'zx64'}({value}))"
    if to == "f32" and source in NARROW_TO_32:
        return f"cvt_f32_s32<{mode}>({NARROW_TO_32[source].format(value)})"
    if to in ("f16", "bf16") and source == "f32":
        return f"cvt_{to}_f32<{mode}>({f'relu_f32({value})' if instr.has('relu') else value})"
    if to == "f32" and source in ("f16", "bf16"):
        return f"cvt_f32_{source}({value})"
    if (to, source) == ("f64", "f32"):
        return f"cvt_f64_f32({value})"
    return None


def _to_fp8(e: BlockEmitter, instr: Instr, to: str, source: str) -> None:
    """Two f32 operands, or one f16x2 operand, to a pair of 8-bit floats."""
    if source == "f32":
        high, low = e.load(instr.args[1], 32), e.load(instr.args[2], 32)
        source_code = TYPE_CODE["f32"]
    else:
        pair = e.value(instr.args[1], 32)
        high, low = e.hold(f"hi16({pair})", 16), e.hold(f"lo16({pair})", 16)
        source_code = TYPE_CODE["f16"]
    high_byte, low_byte = e.result(16), e.result(16)
    for half, byte in ((high, high_byte), (low, low_byte)):
        e.line(f"pe_cvt({TYPE_CODE[to]}, {source_code}, 0, 0, &{half}, &{byte});")
    e.assign(instr.args[0], 16, f"or16(shl16({high_byte}, bc32(8)), {low_byte})")


def _from_fp8(e: BlockEmitter, instr: Instr, source: str) -> None:
    """A pair of 8-bit floats to f16x2."""
    pair = e.load(instr.args[1], 16)
    low, high = e.hold(f"zx8_16({pair})", 16), e.hold(f"shr_u16({pair}, bc32(8))", 16)
    low_half, high_half = e.result(16), e.result(16)
    for byte, half in ((low, low_half), (high, high_half)):
        e.line(f"pe_cvt({TYPE_CODE['f16']}, {TYPE_CODE[source]}, 0, 0, &{byte}, &{half});")
    e.assign(instr.args[0], 32, f"pack32({low_half}, {high_half})")


LOWERINGS: dict[str, Lowering] = {"cvt": _cvt}
