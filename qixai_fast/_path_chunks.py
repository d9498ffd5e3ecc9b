"""Some samples of a large data set at a time: their paths, and the model along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ._layer_path import layer_path
from ._layer_tensors import name_layer
from ._mapped_tensors import Pages
from ._path_inputs import PathSamples, check_samples, check_target
from ._path_model import PathModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ._gpu.passes import Graphs


class Chunks(Protocol):
    """The paths from one baseline a sample, some samples at a time.

    Attributes
    ----------
    target : None, callable or Tensor
        That of all samples, as :class:`PathSamples` keeps it.
    bytes_besides : int
        What a sample of a part takes besides the ends of its path.
    """

    target: Callable[[Any], Tensor] | Tensor | None
    bytes_besides: int

    def __len__(self) -> int:
        """Number of all samples."""

    def part(self, first: int, stop: int) -> tuple[PathSamples, PathModel]:
        """Paths of the samples ``first:stop``, and the model along them."""

    def release(self, first: int, stop: int) -> None:
        """Let the pages of inputs that are mapped from files go."""


class InputChunks:
    """Paths between a model's inputs; parts are views."""

    bytes_besides = 0

    def __init__(
        self, model: Callable[..., Any], samples: PathSamples, *, graphs: Graphs | None = None
    ) -> None:
        self._samples, self._model = samples, PathModel(model, graphs=graphs)
        self.target = samples.target
        self._pages = _pages_of(samples.inputs + samples.baselines + samples.extra, len(samples))

    def __len__(self) -> int:
        return len(self._samples)

    def part(self, first: int, stop: int) -> tuple[PathSamples, PathModel]:
        return self._samples.part(first, stop), self._model

    def release(self, first: int, stop: int) -> None:
        _release(self._pages, first, stop)


class LayerChunks:
    """Paths between a layer's outputs, which are computed for each part anew.

    Parameters
    ----------
    model, layer, inputs, baselines, target, extra
        As :func:`qixai_fast.integrated_gradients` takes them; one baseline a sample.
    graphs : Graphs, optional

    Attributes
    ----------
    inputs : PathSamples
        The model's inputs, without paths.
    """

    def __init__(
        self,
        model: Any,
        layer: Any,
        inputs: Any,
        baselines: Any,
        target: Any,
        extra: Any,
        *,
        graphs: Graphs | None = None,
    ) -> None:
        self._graphs = graphs
        values = inputs if isinstance(inputs, tuple) else (inputs,)
        self._n_samples = n = _count(values)
        self._inputs, self._baselines = inputs, baselines
        self.inputs = PathSamples(values, (), (), (), None)
        self.target = check_target(target, n)
        extra = () if extra is None else extra if isinstance(extra, tuple) else (extra,)
        fixed = {len(values) + i: x for i, x in enumerate(extra) if not _has_rows(x, n)}
        self._weights = self._model = model
        self._layer = layer
        # A tensor that is the same for all samples must not be taken for one with a row for each of a part.
        if any(_is_tensor(x) for x in fixed.values()):
            self._layer = name_layer(model, layer)[1]
            self._model = _with_constants(model, fixed)
            extra = tuple(x for x in extra if _has_rows(x, n))
        self._extra = extra
        # The model's input and its baseline, which has all rows while a layer's outputs are computed.
        self.bytes_besides = sum(2 * x[:1].nbytes for x in values)
        starts = baselines if isinstance(baselines, tuple) else (baselines,)
        self._pages = _pages_of((*values, *starts, *extra), n)

    def __len__(self) -> int:
        return self._n_samples

    def part(self, first: int, stop: int) -> tuple[PathSamples, PathModel]:
        def cut(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(cut, value))
            return value[first:stop] if _has_rows(value, self._n_samples) else value

        target: Any = self.target
        if _is_tensor(target):
            target = cut(target) if len(target) > 1 or self._n_samples == 1 else tuple(target[0].tolist())
        path = layer_path(
            self._model,
            self._layer,
            cut(self._inputs),
            cut(self._baselines),
            cut(self._extra),
        )
        samples = check_samples(path.inputs, path.baselines, target, path.extra)
        return samples, PathModel(path.model, weights=self._weights, graphs=self._graphs)

    def release(self, first: int, stop: int) -> None:
        _release(self._pages, first, stop)


def _count(values: tuple[Any, ...]) -> int:
    for x in values:
        if not _is_tensor(x):
            raise TypeError(f"inputs: wanted a torch tensor, got {type(x).__name__}; see torch.as_tensor")
        if x.ndim == 0 or x.numel() == 0 or len(x) != len(values[0]):
            raise ValueError(
                "inputs: wanted (n_samples, ...), not empty, with equally many samples, got shapes "
                + ", ".join(str(tuple(x.shape)) for x in values)
            )
    if not values:
        raise ValueError("inputs: wanted a tensor or a tuple of tensors, got an empty tuple")
    return len(values[0])


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _has_rows(value: Any, n_samples: int) -> bool:
    return _is_tensor(value) and value.ndim > 0 and value.shape[0] == n_samples


def _pages_of(values: tuple[Any, ...], n_samples: int) -> list[tuple[Tensor, Pages]]:
    return [(x, Pages(x)) for x in values if _has_rows(x, n_samples)]


def _release(pages: list[tuple[Tensor, Pages]], first: int, stop: int) -> None:
    for tensor, own in pages:
        own.release(tensor[first:stop])


def _with_constants(model: Callable[..., Any], fixed: dict[int, Any]) -> torch.nn.Module:
    """The model with some of its arguments, by their places, given once and for all."""
    import torch

    class WithConstants(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            rest = iter(values)
            count = len(values) + len(fixed)
            return self.model(*(fixed[i] if i in fixed else next(rest) for i in range(count)))

    return WithConstants()
