"""Folders, archives and lists of pictures, and what is refused instead of being read wrongly."""

import os
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stclip.config.yaml_text import read_yaml
from stclip.data.ava_files import read_label_map, read_moments
from stclip.data.frames import FrameArchive, FrameFolder, FrameList, FrameNames, decode_picture
from stclip.data.labels import read_label_file
from stclip.data.proposals import read_json
from stclip.data.reading import FrameReader
from stclip.data.safe_pickle import load_pickle
from stclip.data.store import PictureStore
from stclip.data.video import open_video
from stclip.errors import UserError
from stclip.evaluation.results import read_predictions
from tests.data.make import number_of, numbered, write_frames


def numbers(video, frames):
    return [number_of(picture) for picture in video.read(frames)]


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_pictures_in_any_order_and_repeated(tmp_path, kind):
    path = write_frames(tmp_path / "v.1", 12)
    if kind == "archive":
        with zipfile.ZipFile(tmp_path / "v.1.zip", "w") as archive:
            for file in sorted(path.iterdir()):
                archive.write(file, f"v/{file.name}")
        path = tmp_path / "v.1.zip"
    video = open_video(path, "walk/v.1")
    assert video.name == "walk/v.1"
    assert (len(video), video.size, video.missing(), video.missing(14)) == (
        12, (40, 30), [], [13, 14],
    )  # fmt: skip
    pictures = video.read([7, 1, 12, 7])
    assert [number_of(picture) for picture in pictures] == [7, 1, 12, 7]
    assert pictures[0].shape == (30, 40, 3)
    assert pictures[0].dtype == np.uint8
    assert video.read([]) == []
    assert [video.frame_at(seconds, 25) for seconds in (0, 0.04, 0.239)] == [1, 2, 7]


def test_names_that_ffmpeg_users_give_and_other_files(tmp_path):
    for number in (1, 2):
        Image.fromarray(numbered(number)).save(tmp_path / f"clip_3_{number:06d}.JPG", "JPEG")
    for stray in ("._00003.png", "Thumbs.db", "00004.txt", "notes.png"):
        (tmp_path / stray).write_bytes(b"")
    video = FrameFolder(tmp_path)
    assert len(video) == 2
    assert numbers(video, [1, 2]) == [1, 2]


def test_missing_pictures(tmp_path):
    folder = write_frames(tmp_path / "v", 9)
    (folder / "00004.png").unlink()
    video = FrameFolder(folder)
    assert len(video) == 9
    assert video.missing() == [4]
    assert video.missing(10) == [4, 10]
    with pytest.raises(UserError, match=f"{folder}: frame 4 is not there; 8 frames are"):
        video.read([3, 4])
    (tmp_path / "empty").mkdir()
    empty = FrameFolder(tmp_path / "empty")
    assert (len(empty), empty.missing(2)) == (0, [1, 2])
    with pytest.raises(UserError, match="no frame in it"):
        _ = empty.size


def test_pictures_from_0_or_twice_are_refused(tmp_path):
    folder = write_frames(tmp_path / "v", 2)
    (folder / "00002.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="are both frame 2"):
        FrameFolder(folder)
    (folder / "00002.jpg").unlink()
    (folder / "00000.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"00000\.png: frames count from 1"):
        FrameFolder(folder)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6, 0.95])
def test_a_truncated_picture_is_named(tmp_path, keep):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    for number in (1, 2, 3):
        Image.fromarray(noise).save(tmp_path / f"{number:05d}.png")
    path = tmp_path / "00002.png"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    video = FrameFolder(tmp_path)
    assert len(video.read([1, 3])) == 2
    with pytest.raises(UserError, match=f"{path}: this picture cannot be decoded") as error:
        video.read([1, 2, 3])
    assert "\n" not in str(error.value)


def test_a_damaged_archive_is_named(tmp_path):
    path = tmp_path / "v.zip"
    path.write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match=f"{path}: not a readable zip file"):
        FrameArchive(path)


