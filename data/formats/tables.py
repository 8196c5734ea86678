"""Parquet and Arrow files, read by groups of samples through pyarrow."""

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gaussian_test.data.formats.csv import label_column
from gaussian_test.data.formats.images import FolderStore, ImageRows
from gaussian_test.data.formats.rows import Array, JoinedRows, Selection, as_images
from gaussian_test.data.formats.variables import reading
from gaussian_test.data.samples import SPLITS, Samples, library
from gaussian_test.data.values import DataError, check_size, encode_labels, nearest
from gaussian_test.machine import regular

X_NAMES = ("x", "image", "images", "img", "data", "pixel_values")
PARTS = {"train": r"(.*[/_-])?train.*", "test": r"(.*[/_-])?test.*"}
WIDTHS = {"BOOLEAN": 1, "INT64": 8, "DOUBLE": 8, "INT96": 12}  # of Parquet's physical types; others have 4


@dataclass(frozen=True)
class Group:
    """A row group of a Parquet file or a record batch of an Arrow file: the samples that are decoded together."""

    path: Path
    number: int
    count: int
    sizes: dict[str, int]  # bytes of the decoded columns by name; "" for all columns together, where only that is known


class Parquet:
    """Parquet files."""

    kind, endings = "Parquet", (".parquet", ".pq")

    @staticmethod
    def groups(path: Path) -> tuple[Any, list[Group]]:
        """Return the schema and the groups of a file, without their values."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(regular(path)) as file:
            metadata, groups = file.metadata, []
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                sizes: dict[str, int] = {}
                for place in range(group.num_columns):
                    column = group.column(place)
                    width = WIDTHS.get(column.physical_type, 4)  # bytes stay a dictionary and its indices
                    decoded = max(column.num_values * width, column.total_uncompressed_size)  # runs decode to more than they take
                    name = column.path_in_schema.split(".")[0]
                    sizes[name] = sizes.get(name, 0) + decoded
                groups.append(Group(path, number, group.num_rows, sizes))
            return file.schema_arrow, groups

    @staticmethod
    def read(group: Group, columns: list[str]) -> Any:
        """Return some columns of a group."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(regular(group.path)) as file:
            metadata = file.metadata
            leaves = [metadata.row_group(group.number).column(place) for place in range(metadata.num_columns)]
        # a dictionary of bytes and indices do not grow to what they repeat
        texts = [leaf.path_in_schema for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and "list" not in leaf.path_in_schema]
        with pq.ParquetFile(group.path, read_dictionary=texts, metadata=metadata) as file:
            return file.read_row_group(group.number, columns=columns, use_threads=False)


class Arrow:
    """Arrow files and streams, also those of Feather and Hugging Face."""

    kind, endings = "Arrow", (".arrow", ".feather", ".ipc")
    MAGIC = b"ARROW1"

    @classmethod
    def groups(cls, path: Path) -> tuple[Any, list[Group]]:
        """Return the schema and the groups of a file, without their values."""
        import pyarrow as pa

        with pa.memory_map(str(regular(path))) as file:
            if file.read(6) == cls.MAGIC:  # a file holds a stream after its mark
                file.seek(8)
            else:
                file.seek(0)
            groups: list[Group] = []
            schema = None
            for message in pa.ipc.MessageReader.open_stream(file):
                if message.type == "schema":
                    schema = pa.ipc.read_schema(message)
                elif message.type == "record batch":
                    count, size = _claim(message.metadata.to_pybytes(), message.body)
                    groups.append(Group(path, len(groups), count, {"": size}))
            if schema is None:
                raise ValueError("it has no schema")
            return schema, groups

    @classmethod
    def read(cls, group: Group, columns: list[str]) -> Any:
        """Return some columns of a group."""
        import pyarrow as pa

        with pa.memory_map(str(regular(group.path))) as file:
            whole = file.read(6) == cls.MAGIC
            file.seek(0)
            names = (pa.ipc.open_file if whole else pa.ipc.open_stream)(file).schema.names
            file.seek(0)
            options = pa.ipc.IpcReadOptions(included_fields=[names.index(one) for one in columns], use_threads=False)
            if whole:
                return pa.table(pa.ipc.open_file(file, options=options).get_batch(group.number))
            stream = pa.ipc.open_stream(file, options=options)
            for _ in range(group.number):  # which lie in the mapped file, unless they are compressed
                stream.read_next_batch()
            return pa.table(stream.read_next_batch())


