"""Picture strips for the slider of a page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from gaussian_test.analysis.figures.drawing import as_rgb, shades

SAMPLES = 8  # per strip, to be readable on a phone
SIDE = 48  # pixels of a thumbnail; larger pictures are shrunk
BUDGET = 1_200_000  # bytes of pixels above which pictures are compressed with loss
MARGIN = 1 / 8  # between pictures, of their width


@dataclass(frozen=True)
class Strip:
    """End points of one score at one turn time."""

    image: str  # as a data URI
    text: str  # outcome of the samples


@dataclass(frozen=True)
class Frames:
    """Content of the slider of a page."""

    start: str  # the samples started from, as a data URI
    strips: dict[str, list[Strip]]  # by score, one for each turn time
    noise_to_signal: list[str]  # of the turn times, as text
    printed: list[int]  # turn times shown in print
    count: int  # number of samples
    reduced: str  # how the pictures were reduced; empty if not


def picture_frames(pictures: xr.Dataset, result: xr.Dataset) -> Frames:
    """Return the strips of a result's pictures."""
    shown = pictures.isel(sample=slice(SAMPLES))
    side = max(shown.sizes["row"], shown.sizes["column"])
    small = min(1.0, SIDE / side)
    raw = shown.sizes["sample"] * (1 + shown["end"][:, :, 0, 0, 0, 0].size) * 3 * round(side * small) ** 2
    lossy = raw > BUDGET
    steps = [f"made smaller, to {SIDE} pixels"] if small < 1 else []
    steps += ["compressed with loss"] if lossy else []
    table = (
        result[["nearest_sample", "label_after", "label"]].sel(sample=shown["sample"]).isel(repeat=0)
    )  # a selection of all is slow
    scores = [str(score) for score in shown["score"].values]
    turns = range(shown.sizes["turn_time"])
    nu = [f"{value:.3g}" for value in result["noise_to_signal"].values]
    return Frames(
        _strip(shown["start"], shades(result), small, lossy),
        {
            score: [
                Strip(
                    _strip(shown["end"].sel(score=score).isel(turn_time=turn), shades(result), small, lossy),
                    _fate(table.sel(score=score).isel(turn_time=turn)) if result.attrs["start"] == "noised_data" else "",
                )
                for turn in turns
            ]
            for score in scores
        },
        nu,
        np.unique(np.linspace(0, len(nu) - 1, min(len(nu), 6)).round().astype(int)).tolist(),
        shown.sizes["sample"],
        " and ".join(steps),
    )


def _fate(row: xr.Dataset) -> str:
    """Return a sentence on how many end points are nearest to their own sample, and how many keep their class if known."""
    count = row.sizes["sample"]
    said = []
    if (row["nearest_sample"] >= 0).all():
        said.append(f"{int((row['nearest_sample'] == row['sample']).sum())} of {count} their own sample")
    if (row["label_after"] >= 0).all() and (row["label"] >= 0).all():
        said.append(f"{int((row['label_after'] == row['label']).sum())} of {count} of their class")
    return ", ".join(said)


def _strip(pictures: xr.DataArray, ends: tuple[float, float], small: float, lossy: bool) -> str:
    """Return pictures side by side as a data URI."""
    values = (as_rgb(pictures, ends) * 255).round().astype(np.uint8)
    if small < 1:
        size = (max(1, round(values.shape[2] * small)), max(1, round(values.shape[1] * small)))
        values = np.stack([np.asarray(Image.fromarray(value).resize(size, Image.Resampling.LANCZOS)) for value in values])
    margin = max(1, round(values.shape[2] * MARGIN))
    count, height, width, _ = values.shape
    strip: NDArray[np.uint8] = np.zeros((height, count * (width + margin) - margin, 4), dtype=np.uint8)  # transparent gaps
    for index, value in enumerate(values):
        left = index * (width + margin)
        strip[:, left : left + width, :3] = value
        strip[:, left : left + width, 3] = 255
    buffer = io.BytesIO()
    image = Image.fromarray(strip)
    if lossy:
        image.save(buffer, "WEBP", quality=80)
    else:
        image.save(buffer, "PNG", optimize=True)
    kind = "webp" if lossy else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
