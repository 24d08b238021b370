"""k-means, its sample, and what is reported of its units."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.units_corpus import write_corpus, write_encoder
from unitweave.config.units import CodebookSettings
from unitweave.core.audio import write_audio
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, read_manifest, write_manifest
from unitweave.units.codebook import Codebook, common_offset, nearest
from unitweave.units.encoder import CharacterVocabulary
from unitweave.units.kmeans import kmeans
from unitweave.units.probe import as_table, probe_layers
from unitweave.units.quality import NO_CHARACTER, Agreement, frame_characters
from unitweave.units.sampling import list_recordings, sample_recordings
from unitweave.units.train_codebook import train_codebook


def blobs(clusters: int, each: int, spread: float = 0.05) -> torch.Tensor:
    """Rows around well separated centers."""
    generator = torch.Generator().manual_seed(3)
    centers = 10 * torch.randn(clusters, 6, generator=generator)
    return (centers[:, None] + spread * torch.randn(clusters, each, 6, generator=generator)).flatten(0, 1)


def test_kmeans_finds_separated_clusters() -> None:
    result = kmeans(blobs(12, 50), 12, seed=1)
    assert result.dead == 0 and result.inertia < 6 * 0.05**2 * 1.2
    assert result.perplexity == pytest.approx(12, abs=0.01)


@pytest.mark.slow
def test_kmeans_on_growing_parts_is_as_good_as_scikit_learn() -> None:
    from sklearn.cluster import KMeans

    rows = torch.randn(6000, 8, generator=torch.Generator().manual_seed(0))
    ours = kmeans(rows, 32, seed=0, iterations=60)
    theirs = KMeans(32, n_init=1, max_iter=60, random_state=0).fit(rows.numpy())
    assert ours.inertia <= theirs.inertia_ / len(rows) * 1.01
    index, distance = nearest(rows, ours.centroids)
    exact = torch.cdist(rows.double(), ours.centroids.double()).min(dim=1)
    assert torch.equal(index, exact.indices)
    assert torch.allclose(distance.double(), exact.values.square(), atol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 100.0, 3000.0])
def test_separated_clusters_are_found_wherever_they_lie(offset: float) -> None:
    for seed in range(3):
        rows = blobs(120, 30)
        rows = rows / rows.std() + offset
        # What the best centroids would give: the rows' distance to the mean of their own blob.
        exact = rows.double().view(120, 30, 6)
        best = float((exact - exact.mean(1, keepdim=True)).square().sum(2).mean())
        result = kmeans(rows, 120, seed)
        reached = torch.cdist(rows.double(), result.centroids.double()).min(dim=1)
        assert float(reached.values.square().mean()) < 1.02 * best + 1e-6, "every cluster has its centroid"
        assert result.inertia == pytest.approx(float(reached.values.square().mean()), rel=0.02)
        assert torch.equal(nearest(rows, result.centroids)[0], reached.indices)


def test_rows_about_zero_are_not_shifted() -> None:
    rows = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    assert not common_offset(rows + 3).any(), "existing codebooks keep their units, and these their last digits"
    assert torch.allclose(common_offset(rows + 100), (rows + 100).mean(0))


def test_kmeans_is_deterministic_and_survives_copies() -> None:
    rows = blobs(5, 4000)
    assert torch.equal(kmeans(rows, 20, seed=2).centroids, kmeans(rows, 20, seed=2).centroids)
    copies = torch.ones(50, 4)
    assert kmeans(copies, 5, seed=0).inertia == pytest.approx(0, abs=1e-6)
    with pytest.raises(InputError, match="at least as many frames"):
        kmeans(rows[:3], 4, seed=0)


def test_kmeans_takes_rows_of_one_dimension_half_precision_and_few_distinct_ones() -> None:
    flat = torch.tensor([0.0, 1.0, 5.0, 5.5, 100.0, 101.0])[:, None].repeat(400, 1)
    for offset in (0.0, 1e4):
        found = kmeans(flat + offset, 6, seed=0)
        assert torch.equal(found.centroids.sort(0).values, flat[:6] + offset) and found.inertia == 0
    few = kmeans(flat, 10, seed=0)
    assert few.dead == 4 and few.inertia == 0, "six distinct rows take six of ten clusters"
    rows = (blobs(12, 50) / 10 + 30).half()  # their squared norms are beyond float16
    half, exact = kmeans(rows, 12, seed=1), kmeans(rows.float(), 12, seed=1)
    assert half.centroids.dtype == torch.float32 and torch.equal(half.centroids, exact.centroids)
    assert torch.equal(nearest(rows, half.centroids)[0], nearest(rows.float(), half.centroids)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_hidden_states_that_are_not_finite_make_neither_a_codebook_nor_units(value: float) -> None:
    rows = blobs(5, 40)
    codebook = Codebook(kmeans(rows, 5, seed=0).centroids, 1, "")
    rows[77, 3] = value
    with pytest.raises(InputError, match=r"k-means: .* diverged"):
        kmeans(rows, 5, seed=0)
    with pytest.raises(InputError, match=r"units: .* diverged"):
        codebook.assign(rows)


def test_the_sample_is_even_over_languages_and_speakers(tmp_path: Path) -> None:
    pairs = [
        Pair(f"{language}{speaker}{i}", "train", language, "en", "x.wav", None, None, None, None, None, speaker, 2.0)
        for language, speakers in (("es", {"a": 500, "b": 40, "c": 40}), ("fr", {"d": 300}), ("pt", {"e": 10}))
        for speaker, number in speakers.items()
        for i in range(number)
    ]
    write_manifest(tmp_path, pairs)
    items = list_recordings(read_manifest(tmp_path))
    chosen = list(sample_recordings(items, max_frames=100 * 210, seed=1, frame_rate=50))  # 210 recordings of 100 frames
    count = {language: sum(i.language == language for i in chosen) for language in ("es", "fr", "pt")}
    assert count == {"es": 100, "fr": 100, "pt": 10}, "the small language gives what it has, the others share the rest"
    speakers = [sum(i.speaker == s for i in chosen) for s in "abc"]
    assert max(speakers) - min(speakers) <= 1
    assert chosen == list(sample_recordings(items, 21_000, 1, 50))
    assert chosen != list(sample_recordings(items, 21_000, 2, 50))


def test_purity_and_information_of_perfect_useless_and_doubled_units() -> None:
    characters = torch.tensor([0, 0, 1, 1, 2, 2, NO_CHARACTER, NO_CHARACTER])
    perfect = Agreement.of(torch.tensor([5, 5, 3, 3, 0, 0, 1, 1]), characters)
    assert perfect.purity == pytest.approx(1) and perfect.normalized_mutual_information == pytest.approx(1)
    useless = Agreement.of(torch.zeros(8, dtype=torch.long), characters)
    assert useless.purity == pytest.approx(1 / 3) and useless.normalized_mutual_information == pytest.approx(
        0, abs=1e-9
    )
    finer = Agreement.of(torch.tensor([0, 1, 2, 3, 4, 5, 6, 7]), characters)
    assert finer.normalized_mutual_information == pytest.approx(1)
    assert Agreement.of(torch.zeros(2, dtype=torch.long), torch.full((2,), NO_CHARACTER)) == Agreement(0.0, 0.0)


def test_frames_count_for_the_nearest_character_of_their_word() -> None:
    vocabulary = CharacterVocabulary.from_texts(["ab"])  # a is 3, b is 4
    path = [0, 3, 0, 0, 0, 4, 0, 2, 0, 4, 0]  # - a - - - b - | - b -
    log_probs = np.full((len(path), 5), -9.0, np.float32)
    log_probs[np.arange(len(path)), path] = -0.01
    expected = [NO_CHARACTER, 3, 3, 3, 4, 4, NO_CHARACTER, NO_CHARACTER, NO_CHARACTER, 4, NO_CHARACTER]
    assert frame_characters([log_probs], ["ab b"], vocabulary).tolist() == expected
    assert (frame_characters([log_probs], [None], vocabulary) == NO_CHARACTER).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("codebook")
    return write_corpus(folder / "corpus", 16), write_encoder(folder)[0]


@pytest.mark.slow
def test_a_codebook_is_bounded_deterministic_and_reports_its_quality(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = CodebookSettings(num_units=16, layer=2, max_frames=400)
    counts = train_codebook(tmp_path / "a", settings, *trained).counts
    train_codebook(tmp_path / "b", settings, *trained)
    assert (tmp_path / "a/codebook.safetensors").read_bytes() == (tmp_path / "b/codebook.safetensors").read_bytes()
    assert Codebook.load(tmp_path / "a").num_units == 16
    assert counts["frames"] == 400 and counts["dead"] == 0 and 1 < counts["perplexity"] <= 16
    assert 0 < counts["character_purity"] <= 1 and 0 <= counts["normalized_mutual_information"] <= 1
    with pytest.raises(InputError, match="layers 1 to 2"):
        train_codebook(tmp_path / "c", CodebookSettings(num_units=16, layer=3, max_frames=400), *trained)


@pytest.mark.slow
def test_recordings_shorter_than_a_frame_leave_the_codebook_to_the_others(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    corpus, encoder = trained
    for i in range(300):  # whole batches of them
        write_audio(tmp_path / f"{i}.wav", np.full(200, 0.1, np.float32))
    clicks = [Pair(f"x{i}", "train", "xx", "en", str(tmp_path / f"{i}.wav"), None, "a", None) for i in range(300)]
    write_manifest(tmp_path, [*read_manifest(corpus), *clicks])
    settings = CodebookSettings(num_units=16, layer=2, max_frames=400)
    assert train_codebook(tmp_path / "out", settings, tmp_path, encoder).counts["frames"] > 100


@pytest.mark.slow
def test_layers_are_probed_one_row_each(trained: tuple[Path, Path]) -> None:
    rows = probe_layers(*trained, CodebookSettings(num_units=8, max_frames=400))
    assert [row.layer for row in rows] == [1, 2]
    assert all(0 < row.inertia < 1 and row.perplexity <= 8 for row in rows)
    table = as_table(rows).split("\n")
    assert len(table) == 4 and table[0].startswith("| layer | inertia")
    assert [row.layer for row in probe_layers(*trained, CodebookSettings(num_units=8, max_frames=400), [2])] == [2]
