"""An objective: what a reward model is trained to minimise, and what its outputs then mean.

    fit: {objective: {name: bradley_terry, label_smoothing: 0.1}}

An objective defines how many outputs the head has, what else it reads of a text, the loss, the reward of a
text, and the margin of a pair, which is logit P(chosen ≻ rejected). Selection, guards, statistics and reports
use that margin, so that τ and tolerances mean the same under every objective.

Between the network and these numbers stands the *readout*, q numbers for each text: rewards and margins are
functions of readouts, and scoring computes the readout of each text once.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mars_core.extensions import ExtensionPoint, Plugin, PluginSection

Reads = Literal["pooled", "states", "token_outputs", "log_probabilities", "paraphrase"]
"""What is read besides the head's outputs: a field of `TextOutputs`, or the `paraphrase` of `PairOutputs`."""

OF_ALL_TOKENS = frozenset({"states", "token_outputs", "log_probabilities"})
"""Of these, what is of all tokens of a text."""


@dataclass(frozen=True)
class TextOutputs:
    """The outputs of a network for m texts, in float32; what the objective does not read is None."""

    outputs: torch.Tensor
    """[m, k] the head's outputs."""
    pooled: torch.Tensor | None = None
    """[m, d] the inputs of the head's last layer: an encoder's pooled state, or the state of a decoder's last
    token."""
    states: torch.Tensor | None = None
    """[m, T, d] the last layer's states of all tokens, zeros after a text's end."""
    tokens: torch.Tensor | None = None
    """[m] the number of tokens of each text, if something is read of all tokens."""
    prompt_tokens: torch.Tensor | None = None
    """[m] how many of them are the prompt's; in losses alone."""
    token_outputs: torch.Tensor | None = None
    """[m, T, k] the outputs of a decoder's head at every token, zeros after a text's end; those of the last
    token are `outputs`."""
    log_probabilities: torch.Tensor | None = None
    """[m, T] ln p of each token given those before it, by the objective's language model; 0 for the first
    token and after a text's end. It has no gradient."""

    def rows(self, rows: torch.Tensor | slice) -> "TextOutputs":
        """The outputs of some of the texts."""
        return TextOutputs(**{name: _maybe(part, rows) for name, part in vars(self).items()})

    @staticmethod
    def together(parts: Sequence["TextOutputs"]) -> "TextOutputs":
        """The outputs of several passes, one after the other."""

        def joined(name: str) -> Any:
            tensors = [getattr(part, name) for part in parts]
            if tensors[0] is None:
                return None
            if name in OF_ALL_TOKENS:  # as long as the longest text of all passes
                longest = max(tensor.shape[1] for tensor in tensors)
                behind = (0, 0) * (tensors[0].dim() - 2)
                tensors = [
                    torch.nn.functional.pad(tensor, (*behind, 0, longest - tensor.shape[1]))
                    for tensor in tensors
                ]
            return torch.cat(tensors)

        return TextOutputs(**{name: joined(name) for name in vars(parts[0])})


def _maybe(tensor: torch.Tensor | None, rows: torch.Tensor | slice) -> Any:
    return None if tensor is None else tensor[rows]


@dataclass(frozen=True)
class Noise:
    """Random numbers of the rows of an effective batch.

    They depend on the seed, the round, the step and the row only. So a fit that resumes from a snapshot, or
    that divides its batches differently, draws the same numbers.
    """

    entropy: tuple[int, ...] = ()
    """Seed and round."""
    step: int = 0
    rows: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    """[n] number of each pair among the training pairs."""

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers, [n, *shape] float32; the same at every call."""
        return self._drawn("standard_normal", shape)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Numbers from [0, 1), [n, *shape] float32; the same at every call."""
        return self._drawn("random", shape)

    def _drawn(self, kind: str, shape: tuple[int, ...]) -> torch.Tensor:
        numbers = np.empty((len(self.rows), *shape), np.float32)
        for place, row in enumerate(self.rows.tolist()):
            sequence = np.random.SeedSequence(self.entropy, spawn_key=(self.step, row))
            numbers[place] = getattr(np.random.default_rng(sequence), kind)(shape, dtype=np.float32)
        return torch.from_numpy(numbers)


