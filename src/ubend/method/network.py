"""The U-shaped network (Ronneberger et al. 2015, Section 2 and Fig. 1, doi:10.1007/978-3-319-24574-4_28).

On the way down each level has two 3×3 convolutions with ReLU and a 2×2 max pooling, and doubles the channels. On the
way up each level has a 2×2 up-convolution that halves the channels, the concatenation with the cropped map of the
way down, and two 3×3 convolutions with ReLU. A 1×1 convolution maps the last channels to classes.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd as _AdaptiveAvgPool
from torch.nn.modules.pooling import _AdaptiveMaxPoolNd as _AdaptiveMaxPool
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ubend.errors import InputError
from ubend.method.geometry import nearest_valid_inputs, output_size, skip_crop


class UpConvolution2d(nn.ConvTranspose2d):
    """A 2×2 up-convolution with stride 2, whose gradient is fast on CPUs.

    Each pixel of the result reads one pixel of the input: it is a 1×1 convolution onto four times the channels, which
    are then moved beside each other. Its gradient in 16 bits takes a third to a half of the time of that of a
    transposed convolution (docs/benchmarks.md).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (batch, inputs, rows, columns) to (batch, outputs, 2·rows, 2·columns)."""
        if not x.requires_grad or x.device.type != "cpu":
            return super().forward(x, output_size)
        assert self.bias is not None  # it always has one
        weight = self.weight.permute(2, 3, 1, 0).reshape(-1, self.in_channels, 1, 1)  # (row, column, output), input
        y = functional.conv2d(x, weight, self.bias.repeat(4)).permute(0, 2, 3, 1)
        batch, rows, columns, _ = y.shape
        y = y.reshape(batch, rows, columns, 2, 2, self.out_channels).permute(0, 1, 3, 2, 4, 5)
        return y.reshape(batch, 2 * rows, 2 * columns, self.out_channels).permute(0, 3, 1, 2)


class PointwiseConvolution2d(nn.Conv2d):
    """A 1×1 convolution whose result does not depend on the number of threads.

    PyTorch has two routes for it on a CPU, one for a single thread and one for several, which round differently. Only
    the second takes a dilation, and that means nothing to a kernel of 1×1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, rows, columns) to (batch, outputs, rows, columns)."""
        if x.device.type != "cpu":
            return super().forward(x)
        return functional.conv2d(x, self.weight, self.bias, dilation=2)


Convolution = {2: nn.Conv2d}
PointwiseConvolution = {2: PointwiseConvolution2d}
UpConvolution = {2: UpConvolution2d}
MaxPool = {2: nn.MaxPool2d}
BatchNorm = {2: nn.BatchNorm2d}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What a U-Net is built of; the defaults are the paper's network with 31,030,658 parameters.

    Attributes
    ----------
    in_channels : int
        Channels of the image.
    classes : int
        Classes that are told apart; 2: foreground and background.
    width : int
        Channels of the first level that has convolutions; each level down doubles them.
    depth : int
        How often the maps are halved.
    coarse : int
        How many of these times before the first convolution: at such a level the image is averaged over 2×2 pixels and
        the scores are interpolated, and that is all. So the network sees twice as far, or four times, and has a quarter
        of the pixels to work on, or a sixteenth; 0 as in the paper.
    padding : {"none", "same"}
        "none" as in the paper: the output loses 2·halo pixels. "same" pads each 3×3 convolution with zeros.
    normalisation : {"none", "batch"}
        "batch" puts a batch normalisation between each 3×3 convolution and its ReLU.
    dropout : float
        Probability at the end of the contracting path: behind the two lowest levels.
    up_relu : bool
        A ReLU behind each up-convolution, as in the authors' released Caffe network; the paper's Fig. 1 has none.
    wide_last_up : bool
        A last up-convolution that keeps its channels, as in that network.
    dimensions : {2}
        Axes of the image.

    Examples
    --------
    >>> from ubend.method.network import NetworkConfig, count_parameters
    >>> count_parameters(NetworkConfig())
    31030658
    >>> count_parameters(NetworkConfig.released_2015())
    31100354
    """

    in_channels: int = 1
    classes: int = 2
    width: int = 64
    depth: int = 4
    coarse: int = 0
    padding: Literal["none", "same"] = "none"
    normalisation: Literal["none", "batch"] = "none"
    dropout: float = 0.5
    up_relu: bool = False
    wide_last_up: bool = False
    dimensions: Literal[2] = 2

    def __post_init__(self) -> None:
        limits = (("in_channels", 1, 4096), ("classes", 2, 4096), ("width", 1, 4096), ("depth", 1, 8))
        for name, least, most in limits:
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise InputError(f"a network needs {name} from {least} to {most}, not {value!r}")
        for name, allowed in (
            ("padding", ("none", "same")),
            ("normalisation", ("none", "batch")),
            ("dimensions", (2,)),
        ):
            if getattr(self, name) not in allowed:
                choices = " or ".join(repr(choice) for choice in allowed)
                raise InputError(f"{name} of a network is {choices}, not {getattr(self, name)!r}")
        if not isinstance(self.coarse, int) or not 0 <= self.coarse < self.depth:
            raise InputError(f"coarse of a network is from 0 to depth − 1, {self.depth - 1}, not {self.coarse!r}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is a probability from 0 to below 1, not {self.dropout!r}")

    @classmethod
    def released_2015(cls) -> "NetworkConfig":
        """Return the network as the authors released it for Caffe (phseg_v5): 31,100,354 parameters."""
        return cls(up_relu=True, wide_last_up=True)

    def channels(self, level: int) -> int:
        """Tell the channels of the maps of a level.

        Parameters
        ----------
        level : int
            Counted from 0 at full resolution; from `coarse` on.

        Returns
        -------
        int
        """
        return self.width << (level - self.coarse)

    @property
    def core(self) -> "NetworkConfig":
        """The network without its coarse levels, as it is trained: on images that are averaged already."""
        return replace(self, depth=self.depth - self.coarse, coarse=0)

    def up_channels(self, level: int) -> int:
        """Tell the channels that the up-convolution into a level returns.

        Parameters
        ----------
        level : int
            Counted from 0 at full resolution.

        Returns
        -------
        int
        """
        return self.channels(level + 1 if self.wide_last_up and level == self.coarse else level)


