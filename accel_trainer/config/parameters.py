"""Every parameter of a job file, its type, range, default and meaning.

This one definition feeds the validation, the JSON schema and the table of docs/parameters.md.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from accel_trainer.config.augmentations import BlurOrOff, EraseValue, MixingOrOff, NoiseOrOff, OcclusionOrOff
from accel_trainer.config.degradations import Degradations
from accel_trainer.config.fields import ChannelMeans, ChannelStds, Keywords, Section, WithoutNulls
from accel_trainer.config.marks import DATA, MODEL, OPTIMIZATION, RUN, UNREPORTED, ChangesMetrics, PathKind
from accel_trainer.config.places import FINETUNE_DIR
from accel_trainer.config.rules import FIRST_RULES, RULES

CONTRASTIVE = ("SimCLRLoss", "SupConLoss")
DEFAULT_SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
DEFAULT_STEP: dict[str, Any] = {"step_size": 30, "gamma": 0.1}

# What decides which images there are, and with that what a validation measures.
SOURCE = DATA.but(decides_images=True, changes_metrics=ChangesMetrics.ALWAYS)
# What names a run, or groups of runs, for people.
LABEL = RUN.but(is_checked=False, is_setting=False)

EvalResize = Literal["bilinear", "bicubic", "bilinear-squash", "bicubic-squash"]
NonNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class ModelParameters(Section):
    """Model"""

    architecture: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$"),
        MODEL.but(decides_groups=True, is_setting=False),
    ]
    """Name of a model of the zoo, or of a torchvision classification model of images or, with `video`, of clips, in
    lower case; `timm:` and a name of timm; or an import path such as `my_lab.models:Net`, of a package that the
    command line or the environment allows."""
    architecture_args: Annotated[Keywords, MODEL.but(decides_groups=True)] = {}
    """Keyword arguments of the model's constructor. The output layer always fits the data set's classes."""
    pretrained: Annotated[str | None, MODEL.but(path=PathKind.PATH)] = None
    """Weights to start from: the name of torchvision's for the architecture (`DEFAULT`, `IMAGENET1K_V1`, ...), which
    are downloaded once; or a file or run folder, as for `starting_params`. An output layer of another size is new."""
    min_loaded_fraction: Annotated[float, Field(ge=0, le=1), RUN.but(training_only=True)] = 0.5
    """The least share of the model's parameters that `pretrained` or `finetune` must find in the weights: with less the
    job is refused. `0.1` where so little is wanted, as under a large new head."""
    model_dir: Annotated[
        str | None, UNREPORTED.but(training_only=True, is_checked=False, is_setting=False, path=PathKind.PATH)
    ] = None
    """The run folder; `~` expands. Default `models/<architecture>/<job name>`, with `.` for a `:`. With `finetune` the
    parent's, and the run is in its `finetune_dir`."""
    save_interval: Annotated[Positive | None, RUN] = None
    """Keep the weights of every n-th epoch; absent: only the best and the last."""


