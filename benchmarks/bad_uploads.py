"""Files that are no usable recordings, made from a seed: what a server has to refuse in one line, or survive."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
import soundfile

RATE = 16_000


def encode(samples: np.ndarray, kind: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    """A sound file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def multipart(content: bytes, field: str = "audio", **fields: str) -> bytes:
    """A form with the boundary "b"."""
    texts = "".join(f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items())
    head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="a.wav"\r\n\r\n'
    return (texts + head).encode() + content + b"\r\n--b--\r\n"


def bad_uploads(count: int, speech: np.ndarray, seed: int = 0) -> list[bytes]:
    """`count` of them: all fixed ones, then damaged recordings, made of float32 [samples] of speech at 16 kHz."""
    fixed = list(_fixed(speech))
    damaged = _damaged(speech, np.random.default_rng(seed))
    return [*fixed, *(next(damaged) for _ in range(count - len(fixed)))]


def _fixed(speech: np.ndarray) -> Iterator[bytes]:
    good = encode(speech)
    yield b""
    yield from (good[:n] for n in (1, 4, 11, 12, 36, 43, 44, 45, 46))
    # A header that lies: channels, rate, bytes a second, block, bits, sizes.
    for place, form, values in (
        (22, "<H", (0, 2, 255, 65535)),
        (24, "<I", (0, 1, 999, 1_000_000, 2**31 - 1, 2**32 - 1)),
        (32, "<H", (0, 1, 65535)),
        (34, "<H", (0, 1, 7, 8, 64, 65535)),
        (20, "<H", (0, 2, 3, 6, 17, 85, 65534)),
        (16, "<I", (0, 15, 2**31, 2**32 - 1)),
        (40, "<I", (0, 1, 2**31, 2**32 - 1)),
        (4, "<I", (0, 2**32 - 1)),
    ):
        for value in values:
            changed = bytearray(good)
            struct.pack_into(form, changed, place, value)
            yield bytes(changed)
    for value in (np.nan, np.inf, -np.inf, 1e38):
        samples = speech.copy()
        samples[100:200] = value
        yield encode(samples, subtype="FLOAT")
    yield encode(np.zeros(RATE, np.float32))  # silence
    yield encode(np.zeros((RATE, 200), np.float32))
    yield encode(speech[:160])
    yield encode(np.tile(speech, 100), "FLAC")  # too long
    yield encode(speech, rate=1)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(50_000_000))
    yield bomb.getvalue()
    yield zlib.compress(bytes(50_000_000))
    for text in (
        "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:1/x.wav\n",
        "ffconcat version 1.0\nfile /etc/hostname\n",
        "file '/dev/zero'\n",
        "[playlist]\nFile1=/etc/hostname\nNumberOfEntries=1\n",
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/hostname">]><x>&y;</x>',
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>/etc/hostname</BaseURL></MPD>',
        "<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/hostname'/></svg>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        "<script>alert(1)</script>",
        "$(touch x); `touch x`\n",
    ):
        yield text.encode()
    yield b"cos\nsystem\n(S'true'\ntR."  # a pickle
    yield b"\x93NUMPY\x01\x00" + b"{'descr': '|O', 'shape': (1,)}".ljust(118) + b"\n"
    yield b"\x7fELF" + bytes(2000)
    yield b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(100)
    yield b"OggS" * 500
    yield b"fLaC\x00\x00\x00\x22" + b"\xff" * 34
    yield b"\x00\x00\x00\x18ftypmp42" + b"\x00\x00\x00\x01moov" + b"\xff" * 200
    yield b"FORM\xff\xff\xff\xffAIFFCOMM\x00\x00\x00\x12" + b"\xff" * 60


def _damaged(speech: np.ndarray, rng: np.random.Generator) -> Iterator[bytes]:
    kinds = [
        ("WAV", None),
        ("FLAC", None),
        ("OGG", "VORBIS"),
        ("AIFF", None),
        ("AU", None),
        ("CAF", None),
        ("W64", None),
    ]
    while True:
        for kind, subtype in kinds:
            content = bytearray(encode(speech, kind, subtype))
            match rng.integers(4):
                case 0:  # cut off
                    del content[int(rng.integers(1, len(content))) :]
                case 1:  # a damaged header
                    for _ in range(int(rng.integers(1, 12))):
                        content[int(rng.integers(4, 64))] = int(rng.integers(256))
                case 2:  # damage all over
                    for _ in range(int(rng.integers(1, 400))):
                        content[int(rng.integers(len(content)))] = int(rng.integers(256))
                case 3:  # a part taken out
                    start = int(rng.integers(8, len(content) // 2))
                    del content[start : start + int(rng.integers(1, len(content) // 2))]
            yield bytes(content)
        yield rng.bytes(int(rng.integers(1, 20_000)))
