"""The 2× rule and the agreement of top classes: what they let pass, and what they catch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusedres.cli.parity import top_agreement, two_times_rule, two_times_rule_of_many

EPS = torch.finfo(torch.float32).eps


def _sides() -> tuple[Tensor, Tensor]:
    """A float64 reference, and plain PyTorch's float32 with an error of 1e-5 everywhere."""
    reference = torch.randn(4, 10, dtype=torch.float64)
    return reference, (reference + 1e-5).float()


def test_an_error_as_large_as_torchs_passes() -> None:
    reference, plain = _sides()
    parity = two_times_rule("logits", (reference - 1e-5).float(), plain, reference)
    assert parity.passed
    assert parity.ours_max == pytest.approx(1e-5, rel=0.05)
    assert parity.allowed_max == pytest.approx(2 * parity.torch_max + EPS * float(reference.abs().max()))


def test_three_times_torchs_error_fails() -> None:
    reference, plain = _sides()
    assert not two_times_rule("logits", (reference + 3e-5).float(), plain, reference).passed


def test_one_wrong_element_fails_by_its_maximum() -> None:
    reference, plain = _sides()
    ours = plain.clone()
    ours[2, 3] += 1e-3
    parity = two_times_rule("logits", ours, plain, reference)
    assert parity.ours_max > parity.allowed_max
    assert not parity.passed


def test_an_error_spread_over_all_elements_fails_by_its_rms() -> None:
    reference = torch.randn(4, 1000, dtype=torch.float64)
    plain = reference.float()
    plain[0, 0] += 1e-3
    parity = two_times_rule("logits", (reference + 1e-3).float(), plain, reference)
    assert parity.ours_max <= parity.allowed_max
    assert not parity.passed


def test_a_nan_fails() -> None:
    reference, plain = _sides()
    ours = plain.clone()
    ours[0, 0] = torch.nan
    assert not two_times_rule("logits", ours, plain, reference).passed


def test_one_rounding_is_allowed_where_torch_is_exact() -> None:
    reference = torch.ones(8, dtype=torch.float64)
    plain = reference.float()
    assert two_times_rule("logits", plain + EPS, plain, reference).passed
    assert not two_times_rule("logits", plain + 2 * EPS, plain, reference).passed


def test_an_empty_batch_passes() -> None:
    empty = torch.empty(0, 10)
    assert two_times_rule("logits", empty, empty, empty.double()).passed


def test_an_error_in_a_small_tensor_is_not_hidden_by_a_large_one() -> None:
    reference = {
        "large": torch.full((1000,), 1e4, dtype=torch.float64),
        "small": torch.full((4,), 1e-4).double(),
    }
    plain = {name: (tensor * (1 + 1e-6)).float() for name, tensor in reference.items()}
    ours = {**plain, "small": plain["small"] * 1.01}
    assert two_times_rule_of_many("gradients", plain, plain, reference).passed
    assert not two_times_rule_of_many("gradients", ours, plain, reference).passed


def test_tensors_of_zeros_are_compared_as_they_are() -> None:
    reference = {"a": torch.zeros(3, dtype=torch.float64)}
    plain = {"a": torch.zeros(3)}
    assert two_times_rule_of_many("gradients", plain, plain, reference).passed
    assert not two_times_rule_of_many("gradients", {"a": torch.full((3,), 1e-6)}, plain, reference).passed


def test_names_must_agree() -> None:
    one = {"a": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"same names on all sides; differing: \['b'\]"):
        two_times_rule_of_many("gradients", {"a": torch.zeros(3), "b": torch.zeros(3)}, one, one)


def test_what_the_reference_itself_moves_by_is_allowed() -> None:
    reference = {"a": torch.ones(100, dtype=torch.float64)}
    plain = {"a": torch.ones(100)}
    ours = {"a": torch.ones(100)}
    ours["a"][7] = 1.01
    assert not two_times_rule_of_many("gradients", ours, plain, reference).passed
    moved = {"a": reference["a"].clone()}
    moved["a"][60] = 0.99
    parity = two_times_rule_of_many("gradients", ours, plain, reference, moved)
    assert parity.passed
    assert parity.kinks_max == pytest.approx(0.01)
    ours["a"][7] = 1.03
    assert not two_times_rule_of_many("gradients", ours, plain, reference, moved).passed


def _logits(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_equal_rankings_agree() -> None:
    logits = torch.randn(6, 10, dtype=torch.float64)
    agreement = top_agreement(logits, logits, logits, allowed=0.0)
    assert (agreement.images, agreement.top1, agreement.top5, agreement.near_ties) == (6, 6, 6, 0)
    assert agreement.passed


def test_classes_closer_than_the_allowed_error_are_a_near_tie() -> None:
    reference = _logits([5.0, 4.9999, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0])
    ours = _logits([4.9999, 5.0, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0])
    agreement = top_agreement(ours, reference, reference, allowed=1e-3)
    assert (agreement.top1, agreement.top5, agreement.near_ties) == (1, 1, 1)
    assert agreement.passed


def test_classes_further_apart_are_a_disagreement() -> None:
    reference = _logits([5, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0])
    ours = _logits([5, 4, 3, 2, 1, 0], [5, 3, 4, 2, 1, 0])
    agreement = top_agreement(ours, reference, reference, allowed=1e-3)
    assert agreement.wrong == (1,)
    assert (agreement.top1, agreement.top5, agreement.near_ties) == (2, 1, 0)
    assert not agreement.passed


def test_nan_logits_are_a_disagreement() -> None:
    reference = _logits([5, 4, 3, 2, 1, 0])
    ours = reference.clone()
    ours[0, 0] = torch.nan
    assert not top_agreement(ours, reference, reference, allowed=1e-3).passed


def test_fewer_than_five_classes() -> None:
    logits = torch.randn(3, 2, dtype=torch.float64)
    assert top_agreement(logits, logits, logits, allowed=0.0).top5 == 3
