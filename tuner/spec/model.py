"""The fields of `model`: networks of our own, small families of the field, torchvision's and timm's, the user's."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from tuner.spec.backbones import check_arch
from tuner.spec.section import PER_BLOCK, USER_CODE, Count, Fraction, Items, Section

Activation = Literal["relu", "leaky_relu", "gelu", "silu"]
Norm = Literal["none", "batch", "group"]
Kind = Literal["standard", "separable"]
Position = Literal["conv", "block", "down", "last", "head"]


class Head(Section):
    """From the last feature map to the classes."""

    project: Count | None = Field(None, description="channels of a 1x1 convolution before pooling; null: none")
    pool: Literal["average", "max", "flatten"] = Field(
        "average", description="global average or max pooling, or flatten the map"
    )
    hidden: Annotated[tuple[Count, ...], Items] = Field((), description="units of the hidden layers before the output")


# ---------------------------------------------------------------- how a block ends


class MaxDown(Section):
    """Max pooling: half the side."""

    name: Literal["max"] = "max"


class AverageDown(Section):
    """Average pooling: half the side."""

    name: Literal["average"] = "average"


class StridedDown(Section):
    """A 3x3 convolution of stride 2 with norm and activation: half the side."""

    name: Literal["strided"] = "strided"


class DilatedDown(Section):
    """A dilated 3x3 convolution with padding 1 and no stride, bias and norm, no activation: side + 2 - 2 x dilation."""

    name: Literal["dilated"] = "dilated"
    dilation: Annotated[int, Field(ge=2)] = Field(description="pixels between the taps; 9 halves 32, 5 halves 16")


class NoDown(Section):
    """The map keeps its side."""

    name: Literal["none"] = "none"


Down = MaxDown | AverageDown | StridedDown | DilatedDown | NoDown


# ---------------------------------------------------------------- our own networks


class Dropout(Section):
    """Dropout with its positions; Dropout2d (whole channels) in the body."""

    rate: Fraction = Field(0.0, description="rate")
    at: Annotated[tuple[Position, ...], Items] = Field(
        ("block", "head"),
        description="conv: after every convolution; block: after the last of each block; down: after each reduction; "
        "last: after the last convolution of all; head: on the units before the output",
    )


class Block(Section):
    """One block of a `cnn` that is written as a list."""

    width: Count = Field(description="channels")
    convs: Annotated[tuple[Kind, ...], Field(strict=False, min_length=1)] = Field(
        ("standard",), description="kind of each convolution: standard, or separable (depthwise, then 1x1)"
    )
    dilation: Count | Annotated[tuple[Count, ...], Items] = Field(
        1, description="dilation of the block's convolutions, or of each"
    )
    kernel: Count = Field(3, description="kernel side in pixels, odd")
    down: Down = Field(default_factory=MaxDown, discriminator="name", description="how the block ends")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        return _odd(value)

    @model_validator(mode="after")
    def _one_dilation_a_convolution(self) -> Block:
        if isinstance(self.dilation, tuple) and len(self.dilation) != len(self.convs):
            raise ValueError(f"dilation lists {len(self.dilation)} values, convs {len(self.convs)}")
        return self

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of each convolution."""
        return self.dilation if isinstance(self.dilation, tuple) else (self.dilation,) * len(self.convs)


