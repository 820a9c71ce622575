import pytest
import torch

import fusedres.ops
from tests.ops._rules import Bad, Inputs, KernelRules
from tests.ops.shapes import FEW_MAP_SHAPES, MAP_SHAPES, MapShape


class TestBnFinalize(KernelRules):
    op = "bn_finalize"
    outputs = ("mean", "var", "invstd", "scale", "shift")
    shapes = tuple(s for s in MAP_SHAPES if s.n)
    few_shapes = FEW_MAP_SHAPES
    variants = ("full", "no_gamma", "no_beta", "no_affine")
    vectors = frozenset({"count", "mean", "m2", "gamma", "beta"})
    bad = (
        Bad(
            "count_rank", lambda i: {"count": i["count"][None]}, ValueError, r"`count` must have shape \(T,\)"
        ),
        Bad(
            "tiles",
            lambda i: {"count": i["count"][1:]},
            ValueError,
            r"`count` must have shape \(T,\) and `mean`",
        ),
        Bad(
            "m2",
            lambda i: {"m2": i["m2"][:, 1:]},
            ValueError,
            r"bn_finalize: `m2` must have shape \(14, 10\)",
        ),
        Bad(
            "m2_dtype",
            lambda i: {"m2": i["m2"].double()},
            TypeError,
            "`m2` must be torch.float32; got torch.float64",
        ),
        Bad(
            "gamma",
            lambda i: {"gamma": i["gamma"][1:]},
            ValueError,
            r"`gamma` must have shape \(10,\); got \(9,\)",
        ),
        Bad("beta", lambda i: {"beta": i["beta"].int()}, TypeError, "`beta` must be a floating tensor"),
    )

    def inputs(self, shape: MapShape, variant: str) -> Inputs:
        tiles = shape.n * shape.h
        return {
            "count": torch.randint(1, 200, (tiles,)).double(),
            "mean": torch.randn(tiles, shape.c).double(),
            "m2": torch.rand(tiles, shape.c).double() * 100,
            "gamma": None if variant in ("no_gamma", "no_affine") else torch.randn(shape.c).double(),
            "beta": None if variant in ("no_beta", "no_affine") else torch.randn(shape.c).double(),
            "eps": 1e-3,
        }

    def test_vectors_in_the_activations_dtype(self, backend: str, device: torch.device) -> None:
        """γ and β may be bf16; the partial statistics are always fp32."""
        inputs = self.made(self.odd(), torch.float32, device)
        inputs["gamma"], inputs["beta"] = inputs["gamma"].bfloat16(), inputs["beta"].bfloat16()
        widened = {**inputs, "gamma": inputs["gamma"].float(), "beta": inputs["beta"].float()}
        for ours, expected in zip(self.call(inputs, backend), self.call(widened, backend), strict=True):
            assert torch.equal(ours, expected)

    @pytest.mark.parametrize("tiles", [1, 2, 3, 1000])
    def test_constant_channel(self, tiles: int, backend: str, device: torch.device) -> None:
        count = torch.arange(1.0, tiles + 1, device=device)
        mean = torch.full((tiles, 9), 100.0, device=device)
        mu, var, invstd, _, _ = fusedres.ops.bn_finalize(
            count, mean, torch.zeros_like(mean), eps=1e-4, backend=backend
        )
        assert (mu == 100).all() and (var == 0).all()
        torch.testing.assert_close(invstd, torch.full_like(invstd, 100.0), rtol=1e-6, atol=0)

    def test_empty_tiles_weigh_nothing(self, backend: str, device: torch.device) -> None:
        inputs = self.made(self.odd(), torch.float32, device)
        clean = self.call(inputs, backend)
        for name in ("count", "mean", "m2"):
            inputs[name] = torch.cat((torch.zeros_like(inputs[name][:1]), inputs[name]))
        for name, ours, expected in zip(self.outputs, self.call(inputs, backend), clean, strict=True):
            torch.testing.assert_close(ours, expected, msg=f"{name} moved by a tile of no values")

    def test_no_tiles_at_all(self, backend: str, device: torch.device) -> None:
        """An empty batch: nothing to normalise, and nothing that is not finite."""
        count, mean = torch.empty(0, device=device), torch.empty(0, 5, device=device)
        for name, out in zip(
            self.outputs, fusedres.ops.bn_finalize(count, mean, mean, backend=backend), strict=True
        ):
            assert out.shape == (5,) and out.isfinite().all(), name
