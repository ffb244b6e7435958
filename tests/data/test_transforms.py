import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from stclip.data.transforms import (
    clip_picture,
    crop_box,
    frame_boxes,
    patch_boxes,
    preprocess,
)
from stclip.models.xclip import normalize_video, preprocess_video
from stclip.structures import Needs


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def spelt_out(image, size):
    """The whole picture resized, then the centre: what preprocess does in one step."""
    height, width = image.shape[:2]
    if width <= height:
        new_width, new_height = size, int(size * height / width)
    else:
        new_width, new_height = int(size * width / height), size
    whole = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BICUBIC)
    top, left = round((new_height - size) / 2.0), round((new_width - size) / 2.0)
    centre = np.asarray(whole)[top : top + size, left : left + size]
    return torch.from_numpy(centre.copy()).permute(2, 0, 1)


@settings(max_examples=150)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([7, 32, 48]), st.integers(0, 99))
def test_preprocess_is_resize_then_centre_crop(height, width, size, seed):
    assume(max(height, width) <= 64 * min(height, width))  # thinner ones are made in part
    image = picture(height, width, seed)
    result = preprocess(image, size)
    assert result.shape == (3, size, size)
    assert result.dtype == torch.uint8
    assert torch.equal(result, spelt_out(image, size))


def test_preprocess_of_the_usual_sizes():
    for height, width in [(240, 320), (320, 240), (224, 224), (110, 150), (239, 97)]:
        image = picture(height, width)
        assert torch.equal(preprocess(image, 224), spelt_out(image, 224))


def test_preprocess_agrees_with_torchvision():
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    for height, width in [(240, 320), (101, 77), (110, 151)]:
        image = picture(height, width)
        expected = CenterCrop(64)(Resize(64, InterpolationMode.BICUBIC)(Image.fromarray(image)))
        assert np.array_equal(preprocess(image, 64).permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_squashed_pictures_agree_with_torchvision(interpolation):
    from torchvision.transforms import InterpolationMode, Resize

    ways = {"fit": "squash", "interpolation": interpolation}
    for height, width in [(240, 320), (101, 77), (300, 2)]:
        image = picture(height, width)
        resized = Resize((64, 64), InterpolationMode(interpolation))(Image.fromarray(image))
        expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        assert torch.equal(preprocess(image, 64, **ways), expected)
    image = picture(240, 320)
    exact, quick = (preprocess(image, 64, method, **ways).int() for method in ("pillow", "torch"))
    assert (exact - quick).abs().max() <= 2


def test_a_picture_of_the_right_size_is_unchanged():
    image = picture(32, 32)
    assert np.array_equal(preprocess(image, 32).permute(1, 2, 0).numpy(), image)


def test_a_thin_box_costs_no_memory_and_looks_the_same():
    assert preprocess(picture(4000, 1), 224).shape == (3, 224, 224)
    for height, width in [(240, 3), (3, 240), (319, 2)]:
        image = picture(height, width)
        difference = preprocess(image, 224).float() - spelt_out(image, 224).float()
        assert difference.abs().mean() < 1


def test_crop_rounds_halves_to_even_and_excludes_the_far_edge():
    image = picture(20, 30)
    crop = crop_box(image, np.array([2.5, 3.5, 10.5, 11.4], dtype=np.float32))
    assert np.array_equal(crop, image[4:11, 2:10])


def test_crop_is_black_outside_the_picture():
    image = picture(20, 30) | 1
    crop = crop_box(image, np.array([-2, -3, 31, 22], dtype=np.float32))
    assert crop.shape == (25, 33, 3)
    assert np.array_equal(crop[3:23, 2:32], image)
    assert not crop[:3].any()
    assert not crop[:, :2].any()
    assert not crop[23:].any()
    assert not crop[:, 32:].any()


def test_patches_of_a_landscape_picture():
    """40 x 20 becomes 16 x 8, of which the crop keeps columns 4 to 12: pixels 10 to 30."""
    found = patch_boxes(40, 20, size=8, patch=4)
    expected = [[10, 0, 20, 10], [20, 0, 30, 10], [10, 10, 20, 20], [20, 10, 30, 20]]
    np.testing.assert_allclose(found, expected)


def test_patches_of_a_portrait_picture():
    """30 x 45 becomes 12 x 18, of which the crop keeps rows 3 to 15: pixels 7.5 to 37.5."""
    found = patch_boxes(30, 45, size=12, patch=6)
    expected = [[0, 7.5, 15, 22.5], [15, 7.5, 30, 22.5], [0, 22.5, 15, 37.5], [15, 22.5, 30, 37.5]]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("size", [(320, 240), (111, 190), (64, 64), (1920, 817)])
def test_patches_show_what_is_in_them(size):
    """Where a patch is painted in the picture, that patch of the preprocessed picture is bright."""
    width, height = size
    boxes = patch_boxes(width, height, size=64, patch=16)
    for number in (0, 3, 6, 15):
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        x1, y1, x2, y2 = (round(value) for value in boxes[number])
        picture[y1:y2, x1:x2] = 255
        square = preprocess(picture, 64)[0].float()
        means = square.unflatten(0, (4, 16)).unflatten(2, (4, 16)).mean(dim=(1, 3)).flatten()
        assert means[number] > 220
        assert means.sum() - means[number] < 110
    found = frame_boxes(boxes, width, height, Needs(64))  # the way back
    np.testing.assert_allclose(found[6], [32, 16, 48, 32], rtol=1e-5)


@pytest.mark.parametrize("shape", [(320, 240), (37, 300), (224, 224), (100, 61), (1, 50)])
def test_torch_resizes_as_pillow_does_but_for_rounding(shape):
    image = picture(*shape)
    exact, fast = (preprocess(image, 64, method) for method in ("pillow", "torch"))
    assert fast.shape == exact.shape == (3, 64, 64)
    assert fast.is_contiguous()
    difference = (exact.int() - fast.int()).abs()
    assert difference.max() <= 2
    assert difference.float().mean() < 0.05


def test_a_picture_too_long_for_its_width_is_pillows_with_torch_too():
    image = picture(4000, 1)
    assert torch.equal(preprocess(image, 32), preprocess(image, 32, "torch"))


@pytest.mark.parametrize("shape", [(30, 40), (41, 23), (14, 14), (300, 20)])
def test_pictures_are_those_of_preprocess_video_in_whole_grey_levels(shape):
    generator = np.random.default_rng(0)
    picture = generator.integers(256, size=(*shape, 3), dtype=np.uint8)
    ours = normalize_video(clip_picture(picture, 14)[None])
    theirs = preprocess_video(torch.from_numpy(picture).permute(2, 0, 1)[None], 14)
    half_a_level = 0.5 / 255 / 0.224
    assert (ours - theirs).abs().max() <= half_a_level + 1e-5
