"""Picture files in folders and zip archives."""

import io
import json
import os
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from xarray.backends.locks import SerializableLock

from gaussian_test.data.formats.rows import Array, Selection
from gaussian_test.data.samples import Samples
from gaussian_test.data.values import DataError, Labels, cause, check_size, encode_labels
from gaussian_test.machine import regular

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
MODES = ("L", "RGB", "I;16", "I;16B", "I", "F")
BYTES = {"1": 1, "L": 1, "I;16": 2, "I;16B": 2, "RGB": 3, "P": 3}  # of a decoded pixel; others have 4
BACKGROUNDS = {"white": 255, "black": 0}
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")  # any other would be guessed by content: PostScript starts a program
INDEX = "dataset.json"  # labels of the EDM data format


class Store(Protocol):
    """A container of named files."""

    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    def title(self, name: str) -> str:
        """Return what messages call a file."""


class FolderStore:
    """Files below a folder, named by their path from there."""

    def __init__(self, path: Path, memory: int) -> None:
        self._given = path
        self._path = path.absolute()
        self._memory = memory

    def names(self) -> list[str]:
        """Return the names of all files, those of hidden folders and files left out.

        Links to folders are followed, but for those back to a folder that they lie in.

        Raises DataError if links lead twice to one folder, whose files would count twice.
        """
        found: list[str] = []
        seen: dict[str, Path] = {}
        for folder, below, files in os.walk(self._path, followlinks=True):  # class folders are often symbolic links
            place, real = Path(folder).relative_to(self._path), os.path.realpath(folder)
            if real in seen:
                raise DataError(
                    f"{self._given} holds {seen[real]} and {place}, which are one folder by a link: remove one of them."
                )
            seen[real] = place
            below[:] = sorted(name for name in below if not _hidden(name) and not self._is_back(folder, name))
            found += [(place / name).as_posix() for name in files if not _hidden(name)]
        return found

    def _is_back(self, folder: str, name: str) -> bool:
        """Return whether a link leads to a folder that holds it, on the way from the given folder or above that."""
        path = os.path.join(folder, name)
        if not os.path.islink(path):
            return False
        target = Path(os.path.realpath(path))
        inside = Path(folder).relative_to(self._path).parts
        holders = (self._path.joinpath(*inside[:depth]) for depth in range(len(inside) + 1))
        return any(Path(os.path.realpath(holder)).is_relative_to(target) for holder in holders)

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        path = regular(self._path / name)
        check_size(path.stat().st_size, self._memory, self.title(name))
        return path.read_bytes()

    def title(self, name: str) -> str:
        """Return what messages call a file."""
        return str(self._given / name)


