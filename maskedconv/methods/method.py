"""The protocol of methods: which values of a layer are learned, and which stay frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from torch import Tensor, nn

from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.schema import Schema

Configuration = dict[str, Any]
"""``PartlyLearned.configuration()`` of a layer, as a checkpoint stores it."""


@dataclass(frozen=True)
class LayerFactory:
    """Makes the layers of a network. The default makes PyTorch's own.

    Attributes:
        conv: called as ``nn.Conv2d``.
        linear: called as ``nn.Linear``.
        norm: called as ``nn.BatchNorm2d``, with the number of channels.
        embedding: called as ``nn.Embedding``, with the number of embeddings and their size.
    """

    conv: Callable[..., nn.Conv2d] = nn.Conv2d
    linear: Callable[..., nn.Linear] = nn.Linear
    norm: Callable[..., nn.Module] = nn.BatchNorm2d
    embedding: Callable[..., nn.Embedding] = nn.Embedding


def no_embedding(method: str) -> Callable[..., nn.Embedding]:
    """A factory of embeddings for a method that has none: each call raises ValueError."""

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise ValueError(
            f"method is {method}, which has no layer for the network's nn.Embedding, all of which "
            "would be learned; expected another method, or a network without embeddings"
        )

    return refuse


class Method(ABC):
    """Decides which values of a layer are learned.

    An instance holds the settings; the class also reads the layers of a checkpoint, for which there
    may be no model.

    Attributes:
        name: of the method in checkpoints and in :data:`maskedconv.methods.METHODS`.
        layer: the type of layers that it makes of ``nn.Conv2d``.
        linear_layer, embedding_layer: likewise of ``nn.Linear`` and ``nn.Embedding``; None if it
            makes none.
        converted: the types of plain layers that ``convert_`` replaces.
        schema: of the layers' configurations.
        later_schema: of those of its settings that a configuration may leave out.
        later_defaults: their values then.
        integers: names of stored tensors of a layer that are int64, not of the layer's own type.
    """

    name: ClassVar[str]
    layer: ClassVar[type[PartlyLearned]]
    linear_layer: ClassVar[type[PartlyLearned] | None] = None
    embedding_layer: ClassVar[type[PartlyLearned] | None] = None
    converted: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv2d,)
    schema: ClassVar[Mapping[str, Schema]]
    later_schema: ClassVar[Mapping[str, Schema]] = {}
    later_defaults: ClassVar[Mapping[str, Any]] = {}
    integers: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def factory(self) -> LayerFactory:
        """Makes the layers of a new network, from PyTorch's random generator."""

    @classmethod
    def layers(cls) -> Mapping[type[nn.Module], type[PartlyLearned]]:
        """The types of its layers, by the types of plain layers that they stand for."""
        own = {
            nn.Conv2d: cls.layer,
            nn.Linear: cls.linear_layer,
            nn.Embedding: cls.embedding_layer,
        }
        return {plain: layer for plain, layer in own.items() if layer is not None}

    def learns_all(self) -> bool:
        """Whether the layers are in no way other than plain ones."""
        return False

    def settings(self) -> dict[str, Any]:
        """The arguments of ``maskedconv.models.create`` that stand for this method.

        A checkpoint stores them. ``method`` is the method's name with its own settings.
        """
        return {"method": {"name": self.name, **vars(self)}}

    def obstacle(self, plain: nn.Module) -> str | None:
        """A short reason why it cannot replace ``plain``, of a type in ``converted``; or None."""
        return None

    @abstractmethod
    def convert(self, plain: Any, seed: int | None) -> PartlyLearned:
        """A layer that takes over the values of ``plain``, of a type in ``converted``.

        Args:
            seed: of values that are drawn anew.

        Raises:
            ValueError, TypeError: ``plain`` is not exactly of such a type, or the settings do not
                fit it.
        """

    @classmethod
    @abstractmethod
    def restored(cls, plain: Any, configuration: Configuration) -> PartlyLearned:
        """A layer of this configuration in place of ``plain``, to load a checkpoint into.

        Its frozen values are those of ``plain``; its learned ones are arbitrary.

        Args:
            plain: of a type in :meth:`layers`.

        Raises:
            ValueError, TypeError: ``plain`` cannot be such a layer.
        """

    @classmethod  # noqa: B027
    def attach_restored(cls, model: nn.Module, configuration: Configuration) -> None:
        """As :meth:`attach`, for a layer of :meth:`restored`."""

    def finish(self, layers: Sequence[PartlyLearned], seed: int | None) -> None:  # noqa: B027
        """Called once with all layers of a new network, or all that ``convert_`` makes of a model.

        Settings of the whole network are applied here.

        Args:
            layers: each once, in the model's order.
            seed: of the draws; None for torch's own generator.

        Raises:
            ValueError: the settings do not fit the layers.
        """

    def attach(self, model: nn.Module) -> None:  # noqa: B027
        """Called with the whole model when all its layers are in place."""

    def unlearned(self, layers: Sequence[tuple[str, PartlyLearned]]) -> str:
        """A warning about layers that learn nothing although they should; or an empty string."""
        return ""

    @staticmethod
    @abstractmethod
    def mistake(configuration: Configuration) -> str:
        """The first contradiction in a layer's configuration; or an empty string."""

    @staticmethod
    @abstractmethod
    def stored_shapes(configuration: Configuration) -> dict[str, list[int]]:
        """Shapes of the tensors that a checkpoint may hold of a layer, by their names in it."""

    @staticmethod
    @abstractmethod
    def plain_values(
        configuration: Configuration, stored: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The parameters of the plain layer, from all tensors that are stored of a layer.

        Raises:
            ValueError: they are too large to be made.
        """
