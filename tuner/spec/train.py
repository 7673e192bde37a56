"""The fields of `train`: optimisers, courses of the learning rate, regularisation, what of a network learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tuner.spec.section import Count, Fraction, Items, Rate, Section, Share

# ---------------------------------------------------------------- optimisers


class Optimizer(Section):
    """What all optimisers share."""

    decay_all: bool = Field(True, description="false: no weight decay of norms and biases")
    head_lr: Rate = Field(1.0, description="the head's learning rate is so many times that of the last stage")
    lr_decay_per_stage: float = Field(
        1.0, gt=0, le=1, description="each stage below the last learns at so many times the rate of the one above"
    )


Betas = Annotated[tuple[Fraction, Fraction], Items]


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015); weight decay is L2 in the gradient."""

    name: Literal["adam"] = "adam"
    lr: Rate = Field(1e-3, description="learning rate")
    betas: Betas = Field((0.9, 0.999), description="decay of both moments")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty")


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: Rate = Field(1e-3, description="learning rate")
    betas: Betas = Field((0.9, 0.999), description="decay of both moments")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay")


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat, 2016)."""

    name: Literal["nadam"] = "nadam"
    lr: Rate = Field(2e-3, description="learning rate")
    betas: Betas = Field((0.9, 0.999), description="decay of both moments")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty")


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: Rate = Field(0.05, description="learning rate")
    momentum: Fraction = Field(0.9, description="momentum")
    nesterov: bool = Field(False, description="Nesterov's momentum")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class RmsProp(Optimizer):
    """RMSprop (Tieleman and Hinton, 2012)."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: Rate = Field(1e-3, description="learning rate")
    alpha: Fraction = Field(0.99, description="decay of the squared gradient's average")
    momentum: Fraction = Field(0.0, description="momentum")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty")


class Adagrad(Optimizer):
    """Adagrad (Duchi et al., 2011)."""

    name: Literal["adagrad"] = "adagrad"
    lr: Rate = Field(0.01, description="learning rate")
    lr_decay: float = Field(0.0, ge=0, description="rate decay by step")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty")


class Muon(Optimizer):
    """Muon (Jordan et al., 2024) for the matrices of the body; AdamW for biases, norms, first layer and head."""

    name: Literal["muon"] = "muon"
    lr: Rate = Field(0.02, description="learning rate of the matrices")
    momentum: Fraction = Field(0.95, description="momentum of the matrices, Nesterov's")
    adam_lr: Rate = Field(1e-3, description="learning rate of everything else")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")


AnyOptimizer = Adam | AdamW | NAdam | Sgd | RmsProp | Adagrad | Muon


# ---------------------------------------------------------------- courses of the learning rate


class Schedule(Section):
    """What all courses share, but one-cycle, which has a rise of its own."""

    warmup: Fraction = Field(0.0, description="share of all steps in which the rate rises linearly from a hundredth")


class Constant(Schedule):
    """The same learning rate throughout."""

    name: Literal["constant"] = "constant"


class Step(Schedule):
    """Times `factor` after every so many epochs."""

    name: Literal["step"] = "step"
    every: Count = Field(10, description="epochs between two reductions")
    factor: float = Field(0.1, gt=0, le=1, description="by which the rate is reduced")


class MultiStep(Schedule):
    """Times `factor` after each of these epochs."""

    name: Literal["multistep"] = "multistep"
    at: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = Field(description="epochs of the reductions")
    factor: float = Field(0.1, gt=0, le=1, description="by which the rate is reduced")


class Exponential(Schedule):
    """Times `factor` an epoch, a little at each step."""

    name: Literal["exponential"] = "exponential"
    factor: float = Field(0.95, gt=0, le=1, description="by which the rate is reduced in an epoch")


class Cosine(Schedule):
    """Half a cosine down to `final_lr` (Loshchilov and Hutter, 2017)."""

    name: Literal["cosine"] = "cosine"
    final_lr: float = Field(0.0, ge=0, description="rate at the end")


class Polynomial(Schedule):
    """(1 - share done) to a power, down to `final_lr`; power 1 is a straight line."""

    name: Literal["polynomial"] = "polynomial"
    power: float = Field(1.0, gt=0, description="power")
    final_lr: float = Field(0.0, ge=0, description="rate at the end")