class DataParameters(Section):
    """Data"""

    dataset: Annotated[str, Field(min_length=1), SOURCE.but(path=PathKind.DATASET)] = "ILSVRC2012"
    """Folder below `data_root` with `train/` and `val/` class folders, or one that `accel-train pack` made;
    `hf:<hub id or path>` for Hugging Face datasets, with `:<configuration>` behind it where there are several; or the
    bundled `digits`."""
    data_root: Annotated[str, RUN.but(decides_images=True, path=PathKind.PATH)] = "~/Datasets"
    """Where data set folders are."""
    image_column: Annotated[str | None, SOURCE] = None
    """Column with the images of an `hf:` data set; absent: found by its type."""
    label_column: Annotated[str | None, SOURCE] = None
    """Column with the labels of an `hf:` data set; absent: found by its type or name."""
    class_subset: Annotated[Annotated[list[NonNegative], Field(min_length=1)] | None, SOURCE] = None
    """Indices of the classes to use, in train and val; they become 0..k-1 in the order given. Absent: all."""
    image_size: Annotated[Positive, DATA.but(changes_metrics=ChangesMetrics.ALWAYS)] = 224
    """Height and width in pixels."""
    transform_type: Annotated[str, DATA] = "default"
    """`default`: random resized crop (8 to 100% of the area) and horizontal flip; `contrastive`: with color jitter,
    grayscale and Gaussian blur, as for SimCLR; `none`: resize and center crop, as in validation. Modifiers, added with
    `-`: `weak-resize` (80 to 100% of the area), `no-blur`, and one of `randaugment`, `trivialaugment`, `augmix`."""
    eval_crop: Annotated[float, Field(gt=0, le=1), DATA.but(changes_metrics=ChangesMetrics.ALWAYS)] = 0.875
    """Share of the shorter side that the center crop of validation keeps (and that of `none`): 0.875 is torchvision's
    224 of 256 pixels; 1.0 all of it."""
    eval_resize: Annotated[EvalResize, DATA.but(changes_metrics=ChangesMetrics.ALWAYS)] = "bilinear"
    """How validation resizes (and `none`), antialiased: `bilinear`, as torchvision does it with tensors of bytes, or
    `bicubic`, as timm and torchvision do it with images of Pillow, which takes longer. `bilinear-squash` and
    `bicubic-squash` make a square of the whole image, whatever its shape, as timm's crop mode `squash`."""
    mean: Annotated[ChannelMeans, DATA.but(changes_metrics=ChangesMetrics.ALWAYS)] = [0.485, 0.456, 0.406]
    """What is subtracted of the pixels, which are from 0 to 1: a number for red, green and blue each, or one for all.
    Absent: ImageNet's."""
    std: Annotated[ChannelStds, DATA.but(changes_metrics=ChangesMetrics.ALWAYS)] = [0.229, 0.224, 0.225]
    """What they are then divided by, in the same form."""
    num_views: Annotated[int, Field(ge=1, le=1000), DATA] = 1
    """Views of each image; with a classification loss each is an example of its own."""
    view_dependence: Annotated[bool, DATA] = False
    """All views of an image share their random draws. Frames of a video do unless it is `false`."""
    batch_dependence: Annotated[bool, DATA] = False
    """All images of a global batch share their random draws."""
    video: Annotated[bool, DATA.but(changes_metrics=ChangesMetrics.ALWAYS)] = False
    """The views of an image are the frames of one clip, and the model takes (batch, frames, 3, height, width). With
    `Blur` there is a frame for each of its `sigmas`."""
    cutmix: Annotated[MixingOrOff, DATA] = None
    """`true`, or `{"alpha": a, "per": "batch"}`: paste a box of another image, and mix the labels by its area. All
    images of a batch have one box, or each its own: `"image"`."""
    mixup: Annotated[MixingOrOff, DATA] = None
    """`true`, or `{"alpha": a, "per": "batch"}`: blend with another image, and the labels alike. With both, each batch
    has one."""
    randomerase: Annotated[EraseValue, DATA] = None
    """What to fill an erased box with, in half of the images, after normalization and in its units: a number (0, which
    is on, is the mean color), `[r, g, b]` of such, or `random` pixels of a normal distribution; `false`: off."""
    Noise: Annotated[NoiseOrOff, DATA] = None
    """Noise on the images: `noise_types`, `ssnrs`, `probs`, `fourier_part`, `mean_magnitude_path`."""
    Blur: Annotated[BlurOrOff, DATA] = None
    """Gaussian blur of the images: `sigmas`, `probs`."""
    Occlusion: Annotated[OcclusionOrOff, DATA] = None
    """Occluders in front of the images: `occluder_dir`, `form`, `probability`, `visibility`, `vis_probs`, `color`,
    `views`, `random_resize`."""
    corrupt_images: Annotated[Literal["replace", "forbid"], RUN] = "replace"
    """What to do with images that were read whole and cannot be decoded. `replace`: in training the next good image of
    the class takes the place, in validation they do not count; they are counted, and more than 1% of a set (and more
    than one) end the run. `forbid`: the first one ends the run."""
    augment_on: Annotated[Literal["device", "loader"] | None, RUN] = None
    """Where color, occlusion, blur, noise and mixing are computed: on the training's device, or by the loader's
    threads. Absent: on a CUDA GPU, elsewhere by the threads. The images are the same to 1e-5."""
    num_workers: Annotated[Annotated[int, Field(ge=0, le=256)] | None, RUN] = None
    """Threads that load images, in each process; 0: none beside the training itself. Absent: from the number of
    cores."""


