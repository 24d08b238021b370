"""Several recordings in one file, put one after the other as `cat a.mp3 b.mp3` does, and where each of them is.

Decoders read the first and leave the rest out without a word: its header says how long the whole is. Where an MP3 has
no such header and its frames differ in size, they estimate its length, and the end is lost, too. So is the sound of a
WAV whose recorder never wrote how long it became.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MPEG_RATES = ((11025, 12000, 8000), (0, 0, 0), (22050, 24000, 16000), (44100, 48000, 32000))  # by version bits
_MPEG_KBITS = {  # (version 1, layer) -> bit rate by its index
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_KBITS[False, 3] = _MPEG_KBITS[False, 2]
_TAG = re.compile(b"Xing|Info")  # of a frame without sound that says how many frames follow
_SYNC = re.compile(b"\xff[\xe0-\xff]|ID3")
_FLAC = re.compile(b"fLaC[\x00\x80]\x00\x00\x22")
_STRAY_BYTES = 1024  # behind a WAV, that are not taken for sound
_MPEG_TAGS = (0x50, 0x55)  # of a WAV's format
_UNKNOWN_BYTES = 0x7FFF0000  # and more are what writers announce that do not know yet
_SLACK_FRAMES = 2  # encoders do not agree on whether the frame with the tag counts
_TAG_KBITS_INDEX = 9  # bit rate of a frame that is large enough for a tag


@dataclass(frozen=True)
class JoinedRecording:
    """One of the recordings: bytes [start, end), to be read behind the bytes of `head`.

    `missing` is the fraction of the sound that its header announces and that is not there.
    """

    start: int
    end: int
    head: bytes = b""
    missing: float = 0.0


def locate_recordings(data: memoryview) -> list[JoinedRecording]:
    """The recordings in a file's content; a single one unless it is MP3, Ogg, FLAC or WAV of several."""
    head = bytes(data[:4])
    if head == b"OggS":
        return _ogg_parts(data)
    if head == b"fLaC":
        starts = [match.start() for match in _FLAC.finditer(data)] or [0]
    elif head == b"RIFF":
        starts = list(_riff_starts(data))
        if len(starts) == 1:
            return [_mpeg_in_wav(data) or _unfinished_wav(data) or JoinedRecording(0, len(data), b"", _missing(data))]
    elif head == b".snd":
        starts = list(_au_starts(data))
    elif head[:3] == b"ID3" or _frame(data, 0):
        return _mpeg_parts(data)
    else:
        starts = [0]
    return [JoinedRecording(start, end) for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def _riff_starts(data: memoryview) -> Iterator[int]:
    at = 0
    while at == 0 or (data[at : at + 4] == b"RIFF" and data[at + 8 : at + 12] == b"WAVE"):
        yield at
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def _chunks(data: memoryview, at: int = 12) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content, and size that is announced, of each chunk of a RIFF file from `at` on."""
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield bytes(data[at : at + 4]), at + 8, size
        at += 8 + size + size % 2


def _sound_chunk(data: memoryview) -> tuple[int, int] | None:
    """Place and announced size of a WAV's sound; None where it has none."""
    return next(((at, size) for name, at, size in _chunks(data) if name == b"data"), None)


def _mpeg_in_wav(data: memoryview) -> JoinedRecording | None:
    """The MPEG audio in a WAV's wrapping, which decoders of WAV do not read; None for any other WAV."""
    found = next((at for name, at, _ in _chunks(data) if name == b"fmt "), None)
    sound = _sound_chunk(data)
    if found is None or sound is None or int.from_bytes(data[found : found + 2], "little") not in _MPEG_TAGS:
        return None
    return JoinedRecording(sound[0], min(sum(sound), len(data)))


def _missing(data: memoryview) -> float:
    at, size = _sound_chunk(data) or (0, 0)
    return max(1 - (len(data) - at) / size, 0.0) if 0 < size < _UNKNOWN_BYTES else 0.0


def _unfinished_wav(data: memoryview) -> JoinedRecording | None:
    """A WAV whose data chunk claims less than what is there, behind a header without a length; None for any other."""
    sound = _sound_chunk(data)
    if sound is None:
        return None
    at, size = sound
    end = at + size + size % 2
    if len(data) - end < max(_STRAY_BYTES, size // 100) or _is_no_sound(data, end, size > 0):
        return None
    unknown = b"\xff" * 4
    return JoinedRecording(at, len(data), b"".join((b"RIFF", unknown, data[8 : at - 4], unknown)))


def _is_no_sound(data: memoryview, at: int, length_known: bool) -> bool:
    """Whether what stands behind a WAV's sound is other chunks, tags, or zeros that fill up a block."""
    name = bytes(data[at : at + 4])
    if length_known and (name.isalnum() or name[:3] in (b"ID3", b"TAG")):
        return True
    behind = at
    for chunk, start, size in _chunks(data, at):
        behind = start + size if re.fullmatch(b"[ -~]{4}", chunk) else 0
        if not behind:
            break
    return 0 <= len(data) - behind < 8 or (length_known and not bytes(data[at:]).strip(b"\0"))


def _au_starts(data: memoryview) -> Iterator[int]:
    at = 0
    while data[at : at + 4] == b".snd" and at + 24 <= len(data):
        yield at
        at += int.from_bytes(data[at + 4 : at + 8]) + int.from_bytes(data[at + 8 : at + 12])
    if at == 0:
        yield 0


def _ogg_parts(data: memoryview) -> list[JoinedRecording]:
    """A part where a stream begins after pages of another; streams that begin together are one recording."""
    at, in_stream, starts = 0, True, [0]
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        first_page = bool(data[at + 5] & 2)
        if first_page and not in_stream:
            starts.append(at)
        in_stream = first_page
        segments = data[at + 26]
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
    end = len(data) if at > len(data) or bytes(data[at:]).strip(b"\0") else at  # zeros behind it confuse decoders
    return [JoinedRecording(start, behind) for start, behind in zip(starts, [*starts[1:], end], strict=True)]


def _frame(data: memoryview, at: int) -> tuple[int, tuple[int, int, int]] | None:
    """Length in bytes of the MPEG audio frame at `at`, and its version, layer and rate; None where there is none."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    kbits, rate_index = data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or layer == 4 or kbits in (0, 15) or rate_index == 3:
        return None
    bits = 1000 * _MPEG_KBITS[version == 3, layer][kbits]
    rate, padding = _MPEG_RATES[version][rate_index], data[at + 2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate + padding) * 4, (version, layer, rate)
    samples_by_8 = 72 if layer == 3 and version != 3 else 144
    return samples_by_8 * bits // rate + padding, (version, layer, rate)


@dataclass
class _Frames:
    """Frames of MPEG audio that belong together."""

    start: int
    first: int  # where the first frame with sound is
    header: bytes
    counted: int | None = None  # frames by the tag
    frames: int = 0
    sizes: tuple[int, int] = (1 << 30, 0)  # smallest and largest


def _mpeg_parts(data: memoryview) -> list[JoinedRecording]:
    """Cut where a frame has a tag of its own or another kind of frames begins; check the tags' numbers of frames."""
    frames: list[_Frames] = []
    at, kind = 0, None
    while at < len(data):
        if data[at : at + 3] == b"ID3":
            size = [byte & 0x7F for byte in bytes(data[at + 6 : at + 10])]
            at += 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(size))
            continue
        frame = _frame(data, at)
        if frame is None or not (kind == frame[1] or at + frame[0] >= len(data) - 128 or _frame(data, at + frame[0])):
            at = _next_sync(data, at + 1)
            continue
        tag = _TAG.search(data, at + 4, min(at + 44, len(data) - 8))  # the number of frames stands behind it
        if tag or kind != frame[1]:
            frames.append(_Frames(at if frames else 0, at, bytes(data[at : at + 4])))
            kind = frame[1]
        part = frames[-1]
        if tag:
            place = tag.start()
            part.counted = int.from_bytes(data[place + 8 : place + 12]) if data[place + 7] & 1 else None
            part.first = at + frame[0]
        else:
            part.frames += 1
            # A frame's padding of one byte makes no variable bit rate.
            part.sizes = min(part.sizes[0], frame[0]), max(part.sizes[1], frame[0])
        at += frame[0]
    if not frames:  # tags alone
        return [JoinedRecording(0, len(data))]
    ends = [part.start for part in frames[1:]] + [len(data)]
    return [_repaired(part, end) for part, end in zip(frames, ends, strict=True)]


def _repaired(part: _Frames, end: int) -> JoinedRecording:
    """The part as it is, or behind a tag with the right number of frames where its own is too small or missing."""
    varies = part.sizes[1] > part.sizes[0] + 1 and part.header[1] >> 1 & 3 == 1  # layer III
    if part.counted is None and not varies:
        return JoinedRecording(part.start, end)
    if part.counted is not None and part.counted + _SLACK_FRAMES >= part.frames:
        return JoinedRecording(part.start, end, b"", max(1 - (part.frames + _SLACK_FRAMES) / (part.counted or 1), 0.0))
    # The last byte's upper bits say how many channels there are, and the side information depends on them.
    header = bytes((0xFF, part.header[1] | 1, _TAG_KBITS_INDEX << 4 | part.header[2] & 0x0C, part.header[3]))
    frame = _frame(memoryview(header), 0)
    assert frame is not None
    version1, mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    side = (17 if mono else 32) if version1 else (9 if mono else 17)
    tag = header + bytes(side) + b"Xing" + (1).to_bytes(4) + part.frames.to_bytes(4)
    return JoinedRecording(part.first, end, tag.ljust(frame[0], b"\0"))


def _next_sync(data: memoryview, at: int) -> int:
    """Where the next frame or tag may begin."""
    match = _SYNC.search(data, at)
    return match.start() if match else len(data)
