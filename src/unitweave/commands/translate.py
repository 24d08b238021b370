"""unitweave translate."""

import json
import sys
from pathlib import Path

from unitweave.commands.base import Parser


def translate(arguments: list[str]) -> None:
    """unitweave translate MODEL RECORDING... [-o DIR]"""
    from dataclasses import replace

    import torch

    from unitweave.config.translate import SegmentationSettings
    from unitweave.core.errors import InputError
    from unitweave.core.progress import say
    from unitweave.training.devices import check_device
    from unitweave.translate.decode import ForcedPrefix
    from unitweave.translate.files import find_tasks, translate_files
    from unitweave.translate.translator import Translator

    parser = Parser(prog="unitweave translate", description="Translate recordings into spoken English.")
    parser.add_argument("model", help="a run folder, an exported model, or the name of one on the hub (owner/name)")
    parser.add_argument("audio", nargs="+", help="recordings, folders of recordings, or patterns such as 'talks/*.mp3'")
    parser.add_argument("-o", "--out", type=Path, default=Path("translations"), help="where the results go")
    parser.add_argument("--system", help="which system of a run folder (default: scheduled, or the only one)")
    parser.add_argument("--text-only", action="store_true", help="stop after the translation; no speech")
    parser.add_argument(
        "--num-beams", type=int, help="beams of the search over the texts (default: the model's settings)"
    )
    parser.add_argument("--temperature", type=float, help="sample the units; 0 takes the most probable one")
    parser.add_argument("--batch-size", type=int, help="utterances decoded together")
    parser.add_argument("--seed", type=int, help="of the sampling")
    parser.add_argument("--transcript", help="what is said, where you know it (one short recording)")
    parser.add_argument("--translation", help="what is to be said (one short recording)")
    parser.add_argument("--language", help="language of the recordings, where the model should not find it out")
    parser.add_argument("--cut-above", type=float, default=30.0, help="seconds above which a recording is cut")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds of the longest utterance it is cut into")
    parser.add_argument(
        "--bf16", action="store_true", help="the language model in bfloat16: faster, slightly other results"
    )
    parser.add_argument("--engine", help="int8: the language model with integer weights, for large ones on a CPU")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    known = parser.parse_args(arguments)
    check_device(known.device, "--device")
    if known.out.exists() and not known.out.is_dir():
        raise InputError(f"-o {known.out}: is a file; name a folder")
    if known.longest < 1 or known.cut_above <= 0:
        raise InputError("--longest must be at least 1 second and --cut-above above 0")
    tasks = find_tasks(known.audio, known.out)
    prefix = None
    if known.transcript is not None or known.translation is not None or known.language is not None:
        prefix = ForcedPrefix(known.transcript, known.translation, known.language)
        if len(tasks) > 1 and (known.transcript is not None or known.translation is not None):
            raise InputError(f"--transcript and --translation need a single recording (got {len(tasks)})")
    dtype = torch.bfloat16 if known.bf16 else torch.float32
    translator = Translator.from_pretrained(known.model, known.system, known.device, dtype, known.engine)
    named = {name: getattr(known, name) for name in ("num_beams", "temperature", "batch_size", "seed")}
    settings = replace(
        translator.settings, text_only=known.text_only, **{k: v for k, v in named.items() if v is not None}
    )
    segmentation = SegmentationSettings(max_speech_seconds=known.longest)
    failed = []
    for done in translate_files(translator, tasks, settings, prefix, segmentation, known.cut_above):
        if done.about is None:
            failed.append(done.error)
            if len(tasks) > 1:
                say(done.error)
            continue
        shown = {key: done.about[key] for key in ("transcript", "translation")}
        wav = done.task.stem.with_name(done.task.stem.name + ".wav")
        print(_one_line(({} if settings.text_only else {"audio": str(wav)}) | shown), flush=True)
    if failed and len(tasks) == 1:
        raise InputError(failed[0])
    if failed:
        raise InputError(f"{len(failed)} of {len(tasks)} recordings could not be translated, the first: {failed[0]}")


def _one_line(about: dict[str, str]) -> str:
    """As JSON; with escapes where the terminal has no such letters, or a file's name is no UTF-8."""
    line = json.dumps(about, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(about)
    return line
