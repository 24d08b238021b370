"""unitweave translate."""

from pathlib import Path

from unitweave.commands.base import Parser


def translate(arguments: list[str]) -> None:
    """unitweave translate RUN WAV... [-o DIR] [--system NAME]"""
    import json

    from unitweave.core.audio import write_audio
    from unitweave.core.files import write_json
    from unitweave.serve.translate import Translator

    parser = Parser(prog="unitweave translate", description="Translate recordings into spoken English.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("audio", type=Path, nargs="+", help="recordings")
    parser.add_argument("-o", "--out", type=Path, default=Path("translations"), help="where the results go")
    parser.add_argument("--system", default="scheduled", help="which system of the run (default: scheduled)")
    known = parser.parse_args(arguments)
    translator = Translator.from_run(known.run, known.system)
    for path in known.audio:
        result = translator.translate(path)
        wav = known.out / f"{path.stem}.wav"
        write_audio(wav, result.waveform)
        about = {
            "source": str(path),
            "language": result.language,
            "transcript": result.transcript,
            "translation": result.translation,
            "units": result.units.tolist(),
            "complete": result.complete,
            "seconds": result.seconds,
        }
        write_json(wav.with_suffix(".json"), about)
        print(
            json.dumps({"audio": str(wav)} | {k: about[k] for k in ("transcript", "translation")}, ensure_ascii=False)
        )