class FinetuneParameters(Section):
    """Fine-tuning: where the weights come from, and what is trained of them."""

    starting_params: Annotated[str | None, MODEL.but(path=PathKind.PATH)] = None
    """Weights to start from: a run folder (its best), a file (safetensors, or a state dict of `torch.save`), or the
    name of a job of the queue, which is then trained first. All that fits the model by name and shape is loaded: at
    least `min_loaded_fraction` of it, and of frozen modules everything. Absent: the best of the run in `model_dir`."""
    finetune_dir: Annotated[str, MODEL.but(is_checked=False, is_setting=False, path=PathKind.PATH)] = FINETUNE_DIR
    """Folder of the fine-tuned run, inside `model_dir`; the whole path of a folder there means the same."""
    freeze_modules: Annotated[list[str], MODEL] = []
    """Names of modules that are not trained (`layer1.0`): no gradient, no weight decay, BatchNorm and dropout as in
    validation."""


class SwaParameters(Section):
    """Stochastic weight averaging."""

    start: Annotated[Positive, OPTIMIZATION]
    """First epoch that is averaged."""
    swa_lr: Annotated[Annotated[float, Field(gt=0)] | None, OPTIMIZATION] = None
    """Learning rate while averaging, from the epoch after `start` on; absent: the schedule continues."""
    anneal_epochs: Annotated[NonNegative, OPTIMIZATION] = 10
    """Epochs to anneal to `swa_lr`; 0: at once."""
    anneal_strategy: Annotated[Literal["cos", "linear"], OPTIMIZATION] = "cos"
    """How to anneal."""


def _swa(value: Any) -> Any:
    return None if value is False else value


