"""Real-time factor of the unit vocoders on this machine, as a markdown table. No files, no downloads.

    python benchmarks/vocoder.py [--seconds 10] [--threads 2] [--repeats 3]

All generators have random weights, which cost what trained ones cost, and are timed in turns in one
run, so that their ratios hold whatever else the machine is doing.
"""

import argparse
import time
from collections.abc import Callable

import torch
from transformers import SeamlessM4TCodeHifiGan, SeamlessM4TConfig

from unitweave.vocoder.config import UnitVocoderConfig
from unitweave.vocoder.model import UnitVocoder


def seamless(frames: int) -> tuple[Callable[[], torch.Tensor], int]:
    """transformers' unit HiFi-GAN at V1 width with our upsampling, spoken without its duration predictor."""
    config = SeamlessM4TConfig(
        unit_hifi_gan_vocab_size=2048, unit_embed_dim=256, spkr_embed_dim=0, lang_embed_dim=0,
        upsample_initial_channel=512, upsample_rates=[5, 4, 4, 2, 2], upsample_kernel_sizes=[11, 8, 8, 4, 4],
    )  # fmt: skip
    generator = SeamlessM4TCodeHifiGan(config).eval().hifi_gan
    hidden = torch.randn(1, config.unit_embed_dim, frames)
    return lambda: generator(hidden), sum(parameter.numel() for parameter in generator.parameters())


def ours(frames: int, **options: object) -> tuple[Callable[[], torch.Tensor], int]:
    """One of our vocoders, units in, waveform out."""
    model = UnitVocoder(UnitVocoderConfig(num_units=2048, **options)).eval()  # type: ignore[arg-type]
    units = torch.randint(0, 2048, (1, frames))
    return lambda: model(units), sum(parameter.numel() for parameter in model.generator.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the spoken utterance")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the fastest of each counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    frames = round(options.seconds * 50)
    candidates = {
        "vocos, harmonic excitation (default)": ours(frames),
        "vocos, no excitation": ours(frames, excitation="none"),
        "hifigan, 128 channels (V2)": ours(frames, generator="hifigan", hifigan_channels=128),
        "hifigan, 512 channels (V1)": ours(frames, generator="hifigan"),
        "transformers SeamlessM4TCodeHifiGan (V1)": seamless(frames),
    }
    fastest = dict.fromkeys(candidates, float("inf"))
    with torch.inference_mode():
        for speak, _ in candidates.values():
            assert speak().shape[-1] == frames * 320
        for _ in range(options.repeats):
            for name, (speak, _) in candidates.items():
                start = time.perf_counter()
                speak()
                fastest[name] = min(fastest[name], time.perf_counter() - start)
    reference = fastest["hifigan, 512 channels (V1)"]
    print(f"{options.seconds:g} s of speech, {options.threads} threads, torch {torch.__version__}, float32\n")
    print("| generator | parameters | real-time factor | times real time | against HiFi-GAN V1 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (_, parameters) in candidates.items():
        factor = fastest[name] / options.seconds
        ratio = reference / fastest[name]
        print(f"| {name} | {parameters / 1e6:.1f} M | {factor:.4f} | {1 / factor:.1f} | {ratio:.1f} x |")


if __name__ == "__main__":
    main()
