"""Vocoders from elsewhere under one protocol: fairseq's unit HiFi-GAN, the user's function, other rates and voices."""

import json
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm

from unitweave.config.vocoder import VocoderSettings
from unitweave.core.errors import InputError
from unitweave.units.dataset import UnitRow, write_shard
from unitweave.vocoder.adopt import adopt_vocoder
from unitweave.vocoder.base import Vocoder
from unitweave.vocoder.config import UnitVocoderConfig, timing
from unitweave.vocoder.model import UnitVocoder
from unitweave.vocoder.synthesis import TrainedVocoder

CONFIG: dict[str, Any] = {
    "resblock": "1", "num_embeddings": 20, "embedding_dim": 8, "model_in_dim": 8, "sampling_rate": 16_000,
    "upsample_rates": [5, 4, 4, 4, 2], "upsample_kernel_sizes": [11, 8, 8, 8, 4], "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 2]],
    "dur_predictor_params": {
        "encoder_embed_dim": 8, "var_pred_hidden_dim": 6, "var_pred_kernel_size": 3, "var_pred_dropout": 0.5,
    },
}  # fmt: skip


class FairseqsLayout(nn.Module):
    """The modules of fairseq's CodeHiFiGANVocoder under its names, after its papers: what a checkpoint has."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        dim, channels = config["embedding_dim"], config["upsample_initial_channel"]
        self.dict = nn.Embedding(config["num_embeddings"], dim)
        if config.get("multispkr"):
            self.spkr = nn.Embedding(config["num_speakers"], dim)
        self.conv_pre = weight_norm(nn.Conv1d(config["model_in_dim"], channels, 7, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for i, (rate, kernel) in enumerate(zip(config["upsample_rates"], config["upsample_kernel_sizes"], strict=True)):
            wide, narrow = channels // 2**i, channels // 2 ** (i + 1)
            self.ups.append(weight_norm(nn.ConvTranspose1d(wide, narrow, kernel, rate, padding=(kernel - rate) // 2)))
            for size, dilations in zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True):
                block = nn.Module()
                block.convs1 = nn.ModuleList(
                    weight_norm(nn.Conv1d(narrow, narrow, size, dilation=d, padding=d * (size // 2))) for d in dilations
                )
                block.convs2 = nn.ModuleList(
                    weight_norm(nn.Conv1d(narrow, narrow, size, padding=size // 2)) for _ in dilations
                )
                self.resblocks.append(block)
        self.conv_post = weight_norm(nn.Conv1d(narrow, 1, 7, padding=3))
        predictor = nn.Module()
        predictor.conv1 = nn.Sequential(nn.Conv1d(dim, 6, 3, padding=1), nn.ReLU())
        predictor.ln1, predictor.ln2 = nn.LayerNorm(6), nn.LayerNorm(6)
        predictor.conv2 = nn.Sequential(nn.Conv1d(6, 6, 3, padding=1), nn.ReLU())
        predictor.proj = nn.Linear(6, 1)
        self.dur_predictor = predictor

    def forward(self, units: torch.Tensor, speaker: int | None = None) -> torch.Tensor:
        x = self.dict(units)
        if speaker is not None:
            x = torch.cat([x, self.spkr.weight[speaker].expand_as(x)], dim=1)
        x = self.conv_pre(x.T[None])
        kinds = len(self.config["resblock_kernel_sizes"])
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            total = torch.zeros(())
            for block in self.resblocks[kinds * i : kinds * (i + 1)]:
                y = x
                for first, second in zip(block.convs1, block.convs2, strict=True):
                    y = y + second(F.leaky_relu(first(F.leaky_relu(y, 0.1)), 0.1))
                total = total + y
            x = total / kinds
        return torch.tanh(self.conv_post(F.leaky_relu(x)))[0, 0]

    def durations(self, units: torch.Tensor) -> torch.Tensor:
        p, x = self.dur_predictor, self.dict(units)[None]
        x = p.ln1(p.conv1(x.transpose(1, 2)).transpose(1, 2))
        x = p.ln2(p.conv2(x.transpose(1, 2)).transpose(1, 2))
        return torch.clamp(torch.round(torch.exp(p.proj(x)[0, :, 0]) - 1).long(), min=1)


@pytest.fixture
def fairseq(tmp_path: Path) -> tuple[Path, FairseqsLayout]:
    return write_fairseq(tmp_path / "fairseq", CONFIG)


def write_fairseq(folder: Path, config: dict[str, Any]) -> tuple[Path, FairseqsLayout]:
    torch.manual_seed(0)
    model = FairseqsLayout(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight_g"):
                parameter.mul_(2.0)
        model.dur_predictor.proj.bias.fill_(1.2)
    folder.mkdir()
    torch.save({"generator": model.state_dict()}, folder / "g_00500000")
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


def units_folder(folder: Path, num_units: int = 20, rate: str = "25", codebook: str = "book") -> Path:
    none = np.zeros(0, np.int32)
    row = UnitRow("u", "tgt", np.zeros(9, np.uint16), [], none, none, none.astype(np.float32))
    metadata = {"codebook": codebook, "num_units": str(num_units), "frame_rate": rate}
    write_shard(folder, 0, [row], metadata)
    return folder


def some_units(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 20, count)


def test_fairseqs_checkpoint_gives_fairseqs_samples_whole_streamed_and_with_predicted_durations(
    fairseq: tuple[Path, FairseqsLayout], tmp_path: Path
) -> None:
    folder, reference = fairseq
    for named in (folder, folder / "g_00500000"):
        counts = adopt_vocoder(
            tmp_path / "voc", VocoderSettings(pretrained=str(named)), units_folder(tmp_path / "units")
        )
        assert counts.counts == {"sample_rate": 16_000, "speakers": 1}
    assert sorted(path.name for path in (tmp_path / "voc").iterdir()) == ["config.json", "model.safetensors"]
    vocoder = Vocoder.from_pretrained(tmp_path / "voc", "book")
    units = some_units(70)
    with torch.no_grad():
        expected = reference(torch.from_numpy(units)).numpy()
        runs = torch.tensor([3, 9, 3, 17])
        repeated = runs.repeat_interleave(reference.durations(runs))
    (made,) = vocoder.synthesize([units])
    assert made.shape == (70 * 640,) and np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(made, expected, atol=1e-5)
    pieces = list(vocoder.stream(iter(units.tolist()), chunk_frames=13))
    assert [len(piece) for piece in pieces] == [13 * 640] * 5 + [5 * 640]
    np.testing.assert_allclose(np.concatenate(pieces), expected, atol=1e-5)
    assert len(repeated) > 4
    (spoken,) = vocoder.synthesize([runs.numpy()], deduplicated=True)
    np.testing.assert_allclose(spoken, vocoder.synthesize([repeated.numpy()])[0], atol=1e-5)
    assert len(vocoder.synthesize([np.zeros(0, np.int64)])[0]) == 0
    with pytest.raises(InputError, match="unit 20 is outside the codebook of 20 units"):
        vocoder.synthesize([np.array([20])])


def test_weight_norm_may_have_torchs_newer_names(fairseq: tuple[Path, FairseqsLayout], tmp_path: Path) -> None:
    folder, reference = fairseq
    for name in ("old", "new"):
        adopt_vocoder(tmp_path / name, VocoderSettings(pretrained=str(folder)), units_folder(tmp_path / "units"))
        new = ("parametrizations.weight.original0", "parametrizations.weight.original1")
        state = {
            key.replace("weight_g", new[0]).replace("weight_v", new[1]): part
            for key, part in reference.state_dict().items()
        }
        torch.save({"generator": state}, folder / "g_00500000")
    old, new = (Vocoder.from_pretrained(tmp_path / name).synthesize([some_units(9)])[0] for name in ("old", "new"))
    np.testing.assert_array_equal(old, new)


def test_a_stream_of_fairseqs_begins_once_its_context_is_known(
    fairseq: tuple[Path, FairseqsLayout], tmp_path: Path
) -> None:
    adopt_vocoder(tmp_path / "voc", VocoderSettings(pretrained=str(fairseq[0])), units_folder(tmp_path / "units"))
    vocoder = Vocoder.from_pretrained(tmp_path / "voc")
    taken: list[int] = []
    stream = vocoder.stream((taken.append(unit) or int(unit) for unit in some_units(200)), chunk_frames=4)  # type: ignore[func-returns-value]
    next(stream)
    assert len(taken) < 40


def test_fairseqs_speakers_are_chosen_by_number(tmp_path: Path) -> None:
    config = CONFIG | {"multispkr": "from_input_file", "num_speakers": 3, "model_in_dim": 16}
    folder, reference = write_fairseq(tmp_path / "several", config)
    adopt_vocoder(tmp_path / "voc", VocoderSettings(pretrained=str(folder)), units_folder(tmp_path / "units"))
    vocoder, units = Vocoder.from_pretrained(tmp_path / "voc"), some_units(20)
    assert vocoder.speakers == ["0", "1", "2"]
    for speaker in (0, 2):
        with torch.no_grad():
            expected = reference(torch.from_numpy(units), speaker).numpy()
        np.testing.assert_allclose(vocoder.synthesize([units], str(speaker))[0], expected, atol=1e-5)
    with pytest.raises(InputError, match="speaker must be one of 0, 1, 2"):
        vocoder.synthesize([units], "3")


class Unpickled:
    def __reduce__(self) -> tuple:
        return (Path("unpickled").touch, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_embeddings": 30}, "does not fit its config.json"),
        ({"f0": True}, "its config has f0"),
        ({"upsample_rates": [5, 4, 4, 2, 2]}, "50 units a second, but the units have 25"),
        ("pickle", "not a checkpoint of fairseq's unit HiFi-GAN"),
        ("none", "0 files that could be the checkpoint"),
        ("other", r"not a checkpoint of fairseq's unit HiFi-GAN \(it has no weights under the name generator\)"),
        (
            "arguments",
            r"not a checkpoint of fairseq's unit HiFi-GAN \(it holds more than tensors, which could run code",
        ),
        ({"upsample_rates": [5, 4, 4, 4, 0]}, "does not fit its config.json"),
        ({"upsample_rates": [5.0, 4, 4, 2, 2]}, "does not fit its config.json"),
        ({"upsample_kernel_sizes": None}, "does not fit its config.json"),
        ({"upsample_rates": [-5, 4, 4, 2, 2]}, r"does not fit its config.json \(upsample_rates .* must be 1 or more"),
        ({"sampling_rate": 0}, r"does not fit its config.json \(.*sampling_rate must be 1 or more"),
        ({"resblock_kernel_sizes": [3, 7, 11, 3]}, "must be of the same length"),
    ],
)
def test_what_is_no_vocoder_of_these_units_is_refused(
    change: Any, message: str, fairseq: tuple[Path, FairseqsLayout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = fairseq
    monkeypatch.chdir(tmp_path)
    checkpoint = folder / "g_00500000"
    if change == "pickle":
        checkpoint.write_bytes(pickle.dumps({"generator": Unpickled()}))
    elif change == "none":
        checkpoint.unlink()
    elif change == "other":
        torch.save({"model": {}}, checkpoint)
    elif change == "arguments":
        torch.save({"generator": {}, "args": Namespace(lr=1)}, checkpoint)
    else:
        (folder / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(InputError, match=message) as refused:
        adopt_vocoder(tmp_path / "voc", VocoderSettings(pretrained=str(folder)), units_folder(tmp_path / "units"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "voc").exists() and not Path("unpickled").exists()


def test_a_vocoder_of_other_units_is_refused(fairseq: tuple[Path, FairseqsLayout], tmp_path: Path) -> None:
    own = UnitVocoder(UnitVocoderConfig(20, "book", dim=16, hidden=16, layers=1, fine_layers=1, **timing(25, 16_000)))
    own.save_pretrained(tmp_path / "own")
    settings = VocoderSettings(pretrained=str(tmp_path / "own"))
    adopt_vocoder(tmp_path / "voc", settings, units_folder(tmp_path / "units"))
    assert Vocoder.from_pretrained(tmp_path / "voc", "book").frame_rate == 25
    with pytest.raises(InputError, match="codebook book, not of other"):
        adopt_vocoder(tmp_path / "voc", settings, units_folder(tmp_path / "others", codebook="other"))
    with pytest.raises(InputError, match="if they are the same units, give both 'units import' the same --codebook"):
        adopt_vocoder(tmp_path / "voc", settings, units_folder(tmp_path / "imported", codebook="imported-1"))
    with pytest.raises(InputError, match="takes 20 units, but the codebook has 21"):
        adopt_vocoder(
            tmp_path / "voc", VocoderSettings(pretrained=str(fairseq[0])), units_folder(tmp_path / "more", 21)
        )


SINES = """
import numpy as np

