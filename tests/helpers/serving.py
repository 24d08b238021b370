"""A tiny translator of random weights, and recordings, for the tests of serving."""

import io
import socket
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
import torch
from scipy.signal import lfilter
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.encoders import random_checkpoint
from unitweave.config.translate import DecodingSettings
from unitweave.config.units import EncoderSettings, SmallEncoder
from unitweave.core.manifest import Pair, write_manifest
from unitweave.lm.model.vocabulary import Vocabulary, extend_model, extend_tokenizer
from unitweave.units.codebook import Codebook
from unitweave.units.dataset import UnitRow, write_shard
from unitweave.units.encoder import CharacterVocabulary, encoder_fingerprint, new_encoder
from unitweave.units.initial_encoder import initial_encoder
from unitweave.vocoder.config import UnitVocoderConfig
from unitweave.vocoder.model import UnitVocoder

NUM_UNITS = 16
_FORMANTS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
)  # Hz: a i u e o
SETTINGS = DecodingSettings(max_text_tokens_per_second=1.0, max_units_per_frame=0.2, batch_size=4)


def write_random_lm(folder: Path, text_lm: Path, num_units: int, codebook: str) -> None:
    """A tiny language model of units, of random weights that are sharp enough for its choices to differ."""
    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(text_lm)
    model = AutoModelForCausalLM.from_pretrained(text_lm, dtype=torch.float32)
    vocabulary = extend_tokenizer(tokenizer, num_units, ["en", "es"], codebook)
    extend_model(model, vocabulary, seed=1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    vocabulary.save(folder)


def make_run(folder: Path, text_lm: Path, codebook_seed: int = 0, encoder_kind: str = "") -> Path:
    """A run folder with one system, "scheduled", of random weights: everything that translating needs.

    `encoder_kind` names another class of encoders than our own small one: see encoders.py.
    """
    torch.manual_seed(1)
    characters = CharacterVocabulary.from_texts(["abcdefghijklmnopqrstuvwxyz áéíóúñ"])
    encoder = folder / "encoder" / "model"
    if encoder_kind:
        random_checkpoint(folder / "hub", encoder_kind)
        settings = EncoderSettings(pretrained=str(folder / "hub"))
        (model, _, _), extractor = initial_encoder(settings, characters)
        extractor.save_pretrained(encoder)
    else:
        shape = SmallEncoder(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        model = new_encoder(shape, characters)
    model.save_pretrained(encoder)
    characters.save(encoder)
    torch.manual_seed(codebook_seed)
    book = Codebook(torch.randn(NUM_UNITS, model.config.hidden_size), 2, encoder_fingerprint(encoder))
    (folder / "codebook").mkdir()
    book.save(folder / "codebook")
    write_random_lm(folder / "lm" / "scheduled" / "model", text_lm, NUM_UNITS, book.fingerprint)
    config = UnitVocoderConfig(NUM_UNITS, book.fingerprint, dim=16, hidden=16, layers=1, fine_layers=1)
    UnitVocoder(config).save_pretrained(folder / "vocoder")
    (folder / "recipe.yaml").write_text(
        "corpus: {embedded: {languages: [es]}}\n"
        "translate: {max_text_tokens_per_second: 1.0, max_units_per_frame: 0.2, batch_size: 4}\n"
    )
    return folder


def make_test_split(run: Path, utterances: int) -> None:
    """Give a run of `make_run` a test split: random units on both sides, and texts."""
    vocabulary, none = Vocabulary.load(run / "lm/scheduled/model"), np.empty(0, np.int32)
    rng = np.random.default_rng(0)
    rows = []
    for i, length in enumerate(rng.integers(5, 60, size=utterances)):
        for side in ("src", "tgt"):
            units = rng.integers(0, NUM_UNITS, size=int(length)).astype(np.uint16)
            rows.append(UnitRow(f"u{i}", side, units, [], none, none, none.astype(np.float32)))
    metadata = {"codebook": vocabulary.codebook, "num_units": str(NUM_UNITS), "frame_rate": "50"}
    write_shard(run / "units", 0, rows, metadata)
    pairs = [Pair(f"u{i}", "test", "es", "en", "x", None, "el perro", "the dog") for i in range(utterances)]
    write_manifest(run / "corpus", pairs)


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """A buzz with a melody, float32 [samples] at 16 kHz: enough for an encoder to make units of."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16_000)) / 16_000
    pitch = 120 + 40 * np.sin(2 * np.pi * (0.7 + 0.1 * seed) * t)
    buzz = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / 16_000)) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return (0.2 * buzz + 0.01 * rng.normal(size=len(t))).astype(np.float32)


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Vowels with a melody, float32 [samples] at 16 kHz: a detector of speech takes them for speech."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * 16_000)
    t = np.arange(samples) / 16_000
    pitch = 120 + 20 * (seed % 4) + 25 * np.sin(2 * np.pi * (0.7 + 0.1 * seed) * t)
    pulses = np.diff(np.floor(np.cumsum(pitch) / 16_000), prepend=0.0)
    voice = lfilter([1], [1, -0.97], pulses) + 0.02 * rng.normal(size=samples)
    spoken = np.zeros(samples)
    for first in range(0, samples, 2_560):
        part = voice[first : first + 2_560]
        for formant, bandwidth in zip(_FORMANTS[rng.integers(len(_FORMANTS))], (80, 90, 120), strict=True):
            radius = np.exp(-np.pi * bandwidth / 16_000)
            part = lfilter([1 - radius], [1, -2 * radius * np.cos(np.pi * formant / 8_000), radius**2], part)
        at = np.arange(len(part))
        spoken[first : first + len(part)] = part * np.minimum(1, np.minimum(at, at[::-1] + 1) / 480)
    loud = 0.3 * spoken / max(float(np.abs(spoken).max(initial=0.0)), 1e-9)
    return (loud + 0.003 * rng.normal(size=samples)).astype(np.float32)


def wav(seconds: float = 0.5, seed: int = 0) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, voice(seconds, seed), 16_000, format="WAV")
    return file.getvalue()


def post(
    server: SimpleNamespace, path: str, content: bytes | None, name: str = "a.wav", **fields: str
) -> tuple[int, dict, bytes]:
    """A multipart upload as browsers send it: status, headers, body."""
    edge = uuid.uuid4().hex
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()
    ]
    if content is not None:
        head = f'--{edge}\r\nContent-Disposition: form-data; name="audio"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    body = b"".join(parts) + f"--{edge}--\r\n".encode()
    request = urllib.request.Request(server.url + path, body, {"Content-Type": f"multipart/form-data; boundary={edge}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@contextmanager
def running(app: Any, connections: int = 256, **deadlines: float) -> Iterator[int]:
    """A server as `unitweave serve` starts it, in a thread; gives its port. Deadlines are those of TimedProtocol."""
    from unitweave.serve.protocol import TimedProtocol
    from unitweave.serve.server import bind, make_server

    listener = bind("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    server = make_server(app, connections, type("TestProtocol", (TimedProtocol,), deadlines))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    until(lambda: server.started)
    yield port
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def raw_request(port: int, request: bytes, timeout: float = 20.0) -> bytes:
    """What the server answers to these bytes, until it closes or nothing comes any more."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while block := connection.recv(65_536):
                answer += block
        except OSError:
            pass
        return answer


def raw_live(port: int) -> socket.socket:
    """A live session whose frames are yours to make."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    raw.sendall(b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")  # fmt: skip
    assert b" 101 " in raw.recv(1000)
    return raw


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.01)
    raise AssertionError(f"not true within {seconds:g} s")
