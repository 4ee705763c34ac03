"""The version of the computation of logits. It is part of each label store's fingerprint, so raising it labels every text again.

Raise it when a change of the code alters the logits of some text by more than rounding: a fixed bug in tokenising, masking, truncation,
packing, padding, attention or pooling. Do not raise it for a change that only alters speed, memory, or the order of sums. Code for GPUs and
for bfloat16 counts as well, although tests/labelling/test_numerics.py checks float32 on the machine that runs the tests.

After raising it, write the golden logits again:

    RENEW_GOLDEN=1 python -m pytest tests/labelling/test_numerics.py && git diff tests/labelling/golden
"""

NUMERICS = 2