@dataclass(frozen=True)
class PairOutputs:
    """What the loss of n pairs is computed from."""

    chosen: TextOutputs
    rejected: TextOutputs
    asked_margins: torch.Tensor
    """[n] the margin that a row of the data sets; nan if it sets none."""
    noise: Noise
    """Drawn anew for each step and row."""
    paraphrase: TextOutputs | None = None
    """The outputs of k paraphrases of chosen responses, if the objective reads them and a row has one."""
    paraphrased: torch.Tensor | None = None
    """[k] the pair, of the n, that each paraphrase belongs to."""
    labels: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """[n] by the columns of the objective's `labels`: the place of the row's label among them, −1 if it has
    none."""


class Objective(Plugin):
    """A loss, and what a network's outputs mean under it.

    Modules of its own, if any, are trained with the head and saved beside the checkpoint.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset()
    """What is read of a text besides the head's outputs."""
    losses_read: ClassVar[frozenset[Reads]] = frozenset()
    """What the losses read in addition; scoring does without it."""
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Columns of training pairs that the losses read where there are any, each with the labels that it may
    hold; a row may have none."""

    def __init__(self, config: Any) -> None:
        """Start without modules of its own; `build` makes them once the network's width is known."""
        super().__init__(config)
        self.modules = torch.nn.ModuleDict()

    @property
    def outputs(self) -> int:
        """k, the outputs of the head."""
        return 1

    @property
    def language_model(self) -> str | None:
        """Reference of the causal language model that gives `log_probabilities`; it must have the same
        vocabulary."""
        return None

    @property
    def name(self) -> str:
        """Its name in a configuration."""
        return str(self.config.name)

    def build(self, width: int) -> dict[str, torch.nn.Module]:
        """Its own modules by name, initialised from torch's generator; `width` is d of `TextOutputs`.

        They may hold parameters only: a fit that resumes restores no running statistics.
        """
        return {}

    @abstractmethod
    def losses(self, pairs: PairOutputs) -> torch.Tensor:
        """The loss of each pair, [n]."""

    def penalty(self) -> torch.Tensor | None:
        """A term that depends on its own modules only, added to the mean loss of each effective batch."""
        return None

    def readout(self, texts: TextOutputs) -> torch.Tensor:
        """The readouts of m texts, [m, q]; by default the head's outputs. It is deterministic."""
        return texts.outputs

    @abstractmethod
    def reward(self, readout: torch.Tensor) -> torch.Tensor:
        """r(x, y), [m], from readouts [m, q]."""

    @abstractmethod
    def logit(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        """The margin, logit P(chosen ≻ rejected), [n], from readouts [n, q]; equal texts have 0."""

    def curvature(self, margins: torch.Tensor) -> torch.Tensor | None:
        """ℓ''(Δ), the second derivative of a pair's loss in its margin, [n], from margins [n].

        By default it is None, not defined: the theory is of a margin that is linear in the inputs of the
        head's last layer, and of a loss that depends on it alone.
        """
        return None

    def latents(self, texts: TextOutputs) -> torch.Tensor | None:
        """Where texts lie, [m, j], so that unusual ones are far from the usual; None if nothing says it.

        It is a function of the head's outputs and of the pooled state.
        """
        return None

    def uncertainty(self, readout: torch.Tensor) -> torch.Tensor | None:
        """The reward's variance, [m], from readouts [m, q], if the objective knows it."""
        return None

    def disagreement(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor | None:
        """The standard deviation of the margin over the members of an ensemble, [n], from readouts [n, q], if
        the objective has several members."""
        return None

    def own_weights(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        """The parameters of its own modules, by name."""
        return self.modules.named_parameters()


OBJECTIVES: ExtensionPoint[Objective] = ExtensionPoint("objective", Objective)  # type: ignore[type-abstract]


class ObjectiveConfig(PluginSection):
    """The objective of a fit; its own keys stand beside its name."""

    name: Annotated[str, OBJECTIVES] = "bradley_terry"
    """The name of an objective, or module:attribute of your own class."""

    def open(self) -> Objective:
        """The objective with its keys."""
        objective: Objective = super().open()
        return objective


def curvature_of(objective: Objective, margins: ArrayLike) -> NDArray[np.float64] | None:
    """ℓ''(Δ) of margins [n], in float64; None where the objective does not define it."""
    found = objective.curvature(torch.from_numpy(np.array(margins, dtype=np.float64)))
    return None if found is None else found.numpy()


def preference_loss(logits: torch.Tensor) -> torch.Tensor:
    """−log P(chosen ≻ rejected) of each pair, [n], from its margin, [n]: the loss of validation."""
    return torch.nn.functional.softplus(-logits)
