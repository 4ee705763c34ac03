"""The training objective: alpha * cross-entropy + (1 - alpha) * soft (Tang et al. 2019, equation 5), weighted by row."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

Soft = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From the student's logits [B, C] and the teacher's [B, C] to a loss of each row, [B]."""

Objective = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From the student's logits [B, C], the teacher's [B, C] and hard labels [B] to a loss of each row, [B]."""

Hard = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From the student's logits [B, C] and hard labels, int64 [B], to a loss of each row, [B]. In regression, from [B, 1] and float32 [B]."""


def mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the squared difference of the raw logits, its mean over classes (Ba and Caruana 2014, arXiv 1312.6184)."""
    return (student - teacher).square().mean(dim=-1)


def kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over classes, at the temperature T > 0.

    The factor T^2 keeps the gradient's size from falling with the temperature (Hinton et al. 2015, section 2.1, arXiv 1503.02531).
    """
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)


def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return 1 - cos(student, teacher) of the raw logits, which depends on their direction and not on their size.

    It is the cosine loss of DistilBERT (Sanh et al. 2019, arXiv 1910.01108), applied there to hidden states.
    """
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def cross_entropy(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with hard labels, -log softmax(student)[label]."""
    return F.cross_entropy(student, labels, reduction="none")


def squared_error(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the squared difference from the gold number; in regression it replaces `cross_entropy`."""
    return (student[:, 0] - labels).square()


def hard_labels(labels: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the gold label where it is known, the teacher's argmax elsewhere; with one class, the teacher's number.

    :param labels: int64 [B], negative where unknown; float32 with one class, NaN where unknown.
    :param teacher: Logits, [B, C].
    """
    if teacher.shape[1] == 1:
        return torch.where(labels.isnan(), teacher[:, 0], labels)
    return torch.where(labels >= 0, labels, teacher.argmax(dim=-1))


def combine(alpha: float, soft: Soft, hard: Hard = cross_entropy) -> Objective:
    """Return the objective alpha * hard + (1 - alpha) * soft; a term with weight 0 is not computed.

    :param soft: `mse`, `cosine`, or `kl` with a fixed temperature.
    :param hard: `cross_entropy`, or `squared_error` in regression.
    """

    def objective(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if alpha == 0:
            return soft(student, teacher)
        if alpha == 1:
            return hard(student, labels)
        return alpha * hard(student, labels) + (1 - alpha) * soft(student, teacher)

    return objective


def measured(
    objective: Objective, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> tuple[float, float]:
    """Return the mean loss of n rows with weights, [n], and the accuracy of a student on them; in regression the accuracy is NaN."""
    loss = (objective(student, teacher, labels) * weights).mean().item()
    right = (student.argmax(dim=-1) == labels).cpu().double().mean().item()  # MPS has no float64
    return loss, right if student.shape[1] > 1 else math.nan


def row_weights(given: torch.Tensor, teacher: torch.Tensor, confidence: float) -> torch.Tensor:
    """Return the weight of each row: w * p^confidence, divided by its mean over the rows.

    p is the teacher's greatest probability, so that rows on which the teacher is confident count more. With a mean of 1, the weights do not
    change the size of a step.

    :param given: w, the weight of each row by its origin, float32 [n], at least 0; `teacher` has their logits, [n, C].
    :param confidence: At least 0; with 0 the teacher's confidence has no effect.
    :return: float32 [n]; all zeros if no row has weight.
    """
    weights = given * F.softmax(teacher, dim=-1).amax(dim=-1) ** confidence
    return (weights / weights.mean().clamp(min=1e-12)).float()
