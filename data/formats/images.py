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
MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I;16B")
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
            below[:] = sorted(name for name in below if not name.startswith(".") and not self._is_back(folder, name))
            found += [(place / name).as_posix() for name in files if not name.startswith(".")]
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

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def _archive(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():  # a forked process would share the file position
            self._open = os.getpid(), zipfile.ZipFile(regular(self._path))
        return self._open[1]

    def names(self) -> list[str]:
        """Return the names of all files, those of hidden folders and files left out."""
        with self._lock:
            try:
                names = self._archive().namelist()
            except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
                raise DataError(f"{self._given} is not a readable zip ({error}): save or copy it again.") from error
        return [
            name
            for name in names
            if not name.endswith("/") and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
        ]

    def read(self, name: str) -> bytes:
        """Return the content of a file, after verifying its checksum."""
        with self._lock:
            try:
                info = self._archive().getinfo(name)
                check_size(info.file_size, self._memory, self.title(name))
                return self._archive().read(info)  # which reads no more than this
            except DataError:
                raise
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error) as error:
                raise DataError(f"{self.title(name)} cannot be read ({error}): copy the zip again.") from error

    def title(self, name: str) -> str:
        """Return what messages call a file."""
        return f"{name} in {self._given}"


def decode(content: bytes, name: str, memory: int = 2**30) -> tuple[str, Array]:
    """Decode one picture.

    Raises
    ------
    DataError
        If the file is damaged, of a mode whose numbers are not intensities, or takes more than ``memory`` bytes.

    Examples
    --------
    >>> from PIL import Image
    >>> stream = io.BytesIO()
    >>> Image.new("RGB", (5, 4)).save(stream, "PNG")
    >>> decode(stream.getvalue(), "black.png")[1].shape
    (3, 4, 5)
    """
    from PIL import Image, UnidentifiedImageError

    faults = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError, Image.DecompressionBombError)
    quiet = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)  # the size is checked below
    try:
        with quiet, Image.open(io.BytesIO(content), formats=FORMATS) as image:
            mode = image.mode
            check_size(image.width * image.height * len(image.getbands()), memory, name)
            stored = str(image.tile[0][3]) if image.tile else ""
            pixels = np.asarray(image)
    except DataError:
        raise
    except faults as error:
        reason = "unknown or damaged format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{name} is not a readable image ({reason}): repair or remove the file.") from error
    if re.search(r"16[BLN]", stored) and pixels.dtype.itemsize == 1:
        raise DataError(f"{name} has 16-bit colours, which Pillow would cut to 8 bits: save the images as a .npy array.")
    if mode not in MODES:
        raise DataError(
            f"{name} has mode {mode}: expected one of {', '.join(MODES)}; convert the images, for example with "
            "Pillow's image.convert('RGB')."
        )
    return mode, pixels[np.newaxis] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


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

    Raises
    ------
    DataError
        If a file is damaged or too large, or differs from the first in size or mode.
    """

    def __init__(self, store: Store, names: Sequence[str], memory: int) -> None:
        self._store = store
        self._names = list(names)
        self._memory = memory
        self._mode, first = decode(store.read(names[0]), store.title(names[0]), memory)
        self.shape: tuple[int, ...] = (len(names), *first.shape)
        self.dtype: np.dtype[Any] = first.dtype
        for name in self._names[1:]:
            self._picture(name)

    def _picture(self, name: str) -> Array:
        mode, pixels = decode(self._store.read(name), self._store.title(name), self._memory)
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


def open_folder(path: Path, memory: int) -> Samples:
    """Open a folder of pictures, with sub-folders, if any, as classes.

    The pictures are ordered by name. A ``dataset.json`` in the folder (the EDM format, unpacked) gives the
    labels instead of the sub-folders.

    Raises DataError if there are no pictures, or they are damaged or differ in size or mode.
    """
    store = FolderStore(path, memory)
    found = store.names()
    names = _pictures(found, str(path))
    labels = _index_labels(store, names) if INDEX in found else _folder_labels(names, path)
    return Samples(ImageRows(store, names, memory), f"Folder of images {path.absolute().name}", labels)


def open_zip(path: Path, memory: int) -> Samples:
    """Open a zip of pictures in the EDM data format: nested pictures and a ``dataset.json`` with their labels.

    Raises DataError if the zip is damaged, holds no pictures, or the labels do not fit them.
    """
    store = ZipStore(path, memory)
    found = store.names()
    names = _pictures(found, str(path))
    labels = _index_labels(store, names) if INDEX in found else None
    return Samples(ImageRows(store, names, memory), f"Zip of images {path.name}", labels)


def _pictures(found: Sequence[str], name: str) -> list[str]:
    pictures = sorted(item for item in found if PurePosixPath(item).suffix.lower() in SUFFIXES)
    if not pictures:
        raise DataError(f"{name} holds no images: expected files ending in {', '.join(sorted(SUFFIXES))}.")
    return pictures


def _folder_labels(names: Sequence[str], path: Path) -> Labels | None:
    classes = [PurePosixPath(name).parts[0] if "/" in name else None for name in names]
    if all(item is None for item in classes):
        return None
    if None in classes:
        stray = names[classes.index(None)]
        raise DataError(
            f"{path / stray} lies beside sub-folders with images: expected images either all in the folder or all in "
            "sub-folders, one per class; move it."
        )
    return encode_labels(np.array(classes, dtype=str), len(names), f"the sub-folders of {path}")


def _index_labels(store: Store, names: Sequence[str]) -> Labels | None:
    title = store.title(INDEX)
    try:
        entries = json.loads(store.read(INDEX))["labels"]
        table = None if entries is None else {str(name): label for name, label in entries}
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
