"""What is derived from weights between inferences is never stale, whatever changes the weights."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

import fusedres
from fusedres import FusedResNet
from fusedres.ops._caches import running_affine
from tests._parity import assert_same_bits, assert_within_two_x


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def model(x: Tensor, backend: str) -> FusedResNet:
    """A model in inference that has run, so that every cache is full."""
    made = FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    for _ in range(3):  # the first calls are noted, a later one is recalled
        infer(made, x, backend)
    return made


def infer(model: nn.Module, x: Tensor, backend: str) -> Tensor:
    with torch.no_grad(), fusedres.backend(backend):
        return model(x)


def fresh(model: nn.Module, x: Tensor, backend: str) -> Tensor:
    """What a model that never ran before gives with the same weights."""
    twin = FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).to(x.dtype).eval()
    twin.load_state_dict(model.state_dict())
    return infer(twin, x, backend)


def sgd(model: nn.Module) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    _step(model, optimiser)


def adam(model: nn.Module) -> None:
    _step(model, torch.optim.Adam(model.parameters(), lr=0.01))


def fused_adam(model: nn.Module) -> None:
    _step(model, torch.optim.Adam(model.parameters(), lr=0.01, fused=True))


def _step(model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimiser.step()


def in_place(model: nn.Module) -> None:
    with torch.no_grad():
        model.layer1[0].conv1.weight.mul_(2)
        model.layer3[0].bn2.running_var.add_(1)
        model.bn1.bias.fill_(0.5)


def other_parameter(model: nn.Module) -> None:
    model.layer2[0].conv2.weight = nn.Parameter(model.layer2[0].conv2.weight.detach() * 2)


def load(model: nn.Module) -> None:
    model.load_state_dict(FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).state_dict())


def load_by_assignment(model: nn.Module) -> None:
    state = FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).state_dict()
    model.load_state_dict(state, assign=True)


def through_bf16(model: nn.Module) -> None:
    model.to(torch.bfloat16).to(torch.float32)


def data_and_refresh(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    fusedres.refresh(model)


def numpy_and_train_eval(model: nn.Module) -> None:
    model.layer1[0].conv2.weight.detach().numpy()[:] *= 2
    model.train().eval()


def new_storage(model: nn.Module) -> None:
    model.conv1.weight.data = model.conv1.weight.data * 2


def turned_filters(model: nn.Module) -> None:
    """Only the strides change."""
    weight = model.layer1[0].conv2.weight
    weight.data = weight.data.transpose(2, 3)


def recalibrated_one_by_one(model: nn.Module) -> None:
    """torch's batch_norm moves running statistics without counting it."""
    for norm in (model.layer1[0].bn1, model.layer3[0].downsample[1]):
        norm.train()
        with torch.no_grad():
            model(torch.randn(4, 3, 32, 32) + 1)
        norm.eval()


def recalibrated_under_plain(model: nn.Module) -> None:
    model.layer2[0].bn2.train()
    with torch.no_grad(), fusedres.composition("plain"):
        model(torch.randn(4, 3, 32, 32) + 1)
    model.layer2[0].bn2.eval()


def recalibrated_beside_a_hook(model: nn.Module) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_hook(lambda *_: None) for norm in norms]
    for norm in norms:
        norm.train()
    with torch.no_grad():
        model(torch.randn(4, 3, 32, 32) + 1)
    for norm, hook in zip(norms, hooks, strict=True):
        norm.eval()
        hook.remove()


def statistics(model: nn.Module) -> None:
    """A training forward moves running statistics alone."""
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, 32, 32) + 1)
    model.eval()


