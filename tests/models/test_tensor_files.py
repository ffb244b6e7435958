"""Files of weights that are damaged or made to do harm, and archives read without TorchScript."""

import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.models.formats import unwrap
from stclip.models.tensor_files import check_download, read_tensors, script_activation

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")


class Inner(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2))
        self.register_buffer("count", torch.tensor(5))
        self.register_buffer("empty", torch.zeros(0, 4))
        self.linear = nn.Linear(2, 2)
        self.activation = activation
        self.names, self.sizes, self.factor = ["a", "b"], {"x": 1}, 2.5

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.linear(x)) @ self.weight.T


class Outer(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.inner = Inner(activation)
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
        self.tied = self.layers[0].weight
        self.turned = nn.Parameter(torch.randn(4, 6).T[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.inner(x))


class Quick(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize("how", ["trace", "script"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_archive_is_read_as_torch_reads_it(tmp_path: Path, how: str, dtype: torch.dtype) -> None:
    model = Outer(nn.GELU()).to(dtype)
    example = torch.randn(1, 2, dtype=dtype)
    script = torch.jit.trace(model, example) if how == "trace" else torch.jit.script(model)
    torch.jit.save(script, tmp_path / "a.pt")
    found = read_tensors(tmp_path / "a.pt")
    expected = torch.jit.load(tmp_path / "a.pt").state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name
    assert found["tied"].data_ptr() == found["layers.0.weight"].data_ptr()


@pytest.mark.parametrize(("activation", "told"), [(nn.GELU(), "gelu"), (Quick(), "quick_gelu")])
def test_an_archive_s_program_tells_its_activation(tmp_path, activation, told) -> None:
    script = torch.jit.trace(Outer(activation), torch.randn(1, 2))
    torch.jit.save(script, tmp_path / "a.pt")
    assert script_activation(tmp_path / "a.pt") == told
    torch.save({}, tmp_path / "b.pt")
    assert script_activation(tmp_path / "b.pt") is None


class Writes(nn.Module):
    """Writes a file when TorchScript loads it: from_file makes one where there is none."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.path, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.path, self.training = state[0], state[2]
        self.weight = torch.from_file(state[0], shared=True, size=1000)


def test_an_archive_s_program_is_not_run(tmp_path: Path) -> None:
    target = tmp_path / "written"
    torch.jit.save(torch.jit.script(Writes(str(target))), tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"bad\.pt: found nothing; expected CLIP"):
        unwrap(read_tensors(tmp_path / "bad.pt"), str(tmp_path / "bad.pt"))
    assert not target.exists()
    torch.jit.load(tmp_path / "bad.pt")  # what the file would have done
    assert target.exists()


def rewrite(source: Path, target: Path, old: bytes, new: bytes) -> None:
    """Copy an archive, with another pickle."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for member in before.infolist():
            data = before.read(member)
            if member.filename.endswith("/data.pkl"):
                assert old in data
                data = data.replace(old, new)
            after.writestr(member.filename, data)


INT = b"J" + struct.pack("<i", 1 << 28)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x06tQ", INT + b"tQ"),  # a storage larger than what is stored
        (b"K\x00(K\x03K\x02t", b"K\x05(K\x03K\x02t"),  # a tensor that begins too late
        (b"(K\x03K\x02t(K\x02K\x01t", b"(" + INT + b"K\x02t(K\x00K\x01t"),  # values repeated
        (b"ctorch._utils\n_rebuild_tensor_v2\n", b"cos\nsystem\n"),
        (b"ctorch\nFloatStorage\n", b"cos\nsystem\n"),
        (b"\x80\x02", b"\x80\x02cos\nsystem\n(X\x01\x00\x00\x00aio"),  # INST-like operations
    ],
)
def test_archives_that_claim_too_much(tmp_path: Path, old: bytes, new: bytes) -> None:
    model = nn.Sequential()
    model.register_parameter("w", nn.Parameter(torch.ones(3, 2)))
    torch.jit.save(torch.jit.script(model), tmp_path / "a.pt")
    rewrite(tmp_path / "a.pt", tmp_path / "bad.pt", old, new)
    with pytest.raises(UserError, match=r"bad\.pt: found n") as error:
        unwrap(read_tensors(tmp_path / "bad.pt"), "bad.pt")
    assert "\n" not in str(error.value)


def script_archive(path: Path, pickle: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + pickle + b".")
        archive.writestr("a/constants.pkl", b"\x80\x02).")


MODULE = b"c__torch__\nM\n)\x81"  # an object without a state


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


ENDLESS = {
    "itself": MODULE + b"q\x00}" + text(b"m") + b"h\x00sb",
    "doubling": MODULE
    + b"q\x00"
    + b"".join(
        MODULE + b"}(" + text(b"l") + b"h%c" % k + text(b"r") + b"h%c" % k + b"ubq%c" % (k + 1)
        for k in range(60)
    ),
    "long name": MODULE + b"}" + text(b"n" * 2000) + b"K\x01sb",
    "nothing": b"",
    "no module": b"K\x01",
    "a key that is a number": MODULE + b"}K\x01K\x01sb",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_modules_without_end(tmp_path: Path, kind: str) -> None:
    script_archive(tmp_path / "bad.pt", ENDLESS[kind])
    with pytest.raises(UserError, match=r"bad\.pt: found n"):
        unwrap(read_tensors(tmp_path / "bad.pt"), "bad.pt")


@pytest.mark.parametrize("script", [True, False])
def test_every_flipped_bit_of_the_weights_is_found(tmp_path: Path, script: bool) -> None:
    path = tmp_path / "a.pth"
    if script:
        torch.jit.save(torch.jit.trace(Outer(nn.GELU()), torch.randn(1, 2)), path)
    else:
        torch.save({"w": torch.arange(200.0), "b": torch.ones(3)}, path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if "/data" in m.filename and m.file_size]
    for member in members:
        name, extra = struct.unpack_from("<HH", whole, member.header_offset + 26)
        damaged = bytearray(whole)
        damaged[member.header_offset + 30 + name + extra + member.file_size // 2] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.pth: found a damaged file of weights \(Bad CRC"):
            read_tensors(path)


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="older PyTorch")
def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    computes = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(computes)
    assert torch.equal(read_tensors(tmp_path / "a.pth")["w"], torch.ones(3))


def test_archives_that_are_encrypted_or_grow_when_read(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1_000_000)}, tmp_path / "a.pth")
    for bad in ("packed", "twice"):
        with zipfile.ZipFile(tmp_path / "a.pth") as before:
            kind = zipfile.ZIP_DEFLATED if bad == "packed" else zipfile.ZIP_STORED
            with zipfile.ZipFile(tmp_path / f"{bad}.pth", "w", kind) as after:
                for member in before.infolist():
                    after.writestr(member.filename, before.read(member))
                if bad == "twice":
                    with pytest.warns(UserWarning, match="Duplicate name"):
                        after.writestr(before.infolist()[0].filename, b"")
    whole = bytearray((tmp_path / "a.pth").read_bytes())
    directory = whole.index(b"PK\x01\x02")
    whole[directory + 8] |= 1  # the flags of the first member: encrypted
    (tmp_path / "locked.pth").write_bytes(whole)
    for name, found in (("packed", "compressed"), ("twice", "damaged"), ("locked", "encrypted")):
        with pytest.raises(UserError, match=rf"{name}\.pth: found .*{found}"):
            read_tensors(tmp_path / f"{name}.pth")


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.ones(1).expand(1000, 1000), "not all stored"),
        (torch.eye(3).to_sparse(), "sparse or quantised"),
        (torch.ones(3, device="meta"), "meta tensor"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_plain_arrays(tmp_path: Path, tensor: Tensor, found: str) -> None:
    torch.save({"a.weight": torch.ones(2), "b.weight": tensor}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth: (found b\.weight .*{found}|found no weights)"):
        unwrap(read_tensors(tmp_path / "x.pth"), "x.pth")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="a device or pipe"):
        read_tensors(tmp_path / "pipe.pth")


def test_what_a_download_may_be(tmp_path: Path) -> None:
    state = {"w": torch.ones(100)}
    for name, legacy in (("zip.pth", False), ("old.pth", True)):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        check_download(tmp_path / name)
    save_file(state, tmp_path / "a.safetensors")
    check_download(tmp_path / "a.safetensors")
    whole = (tmp_path / "zip.pth").read_bytes()
    bad = {
        "a page of HTML": b"\xef\xbb\xbf \n<!DOCTYPE html><html>Sign in</html>",
        "damaged": whole[:-100],
        r"no file of weights \(it begins": b"Not found",
    }
    for message, content in bad.items():
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(UserError, match=message):
            check_download(tmp_path / "bad.pth")