def _claim(metadata: bytes, body: Any) -> tuple[int, int]:
    """Return the samples of a record batch, and the bytes of what is compressed, by what its message says (Arrow's flatbuffers)."""

    def field(table: int, slot: int) -> int:
        entries = table - struct.unpack_from("<i", metadata, table)[0]
        if 4 + 2 * slot >= struct.unpack_from("<H", metadata, entries)[0]:
            return 0
        place: int = struct.unpack_from("<H", metadata, entries + 4 + 2 * slot)[0]
        return table + place if place else 0

    def follow(place: int) -> int:
        return place + int(struct.unpack_from("<I", metadata, place)[0])

    batch = follow(field(follow(0), 2))
    count = struct.unpack_from("<q", metadata, field(batch, 0))[0] if field(batch, 0) else 0
    buffers, total = follow(field(batch, 2)), 0
    if field(batch, 3):  # else what is in the file is mapped
        for number in range(struct.unpack_from("<I", metadata, buffers)[0]):
            start, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * number)
            size = struct.unpack("<q", body[start : start + 8].to_pybytes())[0] if length else 0
            total += max(size, 0)  # -1: this one is not compressed
    return count, total


class Groups:
    """Some columns of the groups of some files; the last group that was decoded is kept.

    Parameters
    ----------
    format_
        `Parquet` or `Arrow`.
    groups : sequence of Group
        At least one.
    columns : list of str
        The columns to read.
    path : pathlib.Path
        What messages call the table.
    memory : int
        Most bytes that a group may take.

    Raises
    ------
    DataError
        If a group claims more.
    """

    def __init__(self, format_: Any, groups: Sequence[Group], columns: list[str], path: Path, memory: int) -> None:
        self._format, self.groups, self._columns = format_, list(groups), columns
        self.names = [f"{name!r} in {path}" for name in columns]
        self.starts = np.cumsum([0] + [group.count for group in groups])
        self._last: tuple[int, list[Any]] | None = None
        for group in groups:
            size = group.sizes[""] if "" in group.sizes else sum(group.sizes.get(name, 0) for name in columns)
            check_size(size, memory, f"a group of {group.count} samples in {group.path}", "in memory at a time")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}

    def read(self, number: int) -> list[Any]:
        """Return the columns of one group as arrow arrays."""
        last = self._last
        if last is None or last[0] != number:
            with reading(self.names[0]):
                table = self._format.read(self.groups[number], self._columns).select(self._columns)
                joined = [column.combine_chunks() for column in table.columns]
            last = number, [column.chunk(0) if hasattr(column, "chunk") else column for column in joined]
            self._last = last
        return last[1]

    def numbers(self, number: int) -> Array:
        """Return the samples of one group: of a column of lists, or of several columns of numbers side by side."""
        first = int(self.starts[number])
        values = [decode(column, name, first) for column, name in zip(self.read(number), self.names, strict=True)]
        return values[0] if values[0].ndim > 1 else np.stack(values, axis=1)


