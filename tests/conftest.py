"""Small real models and data, shared by the tests."""

import os
import signal
import time
from collections.abc import Iterator

# Two tests at a time share two cores: each has one thread, and waiting threads spin but briefly.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from pathlib import Path

import pytest

# Torch is imported in the fixtures: the process that only hands out the tests to others would wait for it.

TEXTS = ["the small dog sleeps", "a red house by the sea", "where is the station", "el perro duerme en la casa"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gpu", action="store_true", help="compute on the GPU where there is one")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--gpu"):  # many tests hold digits that only one kind of device can keep
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--gpu"):
        for item in items:
            if item.get_closest_marker("cpu"):
                item.add_marker(pytest.mark.skip(reason="holds what only a CPU does"))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _no_measurement_of_the_machine() -> Iterator[None]:
    """The peak that a training is compared with takes a second to measure, and half a minute in bf16 without AMX."""
    from unitweave.lm.train import logs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "matrix_peak", lambda device, dtype: 1e11)
        yield


@pytest.fixture(scope="session")
def text_lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights and its tokenizer, in save_pretrained layout."""
    import torch

    from unitweave.config.lm import SmallLm
    from unitweave.lm.model.small import new_llama, train_tokenizer

    folder = tmp_path_factory.mktemp("text_lm")
    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(0)
    new_llama(
        SmallLm(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64), len(tokenizer)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> tuple[Path, Path]:
    """A tiny run of every stage, done once for all workers, and its recipe: make a copy to work with."""
    from helpers.tiny_run import tiny_recipe
    from unitweave.cli import main

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    run, recipe, ready = folder / "run", folder / "tiny.yaml", folder / "ready"
    try:
        folder.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 600
        while not ready.exists():
            assert time.monotonic() < deadline, "the other worker has not finished it"
            time.sleep(0.1)
    else:
        assert main(["run", str(tiny_recipe(folder, text_lm_folder)), "--out", str(run)]) == 0
        ready.touch()
    return run, recipe


@pytest.fixture
def hangups() -> Iterator[None]:
    """SIGHUP as a terminal sends it, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