def test_frame_list():
    video = FrameList([numbered(number) for number in (1, 2, 3)])
    assert (len(video), video.size, video.missing(4)) == (3, (128, 32), [4])
    assert numbers(video, [3, 1]) == [3, 1]
    with pytest.raises(UserError, match="frame 4 is not there; 3 are"):
        video.read([4])
    for wrong in ([], [numbered(1).astype(float)], [numbered(1), numbered(1)[:5]], [[1]]):
        with pytest.raises(UserError, match="frames"):
            FrameList(wrong)


def names_of(*files):
    return FrameNames(Path("v"), files)


def test_regular_names_are_not_kept():
    names = names_of(*(f"x/-5KQ_1_{number:06d}.jpg" for number in range(1, 200)))
    assert (len(names), names.first, names.last) == (199, 1, 199)
    assert names[7] == "x/-5KQ_1_000007.jpg"
    assert names._others == {}
    assert (7 in names, 0 in names, 200 in names) == (True, False, False)
    assert (names.missing(199), names.missing(201)) == ([], [200, 201])


def test_irregular_names_and_gaps():
    files = ["1.png", "02.png", "a_3.JPG", "0005.png", "notes.txt", ".hidden_6.png"]
    names = names_of(*files)
    assert [names[number] for number in (1, 2, 3, 5)] == files[:4]
    assert (len(names), names.last, names.missing(6)) == (4, 5, [4, 6])
    assert 4 not in names


def test_more_digits_than_the_first():
    names = names_of(*(f"img_{number:02d}.png" for number in (9, 10, 99, 100, 101)))
    assert names[101] == "img_101.png"
    assert names._others == {}


GRAY16 = np.array([[0, 128 * 257, 65535], [255, 256, 40000]], np.uint16)


GRAY8 = [[0, 128, 255], [0, 1, 156]]


def palette() -> Image.Image:
    picture = Image.new("P", (3, 2), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    return picture


def alpha_palette() -> Image.Image:
    picture = palette()
    picture.info["transparency"] = 1
    return picture


MADE = {
    "1.png": (Image.new("1", (3, 2), 1), (255, 255, 255)),
    "L.png": (Image.new("L", (3, 2), 9), (9, 9, 9)),
    "LA.png": (Image.new("LA", (3, 2), (9, 0)), (9, 9, 9)),
    "P.png": (palette(), (10, 20, 30)),
    "P_alpha.png": (alpha_palette(), (10, 20, 30)),
    "P.bmp": (palette(), (10, 20, 30)),
    "RGBA.png": (Image.new("RGBA", (3, 2), (10, 20, 30, 0)), (10, 20, 30)),
    "RGBA.webp": (Image.new("RGBA", (3, 2), (10, 20, 30, 255)), (10, 20, 30)),
    "CMYK.jpg": (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), (255, 0, 0)),
    "CMYK.tif": (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), (255, 0, 0)),
    "RGB.tiff": (Image.new("RGB", (3, 2), (10, 20, 30)), (10, 20, 30)),
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_the_colours_of_every_mode(tmp_path, name, kind):
    picture, colour = MADE[name]
    file = tmp_path / f"00001.{name.split('.')[1]}"
    options = {"lossless": True} if file.suffix == ".webp" else {}
    picture.save(file, **options)
    path = tmp_path
    if kind == "archive":
        path = tmp_path / "v.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(file, file.name)
    video = open_video(path)
    (found,) = video.read([1])
    assert video.size == (3, 2)
    assert found.dtype == np.uint8
    near = 2 if file.suffix == ".jpg" else 0
    np.testing.assert_allclose(found, np.broadcast_to(colour, (2, 3, 3)), atol=near)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_gray_gives_its_upper_8_bits(tmp_path, ending):
    Image.fromarray(GRAY16).save(tmp_path / f"1.{ending}")
    (found,) = FrameFolder(tmp_path).read([1])
    assert found.tolist() == [[[value] * 3 for value in row] for row in GRAY8]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_of_an_unknown_range_are_refused(tmp_path, kind):
    Image.fromarray(np.ones((2, 3), kind)).save(tmp_path / "1.tif")
    with pytest.raises(UserError, match=r"1\.tif: pixel values of kind [FI] .* 8 bits a channel"):
        FrameFolder(tmp_path).read([1])


