"""Warnings that an audit gives in its own words are hidden in its own thread, and nowhere else."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator

import audit_data
import pytest

from qixai_fast.auditing.context import quiet
from qixai_fast.auditing.run import audit


@pytest.fixture(autouse=True)
def filters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test does to the process's filters is undone."""
    audit_data.simplify(monkeypatch.setattr)
    with warnings.catch_warnings():
        yield


def given(text: str, category: type[Warning] = UserWarning) -> bool:
    """Whether a warning is given here and now: it is an error then."""
    try:
        warnings.warn(text, category, stacklevel=1)
    except category:
        return True
    return False


def test_of_one_thread_alone() -> None:
    warnings.simplefilter("error")
    inside, done = threading.Event(), threading.Event()
    heard = []

    def other() -> None:
        with quiet():
            inside.set()
            done.wait(20)
            heard.append(given("hidden"))
        heard.append(given("shown"))

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(20)
    assert given("of a caller")
    with quiet():
        assert not given("of an engine")
        assert given("deprecated", DeprecationWarning)
        with quiet():
            assert not given("within")
        assert not given("still")
    assert given("of the caller, afterwards")
    done.set()
    thread.join(20)
    assert heard == [False, True]


def test_whatever_filters_come_and_go() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet():
            assert not given("hidden")
            assert issubclass(UserWarning, Warning)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        with quiet():
            assert not given("hidden")
        assert given("shown")
    count = len(warnings.filters)
    for _ in range(5):
        with quiet():
            pass
    assert len(warnings.filters) <= count + 1


def test_two_audits_in_two_threads(tmp_path) -> None:
    """Engines warn of dead maps in both; the caller warns all the while, and every warning arrives."""
    audit_data.make_store(tmp_path / "store")
    chosen = audit_data.plan(n_permutations=29, test_samples=100, null_samples=60, n_jobs=1)
    failed = []

    def work() -> None:
        try:
            for _ in range(2):
                audit(tmp_path / "store", plan=chosen, progress=False)
        except BaseException as error:
            failed.append(error)

    warnings.simplefilter("error")
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    heard = [given("of the caller")]
    while any(thread.is_alive() for thread in threads):
        heard.append(given("of the caller"))
        threads[0].join(0.001)
    assert failed == []
    assert len(heard) > 20
    assert all(heard)
    assert given("of the caller")
