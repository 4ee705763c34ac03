"""Makes the tests independent of how they were started and of how busy the machine is."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

DEVICE = "PIPELINE_DEVICE"
"""As in pipeline/machine/devices.py, which imports torch."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # under nohup, or in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("any machine", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("any machine")


LONGEST = (
    "test_recipes",
    "test_pipeline",
    "test_get_started",
    "test_consumer",
    "test_portability",
    "test_wheel",
    "test_preparation",
    "test_repro",
    "test_faults",
    "test_own",
    "test_cells",
    "test_packing",
    "test_api",
    "test_distill",
    "test_export",
    "test_report_page",
    "test_runtime",
    "test_tagging",
    "test_broken",
    "test_zoo",
    "test_machine",
    "test_evaluation",
    "test_checkpoint",
    "test_gather",
    "test_verify",
    "test_teacher_stages",
    "test_columns",
    "test_lock",
    "test_predict",
    "test_finetune",
    "test_label",
    "test_dataset",
)
"""The files that take longest, the longest first. They run first, so that no worker waits long for the last file of another."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="more kills and more examples, where a test has them")


def pytest_configure(config: pytest.Config) -> None:
    os.environ[DEVICE] = "cpu"  # of this process and of those that tests start: none forks after it has opened a GPU
    if config.getoption("--thorough"):
        settings.load_profile("thorough")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let tests with the marker gpu, and their fixtures, compute on the device that the library chooses; the others compute on the CPU."""
    if item.get_closest_marker("gpu"):
        os.environ.pop(DEVICE, None)
    try:
        return (yield)
    finally:
        os.environ[DEVICE] = "cpu"


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """Undo `start_logging`, which a command in this process calls: other tests assert that there is no log line."""
    logger = logging.getLogger("pipeline")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Return whether the tests run with --thorough."""
    return request.config.getoption("--thorough")