def test_16_bits_from_white_to_black_are_refused(tmp_path):
    Image.fromarray(GRAY16).save(tmp_path / "1.tif", tiffinfo={262: 0})
    with pytest.raises(UserError, match=r"1\.tif: pixel values of kind"):
        FrameFolder(tmp_path).read([1])


# What EXIF's orientations do to rows and columns of what was stored.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("mode", ["rgb", "gray16"])
def test_exif_orientation(tmp_path, orientation, mode):
    stored = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    expected = stored
    if mode == "gray16":
        stored, expected = GRAY16, np.repeat(np.array(GRAY8, np.uint8)[:, :, None], 3, axis=2)
    picture = Image.fromarray(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "1.png", exif=exif)
    video = FrameFolder(tmp_path)
    (found,) = video.read([1])
    np.testing.assert_array_equal(found, TURNS[orientation](expected))
    assert video.size == found.shape[1::-1]


def other_size_in_a_folder(tmp_path):
    folder = write_frames(tmp_path / "v", 3)
    Image.new("RGB", (20, 15)).save(folder / "00003.png")
    return FrameFolder(folder)


def other_size_in_a_sequence(tmp_path):
    frames = FrameList([numbered(n, 40, 30) for n in (1, 2, 3)])
    frames._frames[2] = numbered(3, 20, 15)
    frames.in_sequence = True
    return frames


@pytest.mark.parametrize("make", [other_size_in_a_folder, other_size_in_a_sequence])
@pytest.mark.parametrize("stored", [False, True])
def test_a_frame_of_another_size_is_refused(tmp_path, make, stored):
    video = make(tmp_path)
    message = "frame 3 has 20 x 15 pixels, others 40 x 30"
    for _ in range(2):  # the second time from the store
        reader = FrameReader(PictureStore(tmp_path / "store") if stored else None)
        reader.frames(video, [1, 2], 8)
        with pytest.raises(UserError, match=message):
            reader.frames(video, [2, 3], 8)
    if not video.in_sequence:  # also where no other frame is read
        with pytest.raises(UserError, match=message):
            FrameReader().frames(video, [3], 8)


@pytest.mark.parametrize(
    "name", ["frame{:04d}.png", "img-{:04d}.png", "img_{:05d}.tif", "{:d}.tiff", "a.b 7x{:06d}.png"]
)
def test_names_that_end_in_a_number(tmp_path, name):
    for number in (1, 2, 10):
        Image.fromarray(numbered(number)).save(tmp_path / name.format(number))
    video = FrameFolder(tmp_path)
    assert [number_of(picture) for picture in video.read([10, 1, 2])] == [10, 1, 2]
    assert video.missing() == [3, 4, 5, 6, 7, 8, 9]


def test_a_folder_that_starts_at_100_names_the_rule(tmp_path):
    for number in (100, 101):
        Image.fromarray(numbered(number)).save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match=r"from 100 to 101; frames are pictures whose .* from 1 on"):
        FrameFolder(tmp_path).read([1])


def test_numbers_that_no_video_has(tmp_path):
    (tmp_path / f"{10**20}.png").touch()
    with pytest.raises(UserError, match="at most 9 digits"):
        FrameFolder(tmp_path)