class Cnn(Section):
    """Convolutional network: blocks of convolution, norm, activation, reduction, dropout; then a head.

    Blocks as a count (`depth`) with scalars, or as a list (`blocks`), which says all of them by itself.
    """

    name: Literal["cnn"] = "cnn"
    depth: Count = Field(3, description="number of blocks")
    convs: Annotated[int, Field(ge=1, le=8)] = Field(1, description="convolutions in each block")
    width: Count | Annotated[tuple[Count, ...], Items] = Field(
        32, description="channels of the first block, or of each block", json_schema_extra=PER_BLOCK
    )
    growth: float = Field(2.0, ge=0.25, le=8, description="each block is so many times as wide as the one before")
    kernel: Count | Annotated[tuple[Count, ...], Items] = Field(
        3, description="kernel side in pixels, odd", json_schema_extra=PER_BLOCK
    )
    kind: Kind = Field("standard", description="convolutions: standard, or separable (depthwise, then 1x1)")
    down: Down = Field(default_factory=MaxDown, discriminator="name", description="how each block ends")
    blocks: Annotated[tuple[Block, ...], Field(strict=False, min_length=1)] | None = Field(
        None, description="instead of depth, convs, width, growth, kernel, kind and down: each block by itself"
    )
    padding: Literal["same", "valid"] = Field("same", description="same keeps the map's size, valid shrinks it")
    norm: Norm = Field("batch", description="normalisation after each convolution; group: groups of about 8 channels")
    activation: Activation = Field("relu", description="activation function")
    pool_first: bool = Field(
        True, description="max and average pooling before norm and activation, which then see a quarter of the pixels"
    )
    residual: bool = Field(False, description="a way around each block's convolutions; 1x1 where the width changes")
    squeeze: Annotated[int, Field(ge=2)] | None = Field(
        None, description="squeeze-excitation at the end of each block with so many times fewer units; null: none"
    )
    stochastic_depth: Fraction = Field(
        0.0,
        description="rate at which training leaves out the last residual block; earlier ones less",
    )
    dropout: Fraction | Dropout = Field(
        0.0, description="rate of dropout at the end of each block and in the head, or {rate, at}"
    )
    whiten: bool = Field(False, description="a frozen 2x2 convolution first that whitens patches of training images")
    init: Literal["default", "identity"] = Field(
        "default", description="identity: convolutions begin as the identity as far as their channels go"
    )
    head: Head = Field(default_factory=Head, description="what follows the last block")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        for kernel in value if isinstance(value, tuple) else (value,):
            _odd(kernel)
        return value

    @model_validator(mode="after")
    def _one_item_a_block(self) -> Cnn:
        for field in ("width", "kernel"):
            value = getattr(self, field)
            if isinstance(value, tuple) and len(value) != self.depth:
                raise ValueError(f"{field} lists {len(value)} blocks, depth says {self.depth}")
        return self

    @model_validator(mode="after")
    def _blocks_say_all(self) -> Cnn:
        if self.blocks:
            plain = Cnn.model_construct()
            beside = [f for f in self.SCALARS if getattr(self, f) != getattr(plain, f)]
            if beside:
                raise ValueError(f"blocks says all of them; {' and '.join(beside)} cannot stand beside it")
        return self

    @model_validator(mode="after")
    def _depth_needs_a_way_around(self) -> Cnn:
        if self.stochastic_depth and not self.residual:
            raise ValueError("stochastic_depth needs residual: true")
        return self

    SCALARS: ClassVar[tuple[str, ...]] = ("depth", "convs", "width", "growth", "kernel", "kind", "down")

    @property
    def all_blocks(self) -> tuple[Block, ...]:
        """Each block by itself, however it was written: widths as listed, or growth^i of the first, rounded."""
        if self.blocks:
            return self.blocks
        given = self.width
        widths = (
            given
            if isinstance(given, tuple)
            else tuple(max(1, math.floor(given * self.growth**i + 0.5)) for i in range(self.depth))
        )
        kernels = self.kernel if isinstance(self.kernel, tuple) else (self.kernel,) * self.depth
        convs = (self.kind,) * self.convs
        return tuple(
            Block(width=width, convs=convs, kernel=kernel, down=self.down)
            for width, kernel in zip(widths, kernels, strict=True)
        )

    @property
    def drop(self) -> Dropout:
        """Dropout, however it was written."""
        return self.dropout if isinstance(self.dropout, Dropout) else Dropout(rate=self.dropout)


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError("a kernel's side must be odd, so that it has a centre; try 3 or 5")
    return kernel


# ---------------------------------------------------------------- small families


