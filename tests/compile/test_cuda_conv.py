"""The convolutions' registers, and the instructions of their main loops, in the library as it was built."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kernels.compiled import Usage, machine_code, main_loop, resource_usage
from tests.compile.conftest import built_for

#: The architecture that budgets of instructions are for: others have more (docs/kernels.md).
COUNTED = "80"

#: Two blocks of eight warps share a processor's 65536 registers.
MOST_REGISTERS = 128

#: The tile of eight warps, as the compiler spells it.
LARGEST_TILE = "4TileILi128ELi128ELi64ELi32E"

#: Instructions a matrix instruction, of a forward convolution without a prologue, by the kernel and what its
#: name has before the prologue: a patch's stride. A good library kernel has 3.1; a patch's fragments need an
#: address each for every tap, and at stride 2 a tap brings three slots a thread (docs/kernels.md).
MOST_INSTRUCTIONS = {
    ("conv_gemm_kernel", ""): 3.5,
    ("conv_patch_kernel", "Li1ENS0_"): 4.0,
    ("conv_patch_kernel", "Li2ENS0_"): 5.0,
}


@pytest.fixture(scope="module")
def kernels(library: Path) -> dict[str, Usage]:
    if COUNTED not in built_for():
        pytest.skip(f"the build is for {built_for()}, and not for {COUNTED}")
    return resource_usage(library, COUNTED)


def test_registers_of_the_largest_tile(library: Path) -> None:
    for architecture in built_for():
        kernels = resource_usage(library, architecture)
        largest = {name: usage.registers for name, usage in kernels.items() if LARGEST_TILE in name}
        assert len(largest) >= 26, (
            "both kernels, five prologues and epilogues, two dtypes, and patches at stride 2"
        )
        excessive = {name: registers for name, registers in largest.items() if registers > MOST_REGISTERS}
        assert not excessive, f"{architecture}: more than {MOST_REGISTERS} registers: {excessive}"


@pytest.mark.parametrize(("kernel", "stride"), MOST_INSTRUCTIONS)
def test_instructions_a_matrix_instruction(
    kernel: str, stride: str, library: Path, kernels: dict[str, Usage]
) -> None:
    wanted = (kernel, LARGEST_TILE, "BFloat16", f"{stride}3RawE", "AffineAct")
    names = [name for name in kernels if all(part in name for part in wanted)]
    assert len(names) == 1, names
    loop = main_loop(machine_code(library, names[0], COUNTED))
    products = [index for index, text in enumerate(loop) if "HMMA" in text]
    assert len(products) == 32, f"{len(products)} matrix instructions: not the main loop of 64 × 32 a warp"
    each = len(loop) / len(products)
    assert each <= MOST_INSTRUCTIONS[kernel, stride], (
        f"{len(loop)} instructions for {len(products)} HMMA: {each:.2f}"
    )
    copies = [index for index, text in enumerate(loop) if "LDGSTS" in text]
    loads = [index for index, text in enumerate(loop) if "LDSM" in text]
    assert max(copies + loads) > products[0], "all loads stand ahead of the products"
