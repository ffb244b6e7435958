"""A cheap camera that films a drawn scene: colour cast, blur, few pixels, noise, compression.

The small CLIP was trained on clean drawings, so that what it sees here is as far from its training
as a phone's video is from the web's photos.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stclip.puppet.draw.chance import Chance


@dataclass(frozen=True)
class Camera:
    """What one camera does to every picture of a clip.

    Attributes:
        gains: of red, green and blue.
        gamma: above 1 darkens the middle tones.
        contrast: share of the distance to a middle grey that is left.
        saturation: share of the colour that is left.
        scale: pixels of the sensor along an edge, as a share of the picture's.
        blur: radius of the Gaussian in pixels.
        vignette: how much darker the corners are, as a share.
        noise: standard deviation in grey levels.
        quality: of the JPEG file.
        seed: of the noise.
    """

    gains: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    scale: float
    blur: float
    vignette: float
    noise: float
    quality: int
    seed: int

    def film(self, picture: Image.Image, frame: int) -> Image.Image:
        """The picture before it is compressed; frame: its number, which the noise depends on."""
        width, height = picture.size
        grey = picture.convert("L").convert("RGB")
        picture = Image.blend(grey, picture, self.saturation)
        sensor = (round(self.scale * width), round(self.scale * height))
        picture = picture.resize(sensor, Image.Resampling.BOX)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        picture = picture.filter(ImageFilter.GaussianBlur(self.blur)).point(self._curves())
        levels = np.asarray(picture) * _vignette(width, height, self.vignette)[..., None]
        # RandomState, unlike the newer generators, promises equal numbers in every version.
        random = np.random.RandomState((self.seed + frame) % 2**32)
        noise = self.noise * random.standard_normal((height, width, 3))
        return Image.fromarray((levels + noise).round().clip(0, 255).astype(np.uint8))

    def compress(self, picture: Image.Image) -> bytes:
        """The picture as a JPEG file."""
        file = BytesIO()
        picture.save(file, "JPEG", quality=self.quality)
        return file.getvalue()

    def _curves(self) -> list[int]:
        """What becomes of the 256 levels of red, of green and of blue."""
        curves = []
        for gain in self.gains:
            for level in range(256):
                value = min(1.0, gain * level / 255) ** self.gamma
                curves.append(round(255 * (0.5 + self.contrast * (value - 0.5))))
        return curves


def plan_camera(chance: Chance) -> Camera:
    """A camera by chance; each is worse than a drawing in every respect."""
    warmth, green = chance.uniform(-0.25, 0.25), chance.uniform(-0.08, 0.08)
    return Camera(
        gains=(1 + warmth, 1 + green, 1 - warmth),
        gamma=2 ** chance.uniform(-0.6, 0.6),
        contrast=chance.uniform(0.55, 0.95),
        saturation=chance.uniform(0.3, 0.9),
        scale=chance.uniform(0.45, 0.8),
        blur=chance.uniform(0.3, 1.0),
        vignette=chance.uniform(0.1, 0.5),
        noise=chance.uniform(3, 12),
        quality=25 + chance.below(36),
        seed=chance.below(2**32),
    )


def _vignette(width: int, height: int, share: float) -> NDArray[np.float64]:
    """(height, width): 1 in the middle, 1 - share in the corners."""
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    darkness: NDArray[np.float64] = share * (x * x + y * y) / 2
    return 1 - darkness
