"""A Parquet file with a picture in each row: its bytes, or the path of its file. pyarrow reads it, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pocketlens.errors import FormatError, MissingPart
from pocketlens.listing import Skipped
from pocketlens_export.gallery.sources.columns_kept import Kept, take
from pocketlens_export.gallery.sources.entry import Entry, Place, no_text, text_of

_IDS = ("id", "key")
_PICTURES = ("image", "jpg", "jpeg", "png", "webp", "bytes", "content", "path", "file", "file_name")
_BATCH_ROWS = 4_096
_READ_ROWS = 16  # pictures at a time
_BUFFER_BYTES = 1 << 20


class Parquet:
    """The pictures of a Parquet file's rows.

    The id is the column `id` or `key`, else the file's name without `.parquet`, "/" and the row's number. A picture is
    a column of bytes, of structs with `bytes` (as Hugging Face's datasets have), or of paths, which start at the file's
    folder.

    Args:
        path: the file.
        column: of the pictures; None takes the first of image, jpg, jpeg, png, webp, bytes, content, path, file and
            file_name.
        kept: columns that become attributes.
    """

    def __init__(self, path: Path, column: str | None, kept: Sequence[Kept]) -> None:
        self._path = path
        self._column = column
        self._kept = kept

    @property
    def name(self) -> str:
        """Return its absolute path."""
        return str(self._path.absolute())

    def entries(self) -> Iterator[Entry | Skipped]:
        """Yield every row's picture; see `Source.entries`. Pictures themselves are not read yet.

        Raises:
            FormatError: it is no Parquet file, or lacks a column.
            MissingPart: pyarrow is not installed.
        """
        with open_parquet(self._path) as file:
            schema = file.schema_arrow
            picture = self._picture_column(schema)
            id = next((name for name in _IDS if name in schema.names and name != picture), None)
            by_path = _is_text(schema.field(picture).type)
            wanted = [each.name for each in self._kept]
            for name in wanted:
                self._check(name, schema.names)
            columns = list(dict.fromkeys([*([id] if id else []), *wanted, *([picture] if by_path else [])]))
            rows = _rows(self._path, file, columns)
            for number, row in rows:
                yield self._entry(number, row, id, picture, by_path)

    def _entry(self, number: int, row: dict[str, Any], id: str | None, picture: str, by_path: bool) -> Entry | Skipped:
        given = row.get(id) if id else None
        written = f"{self._path.stem}/{number:08}" if given is None or given == "" else str(given)
        name = text_of(written)
        if name is None:
            return no_text(written)
        attributes = take(self._kept, row)
        if not by_path:
            place = Place("row", str(self._path), start=number, column=picture)
            return Entry(name, f"{self._path.name}#{number}", place, attributes)
        if not row[picture]:
            return Skipped(name, "unreadable", f"the row has no {picture}")
        return Entry(name, row[picture], Place("file", str(self._path.parent / row[picture])), attributes)

    def _picture_column(self, schema: Any) -> str:
        if self._column is not None:
            self._check(self._column, schema.names)
        column = self._column or next((name for name in _PICTURES if name in schema.names), None)
        if column is None:
            found = ", ".join(map(repr, schema.names)) or "none"
            raise FormatError(
                f"{self._path}: columns are {found}, expected one of {', '.join(_PICTURES)}; name another with "
                "--image-column"
            )
        kind = schema.field(column).type
        if not (_is_text(kind) or _is_bytes(kind) or _is_struct(kind)):
            raise FormatError(
                f"{self._path}: column {column!r} is of type {kind}, expected bytes, paths or structs with bytes"
            )
        return column

    def _check(self, name: str, names: Sequence[str]) -> None:
        if name not in names:
            raise FormatError(f"{self._path}: columns are {', '.join(map(repr, names))}, expected one called {name!r}")


class RowReader:
    """Reads pictures of Parquet files. Rows that follow one another are read as a stream."""

    def __init__(self) -> None:
        self._at: tuple[str, str, int] | None = None
        self._values: Iterator[Any] = iter(())

    def read(self, place: Place) -> bytes:
        """Return a row's bytes.

        Raises:
            FormatError: the file cannot be read, or the row has none.
        """
        if self._at != (place.path, place.column, place.start):
            self._values = _values(Path(place.path), place.column, place.start)
        value = next(self._values, None)
        self._at = (place.path, place.column, place.start + 1)
        found = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(found, bytes):
            raise FormatError(f"the row has no {place.column}")
        return found


def open_parquet(path: Path) -> Any:
    """Return an opened Parquet file, a context manager.

    Raises:
        FormatError: it is none.
        MissingPart: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingPart(f'{path} needs pyarrow, which is not installed: pip install "pocketlens[parquet]"') from error
    try:
        return parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"{path} is not Parquet that can be read: {error}") from error


def _rows(path: Path, file: Any, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row's number and its values of these columns."""
    if not columns:
        yield from ((number, {}) for number in range(file.metadata.num_rows))
        return
    number = 0
    for batch in _batches(path, file, _BATCH_ROWS, range(file.num_row_groups), columns):
        for row in batch.to_pylist():
            yield number, row
            number += 1


def _values(path: Path, column: str, start: int) -> Iterator[Any]:
    """Yield the values of a column from a row on, a few at a time in memory."""
    with open_parquet(path) as file:
        group = 0
        while group < file.num_row_groups and start >= file.metadata.row_group(group).num_rows:
            start -= file.metadata.row_group(group).num_rows
            group += 1
        passed = 0
        for batch in _batches(path, file, _READ_ROWS, range(group, file.num_row_groups), [column]):
            values = batch.column(0)
            for place in range(max(start - passed, 0), len(values)):
                yield values[place].as_py()
            passed += len(values)


def _batches(path: Path, file: Any, rows: int, groups: range, columns: Sequence[str]) -> Iterator[Any]:
    import pyarrow

    try:
        yield from file.iter_batches(batch_size=rows, row_groups=list(groups), columns=list(columns), use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise FormatError(f"{path} is damaged: {error}") from error


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind)) and "bytes" in [kind.field(n).name for n in range(kind.num_fields)]