class OptimizationParameters(Section):
    """Optimization"""

    num_epochs: Annotated[int, Field(ge=1, le=100_000), OPTIMIZATION.but(may_change=True, is_setting=False)] = 100
    """How many times to go through the training set."""
    batch_size: Annotated[Positive | Literal["auto"], OPTIMIZATION.but(decides_rate=True)] = 256
    """Images for one optimizer step, over all processes, views and accumulation steps. The last, incomplete batch of
    an epoch is left out. `auto`: the largest that fits into memory, found before training and then kept; of a small
    data set on a CPU that may be all of it."""
    gradient_accumulation: Annotated[Positive, OPTIMIZATION] = 1
    """Forward and backward passes for one optimizer step; each takes its part of `batch_size`. A contrastive loss
    compares only the views of one pass."""
    clip_grad_norm: Annotated[Annotated[float, Field(gt=0)] | None, OPTIMIZATION] = None
    """Largest norm of the gradient."""
    criterion: Annotated[str, OPTIMIZATION.but(changes_metrics=ChangesMetrics.LOSS)] = "CrossEntropyLoss"
    """A classification loss of torch.nn; or `SimCLRLoss`, which pulls the views of an image together, or
    `SupConLoss`, which does so with those of a class."""
    criterion_args: Annotated[Keywords, OPTIMIZATION.but(changes_metrics=ChangesMetrics.LOSS)] = {}
    """Keyword arguments of the loss, such as `label_smoothing`, or `temperature` (0.07) of the contrastive ones."""
    optimizer: Annotated[str, OPTIMIZATION.but(decides_groups=True, decides_rate=True)] = "SGD"
    """A name in torch.optim."""
    optimizer_args: Annotated[Keywords, OPTIMIZATION.but(arguments_of="optimizer")] = DEFAULT_SGD
    """Keyword arguments of the optimizer. Those that are not given are the default's for SGD, and torch's own for any
    other optimizer. `lr` may be the name of a rule, whose number is found before training and then kept: `batch_linear`
    (batch_size / 2^5), `batch_nonlinear` (2^-7 sqrt(batch_size / 2^5)) or `LRfinder` (a range test)."""
    decay_norm_and_bias: Annotated[bool, OPTIMIZATION.but(decides_groups=True)] = True
    """Weight decay on biases and on the parameters of normalization layers too. `false`: only on what has two or more
    dimensions and is not part of a normalization layer."""
    layer_decay: Annotated[Annotated[float, Field(gt=0, le=1)] | None, OPTIMIZATION.but(decides_groups=True)] = None
    """Learning rate of a layer as a fraction of that of the layer above; the output layer has the full rate. For
    fine-tuning. Absent: all layers have the same."""
    scheduler: Annotated[str, OPTIMIZATION] = "StepLR"
    """A name in torch.optim.lr_scheduler."""
    scheduler_args: Annotated[Keywords, OPTIMIZATION.but(arguments_of="scheduler")] = DEFAULT_STEP
    """Keyword arguments of the scheduler, used as they are, in the unit of `schedule_by`. The default is that of
    StepLR by epoch. OneCycleLR needs no `total_steps`: it is the length of the training."""
    schedule_by: Annotated[Literal["epoch", "step"], OPTIMIZATION] = "epoch"
    """What `scheduler` and `warmup_scheduler` count, and after what they set another learning rate: `epoch`, or
    `step`, every optimizer step. By step, T_max, step_size, milestones, total_iters and the like are numbers of
    optimizer steps. ReduceLROnPlateau is by epoch only."""
    warmup_scheduler: Annotated[str | None, OPTIMIZATION] = None
    """A name in torch.optim.lr_scheduler, for the first epochs or steps; after them `scheduler` begins, at its first
    one. Any but ReduceLROnPlateau."""
    warmup_scheduler_args: Annotated[Keywords, OPTIMIZATION] = {}
    """Keyword arguments of the warm-up scheduler, and `total_iters`, the number of epochs, or by step of steps, that it
    lasts. Schedulers that have a `total_iters` of their own have a default for it."""
    primary_metric: Annotated[str, OPTIMIZATION.but(is_setting=False)] = "acc1"
    """The validation metric that decides which epoch is best and drives ReduceLROnPlateau: `acc1`, `acc5`,
    `contrastive_acc`, or the criterion's name for its loss."""
    amp: Annotated[bool, OPTIMIZATION] = True
    """Mixed precision on a GPU: bf16 where it is supported, else fp16 with loss scaling. On a CPU: full precision."""
    mixed_precision: Annotated[Literal["no", "fp16", "bf16"] | None, OPTIMIZATION] = None
    """Overrides `amp`."""
    checkpoint: Annotated[Annotated[int, Field(ge=-1)] | None, UNREPORTED.but(training_only=True)] = None
    """Where to start: absent: resume from the newest state, or start; -1: from new random parameters; 0: from the run's
    saved initialization; n: from the weights of epoch n. An older run in the folder is moved to `previous/`."""
    finetune: Annotated[bool, MODEL.but(decides_groups=True, training_only=True)] = False
    """Start from trained weights, those of `finetune_args`."""
    finetune_args: Annotated[
        FinetuneParameters | None, WithoutNulls, MODEL.but(decides_groups=True, training_only=True)
    ] = None
    """How to fine-tune: `starting_params`, `finetune_dir`, `freeze_modules`."""
    loss_cycle: Annotated[int | Literal["uniform"] | None, OPTIMIZATION.but(changes_metrics=ChangesMetrics.ALWAYS)] = (
        None
    )
    """For models that give logits of several cycles: the cycle that is trained, from 0, or from -1 for the last
    backwards; `uniform`: all, by the mean of their losses. Absent: the last."""
    swa: Annotated[
        SwaParameters | None,
        BeforeValidator(_swa, json_schema_input_type=bool | SwaParameters | None),
        WithoutNulls,
        OPTIMIZATION,
    ] = None
    """Stochastic weight averaging: `start` (the first epoch whose end is averaged), `swa_lr`, `anneal_epochs`,
    `anneal_strategy`. The average is evaluated after the last epoch (`val_swa`), with BatchNorm statistics of its own,
    and kept in `params/swa.safetensors`."""
    ema: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, OPTIMIZATION] = None
    """Decay of an exponential moving average of the weights, such as 0.999: taken after every step, evaluated after
    every epoch (`val_ema`), kept in `params/ema.safetensors`."""
    knn_interval: Annotated[NonNegative, RUN] = 0
    """Epochs between tests of the representation by its nearest neighbors, on the validation set; the last epoch has
    one too. 0: never. Default 10 with a contrastive loss."""
    knn_neighbours: Annotated[Positive, RUN.but(may_change=False)] = 20
    """How many nearest neighbors vote."""
    channels_last: Annotated[bool | None, OPTIMIZATION] = None
    """Store images and convolutions channels last, which most GPUs compute faster with. Absent: on a CUDA GPU, unless
    `video`."""
    compile: Annotated[bool, OPTIMIZATION] = False
    """Compile the model with torch.compile: the first steps take longer, the others less."""
    deterministic: Annotated[bool, OPTIMIZATION] = False
    """Refuse a model with an operation that has no kernel on a GPU which gives the same bits every time. Absent: all
    others have such kernels. On a CPU all have."""
    fast_kernels: Annotated[bool, OPTIMIZATION] = False
    """On a GPU, let cuDNN try which kernels are the fastest: another attempt may choose others, with other bits."""
    tf32: Annotated[bool, OPTIMIZATION] = False
    """On a GPU, compute what is in float32 in TF32, with 10 bits of its 23: faster without `amp`. Not augmentations."""
    seed: Annotated[NonNegative, OPTIMIZATION.but(changes_metrics=ChangesMetrics.AUGMENTED, is_checked=False)] = 0
    """Everything random follows from it."""
    rules: Annotated[int, Field(ge=FIRST_RULES, le=RULES), DATA] = RULES
    """Version of the training rules, of what a job means (docs/migrating.md). Absent: the newest for a new run; a run
    that is there goes on by its own."""