def png(width: int, height: int) -> bytes:
    """A valid header without much behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize("side", [9000, 60000])  # the second is more than Pillow itself takes
def test_bombs_are_refused_before_decoding(tmp_path, side):
    (tmp_path / "1.png").write_bytes(png(side, side))
    video = FrameFolder(tmp_path)
    for use in (lambda: video.size, lambda: video.read([1])):
        with pytest.raises(UserError, match=r"1\.png: .* at most 67108864 pixels .*MAX_PIXELS"):
            use()


def test_the_bound_is_a_matter_of_the_video(tmp_path):
    folder = write_frames(tmp_path / "v", 1)
    video = FrameFolder(folder)
    video.max_pixels = 40 * 30 - 1
    with pytest.raises(UserError, match="40 x 30 pixels; at most 1199"):
        video.read([1])
    video.max_pixels += 1
    assert number_of(video.read([1])[0]) == 1


@pytest.mark.parametrize(
    "data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6 1 1 255 abc", b"", b"\0"]
)
def test_other_formats_are_not_opened(data):
    with pytest.raises(UserError, match=r"a\.png: .*not a picture of the formats PNG"):
        decode_picture(data, "a.png", 100)


def test_several_pictures_in_one_file_are_refused(tmp_path):
    pages = [Image.new("L", (4, 3), shade) for shade in (1, 2)]
    pages[0].save(tmp_path / "1.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=r"1\.tif: 2 pictures in one file"):
        FrameFolder(tmp_path).read([1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("encrypted", r"v\.zip/00001\.png: cannot be read from the archive .*encrypt"),
        ("crc", r"v\.zip/00001\.png: cannot be read from the archive .*CRC"),
        ("method", r"v\.zip/00001\.png: cannot be read from the archive .*compression"),
        ("bomb", r"v\.zip/00001\.png: 999 bytes; a picture of at most"),
        ("text", r"v\.zip/00001\.png: this picture cannot be decoded \(not a picture"),
    ],
)
def test_bad_members_of_an_archive(tmp_path, damage, message, monkeypatch):
    path = tmp_path / "v.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("00001.png", b"\0" * 999)
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    if damage == "encrypted":
        data[6] |= 1
        data[central + 8] |= 1
    elif damage == "method":
        data[8] = data[central + 10] = 77
    elif damage == "crc":
        data[60] ^= 1
    path.write_bytes(data)
    if damage == "bomb":
        monkeypatch.setattr("stclip.data.frames.largest_file", lambda pixels: 500)
    video = FrameArchive(path)
    for use in (lambda: video.size, lambda: video.read([1])):
        with pytest.raises(UserError, match=message):
            use()


READERS = {
    "video": open_video,
    "archive": FrameArchive,
    "json": read_json,
    "yaml": read_yaml,
    "labels": lambda path: read_label_file(str(path), "ALL_LABEL"),
    "label map": read_label_map,
    "csv": read_moments,
    "pickle": load_pickle,
    "predictions": read_predictions,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "loop", "NUL", "long", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path, reader, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.zip"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.zip")
    elif kind == "device":
        path = type(path)("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "NUL":
        path = tmp_path / "a\0b.zip"
    elif kind == "long":
        path = tmp_path / ("n" * 300)
    elif reader == "video":
        pytest.skip("a folder is a video")
    else:
        path.mkdir()
    with pytest.raises(UserError) as caught:
        READERS[reader](path)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)
    if kind in ("pipe", "socket", "device"):
        assert f"a {'named ' * (kind == 'pipe')}{kind}, but a file was expected" in str(
            caught.value
        )


def test_a_frame_that_is_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "00001.png")
    (tmp_path / "00002.png").symlink_to("00002.png")
    video = FrameFolder(tmp_path)
    with pytest.raises(UserError, match=r"00001\.png: a named pipe"):
        _ = video.size
    for number, message in ((1, "a named pipe"), (2, r"00002\.png: cannot be read")):
        for use in (video.read, video.fingerprints):
            with pytest.raises(UserError, match=message):
                use([number])