class Plateau(Schedule):
    """Times `factor` when the validation loss has not gone down for more than `patience` epochs."""

    name: Literal["plateau"] = "plateau"
    factor: float = Field(0.1, gt=0, lt=1, description="by which the rate is reduced")
    patience: Annotated[int, Field(ge=0)] = Field(5, description="epochs without an improvement that are allowed")
    threshold: float = Field(1e-4, ge=0, lt=1, description="share of the loss by which it must go down to count")
    least: float = Field(0.0, ge=0, description="the rate never falls below this")


class OneCycle(Section):
    """One cycle (Smith, 2018): from lr/25 to lr over `warmup`, then down to `final_lr`, both slopes cosines."""

    name: Literal["onecycle"] = "onecycle"
    warmup: Fraction = Field(0.25, description="share of all steps in which the rate rises")
    final_lr: float | None = Field(None, ge=0, description="rate at the end; default: lr / 10,000")
    shape: Literal["cosine", "linear"] = Field("cosine", description="of both slopes")


AnySchedule = Constant | Step | MultiStep | Exponential | Cosine | Polynomial | Plateau | OneCycle


# ---------------------------------------------------------------- the rest


class Unfreeze(Section):
    """Progressive unfreezing: the head first, then one stage more at a time, from the last towards the first."""

    every: Count | None = Field(None, description="epochs between two steps")
    at: Annotated[tuple[Count, ...], Items] | None = Field(
        None, description="instead of every: epochs after which one stage more is trained"
    )
    stages: Annotated[int, Field(ge=2)] | None = Field(
        None, description="steps with the head as the first, so that 5 ends with the head and four stages; null: all"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Unfreeze:
        if (self.every is None) == (self.at is None):
            raise ValueError("unfreeze needs either every or at")
        if self.at is not None and list(self.at) != sorted(set(self.at)):
            raise ValueError("at: epochs must rise")
        return self


class EarlyStopping(Section):
    """Ends a trial that does not get better, or that learns its training images by heart."""

    patience: Count | None = Field(
        None, description="epochs without a better value of the search's metric; null: does not matter"
    )
    gap: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="accuracy on clean training images less the validation's; null: does not matter",
    )
    epochs: Count = Field(10, description="epochs in a row with a larger gap")

    @model_validator(mode="after")
    def _one_at_least(self) -> EarlyStopping:
        if self.patience is None and self.gap is None:
            raise ValueError("early_stopping needs patience or gap")
        return self


class Train(Section):
    """How a trial is trained."""

    epochs: Count = Field(10, description="full training length; every trial could get this far")
    batch_size: Count = Field(64, description="images a step")
    accumulate: Count = Field(1, description="steps whose gradients are added up for one update")
    optimizer: AnyOptimizer = Field(default_factory=Adam, discriminator="name", description="optimiser")
    schedule: AnySchedule = Field(
        default_factory=Constant, discriminator="name", description="course of the learning rate"
    )
    clip_norm: Rate | None = Field(None, description="greatest norm of all gradients together; null: any")
    clip_value: Rate | None = Field(None, description="greatest absolute value of a gradient; null: any")
    label_smoothing: Fraction = Field(0.0, description="share of the truth that is spread over all classes")
    mixup: float = Field(0.0, ge=0, description="MixUp's alpha (Zhang et al., 2018); 0: off")
    cutmix: float = Field(0.0, ge=0, description="CutMix's alpha (Yun et al., 2019); 0: off; with mixup, one by turns")
    mix_p: Share = Field(1.0, description="share of the batches that mixup or cutmix change")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: the loss counts each class alike, however rare"
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="balanced: each class is drawn alike, with replacement"
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay a step of the weights' moving average, which is validated beside them; null: none"
    )
    early_stopping: EarlyStopping | None = Field(None, description="ends a trial by itself; null: never")
    trainable: Literal["all", "head"] | Count = Field(
        "all", description="what learns: all, the head alone, or the head and so many last stages"
    )
    unfreeze: Unfreeze | None = Field(None, description="progressive unfreezing; null: none")
    freeze_norm: bool = Field(False, description="batch norms of the body keep their statistics and weights")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="arithmetic; auto: bf16 where the processor computes it fast, else fp32 (fp16 needs a GPU)"
    )
    compile: Literal["auto", "off", "graph", "inductor"] = Field(
        "auto", description="on a GPU: graph captures the whole step, inductor is torch.compile; auto: graph if it can"
    )

    @model_validator(mode="after")
    def _one_way_of_freezing(self) -> Train:
        if self.unfreeze and self.trainable != "all":
            raise ValueError("unfreeze says what learns and when; leave trainable out")
        return self
