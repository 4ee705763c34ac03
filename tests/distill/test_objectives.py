import math
from functools import partial

import numpy as np
import pytest
import torch

from pipeline.distill.objectives import combine, cosine, cross_entropy, hard_labels, kl, mse, row_weights

STUDENT = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
TEACHER = torch.tensor([[0.0, 2.0], [2.0, -1.0]])
LABELS = torch.tensor([1, 1])


# Three rows of three classes, and each loss of each row, computed with 30 digits.
GIVEN_STUDENT = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 0.0], [-3.0, 0.25, 2.0]])
GIVEN_TEACHER = torch.tensor([[2.0, 1.0, -1.0], [-1.0, 0.0, 4.0], [-3.0, 0.25, 2.0]])
GIVEN_LABELS = torch.tensor([1, 0, 2])
WORKED_OUT = {
    "mse": (mse, GIVEN_TEACHER, (0.666666666667, 6.08333333333, 0)),
    "cosine": (cosine, GIVEN_TEACHER, (0.166666666667, 1.24253562504, 0)),
    "kl, T = 1": (partial(kl, temperature=1.0), GIVEN_TEACHER, (0.445888052356, 1.16200700428, 0)),
    "kl, T = 2.5": (partial(kl, temperature=2.5), GIVEN_TEACHER, (0.418054235007, 2.59370951761, 0)),
    "cross-entropy": (cross_entropy, GIVEN_LABELS, (0.349012216768, 0.794376769418, 0.165948149877)),
}


@pytest.mark.parametrize("name", WORKED_OUT)
def test_each_loss_has_its_computed_value_for_each_row(name: str):
    loss, target, expected = WORKED_OUT[name]
    np.testing.assert_allclose(loss(GIVEN_STUDENT, target).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_mse_is_the_mean_over_classes():
    assert mse(STUDENT, TEACHER).tolist() == [0.5, 2.0]


def test_cross_entropy_is_that_of_each_row():
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))]
    assert cross_entropy(STUDENT, LABELS).tolist() == pytest.approx(expected)


def test_cosine_depends_on_the_direction_alone():
    assert cosine(STUDENT, 7 * STUDENT).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert cosine(STUDENT, -0.5 * STUDENT).tolist() == pytest.approx([2, 2])
    assert cosine(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])).item() == pytest.approx(1)


def test_weights_are_those_asked_for_with_a_mean_of_one():
    teacher = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [math.log(9), 0.0]])  # sure by 3/4, 1/2, 9/10
    assert row_weights(torch.ones(3), teacher, 0.0).tolist() == [1, 1, 1]
    given = torch.tensor([1, 0.5, 0.5])
    expected = np.array([1, 0.5, 0.5]) / (2 / 3)
    np.testing.assert_allclose(row_weights(given, teacher, 0.0).numpy(), expected, rtol=1e-6)
    sure = np.array([0.75**2, 0.5 * 0.25, 0.5 * 0.81])
    np.testing.assert_allclose(row_weights(given, teacher, 2.0).numpy(), sure / sure.mean(), rtol=1e-6)
    none = torch.tensor([1.0, 0, 0])
    assert row_weights(none, teacher, 0.0).tolist() == [3, 0, 0]
    assert not row_weights(none[1:], teacher[1:], 0.0).any()


def test_kl_is_that_of_the_distributions():
    """A student with (1/2, 1/2), a teacher with (1/4, 3/4): sum of p ln(p / q)."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]])
    assert kl(student, teacher, 1.0).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_has_the_factor_t_squared(temperature: float):
    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    p, q = softmax(TEACHER.double().numpy()), softmax(STUDENT.double().numpy())
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1)
    assert kl(STUDENT, TEACHER, temperature).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


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
    hard, soft = cross_entropy(STUDENT, LABELS), mse(STUDENT, TEACHER)
    for alpha in (0.0, 0.3, 1.0):
        found = combine(alpha, mse)(STUDENT, TEACHER, LABELS)
        torch.testing.assert_close(found, alpha * hard + (1 - alpha) * soft)


def test_a_term_without_weight_is_not_computed():
    def forbidden(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    assert torch.equal(combine(1.0, forbidden)(STUDENT, TEACHER, LABELS), cross_entropy(STUDENT, LABELS))