class ZipStore:
    """Files in a zip archive, kept open between reads; copies, pickles and forked processes reopen it."""

    def __init__(self, path: Path, memory: int) -> None:
        self._given = path
        self._path = path.absolute()
        self._memory = memory
        self._lock = SerializableLock()
        self._open: tuple[int, zipfile.ZipFile] | None = None
        self._stored: dict[str, str] = {}  # names in the archive by those with slashes, which not every program writes

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def _archive(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():  # a forked process would share the file position
            self._open = os.getpid(), zipfile.ZipFile(regular(self._path))
        return self._open[1]

    def names(self) -> list[str]:
        """Return the names of all files, with slashes; those of hidden folders and files are left out.

        Raises DataError if the zip is damaged, or holds a name twice.
        """
        with self._lock:
            try:
                names = self._archive().namelist()
            except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
                raise DataError(f"{self._given} is not a readable zip ({error}): save or copy it again.") from error
        found = [(name.replace("\\", "/"), name) for name in names]
        found = [(name, stored) for name, stored in found if not name.endswith("/") and not any(map(_hidden, name.split("/")))]
        self._stored = dict(found)
        if len(self._stored) < len(found):
            raise DataError(f"{self._given} holds several files of one name: save it again.")
        return list(self._stored)

    def read(self, name: str) -> bytes:
        """Return the content of a file, after verifying its checksum."""
        with self._lock:
            try:
                info = self._archive().getinfo(self._stored.get(name, name))
                check_size(info.file_size, self._memory, self.title(name))
                return self._archive().read(info)  # which reads no more than this
            except DataError:
                raise
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error) as error:
                raise DataError(f"{self.title(name)} cannot be read ({error}): copy the zip again.") from error

    def title(self, name: str) -> str:
        """Return what messages call a file."""
        return f"{name} in {self._given}"


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def decode(content: bytes, name: str, memory: int = 2**30, alpha: str | None = None) -> tuple[str, Array]:
    """Decode one picture, turned as its EXIF data say.

    Palettes become colours, pictures of one bit 0 and 255. An alpha channel that is opaque everywhere is dropped, any other is
    flattened onto ``alpha``, white or black.

    Raises
    ------
    DataError
        If the file is damaged, is transparent without ``alpha``, is of a mode whose numbers are not intensities, or takes more
        than ``memory`` bytes.

    Examples
    --------
    >>> from PIL import Image
    >>> stream = io.BytesIO()
    >>> Image.new("RGB", (5, 4)).save(stream, "PNG")
    >>> decode(stream.getvalue(), "black.png")[1].shape
    (3, 4, 5)
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    faults = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError, Image.DecompressionBombError)
    quiet = warnings.catch_warnings(action="ignore")  # of large pictures, whose size is checked below, and of odd EXIF data
    try:
        with quiet, Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            check_size(opened.width * opened.height * BYTES.get(opened.mode, 4), memory, name)
            stored = str(opened.tile[0][3]) if opened.tile else ""
            image = _opaque(ImageOps.exif_transpose(opened), name, alpha)
            mode, pixels = image.mode, np.asarray(image)
    except DataError:
        raise
    except faults as error:
        reason = "unknown or damaged format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{name} is not a readable image ({reason}): repair or remove the file.") from error
    if re.search(r"16[BLN]", stored) and pixels.dtype.itemsize == 1:
        raise DataError(f"{name} has 16-bit colours, which Pillow would cut to 8 bits: save the images as a .npy array.")
    if mode not in MODES:
        raise DataError(
            f"{name} has mode {mode}: expected one of {', '.join((*MODES, 'P', '1'))}; convert the images, for example with "
            "Pillow's image.convert('RGB')."
        )
    if "16" in mode or (mode == "I" and "16" in stored):  # Pillow before 11 reads 16 bits into 32
        mode, pixels = "I;16", pixels.astype(np.uint16)
    return mode, pixels[np.newaxis] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _opaque(image: Any, name: str, alpha: str | None) -> Any:
    """Return a picture without palette, bits and alpha channel."""
    from PIL import Image

    if image.has_transparency_data:
        if image.mode.startswith("I"):
            raise DataError(f"{name} has 16 bits and a transparent value, which Pillow cannot flatten: save it without.")
        grey = image.mode in ("1", "L", "LA", "La")
        layered = image.convert("RGBA")
        if layered.getchannel("A").getextrema()[0] < 255:
            if alpha not in BACKGROUNDS:
                raise DataError(
                    f"{name} is transparent (alpha below 255): give alpha='white' or 'black' to flatten the pictures on it."
                )
            ground = Image.new("RGBA", layered.size, (*[BACKGROUNDS[alpha]] * 3, 255))
            layered = Image.alpha_composite(ground, layered)
        return layered.convert("RGB").getchannel("R") if grey else layered.convert("RGB")
    return image.convert({"P": "RGB", "1": "L"}[image.mode]) if image.mode in ("P", "1") else image


class ImageRows:
    """Pictures of one size and mode, decoded on access.

    Every picture is decoded once at the start, to find damaged ones and other sizes.

    Parameters
    ----------
    store : Store
        Container of the files.
    names : sequence of str
        File names, one per sample.
    memory : int
        Most bytes that a picture may take.
    alpha : {"white", "black"} or None
        What transparent pictures are flattened on; None refuses them.

    Raises
    ------
    DataError
        If a file is damaged, too large or transparent, or differs from the first in size or mode.
    """

    def __init__(self, store: Store, names: Sequence[str], memory: int, alpha: str | None = None) -> None:
        self._store = store
        self._names = list(names)
        self._memory = memory
        self._alpha = None if alpha == "refuse" else alpha
        if self._alpha is not None and self._alpha not in BACKGROUNDS:
            raise DataError(f"alpha is {alpha!r}: expected 'refuse', 'white' or 'black'.")
        self._mode, first = decode(store.read(names[0]), store.title(names[0]), memory, self._alpha)
        self.shape: tuple[int, ...] = (len(names), *first.shape)
        self.dtype: np.dtype[Any] = first.dtype
        for name in self._names[1:]:
            self._picture(name)

    def _picture(self, name: str) -> Array:
        mode, pixels = decode(self._store.read(name), self._store.title(name), self._memory, self._alpha)
        if mode != self._mode or pixels.shape != self.shape[1:]:
            raise DataError(
                f"{self._store.title(name)} has {pixels.shape[2]} x {pixels.shape[1]} pixels of mode {mode}: expected "
                f"{self.shape[3]} x {self.shape[2]} of mode {self._mode} like {self._names[0]}; make the images equal."
            )
        return pixels

    def read(self, selection: Selection) -> Array:
        """Return the selected pictures, (selected, channel, row, column)."""
        indices = np.arange(self.shape[0])[selection]
        out = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for position, index in enumerate(indices):
            out[position] = self._picture(self._names[index])
        return out


def open_folder(path: Path, memory: int, alpha: str | None = None) -> Samples:
    """Open a folder of pictures, with sub-folders, if any, as classes.

    The pictures are ordered by name. A ``dataset.json`` in the folder (the EDM format, unpacked) gives the
    labels instead of the sub-folders. A single folder that holds all is passed through.

    Raises DataError if there are no pictures, or they are damaged, transparent without ``alpha``, or differ in size or mode.
    """
    return _open(FolderStore(path, memory), path, f"Folder of images {path.absolute().name}", memory, alpha)


def open_zip(path: Path, memory: int, alpha: str | None = None) -> Samples:
    """Open a zip of pictures, such as one in the EDM data format; see `open_folder`.

    Raises DataError if the zip is damaged, holds no pictures, or the labels do not fit them.
    """
    return _open(ZipStore(path, memory), path, f"Zip of images {path.name}", memory, alpha)


def _open(store: FolderStore | ZipStore, path: Path, title: str, memory: int, alpha: str | None) -> Samples:
    found = store.names()
    names = sorted(item for item in found if PurePosixPath(item).suffix.lower() in SUFFIXES)
    if not names:
        raise DataError(f"{path} holds no images: expected files ending in {', '.join(sorted(SUFFIXES))}.")
    top = _top(found, names)
    if top + INDEX not in found and (stray := next((name for name in found if PurePosixPath(name).name == INDEX), None)):
        raise DataError(f"{store.title(stray)} does not lie on top of all images: move it there, or give the folder that it is of.")
    labels = _index_labels(store, names, top) if top + INDEX in found else _folder_labels(names, path, top)
    return Samples(ImageRows(store, names, memory, alpha), title, labels)


def _top(found: Sequence[str], names: Sequence[str]) -> str:
    """Return the folder, with its slash, that holds all pictures as the data set: the given one, or a single one in it.

    Examples
    --------
    >>> _top(["mine/0/a.png", "mine/dataset.json"], ["mine/0/a.png"]), _top([], ["cat/a.png"]), _top([], ["my/cat/a.png"])
    ('mine/', '', 'my/')
    """
    top = ""
    while top + INDEX not in found:
        inside = [name[len(top) :].split("/") for name in names]
        first = inside[0][0]
        whole = all(parts[0] == first for parts in inside)
        if not whole or not (f"{top}{first}/{INDEX}" in found or all(len(parts) > 2 for parts in inside)):
            break
        top += f"{first}/"
    return top


def _folder_labels(names: Sequence[str], path: Path, top: str) -> Labels | None:
    inside = [PurePosixPath(name[len(top) :]).parts for name in names]
    classes = [parts[0] if len(parts) > 1 else None for parts in inside]
    if all(item is None for item in classes):
        return None
    if None in classes:
        stray = names[classes.index(None)]
        raise DataError(
            f"{path / stray} lies beside sub-folders with images: expected images either all in the folder or all in "
            "sub-folders, one per class; move it."
        )
    return encode_labels(np.array(classes, dtype=str), len(names), f"the sub-folders of {path}")


def _index_labels(store: Store, names: Sequence[str], top: str) -> Labels | None:
    title = store.title(top + INDEX)
    try:
        entries = json.loads(store.read(top + INDEX))["labels"]
        table = None if entries is None else {top + str(name).replace("\\", "/"): label for name, label in entries}
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f'{title} cannot be read ({cause(error)}): expected {{"labels": [[name, integer], ...]}} or null labels.'
        ) from error
    if table is None:
        return None
    missing = [name for name in names if name not in table]
    if missing or len(table) != len(names):
        example = f", none for {missing[0]}" if missing else ""
        raise DataError(f"{title} has {len(table)} labels for {len(names)} images{example}: expected one label each.")
    wrong = [name for name in names if type(table[name]) is not int]
    if wrong:
        raise DataError(f"{title} has the label {table[wrong[0]]!r} for {wrong[0]}: expected an integer.")
    return encode_labels(np.array([table[name] for name in names]), len(names), f"the labels of {title}")
