import pytest
import torch

from pipeline.students.siamese import Siamese


class Nothing(Siamese):
    """A student without an encoder."""


class Mean(Siamese):
    def encode(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return (ids.sum(dim=1) / lengths)[:, None].float()


def test_a_student_without_an_encoder_cannot_be_built():
    with pytest.raises(TypeError, match="encode"):
        Nothing(1, 2, False, 0)
    assert Mean(1, 2, pairs=True, classifier=0).logits.in_features == 4