CHANGES = [
    *(sgd, adam, fused_adam, in_place, other_parameter, load, load_by_assignment, through_bf16),
    *(data_and_refresh, numpy_and_train_eval, new_storage, statistics, turned_filters),
    *(recalibrated_one_by_one, recalibrated_under_plain, recalibrated_beside_a_hook),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_weights_are_seen_at_once(
    change: Callable[[nn.Module], None], model: FusedResNet, x: Tensor, backend: str
) -> None:
    before = infer(model, x, backend)
    change(model)
    after = infer(model, x, backend)
    assert not torch.equal(after, before), "the change had no effect on a model that ran before"
    assert_same_bits(after, fresh(model, x, backend), "logits after the change")


def test_half_precision_and_back(model: FusedResNet, x: Tensor, backend: str) -> None:
    plain = fusedres.unfuse(copy.deepcopy(model)).to(torch.bfloat16)
    model.to(torch.bfloat16)
    low = x.to(torch.bfloat16)
    ref = copy.deepcopy(plain).double()(low.double())
    assert_within_two_x(infer(model, low, backend), ref, plain(low), "bf16 logits")
    model.float()
    assert_same_bits(infer(model, x, backend), fresh(model, x, backend), "logits back in fp32")


def test_refresh_takes_a_module() -> None:
    with pytest.raises(TypeError, match=r"refresh: `model` must be a torch.nn.Module; got Tensor"):
        fusedres.refresh(torch.ones(1))


def test_copies_carry_no_derived_tensors(model: FusedResNet) -> None:
    """A pickle of a model that ran is no larger than one of a model that never did."""
    untouched = FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    assert len(pickle.dumps(model)) == len(pickle.dumps(untouched))
    twin = copy.deepcopy(model)
    held, copied = ({t.data_ptr() for t in (*m.parameters(), *m.buffers())} for m in (model, twin))
    assert not held & copied


def test_weights_made_in_inference_mode(x: Tensor, backend: str) -> None:
    """Such tensors count no versions, so nothing may be kept for them."""
    with torch.inference_mode():
        model = FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
        infer(model, x, backend)
        model.layer1[0].conv1.weight.mul_(2)
        out = infer(model, x, backend)
    assert_same_bits(out.clone(), fresh(model, x, backend), "logits")


def test_an_affine_follows_values_that_nobody_counted() -> None:
    """As torch's batch_norm and compiled code write them."""
    mean, var, gamma = torch.zeros(3), torch.ones(3), nn.Parameter(torch.ones(3))
    kept = running_affine(gamma, None, mean, var, 1e-5)
    assert running_affine(gamma, None, mean, var, 1e-5) is kept
    assert running_affine(gamma, None, mean, var, 1e-3) is not kept
    mean.numpy()[:] = 2
    moved = running_affine(gamma, None, mean, var, 1e-5)
    assert_same_bits(moved[0], kept[0], "scale")
    assert torch.equal(moved[1], -2 * kept[0])
    assert running_affine(None, gamma.detach(), mean, var, 1e-5)[1].sum() > moved[1].sum()
    assert running_affine(gamma, None, mean.double(), var.double(), 1e-5)[0].dtype == torch.float64


def test_what_is_kept_from_inference_mode_counts_versions() -> None:
    """Else whatever hangs on it too, such as weights packed with an affine, is made anew in every call."""
    mean, var = torch.zeros(3), torch.ones(3)
    with torch.inference_mode():
        kept = running_affine(None, None, mean, var, 1e-5)
        assert running_affine(None, None, mean, var, 1e-5) is kept
    assert not any(tensor.is_inference() or tensor.requires_grad for tensor in kept)


def test_two_threads_call_one_model(model: FusedResNet, x: Tensor, backend: str) -> None:
    inputs = [x, x.flip(3).contiguous(memory_format=torch.channels_last)]
    expected = [infer(model, each, backend) for each in inputs]
    fusedres.refresh(model)
    got: list[list[Tensor]] = [[], []]
    start = threading.Barrier(2)

    def work(i: int) -> None:
        start.wait()
        for _ in range(5):
            got[i].append(infer(model, inputs[i], backend))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert len(got[i]) == 5, "a thread failed"
        for out in got[i]:
            assert_same_bits(out, expected[i], f"thread {i}")
