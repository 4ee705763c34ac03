"""Chooses how a teacher's network runs on rows: packed, in filled rows, or padded."""

from pipeline.labelling import filling, packing
from pipeline.labelling.classifiers import Classifier, PackedClassifier, PaddedClassifier
from pipeline.machine.devices import device
from pipeline.params.labelling import Labelling
from pipeline.teacher.model import Teacher


def open_classifier(teacher: Teacher, how: Labelling) -> Classifier:
    """Return the fastest `Classifier` that is correct for a teacher's architecture. Packing is not tested on MPS."""
    on = device()
    if not packing.supports(teacher.model) or on.type == "mps":
        return PaddedClassifier(teacher, how)
    if filling.are_asked(how, on):
        return filling.FilledClassifier(teacher, how)
    return PackedClassifier(teacher, how)
