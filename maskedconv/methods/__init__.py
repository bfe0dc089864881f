"""Methods: which values of a layer are learned. One file per method.

``maskedconv.convert_`` and ``maskedconv.models.create`` take a method, and checkpoints name the
method of each layer.
"""

from __future__ import annotations

from maskedconv.methods.method import Configuration, LayerFactory, Method
from maskedconv.methods.slice import Slice as slice

METHODS: dict[str, type[Method]] = {method.name: method for method in (slice,)}

__all__ = ["METHODS", "Configuration", "LayerFactory", "Method", "slice"]