@dataclass(frozen=True)
class Layer:
    """One row of the layer table.

    Attributes
    ----------
    name : str
        As in the authors' Caffe files.
    inputs, outputs, kernel : int
        Channels in and out, and the side of the kernel.
    size_in, size_out : int
        Rows (and columns) of the map that enters and of the map that leaves.
    parameters : int
        outputs·(inputs·kernel² + 1).
    macs : int
        Multiplications with addition for one image.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    size_in: int
    size_out: int
    parameters: int
    macs: int


def layer_table(config: NetworkConfig, size: int = 572) -> tuple[Layer, ...]:
    """List the convolutions of a network with their parameters, sizes and cost.

    Parameters
    ----------
    config : NetworkConfig
        The network. The two parameters a channel of a batch normalisation are not in the table.
    size : int
        Rows and columns of the input.

    Returns
    -------
    tuple of Layer

    Raises
    ------
    InputError
        If the size does not fit the network.

    Examples
    --------
    >>> table = layer_table(NetworkConfig())
    >>> len(table), table[0].parameters, sum(layer.macs for layer in table)
    (23, 640, 150428424448)
    """
    check_input_size(config, size, size)
    return tuple(_layers(config, size))


def _layers(config: NetworkConfig, size: int) -> Iterator[Layer]:
    loss = 2 if config.padding == "none" else 0
    bias = 0 if config.normalisation == "batch" else 1

    def convolution(name: str, inputs: int, outputs: int, size: int) -> Layer:
        out = size - loss
        return Layer(
            name, inputs, outputs, 3, size, out, outputs * (inputs * 9 + bias), out * out * outputs * inputs * 9
        )

    channels = config.in_channels
    for _ in range(config.coarse):
        size = (size - 2 * loss) // 2
    for level in range(config.coarse, config.depth + 1):
        outputs = config.channels(level)
        yield convolution(f"conv_d{level}a-b", channels, outputs, size)
        yield convolution(f"conv_d{level}b-c", outputs, outputs, size - loss)
        channels, size = outputs, size - 2 * loss
        if level < config.depth:
            size //= 2
    for level in reversed(range(config.coarse, config.depth)):
        outputs, up = config.channels(level), config.up_channels(level)
        source = f"d{config.depth}c" if level == config.depth - 1 else f"u{level + 1}d"
        name = f"upconv_{source}_u{level}a"
        yield Layer(name, channels, up, 2, size, 2 * size, up * (channels * 4 + 1), size * size * 4 * channels * up)
        size *= 2
        yield convolution(f"conv_u{level}b-c", up + outputs, outputs, size)
        yield convolution(f"conv_u{level}c-d", outputs, outputs, size - loss)
        channels, size = outputs, size - 2 * loss
    classes = config.classes
    name = f"conv_u{config.coarse}d-score"
    yield Layer(name, channels, classes, 1, size, size, classes * (channels + 1), size * size * channels * classes)


def tiling_cost(config: NetworkConfig, size: int) -> float:
    """Tell how many times the multiplications of the padded network on the whole image a prediction in tiles takes.

    The context around each tile is computed for it alone; the larger the tile, the less that is.

    Parameters
    ----------
    config : NetworkConfig
    size : int
        Rows and columns of the tiles; the nearest valid size below is taken.

    Returns
    -------
    float

    Examples
    --------
    >>> [round(tiling_cost(NetworkConfig(), size), 2) for size in (572, 2044)]
    [1.36, 1.07]
    """
    size = nearest_valid_inputs(size, config.depth)[0]
    side = 1 << config.depth
    tile = sum(layer.macs for layer in layer_table(replace(config, padding="none"), size))
    padded = sum(layer.macs for layer in layer_table(replace(config, padding="same"), side))
    return tile / output_size(size, config.depth) ** 2 / (padded / side**2)


def count_parameters(config: NetworkConfig) -> int:
    """Count what a network learns, from its config alone: Σ out·(in·kh·kw + 1), and 2 a channel of a batch norm.

    Parameters
    ----------
    config : NetworkConfig

    Returns
    -------
    int

    Examples
    --------
    >>> count_parameters(NetworkConfig(width=32))
    7759554
    """
    fitting = nearest_valid_inputs(0, config.depth)[0] if config.padding == "none" else 2**config.depth
    table = layer_table(config, fitting)
    normalised = sum(2 * layer.outputs for layer in table if layer.kernel == 3)
    return sum(layer.parameters for layer in table) + (normalised if config.normalisation == "batch" else 0)


def check_input_size(config: NetworkConfig, rows: int, columns: int) -> None:
    """Refuse an image that does not fit the network, with the nearest sizes that do.

    Parameters
    ----------
    config : NetworkConfig
    rows, columns : int
        Of the input.

    Raises
    ------
    InputError
        Unless the network takes rows × columns.
    """
    for size in (rows, columns):
        if config.padding == "none":
            try:
                output_size(size, config.depth)
            except InputError:
                nearest = " and ".join(str(s) for s in nearest_valid_inputs(size, config.depth))
                raise InputError(
                    f"an input of {rows}×{columns} px does not fit an unpadded network of depth {config.depth}; "
                    f"the nearest sizes to {size} are {nearest}"
                ) from None
        elif size < 1 or size % 2**config.depth:
            step = 2**config.depth
            nearest = " and ".join(str(s) for s in sorted({max(step, size // step * step), (size // step + 1) * step}))
            raise InputError(
                f"an input of {rows}×{columns} px does not fit a padded network of depth {config.depth}, which takes "
                f"multiples of {step}; the nearest sizes to {size} are {nearest}"
            )


class TwoConvolutions(nn.Module):
    """Two 3×3 convolutions, each with its batch normalisation if there is one, and ReLU."""

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        padding = 1 if config.padding == "same" else 0
        batch = config.normalisation == "batch"
        convolution = Convolution[config.dimensions]
        self.first = convolution(inputs, outputs, 3, padding=padding, bias=not batch)
        self.second = convolution(outputs, outputs, 3, padding=padding, bias=not batch)
        self.first_norm = BatchNorm[config.dimensions](outputs) if batch else nn.Identity()
        self.second_norm = BatchNorm[config.dimensions](outputs) if batch else nn.Identity()

    @property
    def norms(self) -> list[nn.BatchNorm2d]:
        """Those of both, if there are any."""
        return [norm for norm in (self.first_norm, self.second_norm) if isinstance(norm, nn.BatchNorm2d)]

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, rows, columns) to (batch, outputs, rows − 4, columns − 4), or the same size if padded."""
        return self.second_half(self.first_half(x))

    def first_half(self, x: Tensor) -> Tensor:
        """Map as far as the first ReLU."""
        return torch.relu_(self.first_norm(self.first(x)))

    def second_half(self, x: Tensor) -> Tensor:
        """Map from there on."""
        return torch.relu_(self.second_norm(self.second(x)))


