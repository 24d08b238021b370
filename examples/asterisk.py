"""Real parallel speech for experiments: the telephone prompts of Debian's asterisk-core-sounds packages.

    python examples/asterisk.py --out asterisk [--languages es fr] [--root FOLDER]

The same prompts were recorded by one professional speaker in English and Spanish (Allison Smith) and by one in
French (June Wallack), CC-BY-SA-3.0. The packages are downloaded with apt-get (or taken from --root, where they
are unpacked or installed), the recordings are decoded with ffmpeg, and OUT/prompts.csv is the input of
`unitweave corpus table`. Prompts of fewer than three words and tones are skipped. The transcripts are used as
they are, with typing errors, missing accents and words that were not spoken.
"""

import argparse
import csv
import gzip
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from debian import fetch

VOICES = {"en": "en_US_f_Allison", "es": "es_MX_f_Allison", "fr": "fr_CA_f_June"}
MIN_WORDS = 3
COLUMNS = ("id", "src_lang", "tgt_lang", "src_audio", "tgt_audio", "src_text", "tgt_text", "speaker")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for packages, recordings and prompts.csv")
    parser.add_argument("--languages", nargs="+", choices=("es", "fr"), default=["es", "fr"])
    parser.add_argument("--root", type=Path, help="folder in which the packages are unpacked; / if they are installed")
    options = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        print("asterisk.py: ffmpeg is needed to decode the recordings; install it first", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        root = options.root or fetch(options.out / "packages", packages(["en", *options.languages]))
        texts = {language: transcripts(root, language) for language in ["en", *options.languages]}
        rows = [row for language in options.languages for row in pairs(root, options.out, texts, language)]
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"asterisk.py: {error}", file=sys.stderr)
        return 2
    with (options.out / "prompts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print(f"{len(rows)} pairs in {options.out / 'prompts.csv'}; continue with\n")
    corpus = f"{options.out}/corpus"
    print(f"  unitweave corpus table --table {options.out}/prompts.csv --out {corpus} --test-ratio 0.1 --dev-ratio 0.1")
    print(f"  unitweave corpus stats {corpus}")
    print("\nand a recipe with\n")
    print(f"  corpus: {{manifest: {corpus}}}")
    print("  encoder: {pretrained: RUN/encoder/model}   # of an earlier run, or facebook/w2v-bert-2.0")
    return 0


def packages(languages: list[str]) -> list[str]:
    """The packages with the prompts of these languages."""
    return [f"asterisk-core-sounds-{language}{kind}" for language in languages for kind in ("", "-g722")]


def transcripts(root: Path, language: str) -> dict[str, str]:
    """Name of each prompt -> its text; lines are "name: text", comments begin with a semicolon."""
    path = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    found = {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            found[name.strip()] = " ".join(text.split())
    return found


def pairs(root: Path, out: Path, texts: dict[str, dict[str, str]], language: str) -> list[list[str]]:
    """Rows of the table for one source language; their recordings are decoded here."""
    names = [
        name
        for name in sorted(texts[language].keys() & texts["en"].keys())
        if all(len(t[name].split()) >= MIN_WORDS and "[" not in t[name] for t in (texts[language], texts["en"]))
        and all(prompt(root, code, name).exists() for code in (language, "en"))
    ]
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(decode, root, out, code, name) for name in names for code in (language, "en")]
        audio = [job.result() for job in jobs]
    return [
        [f"{language}_{name.replace('/', '_')}", language, "en", source, target,
         texts[language][name], texts["en"][name], VOICES[language]]
        for name, source, target in zip(names, audio[::2], audio[1::2], strict=True)
    ]  # fmt: skip


def prompt(root: Path, language: str, name: str) -> Path:
    """Where a prompt's recording is."""
    return root / "usr/share/asterisk/sounds" / VOICES[language] / f"{name}.g722"


def decode(root: Path, out: Path, language: str, name: str) -> str:
    """One recording as wav (16 kHz, mono); returns its path relative to `out`."""
    relative = Path("wav", language, name + ".wav")
    path = out / relative
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.wav")
        command = ["ffmpeg", "-v", "error", "-y", "-f", "g722", "-i", str(prompt(root, language, name)), str(partial)]
        subprocess.run(command, check=True)
        partial.replace(path)
    return str(relative)


if __name__ == "__main__":
    sys.exit(main())
