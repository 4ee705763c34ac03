"""The public import path for your own students and for prediction: `from pipeline.students.base import Batch, TrainedStudent`."""

from pipeline.errors import installed

with installed("pipeline.students.base"):
    from pipeline.students.contract import Batch as Batch
    from pipeline.students.contract import Encoded as Encoded
    from pipeline.students.contract import parameters_of as parameters_of
    from pipeline.students.trained import TrainedStudent as TrainedStudent
