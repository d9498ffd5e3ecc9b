"""Ours beside its peers, round by round, so that a busy machine slows them all alike."""

import math
import statistics
import time

MIN_SECONDS = 0.02  # shorter calls are repeated within a round: timers and caches would decide otherwise
LONG = 10.0  # seconds; even a first call, which compiles and loads, says then that there is nothing to repeat


def _repeated(call, repeats):
    def run():
        for _ in range(repeats):
            result = call()
        return result

    return run


def _calibrated(call):
    """The call, warmed up, repeated until it lasts; how often; and its result."""
    start = time.perf_counter()
    result = call()
    if time.perf_counter() - start >= LONG:
        return call, 1, result
    start = time.perf_counter()
    call()
    repeats = math.ceil(MIN_SECONDS / max(time.perf_counter() - start, 1e-9))
    return _repeated(call, repeats), repeats, result


class Race:
    """Times one row of the table; made by the fixture ``race``.

    In every round each peer runs once and then ours, which pytest-benchmark times. A ratio is the median over
    the rounds of (the peer's time a unit) / (our time a unit). All of it goes into ``extra_info``, from
    where :mod:`benchmarks.tables` reads it.
    """

    def __init__(self, benchmark):
        self.benchmark = benchmark

    def __call__(self, row, ours, peers, *, least=None, unit="call", units=1, rounds=5):
        """Time ours and its peers, and return all results.

        Parameters
        ----------
        row : str
            What is done, as the table says it: data, sizes, options.
        ours : callable
            Takes no arguments.
        peers : dict of str to callable, (callable, units) or None
            None where a peer is not installed: the row then says "not measured".
        least : dict of str to float, optional
            The ratio that is promised, for the peers with a target.
        unit, units : str, int
            What one time is for, as in "pair", and how many of them a call of ours does. A peer does as many,
            unless it says otherwise: slow ones do a few.
        rounds : int

        Returns
        -------
        dict of str to object
            What the last calls returned, by peer, and under "ours".
        """
        entrants = {
            name: peer if isinstance(peer, tuple) else (peer, units)
            for name, peer in peers.items()
            if peer is not None
        }
        unknown = set(least or {}) - set(peers)
        if unknown:
            raise ValueError(f"least: wanted names of peers, got {sorted(unknown)}")
        info = {"row": row, "unit": unit, "least": least or {}, "peers": dict.fromkeys(peers)}
        self.benchmark.extra_info.update(info)
        if not self.benchmark.enabled:
            return {name: call() for name, (call, _) in entrants.items()} | {"ours": self.benchmark(ours)}

        results, runs, seconds = {}, {}, {name: [] for name in entrants}
        for name, (call, amount) in entrants.items():
            run, repeats, results[name] = _calibrated(call)
            runs[name] = run, repeats * amount
        our_run, repeats, _ = _calibrated(ours)

        def run_peers():
            for name, (run, amount) in runs.items():
                start = time.perf_counter()
                run()
                seconds[name].append((time.perf_counter() - start) / amount)

        results["ours"] = self.benchmark.pedantic(our_run, setup=run_peers, rounds=rounds)
        ours_seconds = [value / (repeats * units) for value in self.benchmark.stats.stats.data]
        info["seconds"] = statistics.median(ours_seconds)
        info["rounds"] = rounds
        for name, values in seconds.items():
            ratios = [theirs / own for theirs, own in zip(values, ours_seconds, strict=True)]
            info["peers"][name] = {
                "seconds": statistics.median(values),
                "ratio": statistics.median(ratios),
                "lowest_ratio": min(ratios),
                "highest_ratio": max(ratios),
            }
        self.benchmark.extra_info.update(info)
        return results

    def bound(self, what, measured, *, most):
        """Note a promise that is no ratio, as of memory: what was measured, and the most that is allowed."""
        self.benchmark.extra_info.setdefault("bounds", {})[what] = {"measured": measured, "most": most}
