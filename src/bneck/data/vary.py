"""How training images are varied: crops, flips, colours; on whole batches, on any device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from bneck.data.folders import DataError

Distort = Literal["none", "fast", "full"]
DISTORTS: tuple[str, ...] = get_args(Distort)

_GREY = (0.299, 0.587, 0.114)  # Rec. 601
# The authors' colour distortion: how far each may go, and the four orders one of which is drawn.
_BRIGHTNESS, _SATURATION, _HUE, _CONTRAST = 32.0, (0.5, 1.5), 0.2, (0.5, 1.5)
_FULL = ("bshc", "sbch", "chbs", "hscb")
_FAST = ("bs", "sb", "sb", "sb")


@dataclass(frozen=True, slots=True)
class Augment:
    """How training images are varied.

    `area` is the range of the crop's share of the image, `aspect` that of its width / height (what
    sticks out of the image is cut off), `flip` mirrors every second image, `colour` changes
    brightness, contrast and saturation by a factor from 1 - colour to 1 + colour each. `distort` is
    the authors' colour distortion instead, in an order drawn for each image: "fast" of brightness
    and saturation, as their released training runs it, "full" of hue and contrast too.
    """

    area: tuple[float, float] = (0.35, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    colour: float = 0.0
    distort: Distort = "none"

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise DataError(f"area is {self.area}; it must be two shares, 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise DataError(f"aspect is {self.aspect}; it must be two ratios, 0 < low <= high")
        if not 0 <= self.colour <= 1:
            raise DataError(f"colour is {self.colour!r}; it must be from 0 to 1")
        if self.distort not in DISTORTS:
            raise DataError(f"distort is {self.distort!r}; it must be one of {', '.join(DISTORTS)}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a crop depends on besides its image: `seeds` are those of the run and of the epoch."""

    augment: Augment
    resolution: int
    seeds: tuple[int, int]
    device: torch.device


def cropped(images: Tensor, draws: Tensor, resolution: int, augment: Augment) -> Tensor:
    """One crop an image, its edges between pixels, resized bilinearly; (N, 3, H, W) floats.

    `draws` (N, 5) from 0 to 1 decide on area, aspect, x, y and flip.
    """
    area, aspect, x, y, flip = draws.unbind(1)
    area = augment.area[0] + (augment.area[1] - augment.area[0]) * area
    low, high = np.log(augment.aspect)
    aspect = torch.exp(low + (high - low) * aspect)
    # Sizes as shares of the image; centres from -1 to 1, as grid_sample has them.
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    centre_x, centre_y = (1 - width) * (2 * x - 1), (1 - height) * (2 * y - 1)
    if augment.flip:
        width = torch.where(flip < 0.5, -width, width)
    return sample(images, (centre_x, centre_y, width, height), resolution)


def sample(
    images: Tensor, windows: tuple[Tensor, Tensor, Tensor, Tensor], resolution: int
) -> Tensor:
    """Windows of (N, 3, H, W) floats, resized bilinearly to (N, 3, resolution, resolution).

    `windows` are centre x, centre y, width and height, (N,) each: centres from -1 to 1, sizes as shares
    of the image. A negative width mirrors.
    """
    centre_x, centre_y, width, height = windows
    steps = (2 * torch.arange(resolution, device=images.device) + 1) / resolution - 1
    columns = centre_x[:, None] + width[:, None] * steps
    rows = centre_y[:, None] + height[:, None] * steps
    shape = (len(images), resolution, resolution)
    grid = torch.stack((columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)), dim=3)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def draw_region(
    size: tuple[int, int], augment: Augment, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random crop (left, top, width, height) in whole pixels of an image of `size` (width, height).

    As TensorFlow draws it: an area and an aspect again and again until both fit, a hundred times at
    most, then the whole image.
    """
    width, height = size
    for _ in range(10):
        # Ten at a time: nearly always one of the first fits.
        share = rng.uniform(*augment.area, 10)
        aspect = rng.uniform(*augment.aspect, 10)
        wide = np.rint(np.sqrt(share * width * height * aspect)).astype(int)
        high = np.rint(np.sqrt(share * width * height / aspect)).astype(int)
        fits = np.flatnonzero((wide <= width) & (high <= height) & (wide > 0) & (high > 0))
        if len(fits):
            w, h = int(wide[fits[0]]), int(high[fits[0]])
            left, top = rng.integers(0, (width - w + 1, height - h + 1))
            return int(left), int(top), w, h
    return 0, 0, width, height


def recoloured(images: Tensor, factors: Tensor) -> Tensor:
    """Apply (N, 3) factors of brightness, contrast and saturation to pixels from 0 to 255."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = (images * brightness).clamp_(0, 255)
    average = _grey(images).mean(dim=(2, 3), keepdim=True)
    images = torch.lerp(average, images, contrast).clamp_(0, 255)
    return torch.lerp(_grey(images), images, saturation).clamp_(0, 255)


def distorted(images: Tensor, draws: npt.NDArray[np.float32], distort: Distort) -> Tensor:
    """The authors' colour distortion of (N, 3, H, W) pixels from 0 to 255.

    `draws` (N, 5) from 0 to 1 decide on brightness, saturation, hue, contrast and their order.
    Brightness is added, up to 32 either way; saturation and contrast are multiplied by 0.5 to 1.5; hue
    turns by a fifth of the circle at most. Each step's pixels are held within 0 and 255.
    """
    orders = _FULL if distort == "full" else _FAST
    numbers = torch.from_numpy(draws).to(images.device)
    out = torch.empty_like(images)
    chosen = np.minimum((draws[:, 4] * len(orders)).astype(int), len(orders) - 1)
    for order in np.unique(chosen):
        mine = torch.from_numpy(np.flatnonzero(chosen == order)).to(images.device)
        part, its = images[mine], numbers[mine][:, :, None, None, None]
        for step in orders[order]:
            part = _STEPS[step](part, its).clamp_(0, 255)
        out[mine] = part
    return out


def _brightness(images: Tensor, draws: Tensor) -> Tensor:
    return images + _BRIGHTNESS * (2 * draws[:, 0] - 1)


def _saturation(images: Tensor, draws: Tensor) -> Tensor:
    """The saturation of HSV: the distance of each channel to the largest grows, up to all of it."""
    factor = _SATURATION[0] + (_SATURATION[1] - _SATURATION[0]) * draws[:, 1]
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    most = high / (high - low).clamp(min=1e-6)  # at which the smallest channel is 0
    return high - (high - images) * torch.minimum(factor.expand_as(most), most)


def _hue(images: Tensor, draws: Tensor) -> Tensor:
    """The hue of HSV, turned; largest and smallest channel keep their values."""
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    spread = high - low
    safe = spread.clamp(min=1e-6)
    red, green, blue = (images[:, i : i + 1] for i in range(3))
    sector = torch.where(
        red == high,
        (green - blue) / safe,
        torch.where(green == high, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sector = sector + 6 * _HUE * (2 * draws[:, 2] - 1)
    turned = []
    for offset in (5, 3, 1):
        place = (offset + sector) % 6
        turned.append(high - spread * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.cat(turned, 1)


def _contrast(images: Tensor, draws: Tensor) -> Tensor:
    factor = _CONTRAST[0] + (_CONTRAST[1] - _CONTRAST[0]) * draws[:, 3]
    return torch.lerp(images.mean((2, 3), keepdim=True), images, factor)


_STEPS = {"b": _brightness, "s": _saturation, "h": _hue, "c": _contrast}


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor(_GREY, device=images.device).view(3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
