"""Layer conductance: how much of an output's change from a baseline goes through each unit of a layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ._layer_cuts import why_incomplete
from ._layer_sweep import LayerSweep, first_samples, same_random_numbers
from ._layer_tensors import name_layers, tensor_of
from ._layer_trapezoids import Group, Passes, Place, conduct, grown, layer_sums, result_dtype, trapezoid_nodes
from ._path_inputs import PathSamples, check_samples, check_values, summing_dtype
from ._path_model import PathModel, _points, check_model, recording
from ._path_passes import pass_budget, pass_device, unless_out_of_memory
from ._path_refinement import check_tolerance
from .attribution import Attribution

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_STEPS, _FIRST_STEPS = 50, 10


class _Results:
    """What is known of all samples so far, in the dtypes of the result."""

    def __init__(
        self, samples: PathSamples, dtypes: Mapping[Place, torch.dtype], names: Iterable[str]
    ) -> None:
        import torch

        n, x = len(samples), samples.inputs[0]
        self._n = n
        self._dtypes = dtypes
        self.values: dict[Place, Tensor] = {}
        self.n_steps = torch.empty(n, dtype=torch.int64, device=x.device)
        self.n_gradients = torch.empty_like(self.n_steps)
        self.delta = {name: torch.empty(n, dtype=summing_dtype(x), device=x.device) for name in names}
        self.converged = {name: torch.empty(n, dtype=torch.bool, device=x.device) for name in names}

    def put(self, group: Group, here: slice) -> None:
        """Take in the samples at ``here``."""
        for place, total in group.totals.items():
            values = self.values.get(place)
            if values is None:
                values = total.new_zeros((self._n, *total.shape[1:]), dtype=self._dtypes[place])
            values = self.values[place] = grown(values, total.shape)
            # A packed sequence's rows may be shorter here than in another group; the rest stays zero.
            if total.ndim > 1:
                values[here, : total.shape[1]] = total
            else:
                values[here] = total
        for name, delta in self.delta.items():
            delta[here] = layer_sums(group.totals, name) - group.change
            self.converged[name][here] = group.converged[name]
        self.n_steps[here], self.n_gradients[here] = group.n_steps, group.n_gradients


def _check_inputs(inputs: Any) -> None:
    """Point those who have token ids to the function that takes them."""
    import torch

    for value in inputs if isinstance(inputs, tuple) else (inputs,):
        if isinstance(value, torch.Tensor) and not (value.dtype.is_floating_point or value.dtype.is_complex):
            raise TypeError(
                f"inputs: wanted floating-point tensors, got {value.dtype}: between token ids there is no "
                "path. Use integrated_gradients(..., layer=...), which begins at an embedding's output, or "
                "give the embeddings as inputs and the rest of the network as model"
            )


def _first_look(
    sweep: LayerSweep, samples: PathSamples, names: Iterable[str], *, refined: bool
) -> tuple[int, dict[Place, torch.dtype], dict[str, str | None]]:
    """Bytes that a row takes for the layers, their results' dtypes, and why any is not complete."""
    n_rows = min(2, len(samples))
    few = first_samples(samples, n_rows)
    with same_random_numbers(few):
        scores, kept = sweep.record(few, _points(few, [1.0]))
    # A pass's own memory covers activations and their gradients. To this come those of the node before and
    # the sums, in float64, also those of the coarser steps; and for one tensor at a time copies.
    sizes = [(tensor_of(value).numel(), max(4, tensor_of(value).element_size())) for value in kept.values()]
    size = sum(count * (2 * width + (3 if refined else 1) * 8) for count, width in sizes)
    size += max(count * 2 * (width if few.inputs[0].device.type == "cpu" else 8) for count, width in sizes)
    dtypes = {(name, slot.place): result_dtype(tensor_of(value)) for (name, slot), value in kept.items()}
    return (
        size // n_rows,
        dtypes,
        {name: why_incomplete(sweep, few, name, scores, kept) for name in names},
    )


