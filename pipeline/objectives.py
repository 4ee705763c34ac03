"""What a student is trained to minimise: alpha * cross-entropy + (1 - alpha) * soft (Tang et al. 2019, equation 5)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

Objective = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From the student's logits [B, C], the teacher's [B, C] and hard labels int64 [B] to a scalar."""


def mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the squared difference of the raw logits, its mean over rows and classes (Ba and Caruana 2014).

    :param student: Logits, [B, C].
    :param teacher: Logits, [B, C].
    """
    return F.mse_loss(student, teacher)


def kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over classes, its mean over rows.

    The factor T^2 keeps the gradient's size from falling with the temperature (Hinton et al. 2015, section 2.1, arXiv 1503.02531).

    :param student: Logits, [B, C].
    :param teacher: Logits, [B, C].
    :param temperature: T > 0.
    """
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def cross_entropy(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with hard labels, its mean over rows.

    :param student: Logits, [B, C].
    :param labels: int64 [B].
    """
    return F.cross_entropy(student, labels)


def hard_labels(labels: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the gold label where there is one, the teacher's argmax elsewhere.

    :param labels: int64 [B], negative where unknown.
    :param teacher: Logits, [B, C].
    """
    return torch.where(labels >= 0, labels, teacher.argmax(dim=-1))


def combine(alpha: float, soft: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Objective:
    """Return the objective alpha * cross_entropy + (1 - alpha) * soft; a term with weight 0 is not computed.

    :param alpha: The weight of the hard labels, 0 to 1.
    :param soft: From the student's and the teacher's logits to a scalar: `mse`, or `kl` with its temperature given.
    """

    def objective(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if alpha == 0:
            return soft(student, teacher)
        if alpha == 1:
            return cross_entropy(student, labels)
        return alpha * cross_entropy(student, labels) + (1 - alpha) * soft(student, teacher)

    return objective
