import pytest
import torch

import fusedres.ops
from tests.ops._rules import Bad, Inputs, KernelRules
from tests.ops.shapes import FEW_MAP_SHAPES, MAP_SHAPES, MapShape


class TestBnBwdFinalize(KernelRules):
    op = "bn_bwd_finalize"
    outputs = ("dgamma", "dbeta", "p", "q", "r")
    shapes = tuple(s for s in MAP_SHAPES if s.n)
    few_shapes = FEW_MAP_SHAPES
    variants = ("full", "no_gamma", "frozen", "frozen_no_gamma", "parts")
    vectors = frozenset({"sums", "gamma", "mean", "invstd"})
    bad = (
        Bad(
            "sums",
            lambda i: {"sums": i["sums"][0]},
            ValueError,
            r"bn_bwd_finalize: `sums` must have shape \(2 T, 10\); got \(10,\)",
        ),
        Bad("half_a_part", lambda i: {"sums": i["sums"][:1]}, ValueError, r"`sums` .*; got \(1, 10\)"),
        Bad("sums_dtype", lambda i: {"sums": i["sums"].double()}, TypeError, "`sums` must be torch.float32"),
        Bad(
            "gamma",
            lambda i: {"gamma": i["gamma"][1:]},
            ValueError,
            r"`gamma` must have shape \(10,\); got \(9,\)",
        ),
        Bad(
            "invstd", lambda i: {"invstd": i["invstd"].int()}, TypeError, "`invstd` must be a floating tensor"
        ),
    )

    def inputs(self, shape: MapShape, variant: str) -> Inputs:
        parts = 71 if variant == "parts" else 1  # neither a multiple nor a part of a block's rows
        return {
            "sums": torch.randn(2 * parts, shape.c).double() * 10,
            "gamma": None if "no_gamma" in variant else torch.randn(shape.c).double(),
            "mean": torch.randn(shape.c).double(),
            "invstd": torch.rand(shape.c).double() + 0.5,
            "n": shape.n * shape.h * shape.w,
            "frozen": "frozen" in variant,
        }

    def test_vectors_in_the_activations_dtype(self, backend: str, device: torch.device) -> None:
        """γ may be bf16; sums and statistics are always fp32."""
        inputs = self.made(self.odd(), torch.float32, device)
        inputs["gamma"] = inputs["gamma"].bfloat16()
        widened = {**inputs, "gamma": inputs["gamma"].float()}
        for ours, expected in zip(self.call(inputs, backend), self.call(widened, backend), strict=True):
            assert torch.equal(ours, expected)

    def test_empty_batch(self, backend: str, device: torch.device) -> None:
        zeros, ones = torch.zeros(2, 5, device=device), torch.ones(5, device=device)
        outs = fusedres.ops.bn_bwd_finalize(zeros, ones, zeros[0], ones, 0, backend=backend)
        for name, out in zip(self.outputs, outs, strict=True):
            assert out.isfinite().all(), name

    @pytest.mark.parametrize("mean", [0.0, 3.0])
    def test_coefficients_are_batch_norms_gradient(
        self, mean: float, backend: str, device: torch.device
    ) -> None:
        """dy = p·dz + q·y + r is what autograd gives for torch's batch_norm, in float64."""
        if backend != "reference":
            pytest.skip("float64 is the reference's alone")
        y = (torch.randn(3, 4, 5, 6).double() + mean).requires_grad_()
        gamma, dz = torch.randn(4).double().requires_grad_(), torch.randn(3, 4, 5, 6).double()
        out = torch.nn.functional.batch_norm(y, None, None, gamma, None, training=True)
        dy, dgamma = torch.autograd.grad(out, (y, gamma), dz)
        y, gamma = y.detach(), gamma.detach()
        mu, _, invstd, _, _ = fusedres.ops.bn_finalize(
            *fusedres.ops.bn_stats(y, backend=backend), backend=backend
        )
        _, sums, _ = fusedres.ops.bn_act_bwd_reduce(dz, y=y, mean=mu, invstd=invstd, backend=backend)
        ours, dbeta, *pqr = fusedres.ops.bn_bwd_finalize(sums, gamma, mu, invstd, 90, backend=backend)
        torch.testing.assert_close(ours, dgamma)
        torch.testing.assert_close(dbeta, dz.sum((0, 2, 3)))
        torch.testing.assert_close(fusedres.ops.bn_act_bwd_apply(dz, y, *pqr, backend=backend)[0], dy)
