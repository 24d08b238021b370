"""Which tasks the pairs of a corpus can serve: known from the manifest, hours before a language model is trained."""

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from unitweave.config.interleave import TASK_SEGMENTS, Segment, Task
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair

_LACKS: dict[Segment, str] = {
    "source": "source recording",
    "transcript": "transcript",
    "translation": "translation",
    "target": "target recording",
}


def available_segments(pair: Pair) -> set[Segment]:
    """What a pair has of a training sequence."""
    has: dict[Segment, str | None] = {
        "source": pair.src_audio,
        "transcript": pair.src_text,
        "translation": pair.tgt_text,
        "target": pair.tgt_audio,
    }
    return {segment for segment, value in has.items() if value}


def pairs_by_task(pairs: Sequence[Pair]) -> dict[Task, int]:
    """How many pairs of the train split can serve each task; of all splits where there is no train split."""
    held = [available_segments(pair) for pair in pairs if pair.split == "train"] or [
        available_segments(pair) for pair in pairs
    ]
    return {task: sum(has.issuperset(TASK_SEGMENTS[task]) for has in held) for task in get_args(Task)}


def describe_tasks(pairs: Sequence[Pair]) -> str:
    """A line that says which tasks the pairs can serve, and what the others lack."""
    counts = pairs_by_task(pairs)
    served = ", ".join(f"{task} ({number} pairs)" for task, number in counts.items() if number)
    missing = [task for task, number in counts.items() if not number]
    line = f"tasks that the train split can serve: {served or 'none'}"
    return f"{line}; not {', '.join(missing)}: {_lacking(pairs, missing[0])}" if missing else line


def check_tasks(pairs: Sequence[Pair], tasks: Mapping[Task, float], where: str, extra_text: bool = False) -> None:
    """Raise InputError in one line for a task that no pair can serve; extra text serves the task mt."""
    counts = pairs_by_task(pairs)
    for task, weight in tasks.items():
        if weight > 0 and not counts[task] and not (extra_text and task == "mt"):
            possible = ", ".join(other for other, number in counts.items() if number) or "none"
            raise InputError(
                f"{where}: no pair of the train split can serve the task {task}: {_lacking(pairs, task)} "
                f"(they can serve: {possible})"
            )


def _lacking(pairs: Sequence[Pair], task: Task) -> str:
    needed = TASK_SEGMENTS[task]
    held = [available_segments(pair) for pair in pairs]
    never = [segment for segment in needed if not any(segment in has for has in held)]
    if not never:
        return f"no pair has all of {', '.join(_LACKS[segment] for segment in needed)}"
    found = " and ".join(f"no {_LACKS[segment]}" for segment in never)
    hint = "; 'unitweave corpus speak' makes the missing speech" if set(never) <= {"source", "target"} else ""
    return found + hint


def check_directions(directions: Iterable[tuple[str, str]], tasks: Mapping[Task, float]) -> None:
    """Raise InputError where nothing in a sequence would tell the model which language to speak."""
    directions = sorted(directions)
    for source, target in directions:
        others = [language for code, language in directions if code == source and language != target]
        if others and tasks.get("direct", 0) > 0:
            raise InputError(
                f"tasks.direct: its sequences name no target language, but this corpus translates {source} into "
                f"{', '.join(sorted([target, *others]))}; use s2st, or one target for each source language"
            )