class UNet(nn.Module):
    """The network of Fig. 1: images to class scores, before the soft-max.

    Parameters
    ----------
    config : NetworkConfig
        What to build; without it the paper's network.
    generator : torch.Generator, optional
        Source of the initial weights.

    Examples
    --------
    >>> import torch
    >>> net = UNet(NetworkConfig(width=4, depth=2))
    >>> net(torch.zeros(1, 1, 60, 76)).shape
    torch.Size([1, 2, 20, 36])
    """

    def __init__(self, config: NetworkConfig | None = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        levels = range(config.coarse, config.depth)
        channels = [config.in_channels, *(config.channels(level) for level in (*levels, config.depth))]
        *down, bottom = (TwoConvolutions(config, inputs, outputs) for inputs, outputs in pairwise(channels))
        self.down, self.bottom = nn.ModuleList(down), bottom
        self.pool = MaxPool[config.dimensions](2)
        self.dropout = nn.Dropout(config.dropout)
        up = UpConvolution[config.dimensions]
        self.up = nn.ModuleList(up(config.channels(level + 1), config.up_channels(level)) for level in levels)
        self.merge = nn.ModuleList(
            TwoConvolutions(config, config.up_channels(level) + config.channels(level), config.channels(level))
            for level in levels
        )
        self.head = PointwiseConvolution[config.dimensions](config.width, config.classes)
        initialise(self, generator)

    def forward(self, image: Tensor, *, averaged: bool = False) -> Tensor:
        """Score each pixel for each class.

        Parameters
        ----------
        image : Tensor of float, shape (batch, in_channels, rows, columns)
            Rows and columns must fit: `geometry.nearest_valid_inputs`.
        averaged : bool
            Whether the image has been averaged as by the coarse levels, and the scores are wanted of its pixels.

        Returns
        -------
        Tensor of float32, shape (batch, classes, rows − 2·halo, columns − 2·halo)
            The same rows and columns as the image if padded.
        """
        config, coarse = self.config, range(0 if averaged else self.config.coarse)
        check_input_size(config.core if averaged else config, image.shape[-2], image.shape[-1])
        skips = []
        x = image
        for _ in coarse:
            x = functional.avg_pool2d(self._without(2, x), 2)
        for level, convolutions in enumerate(self.down, start=config.coarse):
            x = convolutions(x)
            if level == config.depth - 1:
                x = self.dropout(x)  # before the skip connection leaves, as in the released network
            skips.append(x)
            x = self.pool(x)
        x = self.dropout(self.bottom(x))
        for level in reversed(range(config.coarse, config.depth)):
            x = self.up[level - config.coarse](x)
            if config.up_relu:
                x = torch.relu_(x)
            # Here a prediction needs most memory: no line holds a map that the next does not need.
            x = torch.cat([x, self._without(skip_crop(level, config.depth), skips.pop())], dim=1)
            merge: TwoConvolutions = self.merge[level - config.coarse]  # type: ignore[assignment]
            x = merge.first_half(x)
            x = merge.second_half(x)
        with torch.autocast(x.device.type, enabled=False):  # scores keep all their digits in mixed precision
            scores: Tensor = self.head(x.float())
        for _ in coarse:
            scores = self._without(2, interpolated(scores))
        return scores

    def _without(self, border: int, x: Tensor) -> Tensor:
        """Cut the pixels off that convolutions without padding would have lost."""
        border = border if self.config.padding == "none" else 0
        return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]


