import math

import numpy as np
import pytest
import torch

from pipeline.objectives import combine, cross_entropy, hard_labels, kl, mse

STUDENT = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
TEACHER = torch.tensor([[0.0, 2.0], [2.0, -1.0]])
LABELS = torch.tensor([1, 1])


def test_mse_is_the_mean_over_rows_and_classes():
    assert mse(STUDENT, TEACHER).item() == pytest.approx((1 + 0 + 4 + 0) / 4)


def test_cross_entropy_is_the_mean_over_rows():
    by_hand = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    assert cross_entropy(STUDENT, LABELS).item() == pytest.approx(by_hand)


def test_kl_is_that_of_the_distributions():
    """A student that says (1/2, 1/2), a teacher that says (1/4, 3/4): sum of p ln(p / q)."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]])
    assert kl(student, teacher, 1.0).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_has_the_factor_t_squared_and_is_the_mean_over_rows(temperature: float):
    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    p, q = softmax(TEACHER.double().numpy()), softmax(STUDENT.double().numpy())
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert kl(STUDENT, TEACHER, temperature).item() == pytest.approx(expected)


def test_hot_kl_has_the_gradient_of_matched_logits():
    """Hinton et al. 2015, equation 4: for a high T, T^2 times the gradient is (student - teacher) / C for centred logits."""
    student = torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[-2.0, 0.5, 1.5]], dtype=torch.float64)
    kl(student, teacher, 1e4).backward()
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 3, rtol=1e-3, atol=1e-4)


def test_a_row_without_a_label_takes_the_teacher_s_argmax():
    assert hard_labels(torch.tensor([1, -1]), torch.tensor([[5.0, 0.0], [0.0, 5.0]])).tolist() == [1, 1]
    assert hard_labels(torch.tensor([0, -1]), torch.tensor([[0.0, 5.0], [5.0, 0.0]])).tolist() == [0, 0]


def test_the_terms_are_weighted():
    hard, soft = cross_entropy(STUDENT, LABELS).item(), mse(STUDENT, TEACHER).item()
    for alpha in (0.0, 0.3, 1.0):
        found = combine(alpha, mse)(STUDENT, TEACHER, LABELS).item()
        assert found == pytest.approx(alpha * hard + (1 - alpha) * soft)


def test_a_term_without_weight_is_not_computed():
    def forbidden(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    assert combine(1.0, forbidden)(STUDENT, TEACHER, LABELS) == cross_entropy(STUDENT, LABELS)
