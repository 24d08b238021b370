"""What a file is by its first bytes, where it is neither the recording nor the table that its name promises."""

_KINDS = {
    b"pk\x03\x04": "a spreadsheet or another ZIP archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet or another Office document",
    b"%pdf": "a PDF",
    b"\x1f\x8b": "compressed with gzip",
    b"par1": "Parquet",
    b"version https://git-lfs": "a pointer of Git LFS ('git lfs pull' gets the file)",
    b"\x89png": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"gif8": "a picture",
    b"mthd": "a MIDI file, which has notes and no sound",
    b"\x93numpy": "a NumPy array",
    b"\x80\x04\x95": "a Python pickle",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"rar!": "a RAR archive",
    b"\xfd7zxz": "compressed with xz",
    b"<?xml": "XML",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}


def file_kind(start: bytes) -> str:
    """What a file that begins with these bytes is, in words; "" for whatever may be sound or a table of text."""
    begins = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for sign, kind in _KINDS.items() if begins.startswith(sign)), "")


def is_text(start: bytes) -> bool:
    """Whether a file that begins with these bytes is text: UTF-8 without control characters."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:  # the last character may be cut
        text = start[: error.start].decode("utf-8") if error.start > len(start) - 4 else "\0"
    return bool(text) and all(c.isprintable() or c.isspace() for c in text)