def interpolated(x: Tensor) -> Tensor:
    """Double rows and columns by linear interpolation; beyond the border the last value goes on.

    The same as ``torch.nn.functional.interpolate``, whose gradient on a GPU differs from run to run.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, rows, columns)

    Returns
    -------
    Tensor, shape (batch, channels, 2·rows, 2·columns)

    Examples
    --------
    >>> interpolated(torch.tensor([[[[0.0, 4.0]]]])).tolist()
    [[[[0.0, 1.0, 3.0, 4.0], [0.0, 1.0, 3.0, 4.0]]]]
    """
    for axis in (2, 3):
        before, after = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        x = torch.cat([before, x, after], dim=axis)
        left, right = x.narrow(axis, 0, x.shape[axis] - 1), x.narrow(axis, 1, x.shape[axis] - 1)
        pairs = torch.stack([torch.lerp(left, right, 0.25), torch.lerp(left, right, 0.75)], dim=axis + 1)
        x = pairs.flatten(axis, axis + 1)
        x = x.narrow(axis, 1, x.shape[axis] - 2)
    return x


def initialise(net: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights from N(0, √(2/N)), N the incoming connections of a unit (Section 3); biases are 0.

    For the up-convolutions N is counted as the released Caffe filler counts it: 4 × outputs.

    Parameters
    ----------
    net : torch.nn.Module
        Its convolutions are changed in place.
    generator : torch.Generator, optional
        The source of randomness; without it torch's global one.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def refuse_tile_statistics(net: nn.Module) -> None:
    """Raise InputError if a network takes statistics over the pixels it sees: tiles would then show.

    Instance, group and layer normalisation, batch normalisation without running statistics, and pooling over the whole
    map depend on the tile as a whole, so no context around it gives the result of the whole image.

    Parameters
    ----------
    net : Module
        Any network.

    Raises
    ------
    InputError
        The message names the layer and what would work.

    Examples
    --------
    >>> refuse_tile_statistics(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)))
    >>> refuse_tile_statistics(nn.Sequential(nn.Conv2d(1, 8, 3), nn.InstanceNorm2d(8)))
    Traceback (most recent call last):
    ...
    ubend.errors.InputError: layer 1 (InstanceNorm2d) takes statistics over the pixels of each tile, so its results ...
    """
    for name, module in net.named_modules():
        normalises = isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm))
        has_statistics = getattr(module, "running_mean", None) is not None
        pools = isinstance(module, (_AdaptiveAvgPool, _AdaptiveMaxPool))
        if (normalises and not has_statistics) or pools:
            raise InputError(
                f"layer {name or 'of the network'} ({type(module).__name__}) takes statistics over the pixels of each "
                "tile, so its results would change with the tile: train with batch normalisation, whose statistics "
                "are fixed for prediction, or with none"
            )


