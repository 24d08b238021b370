"""A miniature CVSS-C, CoVoST 2 and Common Voice in the layouts of the releases."""

import csv
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

SPLITS = ("train", "dev", "test")
# Quotes, backslashes, typographic signs and numbers, as they stand in CoVoST 2.
TEXTS = {
    "es": ['Dijo: "sí".', "El niño \\ la niña", "¿Tienes 3 años?", "L’hotel", '"Uno', "El mar"],
    "zh-CN": ["我有3只猫。", "他说“好”", "今天很好", "是的", "我们走", "再见"],
}
ENGLISH = ["He said yes", "The boy the girl", "Are you three years old", 'The "hotel"', "One", "The sea"]


@dataclass(frozen=True)
class Miniature:
    """The clips (name -> split, source text as spoken, English text) and what stands for each download."""

    folder: Path
    clips: dict[str, tuple[str, str, str]]

    def archives(self) -> list[str]:
        return [str(self.folder / f"cvss_c_{code}_en_v1.0.tar.gz") for code in ("es", "zh")]


def tone(seconds: float, rate: int, seed: int, channels: int = 1) -> np.ndarray:
    """A gliding tone in a little noise, float32 [samples] or [samples, channels]."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (200 + 40 * seed % 300) * t * (1 + 0.2 * t)) + 0.01 * rng.standard_normal(len(t))
    wave = wave.astype(np.float32)
    return wave if channels == 1 else np.stack([wave] * channels, axis=1)


def encoded(wave: np.ndarray, rate: int, kind: str) -> bytes:
    """The bytes of a sound file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=kind)
    return buffer.getvalue()


def pack(path: Path, files: dict[str, bytes]) -> None:
    """A tar.gz with these files, in this order."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def tsv(header: list[str] | None, rows: list[list[str]]) -> bytes:
    """A table as pandas writes it without quoting and with a backslash as the escape character."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", lineterminator="\n")
    writer.writerows([header, *rows] if header else rows)
    return buffer.getvalue().encode()


def build(folder: Path, per_split: int = 6) -> Miniature:
    """Write the archives, tables and folders; Spanish clips in Common Voice's archive, Chinese ones in a folder."""
    clips: dict[str, tuple[str, str, str]] = {}
    (folder / "zh-CN/clips").mkdir(parents=True)
    for tag, texts in TEXTS.items():
        audio: dict[str, bytes] = {}
        voice: dict[str, bytes] = {}
        tables: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
        covost = []
        for number, (split, i) in enumerate((s, i) for s in SPLITS for i in range(per_split if s == "train" else 2)):
            name = f"common_voice_{tag}_{17_299_300 + number * 33}"  # numbers that end in 3, which rstrip(".mp3") eats
            clips[name] = (split, texts[i], ENGLISH[i])
            audio[f"{split}/{name}.mp3.wav"] = encoded(tone(1.2, 24_000, number), 24_000, "WAV")
            voice[f"{tag}/clips/{name}.mp3"] = encoded(tone(1.5, 48_000, 50 + number), 48_000, "MP3")
            tables[split].append([f"{name}.mp3", ENGLISH[i].lower()])
            covost.append([f"{name}.mp3", texts[i], ENGLISH[i] + ".", f"speaker{i % 3}", split])
        tables_in_bytes = {f"{s}.tsv": "".join("\t".join(r) + "\n" for r in tables[s]).encode() for s in SPLITS}
        # One archive has its tables before the clips, the other behind them.
        parts = {**tables_in_bytes, **audio} if tag == "es" else {**audio, **tables_in_bytes}
        pack(folder / f"cvss_c_{tag.split('-')[0]}_en_v1.0.tar.gz", parts)
        table = tsv(["path", "sentence", "translation", "client_id", "split"], covost)
        (folder / f"covost_v2.{tag}_en.tsv").write_bytes(table)
        voice[f"{tag}/clips/common_voice_{tag}_1.mp3"] = b"a clip that CoVoST does not use"
        if tag == "es":
            pack(folder / "es.tar.gz", voice)
        else:
            for name, content in voice.items():
                (folder / name).write_bytes(content)
    return Miniature(folder, clips)


def parquet_layout(mini: Miniature, folder: Path) -> None:
    """The same clips as fixie-ai/covost2 has them: one folder per language pair, audio within the rows."""
    for tag in TEXTS:
        (folder / f"{tag}_en").mkdir(parents=True)
        for split, theirs in zip(SPLITS, ("train", "validation", "test"), strict=True):
            rows = []
            for number, (name, (s, source, english)) in enumerate(mini.clips.items()):
                if s == split and f"_{tag}_" in name:
                    sound = encoded(tone(1.5, 48_000, number), 48_000, "MP3")
                    audio = {"bytes": sound, "path": f"{name}.mp3"}
                    row = {"client_id": "x", "file": f"/a/{name}.mp3", "audio": audio, "sentence": source}
                    rows.append(row | {"translation": english, "id": name})
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{tag}_en/{theirs}-00000-of-00001.parquet")