def layer_conductance(
    model: Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    layers: str | torch.nn.Module | Iterable[str | torch.nn.Module] | Mapping[str, torch.nn.Module],
    *,
    baselines: Any = None,
    target: Any = None,
    n_steps: int | None = None,
    method: str = "chebyshev",
    tol: float | None = None,
    atol: float = 1e-3,
    max_n_steps: int = 1350,
    additional_forward_args: Any = None,
    attribute_to_layer_input: bool = False,
    max_memory: int | float | str | None = None,
    progress: bool = False,
) -> dict[str, Attribution]:
    """Attribute an output's change from baseline to input to the units of layers, all in one sweep.

    The conductance of a unit with activation ``y`` is the integral of ``dF/dy dy`` along the straight path
    from baseline to input. It is summed by trapezoids in the activation: the change of ``y`` in each step
    times the mean of the gradients before and after it. Each forward and backward pass serves every layer.
    The model is left as it is found: training mode, ``.grad``, ``requires_grad`` and hooks.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Called as ``model(*inputs, *additional_forward_args)`` with any number of rows. Its rows must not
        depend on each other; active dropout or batch statistics give a warning.
    inputs : Tensor or tuple of Tensor
        Shape (n_samples, ...), floating point, on the model's device.
    layers : str, torch.nn.Module, iterable of these, or mapping of names to modules
        Module names, patterns such as ``"layer*.conv?"``, or modules. A module of a function that is no
        torch module itself is named after its class.
    baselines : None, number, Tensor or tuple, optional
        Where the paths begin, as for :func:`qixai_fast.integrated_gradients`.
    target : None, int, tuple of int, integer Tensor or callable, optional
        Which output, as for :func:`qixai_fast.integrated_gradients`.
    n_steps : int, optional
        Steps of the path, 50 by default; a step has a gradient at both ends, so ``n_steps + 1`` are
        evaluated. With ``tol``, where to begin, 10 by default.
    method : {"chebyshev", "riemann_trapezoid"}, default="chebyshev"
        Where the steps end: at Chebyshev nodes, closer at both ends of the path, where networks bend most;
        or at equal distances.
    tol : float, optional
        Double the steps until, for each sample and layer, ``|delta| <= tol * max(|F(x) - F(x')|, atol)``
        and the conductances have changed by at most ``tol`` times the layer's largest one since the
        coarser steps. Samples that are done in all layers do not go on. Gradients are computed again
        (``n_gradients`` counts all of them): keeping those of all layers would take too much memory.
    atol : float, default=1e-3
        Smallest change of the output, in its own units, that ``tol`` is relative to.
    max_n_steps : int, default=1350
        Where refinement ends; a sample that has not met ``tol`` by then has ``converged`` False.
    additional_forward_args : object or tuple, optional
        Further arguments of the model. Tensors with ``n_samples`` rows go with their samples, all else
        is passed as it is.
    attribute_to_layer_input : bool, default=False
        Attribute to what the layers take in, not to what they put out.
    max_memory : int or str, optional
        Limit in bytes, or as ``"2GB"``, on what the passes allocate, as for
        :func:`qixai_fast.integrated_gradients`.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    dict of str to Attribution
        By layer, in the order asked for. ``values`` have the shape of the layer's tensor for all samples,
        samples first: (n, T, d) also for a layer that works on (T, n, d). A layer with several
        floating-point tensors (an LSTM's output and states) has a tuple of them; packed sequences are
        padded with zeros to (n, longest, ...). Calls of a module that is called more than once in a
        forward pass are added up. ``delta`` is NaN, and ``note`` says why, for a layer whose conductances
        do not add up to the output's change, because a skip connection goes around it or its calls follow
        one another; ``converged`` then speaks of stability alone.

    Raises
    ------
    TypeError
        For inputs that are no floating-point tensors, or layers that are neither names nor modules.
    ValueError
        For NaN or infinite inputs, shapes and targets that do not fit, an output that is not finite, and
        layers that are unknown, not called, or without one row for each sample.
    MemoryBudgetError
        Where ``max_memory`` is too small for a single gradient.

    References
    ----------
    Dhamdhere, Sundararajan and Yan, "How Important Is a Neuron?" (2018), equation 3 (conductance) and
    section 3.1 (completeness). Shrikumar, Su and Kundaje, "Computationally Efficient Measures of Internal
    Neuron Importance" (2018), equation 4: the sum over changes of the activation.

    Examples
    --------
    A hidden unit accounts for what goes through it.

    >>> import torch
    >>> import qixai_fast as qf
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.eye(2)), model[1].weight.data.copy_(torch.tensor([[2.0, -1]]))
    >>> result = qf.layer_conductance(model, torch.tensor([[3.0, 4.0]]), "0")
    >>> result["0"].values.round(decimals=4)
    tensor([[ 6., -4.]])
    >>> abs(result["0"].delta.item()) < 1e-5
    True
    """
    import torch
    from tqdm import tqdm

    if n_steps is None:
        n_steps = _STEPS if tol is None else _FIRST_STEPS
    trapezoid_nodes(method, n_steps)
    accuracy = check_tolerance(tol, atol, max_n_steps)
    if accuracy is not None and accuracy.max_n_steps < 2 * n_steps:
        raise ValueError(
            f"max_n_steps: tol compares n_steps={n_steps} with twice as many, so wanted at least "
            f"{2 * n_steps}, got {max_n_steps}"
        )
    if not isinstance(attribute_to_layer_input, bool):
        got = type(attribute_to_layer_input).__name__
        raise TypeError(f"attribute_to_layer_input: wanted True or False, got {got}")
    _check_inputs(inputs)
    with recording():
        samples = check_samples(inputs, baselines, target, additional_forward_args)
        check_model(model, samples)
        modules = name_layers(model, layers)
        check_values(samples, as_tuple=isinstance(inputs, tuple))
        per_row = PathModel(model).probe(samples)
        sweep = LayerSweep(model, modules, samples, at_input=attribute_to_layer_input)
        more, dtypes, notes = _first_look(sweep, samples, modules, refined=accuracy is not None)
        n, gpu = len(samples), pass_device(samples.inputs[0])
        room = pass_budget(max_memory, per_row + more, samples.inputs[0].device.type, gpu)
        if max_memory is None and gpu is None:  # as many rows as without layers
            room = room // per_row * (per_row + more)
        rows = room // (per_row + more)
        complete = {name: note is None for name, note in notes.items()}
        results = _Results(samples, dtypes, modules)
        first = 0
        with tqdm(total=n * (n_steps + 1), unit="gradient", disable=not progress) as bar:
            passes = Passes(sweep, method, rows, bar, gpu)
            while first < n:
                n_groups = -(-(n - first) // passes.rows)
                here = slice(first, first - (first - n) // n_groups)
                group = samples.take(torch.arange(here.start, here.stop))
                work = partial(conduct, passes, group, first, n_steps, accuracy, complete)
                done = unless_out_of_memory(work, give_up=passes.rows == 1)
                if done is None:
                    passes.rows = max(1, min(passes.rows, len(group) * (n_steps + 1)) // 2)
                else:
                    results.put(done, here)
                    first = here.stop
    _warn_of_infinite(results.delta)
    return {
        name: Attribution(
            _values(results, name),
            results.delta[name] if complete[name] else torch.full_like(results.delta[name], torch.nan),
            results.n_steps.clone(),
            results.n_gradients.clone(),
            None if accuracy is None else results.converged[name],
            notes[name],
        )
        for name in modules
    }


def _values(results: _Results, name: str) -> Tensor | tuple[Tensor, ...]:
    values = tuple(value for (layer, _), value in results.values.items() if layer == name)
    return values if len(values) > 1 else values[0]


def _warn_of_infinite(delta: Mapping[str, Tensor]) -> None:
    bad = {name: (~values.isfinite()).nonzero().flatten() for name, values in delta.items()}
    bad = {name: samples for name, samples in bad.items() if len(samples)}
    if bad:
        name, samples = next(iter(bad.items()))
        warnings.warn(
            f"layer_conductance: activations or gradients of {', '.join(map(repr, bad))} are not finite on "
            f"the path; for {name!r} in {len(samples)} sample(s), first sample {int(samples[0])}; the values "
            "of these are not finite either (another baseline may help)",
            RuntimeWarning,
            stacklevel=3,
        )
