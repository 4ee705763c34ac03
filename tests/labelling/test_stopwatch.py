import time

import pytest

from pipeline.labelling.stopwatch import Stopwatch


def test_each_part_has_the_seconds_in_which_it_ran(monkeypatch: pytest.MonkeyPatch):
    times = iter([0.0, 1.5, 2.0, 6.0, 6.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    watch = Stopwatch("reading")
    watch("labelling")("reading")
    watch("writing")
    assert str(watch) == "reading 5.5, labelling 0.5, writing 0.5"
