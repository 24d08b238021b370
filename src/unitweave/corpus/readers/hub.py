"""`unitweave corpus hub`: a corpus from a dataset of the Hugging Face hub, or a local folder in the layout of one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unitweave.config.corpus import Columns, HubCorpus, RowLimits
from unitweave.core.errors import InputError, in_one_line
from unitweave.core.stage import StageResult
from unitweave.corpus.assemble import close_corpus, open_corpus
from unitweave.corpus.readers.records import Record, with_fields
from unitweave.corpus.readers.table import SPLIT_NAMES, TABLE_SPLIT, RowCollector, resolve
from unitweave.corpus.recording_store import RecordingStore


def build_hub(settings: HubCorpus, columns: Columns, limits: RowLimits) -> StageResult:
    """Make a corpus folder from a hub dataset, which is streamed: nothing but the corpus is written to the disk.

    Columns are named as for a table; the audio may be an Audio feature, bytes or paths. Raises InputError.
    """
    splits = _splits(settings)
    folder = Path(settings.out)
    streams = {name: _stream(settings, name) for name in splits}
    plans = {name: resolve(columns, _names(stream), f"{settings.dataset}, {name}") for name, stream in streams.items()}
    open_corpus(folder, "hub", settings)
    root = Path(settings.dataset) if Path(settings.dataset).is_dir() else Path()
    with RecordingStore(folder, settings.workers) as recordings:
        collector = RowCollector(folder, recordings)
        for name, split in splits.items():
            records = _records(streams[name], split if plans[name].split is None else None, settings.dataset)
            plan = plans[name] if plans[name].split else Columns(**vars(plans[name]) | {"split": TABLE_SPLIT})
            collector.add(
                plan, records, f"{Path(settings.dataset).name}-{name}", _split_size(streams[name], name), (root, root)
            )
        return close_corpus(
            folder, "hub", settings, collector.rows, collector.skipped, recordings, limits, settings.allow_skipped
        )


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError("corpus hub needs the package datasets: pip install 'unitweave[hub]'") from None
    return datasets


def _splits(settings: HubCorpus) -> dict[str, str]:
    """Name of each split on the hub -> train, dev or test."""
    columns_found: dict[str, str] = {}
    for given in settings.splits:
        name, _, ours = given.partition("=")
        columns_found[name] = ours or SPLIT_NAMES.get(name, "")
        if columns_found[name] not in ("train", "dev", "test"):
            raise InputError(f"--splits {given}: write NAME=train, NAME=dev or NAME=test")
    if columns_found:
        return columns_found
    with _Explained(settings.dataset):
        names = _datasets().get_dataset_split_names(settings.dataset, settings.config, revision=settings.revision)
    clear = {name: SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES}
    if not clear:
        raise InputError(f"{settings.dataset}: say what its splits {', '.join(names)} are with --splits NAME=train ...")
    return clear


def _stream(settings: HubCorpus, split: str) -> Any:
    datasets = _datasets()
    with _Explained(settings.dataset):
        stream = datasets.load_dataset(
            settings.dataset, settings.config, split=split, revision=settings.revision, streaming=True
        )
        for name, feature in (stream.features or {}).items():
            if isinstance(feature, datasets.Audio):  # decoding is ours: every corpus is decoded alike
                stream = stream.cast_column(name, datasets.Audio(decode=False))
    return stream


def _names(stream: Any) -> list[str]:
    fields = [
        f"{name}.{key}"
        for name, feature in (stream.features or {}).items()
        for key in (feature if isinstance(feature, dict) else getattr(feature, "languages", None) or ())
    ]
    return [*stream.column_names, *fields] if stream.column_names else list(with_fields(next(iter(stream), {})))


def _split_size(stream: Any, split: str) -> int:
    """Number of rows, 0 where the hub does not say."""
    about = (stream.info.splits or {}).get(split)
    return int(about.num_examples or 0) if about else 0


def _records(stream: Any, split: str | None, name: str) -> Iterator[Record]:
    with _Explained(name):
        for number, values in enumerate(stream, start=1):
            yield Record(number, values | {TABLE_SPLIT: split} if split else values)


class _Explained:
    """Turns what the hub's libraries raise for a wrong name or a lost connection into InputErrors."""

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError | ValueError | IndexError) and not isinstance(error, InputError):
            words = in_one_line(error)
            raise InputError(f"{self.dataset}: cannot be loaded from the hub ({words[:300]})") from None
