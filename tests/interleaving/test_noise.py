"""Noise on the units that the model reads: what it replaces, and what it leaves alone."""

import numpy as np
import pytest

from helpers.streams import speech_source
from unitweave.interleaving.noise import add_unit_noise
from unitweave.interleaving.sequence import SOURCE, TARGET
from unitweave.lm.data.packing import pack
from unitweave.lm.data.stream import PackedDataset

UNITS = range(100, 200)  # of the random examples
NOISE = {"source": 0.1, "target": 0.4}


@pytest.fixture(scope="module")
def clean():
    return [sequence for step in range(60) for sequence in speech_source().sequences(step)]


@pytest.mark.slow
def test_only_units_are_replaced_by_units_and_labels_stay(clean):
    for before, after in zip(clean, add_unit_noise(clean, NOISE, UNITS, (7,)), strict=True):
        assert np.array_equal(after.ids, before.ids)
        assert np.array_equal(after.segments, before.segments)
        unit = (before.ids >= UNITS.start) & (before.ids < UNITS.stop)
        assert np.array_equal(after.inputs[~unit], before.ids[~unit])  # text, interleaved words, tags and markers
        assert np.all((after.inputs[unit] >= UNITS.start) & (after.inputs[unit] < UNITS.stop))


def test_each_side_is_replaced_as_often_as_asked(clean):
    after = add_unit_noise(clean, NOISE, UNITS, (7,))
    for code, wanted in ((SOURCE, 0.1), (TARGET, 0.4)):
        changed, units = 0, 0
        for sequence in after:
            is_unit = (sequence.segments == code) & (sequence.ids >= UNITS.start) & (sequence.ids < UNITS.stop)
            changed += int((sequence.inputs != sequence.ids)[is_unit].sum())
            units += int(is_unit.sum())
        # One replacement in a hundred is by the unit itself.
        assert abs(changed / units - wanted * 0.99) < 4 * np.sqrt(wanted * (1 - wanted) / units)


def test_one_side_alone(clean):
    for sequence in add_unit_noise(clean, {"target": 0.5}, UNITS, (7,)):
        source = sequence.segments == SOURCE
        assert np.array_equal(sequence.inputs[source], sequence.ids[source])


def test_no_noise_gives_the_sequences_themselves(clean):
    assert add_unit_noise(clean, {}, UNITS, (7,)) is clean
    assert add_unit_noise(clean, {"source": 0.0, "target": 0.0}, UNITS, (7,)) is clean
    assert add_unit_noise([], NOISE, UNITS, (7,)) == []


def test_a_step_is_a_function_of_seed_and_number():
    noisy = [sequence.inputs for sequence in speech_source(unit_noise=NOISE, units=UNITS).sequences(3)]
    again = [sequence.inputs for sequence in speech_source(unit_noise=NOISE, units=UNITS).sequences(3)]
    assert all(map(np.array_equal, noisy, again))
    other = [sequence.inputs for sequence in speech_source(unit_noise=NOISE, units=UNITS, seed=6).sequences(3)]
    assert len(other) != len(noisy) or not all(map(np.array_equal, noisy, other))
    clean = speech_source().sequences(3)
    noise = [a - b.ids for a, b in zip(noisy, clean, strict=True)]
    rest = speech_source(unit_noise=NOISE, units=UNITS).sequences(4)
    assert not np.array_equal(np.concatenate(noise)[:50], np.concatenate([s.inputs - s.ids for s in rest])[:50])


def test_cut_sequences_read_as_many_tokens_as_they_predict():
    for sequence in speech_source(unit_noise=NOISE, units=UNITS, max_tokens=20).sequences(0):
        assert len(sequence.inputs) == len(sequence.ids) <= 20


def test_packed_labels_are_those_without_noise():
    clean = speech_source().sequences(0)
    noisy = add_unit_noise(clean, NOISE, UNITS, (7,))
    plain, packed = (pack(sequences, [0.0, 1.0, 1.0, 1.0, 1.0]) for sequences in (clean, noisy))
    assert plain["labels"].equal(packed["labels"])
    assert plain["weights"].equal(packed["weights"])
    assert not plain["input_ids"].equal(packed["input_ids"])


def test_processes_share_the_noise_of_a_step():
    source = speech_source(unit_noise=NOISE, units=UNITS)

    def read(accumulation, processes):
        passes = [
            batch
            for rank in range(processes)
            for part in range(accumulation)
            for batch in PackedDataset(source, 1, [1.0] * 5, accumulation, rank, processes)[part]["passes"]
        ]
        return sorted(int(i) for batch in passes for i in batch["input_ids"][0, : batch["num_tokens"]])

    assert read(1, 1) == read(2, 1) == read(1, 3)
