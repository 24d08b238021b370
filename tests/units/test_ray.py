"""Extraction on a local Ray gives the bytes of the in-process one, also when a worker is killed on the way.

Needs the extra unitweave[ray], which CI does not install: pip install 'unitweave[ray]' and run this file.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.units_corpus import write_corpus, write_encoder
from unitweave.config.units import ExtractionSettings
from unitweave.core.errors import InputError
from unitweave.units.extract import extract_units

pytestmark = [pytest.mark.slow, pytest.mark.processes]

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

SETTINGS = {"shard_size": 3, "batch_seconds": 3.0}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Workers import what the tests import, from wherever pytest found it.
    path = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return write_corpus(folder / "corpus", 40), *write_encoder(folder)


@pytest.fixture(scope="module")
def expected(inputs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("local")
    extract_units(folder, ExtractionSettings(**SETTINGS), *inputs)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Names and bytes of all files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_from_ray_are_those_of_this_process(
    cluster: None, inputs: tuple[Path, Path, Path], expected: dict[str, bytes], tmp_path: Path
) -> None:
    extract_units(tmp_path, ExtractionSettings(**SETTINGS, backend="ray", workers=1), *inputs)
    assert contents(tmp_path) == expected


def test_a_killed_worker_loses_nothing(
    cluster: None, inputs: tuple[Path, Path, Path], expected: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[str] = []

    def kill_the_encoder() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            if len(list(tmp_path.glob("units-*"))) >= 2:
                for process in psutil.Process().children(recursive=True):
                    name = process.name() + " ".join(process.cmdline()[:1])
                    if "ray::" in name and "_Encoder" in name:
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(name)
                        return
            time.sleep(0.01)

    # A few shards are there already: only the others are done.
    for name in sorted(expected)[:2]:
        (tmp_path / name).write_bytes(expected[name])
    killer = threading.Thread(target=kill_the_encoder)
    killer.start()
    extract_units(tmp_path, ExtractionSettings(**SETTINGS, backend="ray", workers=1), *inputs)
    killer.join()
    assert killed, "no encoder actor was seen: the test killed nothing"
    assert contents(tmp_path) == expected


def test_an_unreadable_recording_is_named(cluster: None, inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 4)
    (corpus / "audio/002_tgt.wav").write_bytes(b"no audio")
    with pytest.raises(InputError, match="002_tgt"):
        extract_units(tmp_path / "units", ExtractionSettings(**SETTINGS, backend="ray", workers=1), corpus, *inputs[1:])
