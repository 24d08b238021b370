"""The page: record or drop a file, read transcript and translation, play and download its speech."""

import asyncio
import html
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import FastAPI, File, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse

from unitweave.core.errors import InputError
from unitweave.core.languages import language_name, language_names
from unitweave.serve import live_page
from unitweave.serve.api import forced_prefix, load_recording
from unitweave.serve.batching import Batcher, Busy, Job, ShuttingDown
from unitweave.serve.clients import HungUp, PageSessions, wait_for, watched
from unitweave.serve.guard import PageGuard
from unitweave.serve.timeline import CSS, timeline
from unitweave.serve.uploads import Storage
from unitweave.serve.wav import to_pcm
from unitweave.translate.translator import UNSURE, SpeechTranslation, Words

_DIRECTION = "\ntextarea { unicode-bidi: plaintext; text-align: start; }"  # Arabic and Hebrew run from the right
_DETECT = "detect"
_DETECTED = ("detect", _DETECT)  # what a menu shows, and its value
# What gradio leaves without words: the name of the download link, and a list of MIME types for a wrong file.
_SCRIPT = """
new MutationObserver(() => {
  for (const link of document.querySelectorAll("a[download]:not([aria-label])"))
    link.setAttribute("aria-label", "Download the speech");
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode())
    if (texts.currentNode.data.includes("Invalid file type"))
      texts.currentNode.data = "This is not a recording. Choose an audio file: wav, mp3, flac, ogg, m4a, ...";
}).observe(document.documentElement, {childList: true, subtree: true, characterData: true});
"""
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]


def mount_page(app: FastAPI, title: str, folder: Path, examples: Sequence[Path] = ()) -> FastAPI:
    """Put the page at / of an app that `make_app` made.

    Args:
        app: The app.
        title: The page's title.
        folder: An empty folder for the page's recordings, of this page alone, named by GRADIO_TEMP_DIR; its owner
            deletes it in the end.
        examples: Recordings to choose from. They are copied: the page shows no path of this machine.
    """
    batcher: Batcher = app.state.batcher
    limits = batcher.limits
    folder = folder.resolve()
    copies = _copy_examples(examples, folder)
    page, translate = make_page(batcher, title, copies)
    # gradio checks its clients' paths only on a page that was launched, which mounting does not do.
    page.has_launched = True
    storage = app.state.storage = Storage(folder, limits.max_storage_mb * 1e6 / 2)
    translate.storage, sessions = storage, translate.sessions
    _add_uploads(app, storage)
    inputs = {index: [_check_of(part) for part in function.inputs] for index, function in page.fns.items()}
    app.add_middleware(PageGuard, storage=storage, sessions=sessions, inputs=inputs, script=_SCRIPT + live_page.SCRIPT,
                       max_lasting=limits.max_connections // 2)  # fmt: skip
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        show_error=False,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Default(primary_hue="teal", font=_FONTS, font_mono=["ui-monospace", "monospace"]),
        css=CSS + live_page.CSS + _DIRECTION,
    )


def _copy_examples(examples: Sequence[Path], folder: Path) -> list[Path]:
    copies = [folder / "examples" / f"example-{i}{path.suffix.lower()}" for i, path in enumerate(examples, 1)]
    for path, copy in zip(examples, copies, strict=True):
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    return copies


def _add_uploads(app: FastAPI, storage: Storage) -> None:
    """In place of gradio's own routes, which keep any number of files and answer with their paths."""

    @app.post("/gradio_api/upload", include_in_schema=False)
    def upload(files: list[UploadFile] = File(max_length=1)) -> list[str]:  # noqa: B008
        (file,) = files
        return [storage.save(file.file, file.size or 0, file.filename or "")]

    @app.get("/gradio_api/upload_progress", include_in_schema=False)
    def progress() -> PlainTextResponse:
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")


class PageTranslator:
    """What the page's button does. The page's recordings are only read from `storage`."""

    def __init__(self, batcher: Batcher, storage: Storage | None = None) -> None:
        self.batcher, self.storage, self.sessions = batcher, storage, PageSessions()

    async def __call__(
        self, path: str | None, language: str | None, target: str | None = None, request: gr.Request | None = None
    ) -> tuple[Any, ...]:
        """What the page shows for a recording: message, transcript, translation, speech, timelines.

        gradio adds the request, which tells whose page it is: a closed one does not wait any more.
        """
        if not path or self.storage is None:
            return _failure("Record something, drop a file, or choose an example first.")
        name = str(request.session_hash) if request else ""
        try:
            async with watched(self.sessions.left(name) if request else asyncio.Event().wait()) as left:
                waveform = await run_in_threadpool(self._load, self.storage, path)
                # Words are aligned by the batcher: the encoder is for one thread at a time.
                chosen = [None if choice == _DETECT else choice for choice in (language, target)]
                job = Job(waveform, forced_prefix(language=chosen[0], target_language=chosen[1]), align=True)
                result = await wait_for(self.batcher, job, left)
        except InputError as error:
            return _failure(str(error)[:1].upper() + str(error)[1:] + ".")
        except Busy as error:
            return _failure(f"Many people are translating right now. Try again in {error.retry_after} seconds.")
        except TimeoutError:
            return _failure("This took too long and was canceled. Try a shorter recording.")
        except ShuttingDown:
            return _failure("The server is shutting down.")
        except HungUp as error:
            return _failure(str(error))
        except Exception:
            logging.getLogger(__name__).exception("a translation failed")
            return _failure("Something went wrong on the server; its log has the details.")
        return await run_in_threadpool(self._shown, waveform, job.words, result)

    def _load(self, storage: Storage, path: str) -> np.ndarray:
        storage.make_room()
        return load_recording(storage.inside(path), self.batcher.limits)

    def _shown(self, waveform: np.ndarray, found: tuple[Words, Words], result: SpeechTranslation) -> tuple[Any, ...]:
        source_words, words = found
        lines = timeline(waveform, source_words, f"Recording ({language_name(result.language)})")
        if not len(result.waveform):
            return _message(_summary(result)), result.transcript, result.translation, None, lines
        label = language_name(result.target_language) or "Translation"
        lines += timeline(result.waveform, words, label, result.sampling_rate)
        speech = result.sampling_rate, to_pcm(result.waveform)
        return _message(_summary(result)), result.transcript, result.translation, speech, lines


