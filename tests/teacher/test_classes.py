"""The classes that a message proposes for a teacher's: never a pair that only their order suggests."""

import re

import pytest

from pipeline.errors import InputError
from pipeline.teacher.classes import match

PROPOSED = [
    (["0", "1", "2"], ["1", "2", "3"], '{"0": "1", "1": "2", "2": "3"}` if'),
    (["LABEL_0", "LABEL_1"], ["bad", "good"], "{LABEL_0: bad, LABEL_1: good}` if"),
    (
        ["Bills", "Tech", "Rest"],
        [" Bills ", " Rest ", " Tech "],
        '{Bills: " Bills ", Tech: " Tech ", Rest: " Rest "}` if',
    ),
    (["no", "yes"], ["No!", "Yes!"], '{"no": "No!", "yes": "Yes!"}` if'),
    (["positive", "bad"], ["positive", "negative"], "{bad: negative}` if"),
    (["good", "bad"], ["pos", "neg"], "{good: ..., bad: ...}` with the task's class for each"),
    (["positive", "good", "bad"], ["positive", "so", "so"], "{good: ..., bad: ...}` with"),
]


@pytest.mark.parametrize(("classes", "labels", "proposed"), PROPOSED, ids=[" ".join(case[0]) for case in PROPOSED])
def test_a_proposal_is_complete_and_no_guess(classes: list[str], labels: list[str], proposed: str):
    with pytest.raises(InputError, match=re.escape(f"as `labels: {proposed}")):
        match("folder:ours", classes, labels, {})
