import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ubend.errors import FileError, InputError, ModelFileError
from ubend.method.network import NetworkConfig, UNet, count_parameters, layer_table
from ubend.share.caffemodel import arrays_of_caffemodel
from ubend.share.foreign import read_foreign


class DoubleConv(nn.Module):
    def __init__(self, inputs, outputs, bias):
        super().__init__()
        parts = []
        for channels in (inputs, outputs):
            parts += [nn.Conv2d(channels, outputs, 3, padding=1, bias=bias), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.double_conv = nn.Sequential(*parts)

    def forward(self, x):
        return self.double_conv(x)


class Named(nn.Module):
    """One module under a name, as the other program nests them."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Milesial(nn.Module):
    """A network with the names, and the order of concatenation, of milesial/Pytorch-UNet."""

    def __init__(self, channels=1, classes=2, width=4, depth=4, bias=False):
        super().__init__()
        self.depth, self.inc = depth, DoubleConv(channels, width, bias)
        for n in range(1, depth + 1):
            wide = width << n
            two = nn.Sequential(nn.MaxPool2d(2), DoubleConv(wide // 2, wide, bias))
            setattr(self, f"down{n}", Named(maxpool_conv=two))
            wide = width << depth - n + 1
            up = nn.ConvTranspose2d(wide, wide // 2, 2, stride=2)
            setattr(self, f"up{n}", Named(up=up, conv=DoubleConv(wide, wide // 2, bias)))
        self.outc = Named(conv=nn.Conv2d(width, classes, 1))

    def forward(self, x):
        maps = [self.inc(x)]
        for n in range(1, self.depth + 1):
            maps.append(getattr(self, f"down{n}").maxpool_conv(maps[-1]))
        x = maps.pop()
        for n in range(1, self.depth + 1):
            part = getattr(self, f"up{n}")
            x = part.conv(torch.cat([maps.pop(), part.up(x)], dim=1))
        return self.outc.conv(x)


def milesial(**choices):
    net = Milesial(**choices)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                at_least = 0.5 if name.endswith("running_var") else 0
                value.copy_(at_least + 0.3 * torch.randn(value.shape, generator=generator).abs())
    return net.eval()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "npz"])
@torch.no_grad()
def test_milesials_network_gives_the_same_scores(bias, suffix, tmp_path):
    other, path = milesial(channels=3, bias=bias), tmp_path / f"other.{suffix}"
    state = other.state_dict()
    if suffix == "pth":
        torch.save({**state, "mask_values": [0, 1]}, path)
    elif suffix == "npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    else:
        save_file(state, path)
    net = read_foreign(path)
    assert net.config == NetworkConfig(
        in_channels=3, width=4, depth=4, padding="same", normalisation="batch", dropout=0.0
    )
    assert not net.training
    image = torch.rand(2, 3, 32, 48)
    expected = other(image)
    assert expected.std() > 0.01
    assert torch.allclose(net(image), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_score_becomes_two_with_the_same_probability(tmp_path):
    other = milesial(classes=1, depth=2)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in other.state_dict().items()}}, tmp_path / "a.pt")
    image = torch.rand(1, 1, 16, 16)
    found = read_foreign(tmp_path / "a.pt")(image).softmax(1)[:, 1:]
    assert torch.allclose(found, other(image).sigmoid(), atol=1e-5)


def saved(path, change, net=None):
    state = dict((net or milesial(depth=2)).state_dict())
    change(state)
    torch.save(state, path)
    return path


CHANGES = {
    "missing": (lambda s: s.pop("up1.up.bias"), "up1.up.bias is missing"),
    "shape": (
        lambda s: s.update({"down1.maxpool_conv.1.double_conv.3.weight": torch.zeros(8, 9, 3, 3)}),
        "down1.maxpool_conv.1.double_conv.3.weight is 8×9×3×3, not 8×8×3×3",
    ),
    "more": (lambda s: s.update({"attention.gate": torch.zeros(3)}), "attention.gate 3 has no place"),
    "both": (
        lambda s: s.update({"outc.conv.bias": torch.zeros(7), "x": torch.zeros(())}),
        r"outc.conv.bias is 7, not 2; x one number has no place",
    ),
    "integers": (
        lambda s: s.update({"inc.double_conv.1.bias": torch.zeros(4, dtype=torch.int64)}),
        "inc.double_conv.1.bias is of torch.int64, which is no floating point",
    ),
    "bilinear": (
        lambda s: [s.pop(f"up{n}.up.{one}") for n in (1, 2) for one in ("weight", "bias")],
        r"no up-convolutions: bilinear=True .*: up1.up.weight is missing; up1.up.bias is missing; up2.up.weight",
    ),
    "no head": (lambda s: s.pop("outc.conv.weight"), "outc.conv.weight is missing"),
    "3D": (
        lambda s: s.update({"inc.double_conv.0.weight": torch.zeros(4, 1, 3, 3, 3)}),
        "inc.double_conv.0.weight is 4×1×3×3×3, not|inc.double_conv.0.weight is 4×1×3×3×3, and a 2D network",
    ),
    "other": (lambda s: [s.pop(name) for name in list(s) if name.startswith("inc")], "of no known layout"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_what_does_not_fit_is_listed(change, message, tmp_path):
    with pytest.raises(ModelFileError, match=message):
        read_foreign(saved(tmp_path / "a.pth", change))


def test_a_counter_of_batches_may_be_missing(tmp_path):
    def change(state):
        for name in [name for name in state if name.endswith("num_batches_tracked")]:
            del state[name]

    assert read_foreign(saved(tmp_path / "a.pth", change)).config.depth == 2


def test_what_could_run_is_not_loaded(tmp_path):
    torch.save(milesial(depth=1), tmp_path / "whole.pth")  # the network as an object
    with pytest.raises(ModelFileError, match="could run code"):
        read_foreign(tmp_path / "whole.pth")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_foreign(tmp_path / "objects.npz")


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileError, match="no file"):
        read_foreign(tmp_path / "a.pth")
    for name in ("a.pth", "a.npz", "a.safetensors", "a.caffemodel"):
        (tmp_path / name).write_bytes(b"\xff not this")
        with pytest.raises(ModelFileError):
            read_foreign(tmp_path / name)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"weights are read from .pth, .*, not from a.h5"):
        read_foreign(tmp_path / "a.h5")
    torch.save(torch.zeros(3), tmp_path / "one.pt")
    with pytest.raises(ModelFileError, match="no arrays with names"):
        read_foreign(tmp_path / "one.pt")


# the network of 2015


def caffe_arrays(net):
    """The weights of a network of ours in the authors' names, and in the order in which their layers stand."""
    config, state = net.config, net.state_dict()
    modules = [f"down.{level}" if level < config.depth else "bottom" for level in range(config.depth + 1)]
    order = [f"{module}.{half}" for module in modules for half in ("first", "second")]
    for level in reversed(range(config.depth)):
        order += [f"up.{level}", f"merge.{level}.first", f"merge.{level}.second"]
    names = [layer.name for layer in layer_table(config, 8 * 2**config.depth + 4 * (2**config.depth - 1))]
    return {
        f"{name}/{number}": state[f"{module}.{one}"].numpy()
        for name, module in zip(names, [*order, "head"], strict=True)
        for number, one in enumerate(("weight", "bias"))
    }


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def caffemodel(arrays, *, old_shapes=False):
    """What Caffe would write: a NetParameter with layers that have other fields too."""
    blobs = {}
    for name, values in arrays.items():
        sizes = (1,) * (4 - values.ndim) + values.shape
        if old_shapes:
            shape = b"".join(varint(number << 3) + varint(size) for number, size in enumerate(sizes, start=1))
        else:
            shape = message(7, message(1, b"".join(map(varint, values.shape))))
        blobs.setdefault(name.split("/")[0], []).append(message(5, values.astype("<f4").tobytes()) + shape)
    content = message(1, b"phseg_v5") + message(100, message(1, b"relu") + message(2, b"ReLU"))
    for name, parts in blobs.items():
        other = (
            varint(10 << 3) + varint(1) + varint(90 << 3 | 5) + struct.pack("<f", 1) + varint(91 << 3 | 1) + bytes(8)
        )
        content += message(100, message(1, name.encode()) + b"".join(message(7, part) for part in parts) + other)
    return content


def small_2015(**changes):
    choices = {"up_relu": True, "wide_last_up": True, "width": 2, "in_channels": 1, **changes}
    net = UNet(NetworkConfig(**choices), generator=torch.Generator().manual_seed(1)).eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("bias"):
                value.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return net


@pytest.mark.parametrize("form", ["npz", "caffemodel", "old shapes", "weight and bias"])
@pytest.mark.parametrize("changes", [{}, {"depth": 1}, {"wide_last_up": False, "in_channels": 3, "classes": 5}])
@torch.no_grad()
def test_the_network_of_2015_gives_the_same_scores(form, changes, tmp_path):
    net = small_2015(**changes)
    arrays, path = caffe_arrays(net), tmp_path / ("a.npz" if form == "npz" else "a.caffemodel")
    if form == "npz":
        np.savez(path, **arrays)
    elif form == "weight and bias":
        path = tmp_path / "a.safetensors"
        renamed = {name.replace("/0", ".weight").replace("/1", ".bias"): value for name, value in arrays.items()}
        save_file({name: torch.from_numpy(value) for name, value in renamed.items()}, path)
    else:
        path.write_bytes(caffemodel(arrays, old_shapes=form == "old shapes"))
    found = read_foreign(path)
    assert found.config == net.config
    size = 188 if net.config.depth == 4 else 20
    image = torch.rand(1, net.config.in_channels, size, size)
    assert torch.equal(found(image), net(image))


def test_the_release_has_its_parameters(tmp_path):
    config = NetworkConfig.released_2015()
    shapes = {name: tuple(value.shape) for name, value in caffe_arrays_of_shapes(config).items()}
    np.savez(tmp_path / "a.npz", **{name: np.zeros(shape, np.float16) for name, shape in shapes.items()})
    net = read_foreign(tmp_path / "a.npz")
    assert net.config == config
    assert sum(value.numel() for value in net.parameters()) == count_parameters(config) == 31_100_354


def caffe_arrays_of_shapes(config):
    arrays = caffe_arrays(UNet(NetworkConfig(width=1, up_relu=True, wide_last_up=True)))
    sizes = {layer.name: layer for layer in layer_table(config)}
    found = {}
    for name in arrays:
        layer = sizes[name.split("/")[0]]
        channels = (layer.inputs, layer.outputs) if name.startswith("upconv") else (layer.outputs, layer.inputs)
        weight = (*channels, layer.kernel, layer.kernel)
        found[name] = np.empty(weight if name.endswith("/0") else layer.outputs, bool)
    return found


def test_of_the_network_of_2015_too_all_must_fit(tmp_path):
    arrays = caffe_arrays(small_2015())
    arrays["conv_u3b-c/0"] = arrays["conv_u3b-c/0"][:, :-1]
    del arrays["upconv_u2d_u1a/1"]
    np.savez(tmp_path / "a.npz", **arrays, bn=np.zeros(3, np.float32))
    expected = r"upconv_u2d_u1a.bias is missing; conv_u3b-c.weight is 16×31×3×3, not 16×32×3×3; bn 3 has no place"
    with pytest.raises(ModelFileError, match=expected):
        read_foreign(tmp_path / "a.npz")


def test_a_caffemodel_that_ends_too_early_is_damaged():
    content = caffemodel(caffe_arrays(small_2015(depth=1)))
    for length in (5, 300, len(content) - 1):
        with pytest.raises(ModelFileError, match=r"no .caffemodel, or a damaged one|without weights"):
            arrays_of_caffemodel(content[:length])
    with pytest.raises(ModelFileError, match="before 2014"):
        arrays_of_caffemodel(message(2, message(4, b"conv")))
