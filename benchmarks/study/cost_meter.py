"""Seconds, peak memory and rows through a network, each measured in a child process of its own."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import signal
import statistics
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

ROUNDS = 3
LONG = 4.0  # seconds; a first round that takes longer is the only one
FEW = 4  # samples of a second run with another seed, where a round is long
WARM_ROWS = 500  # more than a layer has units: narrow layers take another way
LIMIT = 300  # seconds, of a child in all


class Rows:
    """Counts rows that go through a network, forward and backward, while it is hooked."""

    def __init__(self, model):
        self.forward = self.backward = self.largest = 0
        self._model = model

    @contextmanager
    def counting(self):
        handle = self._model.register_forward_hook(self._on_forward)
        try:
            yield
        finally:
            handle.remove()

    def _on_forward(self, module, inputs, output):
        self.forward += len(output)
        self.largest = max(self.largest, len(output))
        if output.requires_grad:
            output.register_hook(self._on_backward)

    def _on_backward(self, gradient):
        self.backward += len(gradient)


def resident(field):
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at most since :func:`forget_peak`."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1])


def forget_peak():
    """Give free memory back, so that what is used from here on shows; start a new peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def measured(warm_up, call, model, *, seeded):
    """Time a call, and see what it takes.

    Parameters
    ----------
    warm_up : callable
        The same at the smallest size: imports, compiles, opens what is opened once. Its time does not count.
    call : callable
        Takes a seed: 0, 1, ... one a round.
    model : Module
    seeded : bool
        Whether results depend on the seed: all are returned, else the first only.

    Returns
    -------
    found : dict
        Seconds (the median; of the warm-up as ``first``), rounds, peak memory above start in bytes, rows
        through the network in one round.
    results : list
    """
    start = time.perf_counter()
    warm_up()
    first = time.perf_counter() - start
    rows = Rows(model)
    forget_peak()
    before = resident("VmRSS")
    seconds, results = [], []
    while len(seconds) < ROUNDS and (not seconds or seconds[0] <= LONG):
        with rows.counting():
            start = time.perf_counter()
            result = call(len(seconds))
            seconds.append(time.perf_counter() - start)
        if seeded or not results:
            results.append(result)
        del result
    found = {
        "seconds": statistics.median(seconds),
        "first": first,
        "rounds": len(seconds),
        "memory": max(0, resident("VmHWM") - before),
        "forward": rows.forward / len(seconds),
        "backward": rows.backward / len(seconds),
        "largest_pass": rows.largest,
    }
    return found, results


def in_child(call):
    """What a call returns, as JSON holds it, from a fork of this process; or why there is nothing.

    Returns
    -------
    dict
        What the call returned, or ``{"error": "TypeError: ..."}``.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(call, writer)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    if not text:
        return {"error": f"ended with status {status}"}
    return json.loads(text)


def _run(call, writer):
    """In the child: never comes back."""
    signal.alarm(LIMIT)
    try:
        found = call()
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        found = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(writer, "w") as file:
        json.dump(found, file)
    sys.stderr.flush()
    os._exit(0)
