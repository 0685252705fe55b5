import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ubend.errors import FileError
from ubend.method.network import NetworkConfig, UNet
from ubend.run import checkpoint
from ubend.run.checkpoint import Checkpoints, differences, optimiser_tensors, restore_optimiser


@pytest.fixture
def kept(tmp_path):
    return Checkpoints(tmp_path / "run" / "checkpoint")


def write(kept, step):
    kept.write({"w": torch.full((3, 2), float(step))}, {"step": step})


def test_none(kept):
    assert kept.latest() is None
    assert not kept.exist()
    assert not kept.folder.exists()
    kept.remove()


def test_the_last_two_are_kept(kept):
    for step in range(5):
        write(kept, step)
    assert [path.name[:6] for path in sorted(kept.folder.iterdir())] == ["000004", "000005"]
    found = kept.latest()
    assert found.state == {"step": 4}
    assert (found.tensors["w"] == 4).all()


def test_a_run_that_replaces_another_leaves_nothing_of_it(kept):
    for step in (1, 2):
        write(kept, step)
    kept.keep_network(1, UNet(NetworkConfig(width=2, depth=1)), "one")
    kept.write({}, {"step": 0}, anew=True)
    assert [path.name[:6] for path in kept.folder.iterdir()] == ["000003"]


def test_a_damaged_one_is_none_of_the_two_that_are_kept(kept):
    for step in (1, 2):
        write(kept, step)
    sorted(kept.folder.iterdir())[-1].write_bytes(b"damaged")
    assert kept.latest().state == {"step": 1}
    write(kept, 2)
    assert [path.name[:6] for path in sorted(kept.folder.iterdir())] == ["000001", "000003"]


def test_another_process_at_the_same_run_is_refused(kept):
    write(kept, 1)
    with pytest.raises(FileError, match=r"another process is training in .*run: wait for it, or stop it"):
        write(Checkpoints(kept.folder), 2)
    kept.unlock()
    write(Checkpoints(kept.folder), 2)


def test_one_that_cannot_be_read_is_not_called_damaged(kept, monkeypatch):
    write(kept, 1)

    def refused(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refused)
    with pytest.raises(FileError, match=r"cannot read .*: Permission denied"):
        kept.latest()


@given(st.data())
def test_one_bit_is_found(tmp_path_factory, data):
    kept = Checkpoints(tmp_path_factory.mktemp("run") / "checkpoint")
    for step in (1, 2):
        write(kept, step)
    last = sorted(kept.folder.iterdir())[-1]
    content = bytearray(last.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    last.write_bytes(content)
    assert kept.latest().state == {"step": 1}
    assert kept.damaged == [last.name]


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04cposix\nsystem\n"])
def test_a_file_that_is_none(kept, content):
    write(kept, 1)
    [path] = kept.folder.iterdir()
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"all checkpoints in .* are damaged \(000001-.*train anew with --overwrite"):
        kept.latest()


def test_one_of_a_newer_version(kept, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", checkpoint.FORMAT_VERSION + 1)
    write(kept, 1)
    monkeypatch.undo()
    with pytest.raises(FileError, match="newer version of this program: update ubend"):
        kept.latest()


def test_one_of_an_older_version(kept, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 1)
    write(kept, 1)
    monkeypatch.undo()
    with pytest.raises(FileError, match=r"older version of this program.*begin anew with --overwrite"):
        kept.latest()


def test_what_a_killed_process_left_goes_and_nothing_else(kept):
    write(kept, 1)
    unfinished, mine = kept.folder / f".{'a' * 32}.safetensors", kept.folder / "notes.txt"
    for path in (unfinished, mine):
        path.write_text("half")
    write(kept, 2)
    assert not unfinished.exists()
    kept.remove()
    assert list(kept.folder.iterdir()) == [mine]


def test_a_full_disk_leaves_those_before(kept, monkeypatch):
    write(kept, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match=r"full|space"):
        write(kept, 2)
    monkeypatch.undo()
    assert kept.latest().state == {"step": 1}
    assert len(list(kept.folder.iterdir())) == 1


def test_when_the_next_is_due(tmp_path):
    seconds = [0.0]
    kept = Checkpoints(tmp_path / "checkpoint", minutes=0.5, now=lambda: seconds[0])
    seconds[0] = 29.0
    assert not kept.due
    seconds[0] = 30.0
    assert kept.due
    write(kept, 1)
    assert not kept.due
    seconds[0] = 1e9
    assert not Checkpoints(tmp_path / "checkpoint", minutes=0, now=lambda: seconds[0]).due


def test_networks_of_folds(kept):
    net = UNet(NetworkConfig(width=2, depth=1), generator=torch.Generator().manual_seed(0))
    write(kept, 1)
    kept.keep_network(2, net, "one")
    assert kept.network_of(1, "one") is None
    assert kept.network_of(2, "another run") is None
    found = kept.network_of(2, "one")
    assert all((value == found[name]).all() for name, value in net.state_dict().items())
    [path] = kept.folder.glob("fold-2-*")
    path.write_bytes(path.read_bytes()[:-1])
    assert kept.network_of(2, "one") is None
    assert kept.damaged == [path.name]


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, fused=True),
        lambda parameters: torch.optim.SGD(parameters, lr=1e-6, momentum=0.99, nesterov=True),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_optimiser_goes_on(make, memory_format):
    """Also where a fused optimiser walks through memory in the layout of the weights."""

    def step(net, optimiser, seed):
        x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        optimiser.zero_grad()
        net(x).square().sum().backward()
        optimiser.step()

    def network():
        net = UNet(NetworkConfig(width=3, depth=1, padding="same"), generator=torch.Generator().manual_seed(0))
        return net.to(memory_format=memory_format).eval()

    one, two = network(), network()
    first, second = make(one.parameters()), make(two.parameters())
    for seed in range(3):
        step(one, first, seed)
    two.load_state_dict(one.state_dict())
    restore_optimiser(second, {key: value.contiguous() for key, value in optimiser_tensors(first).items()})
    for seed in range(3, 6):
        step(one, first, seed)
        step(two, second, seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ([("a", "1"), ("b", "2")], []),
        ([("b", "2"), ("a", "1")], ["their order or number has changed"]),
        ([("a", "1")], ["b is missing"]),
        ([("a", "1"), ("b", "2"), ("c", "3")], ["c is new"]),
        ([("a", "9"), ("b", "2")], ["a has changed"]),
    ],
)
def test_which_images_differ(now, said):
    assert differences([("a", "1"), ("b", "2")], now) == said
