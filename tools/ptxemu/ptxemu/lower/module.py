"""A PTX module as one C++ file: its variables, its kernels and the ``pe_module`` table the runtime reads."""

from __future__ import annotations

import re
import struct
from collections.abc import Container
from dataclasses import dataclass, field

from ..errors import PtxError
from ..ptx.model import TYPE_BYTES, Module, Variable
from ..ptx.operands import parse_int
from .kernel import LoweredKernel, lower_kernel

MIN_VARIABLE_ALIGN = 16
SPACE_GLOBAL, SPACE_CONST = 0, 1  # VariableDesc::space
_SYMBOL = re.compile(r"^([A-Za-z_$%][\w$.]*)\s*(?:\+\s*(\d+))?$")
_GENERIC_SYMBOL = re.compile(r"^generic\s*\(\s*([\w$%.]+)\s*\)\s*(?:\+\s*(\d+))?$")


@dataclass
class LoweredModule:
    """C++ source of a module; `errors` says why a kernel that is missing from it could not be translated."""

    source: str
    errors: dict[str, str] = field(default_factory=dict)


def lower_module(module: Module, only: Container[str] | None = None) -> LoweredModule:
    """Translate the kernels of a module.

    With `only`, those kernels alone, and one that cannot be translated raises PtxError; without it, such
    kernels are left out and listed in `errors`, so that the others stay usable.
    """
    variables = [v for v in module.variables.values() if v.space in ("global", "const")]
    globals_ = {variable.name: f"gv{number}_" for number, variable in enumerate(variables)}
    kernels: list[LoweredKernel] = []
    errors: dict[str, str] = {}
    for function in module.functions.values():
        if not function.is_entry or not function.has_body or (only and function.name not in only):
            continue
        try:
            kernels.append(lower_kernel(module, function, globals_, f"k{len(kernels)}"))
        except PtxError as error:
            if only:
                raise
            errors[function.name] = str(error)
    source = [
        '#include "gen.hpp"',
        *_variable_definitions(variables, globals_),
        *_source_tables(module),
        *(kernel.source for kernel in kernels),
        *_module_tables(kernels, variables, globals_),
    ]
    return LoweredModule("\n".join(source) + "\n", errors)


def _variable_definitions(variables: list[Variable], globals_: dict[str, str]) -> list[str]:
    definitions, relocations = [], []
    for variable in variables:
        name = globals_[variable.name]
        image = _initial_value(variable)
        size = _size(variable, image)
        init = f" = {{{','.join(map(str, image.data))}}}" if any(image.data) else ""
        align = max(MIN_VARIABLE_ALIGN, variable.align)
        definitions.append(f"alignas({align}) static uint8_t {name}[{size}]{init};")
        for offset, symbol, addend in image.relocations:
            relocations.append(f"*(uint64_t*)({name} + {offset}) = (uint64_t){globals_[symbol]} + {addend};")
    if relocations:
        body = " ".join(relocations)
        definitions.append(f"__attribute__((constructor)) static void relocate_() {{ {body} }}")
    return definitions


def _source_tables(module: Module) -> list[str]:
    locations = module.locations if module.files else []
    rows = ",".join(f"{{{ptx}u,{file}u,{line}u}}" for ptx, file, line in locations or [(0, 0, 0)])
    files = ",".join(_c_string(name) for name in module.files or [""])
    return [
        f"static const LocationDesc locations_[] = {{{rows}}};",
        f"static const uint32_t location_count_ = {len(locations)};",
        f"static const char* const files_[] = {{{files}}};",
    ]


def _module_tables(
    kernels: list[LoweredKernel], variables: list[Variable], globals_: dict[str, str]
) -> list[str]:
    counts = f"{len(kernels)}u, {len(variables)}u"
    kernel_rows = ",\n".join(kernel.descriptor for kernel in kernels) or "{}"
    variable_rows = ",\n".join(_variable_row(variable, globals_[variable.name]) for variable in variables)
    return [
        f"static const KernelDesc kernels_[] = {{\n{kernel_rows}}};",
        f"static const VariableDesc variables_[] = {{\n{variable_rows or '{}'}}};",
        f'extern "C" const ModuleDesc pe_module = {{{counts}, kernels_, variables_}};',
    ]


def _variable_row(variable: Variable, array: str) -> str:
    size = _size(variable, _initial_value(variable))
    space = SPACE_GLOBAL if variable.space == "global" else SPACE_CONST
    return f'{{"{variable.name}", {array}, {size}ull, {space}u}}'


def _c_string(text: str) -> str:
    return '"' + text.replace("\\", "/").replace('"', "'") + '"'


@dataclass
class _Image:
    """Bytes of an initialised variable, and the (offset, symbol, addend) of the addresses in it."""

    data: bytes = b""
    relocations: list[tuple[int, str, int]] = field(default_factory=list)


def _size(variable: Variable, image: _Image) -> int:
    return max(variable.size, len(image.data), 1)


def _initial_value(variable: Variable) -> _Image:
    if variable.init is None:
        return _Image()
    element_size = TYPE_BYTES[variable.element_type]
    data = bytearray()
    relocations = []
    for text in re.sub(r"[{}\s]+", " ", variable.init).split(","):
        text = text.strip()
        if not text:
            continue
        symbol = _GENERIC_SYMBOL.match(text) or _SYMBOL.match(text)
        if symbol:
            relocations.append((len(data), symbol.group(1), int(symbol.group(2) or 0)))
            data += bytes(element_size)
        elif re.match(r"^-?0[fF]", text):
            sign = 0x80000000 if text[0] == "-" else 0
            data += struct.pack("<I", int(text.lstrip("-")[2:], 16) ^ sign)
        elif re.match(r"^0[dD][0-9a-fA-F]{16}$", text):
            data += struct.pack("<Q", int(text[2:], 16))
        else:
            data += (parse_int(text) & ((1 << (8 * element_size)) - 1)).to_bytes(element_size, "little")
    return _Image(bytes(data), relocations)
