"""What all benchmark suites share: one thread, seeded data, sizes, and ours timed beside its peers."""

from benchmarks.environment import SEED, environment, limit_threads

limit_threads()

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from benchmarks.racing import Race  # noqa: E402

# Suites are files of this folder. What lies below is commands, some of which need packages of their own.
collect_ignore_glob = ["*/*"]


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="small sizes: does every benchmark still run?")
    parser.addoption("--large", action="store_true", help="also what takes minutes or gigabytes")


def pytest_configure(config):
    config.addinivalue_line("markers", "large: takes minutes or gigabytes; runs with --large only")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--large"):
        skip = pytest.mark.skip(reason="runs with --large only")
        for item in items:
            if item.get_closest_marker("large"):
                item.add_marker(skip)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A benchmark that fails has no result, however fast it was."""
    outcome = yield
    if call.when == "call" and "benchmark" in item.funcargs:
        item.funcargs["benchmark"].extra_info["failed"] = outcome.get_result().failed


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.clear()
    machine_info.update(environment() | {"quick": config.getoption("--quick")})


@pytest.fixture
def rng():
    """A generator of its own for each benchmark, so that data do not depend on what ran before."""
    return np.random.default_rng(SEED)


@pytest.fixture(scope="session")
def size(pytestconfig):
    """``size(10_000, 500)`` is 10,000, and 500 with --quick."""
    quick = pytestconfig.getoption("--quick")
    return lambda full, small: small if quick else full


@pytest.fixture
def race(benchmark):
    """Time ours beside its peers: see :class:`benchmarks.racing.Race`."""
    return Race(benchmark)
