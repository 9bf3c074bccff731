"""Roles: what a parameter is for, as a type with the bounds that its values keep.

A signature says `temperature: Temperature = 0.1`. To Python and to type checkers that is a float;
the command line, YAML and the constructor itself refuse what is out of bounds, `--help` tells them,
and whoever wants the temperatures of a method asks for the role, whatever its parameters are
called. Values of a tuple are checked one by one. Of two roles the first says more of what a number
is for: the doctor holds such numbers against each other before the first step. A role of one's own
is written in place, as in `sharpness: Annotated[float, Role("sharpness", above=0)] = 2.0`.
"""

from dataclasses import dataclass
from typing import Annotated

from .sides import Size


@dataclass(frozen=True)
class Role:
    """What a number is for, and what it may be.

    Args:
        name: by which it is asked for.
        above, least, most, below: bounds; `above` and `below` are themselves out.
        from_data: whether the data gives the value, where the user gives none.
    """

    name: str
    above: float | None = None
    least: float | None = None
    most: float | None = None
    below: float | None = None
    from_data: bool = False

    def allows(self, value: float) -> bool:
        """Whether `value` is within the bounds."""
        return not (
            (self.above is not None and not value > self.above)
            or (self.least is not None and not value >= self.least)
            or (self.most is not None and not value <= self.most)
            or (self.below is not None and not value < self.below)
        )

    def __str__(self) -> str:
        """The bounds in words: `above 0`, `from 0 to 1`; nothing where there are none."""
        if self.least is not None and self.most is not None:
            return f"from {self.least:g} to {self.most:g}"
        bounds = {
            "above": self.above,
            "at least": self.least,
            "at most": self.most,
            "below": self.below,
        }
        return " and ".join(f"{word} {x:g}" for word, x in bounds.items() if x is not None)


Count = Annotated[int, Role("count", least=1)]
"""Of things that there must be: widths, layers, neighbors, steps."""

ImageSize = Annotated[Size, Role("size", least=1)]
"""Of images in pixels: one side of squares, rows and columns of others."""

Number = Annotated[int, Role("number", least=0)]
"""Of things that there need not be: small views, workers."""

Bits = Annotated[int, Role("bits", least=-1, most=32)]
"""Of 64, in which hashes differ; -1 for none at all."""

Several = Annotated[int, Role("several", least=2)]
"""Of things that are compared with each other."""

DecoderWidth = Annotated[int, Role("decoder width"), Role("count", least=1)]
"""Numbers in which a decoder or a predictor of places describes a place."""

PrototypeCount = Annotated[int, Role("prototypes", least=1)]
"""Groups that images are sorted into."""

QueueLength = Annotated[int, Role("queue", least=1)]
"""Earlier outputs that are compared with: fewer than there are images."""

DrawnImages = Annotated[int, Role("drawn images", least=2)]
"""Of the data, each used alone: not more than there are."""

HeadWidth = Annotated[int, Role("head width", least=1)]
"""Of the layers between the backbone and the loss, in numbers."""

SmallViews = Annotated[int, Role("small views", least=0)]
"""Of an image, beside the two that are large."""

SampleCount = Annotated[int, Role("samples", least=1, from_data=True)]
ClassCount = Annotated[int, Role("classes", least=1, from_data=True)]

Temperature = Annotated[float, Role("temperature", above=0)]
"""Of a softmax."""

TeacherTemperature = Annotated[float, Role("teacher temperature"), Role("temperature", above=0)]
"""Of the softmax that makes targets of a network's own outputs, or of its EMA copy's; Sinkhorn's
epsilon. Below the student's, or outputs become alike."""

Sharpening = Annotated[float, Role("sharpening"), Role("positive", above=0)]
"""Temperature of such targets as a multiple of the student's."""

Momentum = Annotated[float, Role("momentum", least=0, most=1)]
"""Of a momentum encoder (EMA): what stays of it in a step."""

CenterMomentum = Annotated[float, Role("center momentum"), Role("share", least=0, most=1)]
"""Of a running mean of an EMA teacher's outputs: what stays of it in a step."""

HiddenShare = Annotated[float, Role("hidden share", least=0, most=1)]
"""Of an image, which is to be filled in."""

MaskRatio = Annotated[float, Role("mask ratio"), Role("share", least=0, most=1)]
"""Share of the patches that a view hides where it hides some."""

BlockArea = Annotated[float, Role("target block"), Role("fraction", above=0, most=1)]
"""Of a block that is to be predicted, as a share of the image."""

ContextArea = Annotated[float, Role("context block"), Role("fraction", above=0, most=1)]
"""Of what blocks are predicted from, as a share of the image."""

Share = Annotated[float, Role("share", least=0, most=1)]
"""A probability, a fraction of training, a weight whose rest goes elsewhere."""

Blur = Annotated[float, Role("blur", least=0, most=1)]
"""Chance of what takes detail away from a view: blur, solarization."""

Strength = Annotated[float, Role("strength", least=0)]
"""Of color distortion, as a multiple of what is usual."""

Cosine = Annotated[float, Role("cosine", least=-1, most=1)]
"""Of the angle between two features."""

PartialShare = Annotated[float, Role("partial share", least=0, below=1)]
"""A share that leaves something: dropout, stochastic depth."""

Fraction = Annotated[float, Role("fraction", above=0, most=1)]
"""Of what is there, some of which must be left: the area of a crop."""

Weight = Annotated[float, Role("weight", least=0)]
"""The strength of a distortion or a penalty; 0 for none."""

TermWeight = Annotated[float, Role("term weight"), Role("weight", least=0)]
"""Of a term of the loss, beside others."""

TermShare = Annotated[float, Role("term share"), Role("share", least=0, most=1)]
"""Of a term of the loss; one other has the rest."""

Positive = Annotated[float, Role("positive", above=0)]
"""A scale without which nothing is defined: a power, a radius, a ratio of sides."""

ScaleFactor = Annotated[float, Role("scale factor", least=1)]
"""By which something is enlarged or made smaller at most; 1 for neither."""

Margin = Annotated[float, Role("margin", above=0)]
"""A distance that the loss asks for."""

Rate = Annotated[float, Role("rate", above=0)]
"""Of learning, and what gradients are clipped to."""