class ResNet(Section):
    """Residual network for small images (He et al., 2016, section 4.2): three stages of width, 2 x and 4 x."""

    name: Literal["resnet"] = "resnet"
    depth: Annotated[int, Field(ge=8)] = Field(20, description="layers with weights, 6n + 2: 8, 14, 20, 26, 32, ...")
    width: Count = Field(16, description="channels of the first stage")
    activation: Activation = Field("relu", description="activation function")
    dropout: Fraction = Field(0.0, description="rate of dropout before the output")
    stochastic_depth: Fraction = Field(
        0.0,
        description="rate at which training leaves out the last residual block; earlier ones less",
    )

    @field_validator("depth")
    @classmethod
    def _whole_stages(cls, value: int) -> int:
        if (value - 2) % 6:
            near = 2 + 6 * max(1, round((value - 2) / 6))
            raise ValueError(f"must be 6n + 2, such as 8, 14 or 20, got {value}; try {near}")
        return value


class DenseNet(Section):
    """Densely connected network with bottlenecks and compression for small images (Huang et al., 2017)."""

    name: Literal["densenet"] = "densenet"
    depth: Annotated[int, Field(ge=10)] = Field(40, description="layers with weights, 6n + 4: 10, 16, 22, 40, 100, ...")
    growth: Count = Field(12, description="channels that each layer adds")
    compression: float = Field(0.5, gt=0, le=1, description="share of the channels that a transition keeps")
    activation: Activation = Field("relu", description="activation function")
    dropout: Fraction = Field(0.0, description="rate of dropout after each layer")

    @field_validator("depth")
    @classmethod
    def _whole_stages(cls, value: int) -> int:
        if (value - 4) % 6:
            near = 4 + 6 * max(1, round((value - 4) / 6))
            raise ValueError(f"must be 6n + 4, such as 22 or 40, got {value}; try {near}")
        return value


class Inception(Section):
    """Small inception network: modules of 1x1, 3x3, double 3x3 and pooling side by side (Szegedy et al., 2015)."""

    name: Literal["inception"] = "inception"
    depth: Count = Field(6, description="number of modules; the map is halved after each third of them")
    width: Annotated[int, Field(ge=4)] = Field(64, description="channels of the first modules; doubled at each halving")
    activation: Activation = Field("relu", description="activation function")
    dropout: Fraction = Field(0.0, description="rate of dropout before the output")


# ---------------------------------------------------------------- ready-made networks


class Backbone(Section):
    """A classifier of torchvision or timm (`timm:<name>`), with weights or without, and a head of our own."""

    name: Literal["backbone"] = "backbone"
    arch: str = Field(description="torchvision's name, such as resnet18 or efficientnet_b0; or timm:<name>")
    weights: str = Field(
        "none",
        description="none, imagenet, a folder checkpoint_best, or a file: .safetensors, or .pth of tensors alone",
    )
    hidden: Annotated[tuple[Count, ...], Items] = Field((), description="units of the hidden layers before the output")
    dropout: Fraction = Field(0.0, description="rate of dropout before the output")
    stochastic_depth: Fraction | None = Field(
        None, description="of the architectures that have it (efficientnet, convnext, swin, ...); null: their own"
    )

    _arch = field_validator("arch")(check_arch)


class UserModel(Section):
    """The user's own network: `name` is module:function, other keys are its arguments."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(pattern=USER_CODE)] = Field(description="module:function")

    @property
    def arguments(self) -> dict[str, Any]:
        """What the function gets beside classes, in_channels and image_size."""
        return dict(self.model_extra or {})


def _kind(value: Any) -> str:
    name = value.get("name", "cnn") if isinstance(value, dict) else getattr(value, "name", None)
    return "user" if isinstance(name, str) and ":" in name else str(name)


AnyModel = Annotated[
    Annotated[Cnn, Tag("cnn")]
    | Annotated[ResNet, Tag("resnet")]
    | Annotated[DenseNet, Tag("densenet")]
    | Annotated[Inception, Tag("inception")]
    | Annotated[Backbone, Tag("backbone")]
    | Annotated[UserModel, Tag("user")],
    Discriminator(_kind),
]