class GroupRows:
    """Samples of one group, (sample, ...), of a shape and type that all groups have."""

    def __init__(self, groups: Groups, number: int, event: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._groups, self._number, self.dtype = groups, number, dtype
        self.shape: tuple[int, ...] = (groups.groups[number].count, *event)

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...)."""
        values = self._groups.numbers(self._number)
        if values.shape != self.shape or values.dtype != self.dtype:
            raise DataError(
                f"{self._groups.names[0]} has samples of shape {values.shape[1:]} and type {values.dtype} from sample "
                f"{self._groups.starts[self._number]}: expected {self.shape[1:]} and {self.dtype} as in the first; make them equal."
            )
        return values[selection]


class PictureStore:
    """Encoded pictures in a column, named by their number."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def read(self, name: str) -> bytes:
        """Return the content of a picture."""
        group = int(np.searchsorted(self._groups.starts, int(name), side="right")) - 1
        value = self._groups.read(group)[0][int(name) - int(self._groups.starts[group])].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise DataError(f"{self.title(name)} holds no bytes: expected the pictures in the file; embed them in the table.")
        return bytes(content)

    def title(self, name: str) -> str:
        """Return what messages call a picture."""
        return f"sample {name} of {self._groups.names[0]}"


def decode(array: Any, name: str, first: int = 0) -> Array:
    """Return the numbers of an arrow array, with an axis for each level of lists of equal length.

    Raises DataError if a value is missing, the lists differ in length, or they hold no numbers.
    """
    import pyarrow as pa

    if array.null_count:
        missing = first + int(array.is_null().to_numpy(zero_copy_only=False).argmax())
        raise DataError(f"{name} has no value in sample {missing}: expected numbers everywhere; fill the gap or drop the sample.")
    kind = array.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return np.asarray(array.to_numpy_ndarray())
    if isinstance(kind, pa.BaseExtensionType):
        return decode(array.storage, name, first)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise DataError(f"{name} has lists of {lengths[0]} to {lengths[-1]} values: expected one length for all samples.")
        length = int(lengths[0]) if len(lengths) else 0
        inner = array.flatten()
        if inner.null_count and length:
            missing = first + int(inner.is_null().to_numpy(zero_copy_only=False).argmax()) // length
            raise DataError(
                f"{name} has no value in sample {missing}: expected numbers everywhere; fill the gap or drop the sample."
            )
        values = decode(inner, name)
        return values.reshape(len(array), length, *values.shape[1:])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{name} holds {kind}: expected numbers, lists of them or pictures; name another column by key=.")
    return np.asarray(array.to_numpy(zero_copy_only=False))


def open_parquet(
    path: Path, split: str | None, key: str | None, memory: int, label_key: str | None = None, alpha: str | None = None
) -> Samples:
    """Open a Parquet file, or a folder of them, as samples and labels.

    A column of pictures ({bytes, path} or bytes), of lists of numbers, or else all columns of numbers are the samples.

    Raises DataError if a file is damaged, or no column fits, or several.
    """
    return _open(Parquet, path, split, key, memory, label_key, alpha)


def open_arrow(
    path: Path, split: str | None, key: str | None, memory: int, label_key: str | None = None, alpha: str | None = None
) -> Samples:
    """Open an Arrow or Feather file, or a folder as ``datasets.save_to_disk`` writes it; see `open_parquet`.

    Raises DataError if a file is damaged, or no column fits, or several.
    """
    return _open(Arrow, path, split, key, memory, label_key, alpha)


