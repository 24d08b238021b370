"""The page: record or drop a file, read transcript and translation, hear and download the English speech."""

import html
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import FastAPI
from gradio.utils import get_upload_folder

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.serve.api import given_of, load_recording
from unitweave.serve.batching import Batcher, Busy, Job
from unitweave.serve.guard import PageGuard, uploaded_file
from unitweave.serve.timeline import CSS, timeline
from unitweave.translate.translator import SpeechTranslation

_KEPT_SECONDS = 600  # how long gradio keeps what it needs to show a recording
_FIND_OUT = "find out"
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]


def mount_page(app: FastAPI, title: str, examples: Sequence[Path] = ()) -> FastAPI:
    """Put the page at / of an app that `make_app` made."""
    limits = app.state.batcher.limits
    page = make_page(app.state.batcher, title, examples)
    # gradio checks its clients' paths only on a page that was launched, which mounting does not do.
    page.has_launched = True
    app.add_middleware(PageGuard, folder=upload_folder())
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        max_file_size=int(limits.upload_mb * 1e6),
        allowed_paths=[str(path.absolute()) for path in examples],
        show_error=False,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Default(primary_hue="teal", font=_FONTS, font_mono=["ui-monospace", "monospace"]),
        css=CSS,
    )


def make_page(batcher: Batcher, title: str, examples: Sequence[Path] = ()) -> gr.Blocks:
    """The page's components and what its buttons do."""
    limits = batcher.limits
    languages = sorted(code for code in batcher.translator.decoder.vocabulary.languages if code != "en")

    def translate(path: str | None, language: str | None) -> tuple[Any, ...]:
        return _answer(batcher, path, None if language == _FIND_OUT else language)

    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, _KEPT_SECONDS)) as page:
        gr.Markdown(f"# {title}\nSpeech in, English speech out. Record something or drop a file, up to "
                    f"{limits.audio_seconds:g} seconds.")  # fmt: skip
        with gr.Row():
            with gr.Column(min_width=300):
                source = gr.Audio(label="Recording", sources=["upload", "microphone"], type="filepath", buttons=[])
                language = gr.Dropdown([_FIND_OUT, *languages], value=_FIND_OUT, label="Language of the recording",
                                       visible=len(languages) > 1)  # fmt: skip
                button = gr.Button("Translate", variant="primary")
                if examples:
                    gr.Examples([[str(path)] for path in examples], [source], label="Examples",
                                example_labels=[f"Example {i}" for i in range(1, len(examples) + 1)])  # fmt: skip
            with gr.Column(min_width=300):
                message = gr.HTML(_message("The translation will appear here."))
                transcript = gr.Textbox(label="Heard", lines=2, interactive=False, buttons=["copy"])
                translation = gr.Textbox(label="English", lines=2, interactive=False, buttons=["copy"])
                speech = gr.Audio(label="English speech", interactive=False, buttons=["download"], format="wav")
        words = gr.HTML(label="Words in time")
        gr.Markdown("<small>For programs: the [HTTP API](docs).</small>")
        outputs = [message, transcript, translation, speech, words]
        button.click(translate, [source, language], outputs, api_visibility="private",
                     concurrency_limit=limits.queue, show_progress="minimal")  # fmt: skip
    page.queue(max_size=limits.queue)
    return page


def _answer(batcher: Batcher, path: str | None, language: str | None) -> tuple[Any, ...]:
    """What the page shows for a recording: message, transcript, translation, speech, timelines."""
    if not path:
        return _told("Record something, drop a file, or click on an example first.")
    try:
        waveform = load_recording(uploaded_file(path, upload_folder()), batcher.limits)
        # Words are aligned by the batcher: the encoder is for one thread at a time.
        job = Job(waveform, given_of(None, None, language), aligned=True)
        future = batcher.submit(job)
        result = future.result(timeout=batcher.limits.request_seconds)
    except InputError as error:
        return _told(str(error)[:1].upper() + str(error)[1:] + ".")
    except Busy as error:
        return _told(f"Many people are translating right now. Try again in {error.retry_after} seconds.")
    except FutureTimeoutError:
        future.cancel()
        return _told("This took too long and was given up. Try a shorter recording.")
    heard, said = job.words
    lines = timeline(waveform, heard, f"Heard ({result.language})")
    if len(result.waveform):
        lines += timeline(result.waveform, said, "English")
    speech = (SAMPLE_RATE, (np.clip(result.waveform, -1, 1) * 32767).astype(np.int16)) if len(result.waveform) else None
    return _message(_summary(result)), result.transcript, result.translation, speech, lines


def upload_folder() -> Path:
    """Where gradio keeps what is uploaded to the page."""
    return Path(get_upload_folder())


def _summary(result: SpeechTranslation) -> str:
    spent = sum(result.seconds.values())
    text = f"{result.source_seconds:.1f} s of speech translated in {spent:.1f} s of computing."
    return text if result.complete else text + " The model did not come to an end and was cut off."


def _told(text: str) -> tuple[Any, ...]:
    return _message(text, error=True), "", "", None, ""


def _message(text: str, error: bool = False) -> str:
    kind = " uw-error" if error else ""
    return f'<div class="uw-message{kind}" role="{"alert" if error else "status"}">{html.escape(text)}</div>'
