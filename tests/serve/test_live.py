"""/v1/live over real sockets: what a session gives, what it withstands, whom it refuses, and when it says busy."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets", reason="needs unitweave[serve]")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from helpers.serving import make_run, raw_live, raw_request, running, speech, until
from unitweave.config.live import LiveSettings
from unitweave.config.serve import ServerLimits
from unitweave.core.errors import InputError
from unitweave.serve.app import build_app
from unitweave.serve.batching import Batcher
from unitweave.serve.live import read_settings
from unitweave.serve.live_page import live_panel
from unitweave.serve.security import Access
from unitweave.serve.wav import to_pcm
from unitweave.translate.live.events import SpeechChunk, UtteranceEnd
from unitweave.translate.live.hypotheses import Answer, Request
from unitweave.translate.live.translator import LiveTranslator
from unitweave.translate.translator import Translator
from unitweave.translate.vad import SpeechDetector

pytestmark = pytest.mark.slow
TOKEN = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _loud_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpeechDetector, "probability", lambda self, window: float(np.abs(window).max() > 0.1))


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Translator:
    return Translator.from_pretrained(make_run(tmp_path_factory.mktemp("run"), text_lm_folder))


class Server:
    def __init__(self, port: int, batcher: Batcher, app: Any) -> None:
        self.port, self.batcher, self.app = port, batcher, app

    def connect(self, path: str = "/v1/live", **options: Any) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, close_timeout=2, **options)

    @property
    def sessions(self) -> int:
        app = self.app
        while not hasattr(app, "state"):
            app = app.app
        return app.state.live_sessions


@pytest.fixture(scope="module")
def serve(translator: Translator) -> Iterator[Callable[..., Server]]:
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(access: Access | None = None, **limits: float) -> Server:
            app, batcher = build_app(translator, ServerLimits(**limits), access or Access())  # type: ignore[arg-type]
            return Server(stack.enter_context(running(app)), batcher, app)

        yield start


@pytest.fixture(scope="module")
def server(serve: Callable[..., Server]) -> Server:
    return serve(live_idle_seconds=5.0)


def talk(seconds: float = 1.2) -> np.ndarray:
    return np.concatenate([np.zeros(3000, np.float32), 3 * speech(seconds), np.zeros(12_000, np.float32)])


def pcm(samples: np.ndarray) -> bytes:
    return to_pcm(samples).tobytes()


FINISH = json.dumps({"event": "finish"})


def everything(socket: ClientConnection) -> tuple[list[dict], bytes, int]:
    """All that comes until the server closes: events, speech, close code."""
    events, sound = [], b""
    try:
        while True:
            message = socket.recv(timeout=30)
            if isinstance(message, bytes):
                sound += message
            else:
                events.append(json.loads(message))
    except ConnectionClosed as closed:
        return events, sound, closed.rcvd.code if closed.rcvd else 1006


def session(server: Server, *messages: bytes | str, path: str = "/v1/live") -> tuple[list[dict], bytes, int]:
    with server.connect(path) as socket:
        try:
            for message in messages:
                socket.send(message)
        except ConnectionClosed:
            pass
        return everything(socket)


def test_a_session_gives_what_the_live_translator_gives(server: Server, translator: Translator) -> None:
    events, sound, code = session(server, pcm(talk()), FINISH)
    heard = np.frombuffer(pcm(talk()), "<i2").astype(np.float32) / 32768
    expected = list(LiveTranslator(translator, LiveSettings()).translate([heard]))
    assert code == 1000 and [event["event"] for event in events] == [event.kind for event in expected]
    (end,) = [event for event in expected if isinstance(event, UtteranceEnd)]
    assert {key: events[-1][key] for key in ("transcript", "translation", "start", "end")} == {
        key: end.plain()[key] for key in ("transcript", "translation", "start", "end")
    }
    speech = np.concatenate([event.waveform for event in expected if isinstance(event, SpeechChunk)])
    assert np.abs(np.frombuffer(sound, "<i2") - to_pcm(speech).astype(int)).max() <= 2


def test_the_page_offers_a_target_that_follows_only_where_one_does() -> None:
    targets = [("English", "en"), ("French", "fr"), ("German", "de")]
    menus = [live_panel([("Spanish", "es")], targets, True, follows) for follows in (True, False)]
    assert ["what follows from it" in menu for menu in menus] == [True, False]
    assert all(menu.index('value="en"') < menu.index('value="fr"') and "label hidden" not in menu for menu in menus)
    assert "<label hidden>" in live_panel([("Spanish", "es")], targets[:1], True)


def test_odd_chunks_and_other_rates_give_the_same_words(server: Server) -> None:
    data = pcm(talk())
    whole, _, _ = session(server, data, FINISH)
    odd, _, code = session(server, *[data[i : i + 1777] for i in range(0, len(data), 1777)], FINISH)
    assert code == 1000 and odd[-1]["translation"] == whole[-1]["translation"]
    high = np.repeat(np.frombuffer(data, "<i2"), 3).tobytes()
    events, _, code = session(server, json.dumps({"sample_rate": 48_000}), high, FINISH)
    assert (
        code == 1000 and events[-1]["event"] == "end" and events[-1]["end"] == pytest.approx(whole[-1]["end"], abs=0.1)
    )


@pytest.mark.parametrize(
    ("messages", "code", "problem"),
    [
        (["not json"], 1007, "must be JSON"),
        (["[" * 3000], 1007, "must be JSON"),
        (["[1]"], 1007, "must be an object"),
        ([json.dumps({"sample_rate": 44})], 1007, "sample_rate: must be a whole number"),
        ([json.dumps({"sample_rate": True})], 1007, "sample_rate: must be a whole number"),
        ([json.dumps({"policy": "clairvoyance"})], 1007, "policy: must be one of"),
        ([json.dumps({"chunk_seconds": 0.001})], 1007, "chunk_seconds: must be at least 0.2"),
        ([json.dumps({"max_utterance_seconds": 1e9})], 1007, "max_utterance_seconds"),
        ([json.dumps({"max_utterance_seconds": 10**400})], 1007, "max_utterance_seconds: must be a finite number"),
        ([json.dumps({"policy": "\u00e9" * 300}, ensure_ascii=False)], 1007, "policy: must be one of"),
        (['{"policy": "\\ud800"}'], 1007, "policy: must be one of"),
        (['{"agreement": 1e999}'], 1007, "agreement: must be a whole number"),
        (['{"chunk_seconds": NaN}'], 1007, "chunk_seconds: must be a finite number"),
        (['{"speech_pad_seconds": 1e308}'], 1007, "speech_pad_seconds: must be at most"),
        ([json.dumps({"language": "xx"})], 1007, "language: must be one of"),
        ([json.dumps({"__class__": 1})], 1007, "unknown setting"),
        ([b"\0\0", json.dumps({"policy": "utterance"})], 1007, "the only text message"),
    ],
)
def test_messages_that_are_not_as_described_end_the_session(
    server: Server, messages: list, code: int, problem: str
) -> None:
    events, _, closed = session(server, *messages)
    assert closed == code and events[-1]["event"] == "error" and problem in events[-1]["error"]


def test_noise_silence_bursts_and_clients_that_leave_do_not_take_the_server_down(server: Server) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(-32768, 32767, 40_000, dtype="<i2").tobytes()
    for messages in ([noise], [bytes(64_000)], [b""], [b"\x01"], [noise[:20_000]] * 3, []):
        _, _, code = session(server, *messages, FINISH)
        assert code == 1000
    for messages in ([pcm(talk())], [noise[:5001]], [json.dumps({"policy": "agreement"}), noise]):
        socket = server.connect()
        for message in messages:
            socket.send(message)
        socket.socket.close()  # without a word
    with server.connect() as socket:
        try:
            socket.send(bytes(3 << 20))  # larger than a message may be
            assert everything(socket)[2] == 1009
        except ConnectionClosed:  # the server reads no further, so the connection may be cut in the midst of sending
            pass
    until(lambda: server.sessions == 0)
    assert server.batcher.alive and session(server, pcm(talk()), FINISH)[2] == 1000


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x82\x05hello", 1002),
        (b"\x8f\x80" + bytes(4), 1002),
        (b"\x89\xfe\1\0" + bytes(260), 1002),
        (b"\xc2\x80" + bytes(4), 1002),  # compressed
        (b"\x81\x82" + bytes(4) + b"\xc3\x28", 1007),
        (b"\x01\x81" + bytes(4) + b"\xc3" + b"\x80\x81" + bytes(4) + b"\x28", 1007),  # in two fragments
    ],
)
def test_broken_frames_end_the_session_and_nothing_is_logged(
    server: Server, caplog: pytest.LogCaptureFixture, frame: bytes, code: int
) -> None:
    with server.connect() as socket:
        socket.socket.sendall(frame * 2)
        assert everything(socket)[2] == code
    until(lambda: server.sessions == 0)
    assert refusal(server, Origin="http://evil.example") == 403
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_flood_of_pings_whose_answers_are_not_read_is_cut_off(server: Server) -> None:
    pings = (b"\x89\xfd" + bytes(4 + 125)) * 4000
    sent = 0
    with raw_live(server.port) as raw, pytest.raises(ConnectionError):
        while sent < 100:
            raw.sendall(pings)
            sent += 1
    assert sent < 40, "20 MB: the buffers of both sides, and no more"
    until(lambda: server.sessions == 0)


def test_a_client_that_sends_faster_than_speech_waits_and_loses_nothing(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitweave.serve.live._FASTER", 0.0)  # this machine may be slow
    server = serve(max_live_backlog_seconds=1.0)
    data = pcm(np.tile(talk(0.6), 6))
    events, _, code = session(server, *[data[i : i + 32_000] for i in range(0, len(data), 32_000)], FINISH)
    assert code == 1000 and [event["event"] for event in events].count("end") == 6


def test_a_server_that_cannot_keep_up_says_busy(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(max_live_backlog_seconds=0.3)
    gate = threading.Event()
    answer_all = server.batcher.live.answer_all

    def slow(requests: list[Request], wanted: object) -> list[Answer]:
        gate.wait(20)
        return answer_all(requests, wanted)

    monkeypatch.setattr(server.batcher.live, "answer_all", slow)
    data = pcm(np.concatenate([talk(0.5)] * 3))
    with server.connect() as socket:
        with pytest.raises(ConnectionClosed):
            for at in range(0, len(data), 3200):  # at the speed of speech
                socket.send(data[at : at + 3200])
                time.sleep(0.1)
        events, _, code = everything(socket)
    gate.set()
    assert code == 1013 and events[-1]["error"].startswith("busy")
    until(lambda: server.sessions == 0)


def test_one_session_too_many_is_told_busy_and_leaving_makes_room(serve: Callable[..., Server]) -> None:
    server = serve(max_live_sessions=1)
    with server.connect():
        until(lambda: server.sessions == 1)
        for messages in ([], [pcm(talk())] * 3 + [FINISH]):  # also one that speaks before it is answered
            events, _, code = session(server, *messages)
            assert code == 1013 and "busy" in events[0]["error"]
    until(lambda: server.sessions == 0)
    assert session(server, FINISH)[2] == 1000


def test_idle_and_endless_sessions_end(serve: Callable[..., Server]) -> None:
    server = serve(live_idle_seconds=0.3, max_live_seconds=2.0)
    events, _, code = session(server)
    assert code == 1001 and "no input for" in events[-1]["error"]
    events, _, code = session(server, bytes(60_000), bytes(60_000))
    assert code == 1001 and "may last 2 s" in events[-1]["error"]
    with server.connect() as client, pytest.raises(ConnectionClosed) as ended:
        while True:  # hardly any samples, but never idle
            client.send(b"")
            time.sleep(0.05)
    assert ended.value.rcvd is not None and ended.value.rcvd.code == 1001


def test_sessions_share_batches(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    answer_all = server.batcher.live.answer_all

    def counted(requests: list[Request], wanted: object) -> list[Answer]:
        sizes.append(len(requests))
        time.sleep(0.1)
        return answer_all(requests, wanted)

    monkeypatch.setattr(server.batcher.live, "answer_all", counted)
    found: list[tuple] = []
    threads = [threading.Thread(target=lambda: found.append(session(server, pcm(talk()), FINISH))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(sizes) > 1 and len({events[-1]["translation"] for events, _, _ in found}) == 1
    assert [code for _, _, code in found] == [1000] * 4


def test_a_server_that_stops_ends_its_sessions(translator: Translator) -> None:
    app, _ = build_app(translator, ServerLimits(), Access())
    with running(app) as port:
        socket = connect(f"ws://127.0.0.1:{port}/v1/live", compression=None)
        socket.send(bytes(1000))
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=10)


def refusal(server: Server, path: str = "/v1/live", **headers: str) -> int:
    try:
        with server.connect(path, additional_headers=headers):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_strangers_are_refused_before_the_handshake(server: Server, serve: Callable[..., Server]) -> None:
    assert refusal(server) == 101
    assert refusal(server, Origin=f"http://127.0.0.1:{server.port}") == 101
    assert refusal(server, Origin="http://evil.example") == 403
    assert refusal(server, **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "websocket"}) == 403
    assert refusal(server, "/gradio_api/queue/join") == 404
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://evil.example:{server.port}/v1/live", sock=_to(server)):
        pass
    assert refused.value.response.status_code == 421
    locked = serve(Access(token=TOKEN))
    assert refusal(locked) == 401
    assert refusal(locked, Authorization="Bearer wrong-horse-battery") == 401
    assert refusal(locked, f"/v1/live?token={TOKEN}") == 401
    assert refusal(locked, Authorization=f"Bearer {TOKEN}") == 101


@pytest.mark.parametrize("wrong", [("13", "12"), ("-Key: AAAA", "-Key: A"), ("-Key", "-Other"), ("GET", "POST")])
def test_what_is_no_handshake_is_an_error_of_the_documented_form(server: Server, wrong: tuple[str, str]) -> None:
    handshake = (
        "GET /v1/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    answer = raw_request(server.port, handshake.replace(*wrong).encode()).decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 4") and "X-Content-Type-Options: nosniff" in head
    assert list(json.loads(body)) == ["error"] and "Failed" not in body


def _to(server: Server) -> Any:
    return socket.create_connection(("127.0.0.1", server.port))


def test_settings_of_a_client() -> None:
    settings, rate, known = read_settings({"sample_rate": 8000, "language": "es", "policy": "wait-k"}, 60)
    assert (settings.policy, rate, known.language) == ("wait-k", 8000, "es")
    assert read_settings({"max_utterance_seconds": 10}, 10)[0].max_utterance_seconds == 10
    with pytest.raises(InputError, match="at most 10 here"):
        read_settings({"max_utterance_seconds": 20}, 10)