def _open(
    format_: Any, path: Path, split: str | None, key: str | None, memory: int, label_key: str | None, alpha: str | None
) -> Samples:
    library("pyarrow", "parquet", path)

    files = _files(path, split, format_)
    groups: list[Group] = []
    schema = None
    for file in files:
        with reading(str(file)):
            own, found = format_.groups(file.absolute())
        if schema is not None and not own.equals(schema):
            raise DataError(
                f"{file} has other columns than {files[0]}: expected the same columns in all files; give split= or one file."
            )
        schema = own
        groups += [group for group in found if group.count]
    if schema is None or not groups:
        raise DataError(f"{path} holds 0 samples: expected at least 2; give a file with more samples.")
    names = [name for name in schema.names if not re.fullmatch(r"__index_level_\d+__|__fragment_index", name)]
    for option, name in (("labels", label_key), ("key", key)):
        if name is not None and name not in names:
            raise DataError(f"{path} has no column {name!r}: expected one of {', '.join(names)}; give {option}=.")
    label = label_key or label_column([name for name in names if name != key]) or ("fine_label" if "fine_label" in names else None)
    columns = _choose(schema, [name for name in names if name != label], key, path)

    title = f"{format_.kind} {'folder' if path.is_dir() else 'file'} {path.absolute().name}"
    count = sum(group.count for group in groups)
    labels = None
    if label is not None:
        held = Groups(format_, groups, [label], path, memory)
        values = [value for number in range(len(groups)) for value in held.read(number)[0].to_pylist()]
        if None in values:
            raise DataError(f"{label!r} in {path} has no value in sample {values.index(None)}: give every sample a label.")
        labels = encode_labels(np.asarray(values), count, f"the labels {label!r} in {path}", _class_names(schema, label))
    held = Groups(format_, groups, columns, path, memory)
    if _is_picture(schema.field(columns[0]).type):
        pictures = ImageRows(PictureStore(held), [str(number) for number in range(count)], memory, alpha)
        return Samples(pictures, title, labels)
    first = held.numbers(0)
    parts = [GroupRows(held, number, first.shape[1:], first.dtype) for number in range(len(groups))]
    return Samples(as_images(parts[0] if len(parts) == 1 else JoinedRows(parts)), title, labels)


def _files(path: Path, split: str | None, format_: Any) -> list[Path]:
    if split is not None and split not in SPLITS:
        raise DataError(f"split is {split!r}: expected one of {', '.join(SPLITS)}; did you mean {nearest(str(split), SPLITS)!r}?")
    if not path.is_dir():
        if split is not None:
            raise DataError(f"split={split!r} was given with the file {path}: expected a folder of files; drop split.")
        return [path]
    names = [name for name in FolderStore(path, 0).names() if name.lower().endswith(format_.endings)]
    names = [name for name in names if not PurePosixPath(name).name.startswith("cache-")]  # what datasets.map left
    if parted := next((name for name in names if "=" in str(PurePosixPath(name).parent)), None):
        raise DataError(f"{path / parted} is partitioned by folders, which hold a column: write it with all columns in the file.")
    parts = {name: next((part for part, like in PARTS.items() if re.fullmatch(like, name)), "") for name in names}
    if split in ("train", "test"):
        names = [name for name in names if parts[name] == split]
    if not names:
        raise DataError(
            f"{path} holds no {format_.kind} file for split={split or 'all'!r}: expected {' or '.join(format_.endings)}."
        )
    order = ("train", "", "test")
    return [path / name for name in sorted(names, key=lambda name: (order.index(parts[name]), _natural(name)))]


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name)]


def _choose(schema: Any, names: list[str], key: str | None, path: Path) -> list[str]:
    """Return the columns with samples: one of pictures or lists, or all, which are numbers."""
    import pyarrow as pa

    if key is not None:
        return [key]
    kinds = {name: schema.field(name).type for name in names}
    arrays = [name for name in names if pa.types.is_nested(_plain(kinds[name])) or _is_picture(kinds[name])]
    preferred = [name for name in X_NAMES if name in arrays][:1] or arrays
    if len(preferred) > 1:
        raise DataError(f"{path} holds the columns {', '.join(names)}: name the one with samples by key=.")
    if not names:
        raise DataError(f"{path} has no column beside its labels: expected a column of pictures, lists or numbers.")
    for name, kind in kinds.items() if not preferred else ():
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise DataError(f"{name!r} in {path} holds {kind}: expected numbers in all columns; remove it, or name it by labels=.")
    return preferred or names


def _plain(kind: Any) -> Any:
    return getattr(kind, "storage_type", kind)


def _is_picture(kind: Any) -> bool:
    import pyarrow as pa

    plain = _plain(kind)
    fields = [plain.field(place).name for place in range(plain.num_fields)] if pa.types.is_struct(plain) else []
    return "bytes" in fields or pa.types.is_binary(plain) or pa.types.is_large_binary(plain)


def _class_names(schema: Any, label: str) -> list[str] | None:
    """Return the names of classes that Hugging Face keeps with a table."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(name) for name in names]
