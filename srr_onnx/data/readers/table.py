"""DATA: a CSV file of picture paths, with labels or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srr_onnx.data.dataset import Dataset
from srr_onnx.data.labels import LABEL_COLUMNS, PATH_COLUMNS, encode_labels, read_classes, read_rows
from srr_onnx.data.reader import Request, reader
from srr_onnx.errors import DataError
from srr_onnx.wording import counted

# Rows whose files are looked for, to tell a list of pictures from another table.
_LOOKED_AT = 10


def _is_table(source: Any) -> bool:
    return isinstance(source, Path) and source.is_file() and source.suffix.lower() == ".csv"


@reader("csv", _is_table)
def read_table(source: Path, request: Request) -> Dataset:
    """Read a CSV file with the columns path and label; paths are relative to the file.

    Args:
        source: The file. With a header the columns may stand in any order, without one they are path and label. Labels
            are whole numbers or class names.
        request: What for.

    Returns:
        The data set; names are the paths as written.

    Raises:
        DataError: It is no such file, or none of the first pictures is there.
    """
    rows, where = read_rows(source), repr(str(source))
    path_column, label_column, has_header = _find_columns(rows[0] if rows else [])
    rows = rows[has_header:]
    if not rows:
        raise DataError(f"{where} has no rows: write a path and a label in each")
    needed = max(path_column, -1 if label_column is None else label_column)
    for row in rows:
        if len(row) <= needed:
            raise DataError(f"{where}: the row {','.join(row)[:80]!r} has {len(row)} columns, {needed + 1} are needed")
    names = [row[path_column].strip() for row in rows]
    folder = source.parent
    if not any((folder / name).is_file() for name in names[:_LOOKED_AT]):
        raise DataError(f"{where}: there is no picture {str(folder / names[0])!r}; paths are relative to the CSV file")
    text = f"{counted(len(rows), 'picture')} listed"
    if label_column is None:
        return request.make_from_pictures(folder, names, source.name, text)
    labels, classes = encode_labels([row[label_column] for row in rows], read_classes(request.model), where)
    return request.make_from_pictures(folder, names, source.name, text, labels, classes)


def _find_columns(first: list[str]) -> tuple[int, int | None, bool]:
    """Column of the path, column of the label, and whether the first row is a header."""
    cells = [cell.strip().lower() for cell in first]
    path = next((place for place, cell in enumerate(cells) if cell in PATH_COLUMNS), None)
    label = next((place for place, cell in enumerate(cells) if cell in LABEL_COLUMNS), None)
    if path is not None:
        return path, label, True
    return 0, 1 if len(cells) > 1 else None, False