def load(gain=0.1, hop=960):
    pitch = {"low": 100.0, "high": 200.0, None: 150.0}
    def speak(units, speaker):
        f0 = np.repeat(pitch[speaker] + units, hop)
        return gain * np.sin(2 * np.pi * np.cumsum(f0) / 24_000)
    return speak
"""


def test_a_function_of_the_users_is_a_vocoder_with_its_own_rate_and_voices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_sines.py").write_text(SINES)
    settings = VocoderSettings(
        function="my_sines:load", options={"gain": 0.2}, sample_rate=24_000, speakers=["low", "high"]
    )
    adopt_vocoder(tmp_path / "voc", settings, units_folder(tmp_path / "units"))
    with pytest.raises(InputError, match=r"my_sines:load.*trust"):
        Vocoder.from_pretrained(tmp_path / "voc")  # as an exported model or one of the hub would be loaded
    vocoder = Vocoder.from_pretrained(tmp_path / "voc", "book", trust_functions=True)
    low, high = (vocoder.synthesize([some_units(50)], speaker)[0] for speaker in ("low", "high"))
    assert vocoder.sample_rate == 24_000 and len(low) == 2 * 24_000 and np.abs(low).max() == pytest.approx(0.2, 0.01)
    assert np.diff(np.sign(high)).astype(bool).sum() > 1.5 * np.diff(np.sign(low)).astype(bool).sum()
    np.testing.assert_array_equal(low, vocoder.synthesize([some_units(50)])[0], "the first voice is the default")
    np.testing.assert_array_equal(np.concatenate(list(vocoder.stream(iter(some_units(50).tolist()), 7, "low"))), low)
    for changes, message in (
        ({"sample_rate": 16_000}, "makes 3.00 s of speech from 2.00 s of units; check vocoder.sample_rate"),
        ({"function": "my_sines:missing"}, "my_sines:missing: could not be imported"),
        ({"function": "sines"}, "must be MODULE:NAME"),
    ):
        wrong = VocoderSettings(**({"function": "my_sines:load", "sample_rate": 24_000} | changes))
        with pytest.raises(InputError, match=message):
            adopt_vocoder(tmp_path / "wrong", wrong, tmp_path / "units")
    unknown = VocoderSettings(function="my_sines:load", sample_rate=24_000, speakers=["low", "nobody"])
    with pytest.raises(InputError, match=r"my_sines:load: raised KeyError: 'nobody' \(my_sines.py, line 7\)"):
        adopt_vocoder(tmp_path / "wrong", unknown, tmp_path / "units")
    with pytest.raises(InputError, match="not both"):
        VocoderSettings(function="a:b", pretrained="c")


VOICES = """
import numpy as np
import torch

