"""Integrated gradients and conductance with Captum's classes: same names, signatures and values.

    from qixai_fast.compat.captum import IntegratedGradients, LayerConductance, LayerIntegratedGradients

Captum is not needed. What differs from it, on purpose:

- The weights of ``riemann_trapezoid`` sum to 1; Captum's, at the same nodes, to ``1 - 1 / n_steps``. Of the
  classes here it concerns those of integrated gradients: conductance uses nodes only.
- Sums are in float64, whatever the dtype of the model.
- Where ``internal_batch_size`` is None, nodes times samples go through the model in batches that take about
  64 MiB (1 GiB on CUDA), not all in one; where it is smaller than the number of samples, these are separated,
  too. A model whose rows depend on each other (batch normalisation in training mode) sees smaller batches.
- An input or layer that the output does not depend on gets zeros, as long as the output depends on another.
- Results are detached from the graph. NaN or infinite inputs are a ``ValueError``.

In float64, values agree with Captum to 1e-12, not with the exact rule, as Captum rounds weights and nodes to
float32; :func:`qixai_fast.integrated_gradients` does not. Captum's NoiseTunnel takes these classes as they
are; its LLMGradientAttribution asks for Captum's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._layer_sweep import LayerSweep, first_samples
from .._path_inputs import PathSamples
from .._path_model import PathModel, recording
from .._validate import check_int
from ._captum_base import (
    Attributing,
    LayerAttributing,
    check_grad_kwargs,
    multiplied,
    path_samples,
    tensor_baselines,
    wrapped,
)
from ._captum_forward import (
    AssertedValueError,
    Forward,
    OneARow,
    check_baselines,
    check_inputs,
    floating,
    path_rule,
)
from ._captum_layers import layer_values
from ._captum_sums import check_rows, conductances, path_sums

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["IntegratedGradients", "LayerConductance", "LayerIntegratedGradients"]


class IntegratedGradients(Attributing):
    """``(x - x') * integral over a in [0, 1] of dF/dx at x' + a (x - x')``, as Captum's class of this name.

    Parameters
    ----------
    forward_func : callable
        The model, or any function of its inputs.
    multiply_by_inputs : bool, default=True
        Whether the mean gradient is multiplied by ``x - x'``.

    References
    ----------
    Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), equations 1 and 3.

    Examples
    --------
    >>> import torch
    >>> from qixai_fast.compat.captum import IntegratedGradients
    >>> values, delta = IntegratedGradients(lambda x: x.prod(1)).attribute(
    ...     torch.tensor([[2.0, 3.0]]), return_convergence_delta=True
    ... )
    >>> values
    tensor([[3., 3.]])
    >>> abs(delta.item()) < 1e-6
    True
    """

    def __init__(self, forward_func: Callable[..., Any], multiply_by_inputs: bool = True) -> None:
        super().__init__(forward_func)
        self._multiply_by_inputs = multiply_by_inputs

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the mean gradient is multiplied by ``x - x'``."""
        return self._multiply_by_inputs

    @wrapped
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Attribute the change of the output from baseline to input to the single inputs.

        Parameters
        ----------
        inputs : Tensor or tuple of Tensor
            (n_samples, ...), equally many samples. Integers are taken as floats.
        baselines : None, number, Tensor or tuple of these, optional
            Where the paths begin: 0 where None; a tensor of shape (n_samples, ...) or (1, ...).
        target : None, int, tuple of int, Tensor or list, optional
            Which output: an index for all samples, or a list or tensor with one (a tuple, for outputs with
            more axes) for each. None for functions with one output a sample, or with a single one for the
            whole batch that is the sum over its rows.
        additional_forward_args : object or tuple, optional
            Further arguments. Tensors are repeated for each node, all else is passed as it is.
        n_steps : int, default=50
            Nodes of the rule.
        method : str, default="gausslegendre"
            ``"riemann_left"``, ``"riemann_right"``, ``"riemann_middle"``, ``"riemann_trapezoid"`` (weights
            that sum to 1, other than in Captum) or ``"gausslegendre"``.
        internal_batch_size : int, optional
            Most rows (nodes times samples) of a pass; None for what fits about 64 MiB (1 GiB on CUDA).
        return_convergence_delta : bool, default=False
            Return the delta of :meth:`compute_convergence_delta`, too.

        Returns
        -------
        attributions : Tensor or tuple of Tensor
            As the inputs; float32 for half precision, else of their dtype.
        delta : Tensor of shape (n_samples,)
            Only with ``return_convergence_delta``.

        Raises
        ------
        TypeError
            For inputs and outputs that are no tensors, and targets that are no integers.
        ValueError
            For NaN or infinite inputs, and shapes, targets and rules that do not fit.
        """
        rule = path_rule(method, n_steps)
        rows = check_rows(internal_batch_size)
        with recording():
            tensors = floating(check_inputs(inputs))
            forward = Forward(self.forward_func, len(tensors[0]), target, additional_forward_args)
            starts = check_baselines(baselines, tensors)
            samples = path_samples(tensors, starts, forward, as_tuple=isinstance(inputs, tuple))
            least = len(samples) if forward.together else 1
            model = PathModel(OneARow(forward, least), weights=self.forward_func)
            sums = path_sums(model, samples, *rule, rows=rows, together=forward.together)
        values = multiplied(sums, samples, self._multiply_by_inputs)
        found = values if isinstance(inputs, tuple) else values[0]
        if not return_convergence_delta:
            return found
        return found, self.compute_convergence_delta(values, starts, tensors, target, additional_forward_args)

    def attribute_future(self) -> None:
        """Not implemented, as in Captum."""
        raise NotImplementedError("attribute_future is not implemented for IntegratedGradients")


class LayerIntegratedGradients(LayerAttributing):
    """Integrated gradients between what layers hand on at baseline and at input, as Captum's class.

    Parameters
    ----------
    forward_func : callable
        The model, or any function that calls the layer.
    layer : Module or list of Module
        Layers of a list are replaced together; one that reaches the output only through another gets zeros.
        Of a layer that is called several times in a forward pass, each call is given what the last one
        hands on, as in Captum; :func:`qixai_fast.integrated_gradients` tells the calls apart.
    device_ids : list of int, optional
        Not needed: a ``DataParallel`` model runs on the device of its own weights.
    multiply_by_inputs : bool, default=True
        Whether the mean gradient is multiplied by the change of what the layer hands on.

    References
    ----------
    Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), equations 1 and 3.

    Examples
    --------
    >>> import torch
    >>> from qixai_fast.compat.captum import LayerIntegratedGradients
    >>> model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Flatten(), torch.nn.Linear(6, 1))
    >>> LayerIntegratedGradients(model, model[0]).attribute(torch.tensor([[1, 4]])).shape
    torch.Size([1, 2, 3])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
    ) -> None:
        super().__init__(forward_func, layer, device_ids)
        self._multiply_by_inputs = multiply_by_inputs

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the mean gradient is multiplied by the layer's change."""
        return self._multiply_by_inputs

    @wrapped
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Attribute the change of the output from baseline to input to what layers hand on.

        Parameters
        ----------
        inputs, baselines, target, additional_forward_args, n_steps, method, internal_batch_size
            As for :meth:`IntegratedGradients.attribute`; inputs of any dtype, such as token ids.
        return_convergence_delta : bool, default=False
            Return the delta of :meth:`compute_convergence_delta`, too.
        attribute_to_layer_input : bool, default=False
            Attribute to what the layers take in, not to what they put out.
        grad_kwargs : dict, optional
            ``allow_unused``, ``materialize_grads`` and ``retain_graph`` are taken, and change nothing:
            gradients that do not exist are zero in any case.

        Returns
        -------
        attributions : Tensor, tuple of Tensor, or list of these
            A tuple for a layer with several floating-point tensors; a list for a list of layers. Samples
            first, (n_samples, ...), also for a layer that has them along another axis; for a layer with
            several rows for each sample, as many rows.
        delta : Tensor of shape (n_samples,)
            Only with ``return_convergence_delta``.

        Raises
        ------
        TypeError, ValueError
            As :meth:`IntegratedGradients.attribute`; for a layer that is not called or has no rows for the
            samples, and other ``grad_kwargs``.
        """
        rule = path_rule(method, n_steps)
        rows = check_rows(internal_batch_size)
        check_grad_kwargs(grad_kwargs)
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        with recording():
            tensors = check_inputs(inputs)
            n = len(tensors[0])
            starts = tensor_baselines(baselines, tensors, "baselines")
            forward = Forward(self._on_one_device(), n, target, additional_forward_args)
            path = layer_values(forward, layers, tensors, starts, at_input=attribute_to_layer_input)
            by_sample = (True,) * len(tensors) + forward.extra_by_sample
            samples = PathSamples(path.inputs, path.baselines, tensors + forward.extra, by_sample, None)
            model = PathModel(OneARow(path.forward, n if path.together else 1), weights=self.forward_func)
            sums = path_sums(model, samples, *rule, rows=rows, together=path.together)
        values = tuple(
            value.flatten(0, 1) if flat else value
            for value, flat in zip(
                multiplied(sums, samples, self._multiply_by_inputs), path.flattened, strict=True
            )
        )
        by_layer = [
            tuple(value for value, place in zip(values, path.places, strict=True) if place[0] == str(i))
            for i in range(len(layers))
        ]
        found = [parts if len(parts) > 1 else parts[0] for parts in by_layer]
        result = found if isinstance(self.layer, list) else found[0]
        if not return_convergence_delta:
            return result
        return result, self.compute_convergence_delta(
            values, starts, tensors, target, additional_forward_args
        )


class LayerConductance(LayerAttributing):
    """Conductance of a layer's units, as Captum's class of this name.

    The sum over the steps of the path of the layer's change times the gradient at the step's beginning.
    :func:`qixai_fast.layer_conductance` takes the mean of the gradients before and after, which comes closer
    with equally many steps, and many layers at once.

    Parameters
    ----------
    forward_func : callable
        The model, or any function that calls the layer.
    layer : Module
        Of a layer that is called several times in a forward pass, the last call counts, as in Captum.
    device_ids : list of int, optional
        Not needed: a ``DataParallel`` model runs on the device of its own weights.

    References
    ----------
    Dhamdhere, Sundararajan and Yan, "How Important Is a Neuron?" (2018), equation 3.
    Shrikumar, Su and Kundaje, "Computationally Efficient Measures of Internal Neuron Importance" (2018).

    Examples
    --------
    >>> import torch
    >>> from qixai_fast.compat.captum import LayerConductance
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.eye(2)), model[1].weight.data.copy_(torch.tensor([[2.0, -1]]))
    >>> conductance = LayerConductance(model, model[0])
    >>> conductance.attribute(torch.tensor([[3.0, 4.0]]), method="riemann_trapezoid").round(decimals=4)
    tensor([[ 6., -4.]])
    """

    def __init__(
        self, forward_func: Callable[..., Any], layer: Module, device_ids: list[int] | None = None
    ) -> None:
        super().__init__(forward_func, layer, device_ids)
        if isinstance(layer, list):
            raise TypeError("layer: wanted one torch module, got a list; see qixai_fast.layer_conductance")

    @property
    def multiplies_by_inputs(self) -> bool:
        """Always True."""
        return True

    @wrapped
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Attribute the change of the output from baseline to input to the units of a layer.

        Parameters
        ----------
        inputs, baselines, target, additional_forward_args
            As for :meth:`IntegratedGradients.attribute`.
        n_steps : int, default=50
            Steps; they have ``n_steps + 1`` nodes.
        method : str, default="gausslegendre"
            The rule whose nodes the steps lie between; its weights are not used. Those of
            ``"riemann_trapezoid"`` reach from baseline to input, as completeness wants them.
        internal_batch_size : int, optional
            As for :meth:`IntegratedGradients.attribute`.
        return_convergence_delta, attribute_to_layer_input, grad_kwargs
            As for :meth:`LayerIntegratedGradients.attribute`.

        Returns
        -------
        attributions : Tensor or tuple of Tensor
            A tuple for a layer with several floating-point tensors. In their dtype; samples first,
            (n_samples, ...); packed sequences are padded with zeros.
        delta : Tensor of shape (n_samples,)
            Only with ``return_convergence_delta``.

        Raises
        ------
        TypeError, ValueError
            As :meth:`LayerIntegratedGradients.attribute`; for a layer, or tensors among
            ``additional_forward_args``, without one row for each sample.
        """
        import torch

        nodes, _ = path_rule(method, check_int(n_steps, "n_steps", low=1) + 1)
        rows = check_rows(internal_batch_size)
        check_grad_kwargs(grad_kwargs)
        with recording():
            tensors = floating(check_inputs(inputs))
            n = len(tensors[0])
            forward = Forward(self._on_one_device(), n, target, additional_forward_args)
            if forward.together and n > 1:
                raise AssertedValueError(
                    f"additional_forward_args: wanted tensors with one row for each of {n} samples, got "
                    "another number of rows"
                )
            starts = check_baselines(baselines, tensors)
            samples = path_samples(tensors, starts, forward, as_tuple=isinstance(inputs, tuple))
            function = OneARow(forward)
            few = first_samples(samples, 2)
            with torch.no_grad():  # what it checks for itself cannot be checked while layers are watched
                function(*few.inputs, *few.repeated_extra(1))
            modules = {"layer": self.layer}
            sweep = LayerSweep(function, modules, samples, at_input=attribute_to_layer_input)
            model = PathModel(function, weights=self.forward_func)
            values = tuple(conductances(sweep, model, samples, nodes, rows=rows))
        found = values if len(values) > 1 else values[0]
        if not return_convergence_delta:
            return found
        return found, self.compute_convergence_delta(values, starts, tensors, target, additional_forward_args)