def _check_of(component: Any) -> Callable[[Any], Any]:
    """What checks a client's value for one of the page's components: gradio writes a traceback for each wrong one."""

    def check_file(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict) or not isinstance(value.get("path"), str):
            raise InputError("data: must be a recording that was uploaded to this page")
        return {"path": value["path"], "meta": {"_type": "gradio.FileData"}}

    def check_choice(value: Any) -> Any:
        if value is not None and (type(value) not in (str, int) or value not in choices):
            raise InputError("data: must be one of the choices")
        return value

    if isinstance(component, gr.Audio):
        return check_file
    # A dataset's value is the number of an example.
    choices = range(len(component.samples)) if isinstance(component, gr.Dataset) else [c for _, c in component.choices]
    return check_choice


def make_page(batcher: Batcher, title: str, examples: Sequence[Path] = ()) -> tuple[gr.Blocks, PageTranslator]:
    """The page's components, and what its button does."""
    limits = batcher.limits
    v = batcher.translator.decoder.vocabulary
    default = v.language_code(batcher.translator.settings.target_language)
    languages = [(language_name(code), code) for code in v.sources]
    others = [target for target in v.targets if target != default]
    targets = [(language_name(code), code) for code in ([default] if default else []) + others]
    follows = not default and all(len(v.targets_from(source)) == 1 for source in v.sources)
    if follows:
        targets.insert(0, _DETECTED)  # follows from the language of the recording
    name = language_name(v.targets[0]) if len(v.targets) == 1 else "Translation"
    translate = PageTranslator(batcher)

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        spoken = language_names(v.targets) or "translated"
        gr.Markdown(f"# {title}\nSpeech in, {spoken} speech out. Record something or drop a file, up to "
                    f"{limits.max_audio_seconds:g} seconds.")  # fmt: skip
        with gr.Tab("Recording"):
            with gr.Row():
                with gr.Column(min_width=300):
                    source = gr.Audio(label="Recording", sources=["upload", "microphone"], type="filepath", buttons=[])
                    language = gr.Dropdown([_DETECTED, *languages], value=_DETECT, label="Language of the recording",
                                           visible=len(languages) > 1)  # fmt: skip
                    target = gr.Dropdown(targets or [_DETECTED], value=(targets or [_DETECTED])[0][1],
                                         label="Translate into", visible=len(v.targets) > 1)  # fmt: skip
                    button = gr.Button("Translate", variant="primary")
                    if examples:
                        gr.Examples([[str(path)] for path in examples], [source], label="Examples",
                                    example_labels=[f"Example {i}" for i in range(1, len(examples) + 1)])  # fmt: skip
                with gr.Column(min_width=300):
                    message = _html(_message("The translation will appear here."))
                    transcript = gr.Textbox(label="Transcript", lines=2, interactive=False, buttons=["copy"])
                    translation = gr.Textbox(label=name, lines=2, interactive=False, buttons=["copy"])
                    speech = gr.Audio(label="Speech", interactive=False, buttons=["download"], format="wav")
            words = _html()
        with gr.Tab("Live"):
            _html(
                live_page.live_panel(
                    languages,
                    [pair for pair in targets if pair[1] in v.targets],
                    v.has_texts,
                    bool(default) or follows,
                )
            )
        gr.Markdown("<small>For programs: the [HTTP API](docs).</small>")
        outputs = [message, transcript, translation, speech, words]
        button.click(translate.__call__, [source, language, target], outputs, api_visibility="private",
                     concurrency_limit=limits.max_queue, show_progress="minimal")  # fmt: skip
    for function in page.fns.values():
        function.queue = True  # that of the examples would go through a route that is closed
    page.queue(max_size=limits.max_queue)
    return page, translate


def _html(value: str = "") -> gr.Markdown:
    # gr.HTML evaluates strings as scripts, which the page's content security policy forbids. Everything that gets
    # here is escaped.
    return gr.Markdown(value, sanitize_html=False, latex_delimiters=[])


def _summary(result: SpeechTranslation) -> str:
    spent = sum(result.seconds.values())
    text = f"{result.source_seconds:.1f} s of speech translated in {spent:.1f} s of computing."
    if result.confidence is not None:
        text += f" Confidence {result.confidence:.0%}."
    if result.in_domain is False:
        text += f" Careful: {UNSURE}."
    return text if result.complete else text + " The model did not finish and was cut off."


def _failure(text: str) -> tuple[Any, ...]:
    return _message(text, error=True), "", "", None, ""


def _message(text: str, error: bool = False) -> str:
    kind = " uw-error" if error else ""
    return f'<div class="uw-message{kind}" role="{"alert" if error else "status"}">{html.escape(text)}</div>'