class WandbParameters(Section):
    """Settings of Weights & Biases."""

    project: Annotated[
        str,
        Field(pattern=r"^[^/\\#?%:\x00-\x1f.][^/\\#?%:\x00-\x1f]{0,127}$"),
        LABEL,
    ] = "accel-train"
    """Project on Weights & Biases."""
    entity: Annotated[str | None, LABEL] = None
    """User or team; absent: your default."""
    group: Annotated[str | None, LABEL] = None
    """Group of runs; absent: one of the runs that differ in the seed alone, such as `resnet18-digits-3f2a1b`."""
    job_type: Annotated[str, Field(min_length=1, max_length=64), LABEL] = "train"
    """What kind of run it is; the jobs that `accel-train sweep` makes have `sweep`, evaluations `evaluate`."""
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], LABEL] = []
    """Tags of the run, of up to 64 characters."""
    mode: Annotated[Literal["online", "offline", "disabled"] | None, LABEL] = None
    """Absent: online when logged in, else offline."""
    artifact: Annotated[bool, LABEL] = False
    """Log the best weights, after the last epoch, as an artifact with the aliases `best` and `epoch-<number>`."""
    histograms: Annotated[Literal["epoch"] | Positive | None, LABEL] = None
    """Log histograms of all trained parameters and their gradients: of the last step of every `epoch`, or of every n-th
    step. Absent: none."""
    save_code: Annotated[bool, LABEL] = False
    """Log what a run was trained with: the files of a model of your own, with those that they import of packages that
    are allowed, and what differs from the last commit in the folder that it was started in."""


