"""What a vocoder costs in intelligibility: word error rate of an independent recognizer, as a markdown table.

    python benchmarks/vocoder_wer.py --vocoder RUN/vocoder --corpus RUN/corpus --units RUN/units [--split test]
        [--limit 200] [--wavs FOLDER] [--plot FILE.png]

The recognizer of the scores (Moonshine tiny, inside the package moonshine-voice) hears the recordings and
what the vocoder makes of their units; neither it nor its training knows our voice. `--wavs` keeps the
audio, `--plot` draws spectrograms of the first three utterances side by side, `--mos` adds DNSMOS.
"""

import argparse
import time
from pathlib import Path

import jiwer
import numpy as np

from unitweave.core.audio import SAMPLE_RATE, read_audio, write_audio
from unitweave.core.manifest import Pair, read_manifest
from unitweave.score.asr.recognizers.moonshine import Moonshine
from unitweave.score.mos import Dnsmos
from unitweave.units.dataset import read_units, read_units_metadata
from unitweave.vocoder.crops import UnitRecording
from unitweave.vocoder.synthesis import TrainedVocoder
from unitweave.vocoder.train import mel_distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocoder", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--units", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--wavs", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--mos", type=int, default=0, metavar="N", help="rate the first N utterances with DNSMOS")
    options = parser.parse_args()
    units = read_units(options.units)
    vocoder = TrainedVocoder.load(options.vocoder)
    vocoder.check_codebook(read_units_metadata(options.units).get("codebook"), options.vocoder)
    pairs = [pair for pair in read_manifest(options.corpus, options.split) if pair.tgt_text and pair.tgt_audio]
    pairs = [pair for pair in pairs if (pair.id, "tgt") in units][: options.limit]
    original = [read_audio(pair.tgt_audio or "") for pair in pairs]
    start = time.perf_counter()
    spoken = vocoder.synthesize([units[pair.id, "tgt"].units for pair in pairs])
    seconds = time.perf_counter() - start
    recognizer = Moonshine()
    predictor = Dnsmos() if options.mos else None

    def error_rate(waveforms: list[np.ndarray]) -> float:
        heard = [recognizer.clean_hypothesis(text) for text in recognizer.transcribe(waveforms)]
        return 100 * float(jiwer.wer([recognizer.clean_reference(pair.tgt_text or "") for pair in pairs], heard))

    def opinion(waveforms: list[np.ndarray]) -> str:
        if predictor is None:
            return "–"
        return f"{np.mean([predictor.predict(w)['dnsmos_ovrl'] for w in waveforms[: options.mos]]):.2f}"

    recordings = [UnitRecording(pair.id, pair.tgt_audio or "", units[pair.id, "tgt"].units) for pair in pairs]
    length = sum(map(len, spoken)) / SAMPLE_RATE
    print(
        f"{len(pairs)} utterances of {options.split}, {length:.0f} s, spoken {length / seconds:.0f} times real time\n"
    )
    distance = mel_distance(vocoder.model, recordings)
    print("| speech | WER (%) | mel distance (nepers) | DNSMOS |")
    print("| --- | ---: | ---: | ---: |")
    print(f"| recordings | {error_rate(original):.1f} | 0 | {opinion(original)} |")
    print(f"| resynthesized from units | {error_rate(spoken):.1f} | {distance:.3f} | {opinion(spoken)} |")
    for pair, waveform in zip(pairs, spoken, strict=True) if options.wavs else ():
        write_audio(options.wavs / f"{pair.id}.wav", waveform)
    if options.plot:
        plot(options.plot, pairs[:3], original, spoken)


def plot(path: Path, pairs: list[Pair], original: list[np.ndarray], spoken: list[np.ndarray]) -> None:
    """Spectrograms: recordings on the left, resynthesis on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    floor = np.random.default_rng(0)
    figure, axes = pyplot.subplots(len(pairs), 2, figsize=(16, 3.5 * len(pairs)), squeeze=False)
    for row, (pair, *both) in enumerate(zip(pairs, original, spoken, strict=False)):
        for column, waveform in enumerate(both):
            audible = waveform + 1e-7 * floor.standard_normal(len(waveform))  # no logarithm of 0
            axes[row, column].specgram(audible, NFFT=512, noverlap=384, Fs=SAMPLE_RATE, vmin=-140, vmax=-30)
            axes[row, column].set_title(f"{pair.tgt_text} ({'recording' if column == 0 else 'from units'})")
    figure.tight_layout()
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    main()