def load(kind):
    def speak(units, speaker):
        wave = 0.1 * np.sin(np.arange(960 * len(units)) / 20)
        if kind == "raises":
            raise ValueError("no such voice")
        return {
            "tensor": torch.from_numpy(wave).bfloat16().requires_grad_(), "list": wave.tolist(),
            "integers": (wave * 32767).astype(np.int16), "too loud": wave * 32767, "channels": wave[None],
            "nothing": None, "nan": wave * np.nan,
        }[kind]
    return None if kind == "no function" else speak
"""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("raises", r"my_voices:load: raised ValueError: no such voice \(my_voices.py, line 9\)"),
        ("integers", r"must return one channel of float samples \[samples\] \(got int16 \[48000\]\)"),
        ("too loud", r"must return finite samples from -1 to 1 \(got 3276.7\)"),
        ("channels", r"must return one channel of float samples \[samples\] \(got float64 \[1, 48000\]\)"),
        ("nothing", r"must return one channel of float samples \[samples\] \(got NoneType\)"),
        ("nan", r"must return finite samples from -1 to 1 \(got nan\)"),
        ("no function", r"must return a function of units and speaker \(got None\)"),
        ("tensor", ""),
        ("list", ""),
    ],
)
def test_what_a_function_may_return_and_what_it_may_not(
    kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_voices.py").write_text(VOICES)
    settings = VocoderSettings(function="my_voices:load", options={"kind": kind}, sample_rate=24_000)
    units = units_folder(tmp_path / "units")
    if not message:
        adopt_vocoder(tmp_path / "voc", settings, units)
        (made,) = Vocoder.from_pretrained(tmp_path / "voc", trust_functions=True).synthesize([some_units(9)])
        assert made.dtype == np.float32 and made.shape == (9 * 960,)
        return
    with pytest.raises(InputError, match=message) as refused:
        adopt_vocoder(tmp_path / "voc", settings, units)
    assert "\n" not in str(refused.value) and not (tmp_path / "voc").exists()


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["vocos", "hifigan"])
@pytest.mark.parametrize(("frame_rate", "sample_rate"), [(25, 16_000), (12.5, 24_000), (75, 24_000), (50, 22_050)])
def test_our_vocoders_follow_the_rates_whole_and_streamed(
    generator: str, frame_rate: float, sample_rate: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shape = {"dim": 16, "hidden": 16, "layers": 1, "fine_layers": 1, "hifigan_channels": 64}
    config = UnitVocoderConfig(
        20, "book", generator=generator, speakers=["ann", "bob"], **shape, **timing(frame_rate, sample_rate)
    )
    TrainedVocoder(UnitVocoder(config)).save_pretrained(tmp_path / "voc")
    vocoder, units = Vocoder.from_pretrained(tmp_path / "voc"), some_units(30)
    assert (vocoder.frame_rate, vocoder.sample_rate) == (frame_rate, sample_rate)
    ann, bob = (vocoder.synthesize([units], speaker)[0] for speaker in ("ann", "bob"))
    assert len(ann) == round(30 * sample_rate / frame_rate) and not np.array_equal(ann, bob)
    streamed = np.concatenate(list(vocoder.stream(iter(units.tolist()), 4, "bob")))
    np.testing.assert_allclose(streamed, bob, atol=2e-4)


def test_a_sampling_rate_that_the_units_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match=r"the units' 75 a second \(got 16000\); 22050, 24000, 44100, 48000 are"):
        timing(75, 16_000)
    assert timing(86.13, 22_050)["hop"] == 256, "a rate that was rounded when it was typed"
    assert [timing(rate, 16_000)["hop"] for rate in (12.5, 40, 50)] == [1280, 400, 320]