class RunParameters(Section):
    """Run"""

    description: Annotated[str, LABEL.but(is_reported=False)] = ""
    """For people; kept with the run."""
    trackers: Annotated[list[str], RUN] = ["wandb"]
    """Where to log, by the names that Accelerate knows (`wandb`, `tensorboard`, ...); `[]`: nowhere."""
    wandb: Annotated[WandbParameters, WithoutNulls, LABEL] = WandbParameters()
    """Settings of Weights & Biases: `project`, `entity`, `group`, `job_type`, `tags`, `mode`, `artifact`, `histograms`,
    `save_code`."""
    log_every_steps: Annotated[NonNegative, RUN.but(training_only=True)] = 0
    """Tell the trackers of every n-th optimizer step too: the training's loss and scores since the row before, over all
    processes, and the learning rate, as `steps/loss` and the like over `step`. 0: of epochs only."""
    save_every_minutes: Annotated[float, Field(gt=0), RUN] = 10.0
    """How often to save a state to resume from within an epoch; one is saved at the end of every epoch too."""
    eval_sets: Annotated[list[str], RUN.but(decides_images=True, training_only=True, path=PathKind.DATASET)] = []
    """Further data sets, named as in `dataset`: each epoch is evaluated on their validation images too (`val_<name>` in
    performance.csv). Their classes are some of the job's, by name. They never decide which epoch is best."""
    degradations: Annotated[Degradations, RUN.but(training_only=True)] = []
    """Degradations under which the validation images are seen too, when the training is over, with the best weights:
    names, or objects `{"name": ..., "levels": [...]}`, as of an evaluation. The results are in `evaluations/`."""
    degradation_interval: Annotated[NonNegative, RUN.but(training_only=True)] = 0
    """Measure `degradations` after every n-th epoch too, whose weights are then kept; 0: only in the end."""
    degradation_occluders: Annotated[str | None, RUN.but(training_only=True, path=PathKind.PATH)] = None
    """The folder with the occluders of `degradations`; absent: that of `Occlusion`, or where the Visual Occluders
    Dataset lies by default."""
    allow_changes: Annotated[bool, UNREPORTED] = False
    """Resume a run whose other parameters were different, with the new values; an epoch that was begun is begun
    again. Absent: only harmless ones may change (`num_epochs`, `save_interval`, `num_workers`, `trackers`, ...)."""


class QueueParameters(Section):
    """Queue"""

    accelerate_config: Annotated[str | None, RUN.but(training_only=True, path=PathKind.CONFIG)] = None
    """YAML file of `accelerate config` to launch this job with; flags of `run-queue` go before it."""
    num_processes: Annotated[Annotated[int, Field(ge=1)] | None, UNREPORTED] = None
    """Processes to launch, one for each GPU; flags of `run-queue` go before it. The training is the same with any
    number."""
    priority: Annotated[int, UNREPORTED] = 0
    """Jobs with a higher one go first."""
    after: Annotated[list[str], UNREPORTED.but(training_only=True)] = []
    """Names of jobs of the queue that must be done before this one is begun."""
    retries: Annotated[NonNegative, UNREPORTED] = 0
    """How often the queue tries again after a failure that may not happen another time, such as memory that ran out or
    a disk that is full; it resumes from the newest state, after a minute, then two, four, and so on. A mistake in the
    job, a loss that is not finite and `time_limit` are final."""
    time_limit: Annotated[Annotated[float, Field(gt=0)] | None, UNREPORTED] = None
    """Longest time that a trainer may run, in minutes: then its state is saved and the job has failed. When it is put
    into the queue again, it runs for as long."""
    stall_timeout: Annotated[float, Field(gt=0), UNREPORTED] = 30.0
    """Minutes without a step, or a batch of an evaluation, after which the trainer is ended; what every process was
    doing is then in the log. A download before training, or a first compilation, may take two hours more."""
