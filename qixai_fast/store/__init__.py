"""Activations on disk: one plain ``.npy`` file a layer, committed in checksummed chunks."""

from __future__ import annotations

from .creating import create_store
from .format import LayerInfo, LayerSpec
from .reader import ActivationStore, open_store
from .repair import cut_back
from .writer import StoreWriter

__all__ = [
    "ActivationStore",
    "LayerInfo",
    "LayerSpec",
    "StoreWriter",
    "create_store",
    "cut_back",
    "open_store",
]
