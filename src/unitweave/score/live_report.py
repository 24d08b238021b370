"""Live translation's scores as a table and as a figure of quality against delay."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.files import atomic_path
from unitweave.core.markdown import markdown_table
from unitweave.score.live import LiveScore, Source


def table(scores: Sequence[LiveScore]) -> str:
    """The scores as a Markdown table; in brackets with computing time."""
    heads = ["", "ASR-BLEU", "text BLEU", "StartOffset", "first speech", "EndOffset", "ATD", "LAAL"]
    rows = []
    for score in scores:
        cells = [score.name, f"{score.asr_bleu:.1f}", f"{score.text_bleu:.1f}"]
        for key in ("start_offset", "first_speech", "end_offset", "atd", "laal"):
            if score.delays is None or score.elapsed is None:
                cells.append("")
            else:
                cells.append(f"{getattr(score.delays, key):.2f} ({getattr(score.elapsed, key):.2f})")
        rows.append([*cells, f"{score.computing:.2f}"])
    return markdown_table([*heads, "computing per second"], rows, "lr")


def caption(sources: Sequence[Source], joined: bool) -> str:
    """What was measured, as a title."""
    seconds = sum(len(source.waveform) for source in sources) / SAMPLE_RATE / len(sources)
    what = "joined recordings" if joined else "recordings"
    return f"{len(sources)} {what} of {seconds:.1f} s on average"


def draw(parts: Sequence[tuple[str, Sequence[LiveScore]]], path: Path) -> None:
    """Quality against delay, side by side for each title: ASR-BLEU over ATD, hollow with computing time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 if len(parts) == 1 else 10.0, 4.0), layout="constrained")
    for axes, (title, scores) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        _draw_curves(axes, scores)
        axes.set_title(title, fontsize="medium")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _draw_curves(axes: Any, scores: Sequence[LiveScore]) -> None:
    groups: dict[str, list[LiveScore]] = {}
    for score in scores:
        if score.delays is None:
            axes.axhline(score.asr_bleu, color="0.5", linestyle="--", linewidth=1, label="offline")
        else:
            groups.setdefault(score.name.split(" ")[0], []).append(score)
    for number, (policy, group) in enumerate(groups.items()):
        color, marker = f"C{number}", "osD^"[number % 4]
        for view, filled in (("delays", True), ("elapsed", False)):
            points = sorted((getattr(score, view).atd, score.asr_bleu) for score in group)
            style: dict[str, Any] = {"color": color, "marker": marker, "linewidth": 1.2 if filled else 0.7}
            label = policy if filled else None
            face = color if filled else "white"
            axes.plot(*zip(*points, strict=True), **style, markerfacecolor=face, label=label)
    axes.set(xlabel="average token delay in seconds (hollow: with computing time)", ylabel="ASR-BLEU")
    axes.set_ylim(0, 1.1 * max(score.asr_bleu for score in scores) + 1)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