class _Measuring(nn.Module):
    """Batch normalisation by what comes, as in training, whose mean and variance are kept."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        self.seen = np.empty((2, 0))

    def forward(self, x: Tensor) -> Tensor:
        values = x.movedim(1, -1).reshape(-1, x.shape[1]).cpu().numpy()  # NumPy: the same sum on any number of threads
        mean = values.mean(0, dtype=np.float64)
        variance = np.einsum("pc,pc->c", values, values, dtype=np.float64) / len(values) - mean**2
        self.seen = np.stack([mean, variance.clip(0)])
        mean_now, variance_now = torch.from_numpy(self.seen).to(x)
        return functional.batch_norm(x, mean_now, variance_now, self.norm.weight, self.norm.bias, eps=self.norm.eps)


class Measured(NamedTuple):
    """What `measure_statistics` finds.

    Attributes
    ----------
    statistics : ndarray of float32, shape (2, channels of all layers)
        Means and variances of the layers in their order: for `for_prediction`.
    scores, by_training : Tensor of float32, shape (tiles, classes, rows, columns)
        What the network gives by these statistics, and by the averages of the training.
    """

    statistics: NDArray[np.float32]
    scores: Tensor
    by_training: Tensor


@torch.no_grad()
def measure_statistics(net: UNet, tiles: Tensor) -> Measured:
    """Measure by which means and variances batch normalisation works where it sees these tiles together.

    Parameters
    ----------
    net : UNet
        As trained, with batch normalisation; it is not changed.
    tiles : Tensor of float, shape (tiles, in_channels, rows, columns)
        As training sees them: normalised, and averaged where the network is coarse.

    Returns
    -------
    Measured

    References
    ----------
    S. Ioffe, C. Szegedy: Batch normalization. ICML 2015, arXiv:1502.03167; with the statistics of one image,
    D. Ulyanov, A. Vedaldi, V. Lempitsky: Instance normalization. arXiv:1607.08022.

    Examples
    --------
    >>> net = UNet(NetworkConfig(width=2, depth=1, padding="same", normalisation="batch"))
    >>> found = measure_statistics(net, torch.rand(4, 1, 8, 8))
    >>> found.statistics.shape, tuple(found.scores.shape)
    ((2, 16), (4, 2, 8, 8))
    """
    measuring = copy.deepcopy(net).float().eval().to(tiles.device)
    by_training = measuring(tiles, averaged=True)
    layers = []
    for module in [found for found in measuring.modules() if isinstance(found, TwoConvolutions)]:
        for name in ("first_norm", "second_norm"):
            layers.append(_Measuring(getattr(module, name)))
            setattr(module, name, layers[-1])
    scores = measuring(tiles, averaged=True)
    statistics = np.concatenate([layer.seen for layer in layers], axis=1).astype(np.float32)
    return Measured(statistics, scores, by_training)


def training_statistics(net: UNet) -> NDArray[np.float32]:
    """Return the averages of the training in the form of `Measured.statistics`.

    Parameters
    ----------
    net : UNet
        As trained, with batch normalisation.

    Returns
    -------
    ndarray of float32, shape (2, channels of all layers)

    Examples
    --------
    >>> net = UNet(NetworkConfig(width=2, depth=1, padding="same", normalisation="batch"))
    >>> training_statistics(net)[:, 0].tolist()
    [0.0, 1.0]
    """
    found = [norm for part in net.modules() if isinstance(part, TwoConvolutions) for norm in part.norms]
    parts = [torch.stack([norm.state_dict()["running_mean"], norm.state_dict()["running_var"]]) for norm in found]
    return torch.cat(parts, dim=1).float().cpu().numpy()


@torch.no_grad()
def for_prediction(net: UNet, statistics: NDArray[np.float32] | None = None) -> UNet:
    """Return the function of a network without padding and with batch normalisation folded into the convolutions.

    A padded network, applied to an image with enough context around it, gives in the interior what the same weights
    give without padding (the pooling grid only begins elsewhere). So all networks predict unpadded, on mirrored
    context, and no border sees invented zeros.

    Parameters
    ----------
    net : UNet
        A trained network; it is not changed.
    statistics : ndarray of float32, shape (2, channels of all layers), optional
        By which batch normalisation works, of `Measured`; without it by the averages of the training.

    Returns
    -------
    UNet
        In evaluation mode, with ``padding="none"`` and ``normalisation="none"``.

    Raises
    ------
    InputError
        If a layer takes statistics over the pixels it sees (`refuse_tile_statistics`).
    """
    refuse_tile_statistics(net)
    config = replace(net.config, padding="none", normalisation="none", dropout=0.0)
    with torch.device("meta"):  # no weights of its own, and no random numbers
        plain = UNet(config)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    done = 0
    for name, module in net.named_modules():
        if isinstance(module, TwoConvolutions) and net.config.normalisation == "batch":
            for part in ("first", "second"):
                convolution, norm = getattr(module, part), getattr(module, f"{part}_norm")
                mean, variance = norm.running_mean, norm.running_var
                if statistics is not None:
                    mean, variance = torch.from_numpy(statistics[:, done : done + mean.numel()]).to(mean)
                    done += mean.numel()
                weight, bias = fuse_conv_bn_weights(
                    convolution.weight, None, mean, variance, norm.eps, norm.weight, norm.bias
                )
                state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"] = weight, bias
    plain.load_state_dict({key: state[key] for key in plain.state_dict()}, assign=True)
    return plain.eval()
