import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fusedres.ops
from fusedres.ops._registry import kernel
from tests._parity import assert_same_bits, assert_within_two_x
from tests.ops._rules import Bad, Inputs, KernelRules
from tests.ops.shapes import FEW_MAP_SHAPES, MAP_SHAPES, MapShape


class TestBnUpdateRunning(KernelRules):
    op = "bn_update_running"
    outputs = ("running_mean", "running_var", "num_batches_tracked")
    shapes = tuple(s for s in MAP_SHAPES if s.n)
    few_shapes = FEW_MAP_SHAPES
    variants = ("full", "cumulative", "momentum_0", "momentum_1")
    vectors = frozenset({"running_mean", "running_var", "mean", "var"})
    bad = (
        Bad(
            "cumulative_without_count",
            lambda i: {"momentum": None, "num_batches_tracked": None},
            ValueError,
            r"`num_batches_tracked` is needed for the cumulative average \(momentum=None\); got None",
        ),
        Bad(
            "mean",
            lambda i: {"running_mean": i["mean"][1:]},
            ValueError,
            r"`running_mean` must have shape \(10,\)",
        ),
        Bad(
            "var",
            lambda i: {"running_var": i["var"].int()},
            TypeError,
            "`running_var` must be a floating tensor",
        ),
    )

    def inputs(self, shape: MapShape, variant: str) -> Inputs:
        momentum = {"full": 0.1, "cumulative": None, "momentum_0": 0.0, "momentum_1": 1.0}[variant]
        return {
            "running_mean": torch.randn(shape.c).double(),
            "running_var": torch.rand(shape.c).double(),
            "num_batches_tracked": torch.tensor(6),
            "mean": torch.randn(shape.c).double(),
            "var": torch.rand(shape.c).double(),
            "n": shape.n * shape.h * shape.w,
            "momentum": momentum,
        }

    def call(self, inputs: Inputs, backend: str | None) -> tuple[Tensor, ...]:
        """Runs on copies of what the op writes to, and returns them."""
        written = {name: inputs[name] for name in self.outputs if inputs[name] is not None}
        written = {name: value.clone() for name, value in written.items()}
        fusedres.ops.bn_update_running(**{**inputs, **written}, backend=backend)
        return tuple(written.values())

    def test_moves_what_batch_norm_moves(self, backend: str, device: torch.device) -> None:
        y = torch.randn(3, 7, 5, 4, device=device)
        theirs = torch.zeros(7, device=device), torch.ones(7, device=device)
        F.batch_norm(y, *theirs, training=True, momentum=0.3)
        ours = torch.zeros(7, device=device), torch.ones(7, device=device)
        var, mean = torch.var_mean(y.double(), (0, 2, 3), correction=0)
        fusedres.ops.bn_update_running(*ours, None, mean.float(), var.float(), 60, 0.3, backend=backend)
        exact = mean * 0.3, 0.7 + var * (60 / 59) * 0.3
        for name, o, r, p in zip(self.outputs, ours, exact, theirs, strict=False):
            assert_within_two_x(o, r, p, name)

    def test_writes_in_place_and_says_so(self, backend: str, device: torch.device) -> None:
        """Autograd finds a saved tensor that was written to by its version."""
        inputs = self.made(self.odd(), torch.float32, device)
        versions = [inputs[name]._version for name in self.outputs]
        fusedres.ops.bn_update_running(**inputs, backend=backend)
        assert all(inputs[name]._version > v for name, v in zip(self.outputs, versions, strict=True))
        assert inputs["num_batches_tracked"] == 7

    @pytest.mark.parametrize("n", [0, 1])
    def test_too_few_values_leave_finite_statistics(self, n: int, backend: str, device: torch.device) -> None:
        mean, var, batches = (
            torch.zeros(3, device=device),
            torch.ones(3, device=device),
            torch.tensor(0, device=device),
        )
        batch = torch.ones(3, device=device)
        fusedres.ops.bn_update_running(
            mean, var, batches, batch, torch.zeros_like(batch), n, 0.1, backend=backend
        )
        assert batches == 1 and mean.isfinite().all() and var.isfinite().all()
        if n == 0:
            assert (mean == 0).all() and (var == 1).all(), "an empty batch moves nothing, as in torch"

    def test_vectors_in_the_activations_dtype(self, backend: str, device: torch.device) -> None:
        """bf16 running statistics move in fp32 and are rounded once."""
        inputs = self.made(self.odd(), torch.float32, device)
        for name in ("running_mean", "running_var"):
            inputs[name] = inputs[name].bfloat16()
        widened = {k: v.float() if k.startswith("running") else v for k, v in inputs.items()}
        for ours, expected in zip(self.call(inputs, backend), self.call(widened, backend), strict=True):
            assert torch.equal(ours, expected.to(ours.dtype))

    @pytest.mark.parametrize("momentum", [0.1, None], ids=["momentum", "cumulative"])
    def test_layers_together_move_as_each_alone(
        self, momentum: float | None, backend: str, device: torch.device
    ) -> None:
        """A bottleneck's four layers and two more, of as many channels as no block of threads has; one has
        running statistics in half precision."""
        torch.manual_seed(0)
        layers = [self.layer(channels, device) for channels in (64, 7, 1, 2048, 513, 64)]
        half = torch.bfloat16 if backend == "cpu" else torch.float16  # what the back-end and its tests have
        layers[1] = (*(t.to(half) for t in layers[1][:2]), *layers[1][2:])
        sizes = [60, 1, 0, 3, 3, 5]
        alone = [tuple(t.clone() for t in layer) for layer in layers]
        for layer, n in zip(alone, sizes, strict=True):
            fusedres.ops.bn_update_running(*layer, n, momentum, backend=backend)
        update = kernel(backend, "bn_update_running")
        update(*([layer[i] for layer in layers] for i in range(5)), sizes, momentum)
        for i, (together, each) in enumerate(zip(layers, alone, strict=True)):
            for name, t, e in zip(self.outputs, together, each, strict=False):
                assert_same_bits(t, e, f"layer {i} {name}")

    def layer(self, channels: int, device: torch.device) -> tuple[Tensor, ...]:
        """running_mean, running_var, num_batches_tracked, mean, var."""
        vectors = [torch.rand(channels, device=device) for _ in range(4)]
        return *vectors[:2], torch.tensor(channels, device=device), *vectors[2:]

    def test_lists_that_do_not_fit(self, backend: str, device: torch.device) -> None:
        mean, var, count, *batch = ([t] for t in self.layer(3, device))
        update = kernel(backend, "bn_update_running")
        with pytest.raises((RuntimeError, ValueError)):
            update(mean, var, [*count, *count], *batch, [4], 0.1)
        with pytest.raises((RuntimeError, ValueError)):
            update(mean * 2, var, count, *batch, [4], 0.1)
        assert count[0] == 3, "a refused call counts nothing"

    def test_outputs_are_fresh(self) -> None:
        """Not so here: this op writes to its inputs, and returns nothing."""
        schema = torch.ops.fusedres_reference.bn_update_running.default._schema
        assert not schema.returns and schema.is_mutable

    def test_refuses_gradients_by_name(self, backend: str, device: torch.device) -> None:
        inputs = self.made(self.odd(), torch.float32, device)
        inputs["mean"].requires_grad_()
        with pytest.raises(
            RuntimeError, match=f"fusedres_{backend}::bn_update_running is a kernel and has no"
        ):
            self.call(inputs, backend)
