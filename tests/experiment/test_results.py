"""The page of results: exactly the numbers of the run's files, findings by rule, and the word "partial"."""

import json
import random
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sacrebleu.metrics import BLEU

from helpers.scoring import SIGNATURE, system_scores
from unitweave.cli import main
from unitweave.core.errors import InputError
from unitweave.core.files import file_digest, read_json, weights_digest, write_json
from unitweave.core.manifest import Pair, read_manifest, write_manifest
from unitweave.core.records import to_json
from unitweave.core.stage import FORMAT
from unitweave.experiment import figures, findings
from unitweave.experiment.archive import write_archive
from unitweave.experiment.expected import write_expected
from unitweave.experiment.hours import estimate, plan_rows
from unitweave.experiment.page import write_page
from unitweave.experiment.plan import parse_experiment
from unitweave.experiment.provenance import kinds_of_machine, machine
from unitweave.experiment.results import Result, read_grid
from unitweave.experiment.state import trial_state
from unitweave.metrics.bleu import bleu_of_counts, sentence_counts
from unitweave.metrics.intervals import Interval
from unitweave.metrics.significance import Difference, difference
from unitweave.score.scores import ScoredOutput, ScoredUtterance, Scores, read_scores, read_utterances, write_scores

TEXT = "the soup is very hot and we want to buy a ticket for the train near our house today"
WORDS = TEXT.split()
TESTED = 40


def sentences(seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(4, 9))) for _ in range(TESTED)]


def damaged(texts: list[str], share: float, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(w if rng.random() > share else "bread" for w in text.split()) for text in texts]


REFERENCES = sentences(0)
SAVE = figures._save


def test_counts_add_up_to_sacrebleus_corpus_score() -> None:
    for share in (0.0, 0.3, 0.9, 1.0):
        texts = damaged(REFERENCES, share, 1)
        expected = BLEU().corpus_score(texts, [REFERENCES]).score
        assert bleu_of_counts(sentence_counts(texts, REFERENCES).sum(0)) == pytest.approx(expected, abs=1e-9)
    assert bleu_of_counts(sentence_counts([""] * TESTED, REFERENCES).sum(0)) == 0


def test_a_difference_is_measured_on_the_same_utterances() -> None:
    good, bad = (sentence_counts(damaged(REFERENCES, share, 2), REFERENCES) for share in (0.1, 0.7))
    found = difference({1: good}, {1: bad}, 200)
    assert found.mean == pytest.approx(bleu_of_counts(good.sum(0)) - bleu_of_counts(bad.sum(0)))
    assert found.low <= found.mean <= found.high and found.low > 0
    same = difference({1: good, 2: bad}, {1: good, 2: bad}, 50)
    assert (same.mean, same.low, same.high, same.verdict(), same.scatter) == (0, 0, 0, "open", 0)
    number = len(seeds := {seed: sentence_counts(damaged(REFERENCES, 0.1 * seed, 9), REFERENCES) for seed in (1, 2, 3)})
    scattered = difference(seeds, dict.fromkeys(seeds, bad), 200)
    each = list(scattered.by_training.values())
    student = 4.303 * np.std(each, ddof=1) / number**0.5
    assert scattered.low < scattered.mean - student and scattered.high > scattered.mean + student
    assert scattered.low < min(each) and scattered.high > max(each), "three trainings do not bound a fourth"
    assert scattered.scatter == pytest.approx(np.std(each, ddof=1))
    with pytest.raises(ValueError, match="different trainings"):
        difference({1: good}, {2: good})


def test_findings_follow_from_trainings_signs_intervals_and_machines() -> None:
    def verdict(low: float, high: float, *each: float, machines: int | None = None) -> str:
        return Difference(float(np.mean(each)), low, high, dict(enumerate(each))).verdict(machines)

    assert verdict(1, 5, 2, 3, 4, 3, 3) == "established"
    assert verdict(-5, -1, -2, -3, -4, -3, -3) == "established"
    assert verdict(1, 5, 2, 3, 4, 3, 3, machines=2) == "established"
    assert verdict(1, 5, 2, 3, 4, 3, 3, machines=1) == "indicated"
    assert verdict(1, 5, 2, 3, 4, 3, machines=2) == verdict(1, 5, 2, 3) == "indicated"
    assert verdict(-0.1, 5, 2, 3, 4, 3, 3) == "open"
    assert verdict(1, 5, 2, 3, -0.1, 3, 3) == "open"


def test_a_machine_is_of_a_kind_by_its_processor() -> None:
    one, other = "2 cores of AMD EPYC (AVX2), 24 GiB", "16 cores of AMD EPYC (AVX2), 128 GiB"
    assert kinds_of_machine([one, other, "2 cores of AMD EPYC, 24 GiB"]) == ["AMD EPYC (AVX2)"]
    assert kinds_of_machine([one, "2 cores of AMD EPYC (AVX512), 24 GiB"]) == ["AMD EPYC (AVX2)", "AMD EPYC (AVX512)"]
    assert kinds_of_machine(["1 x NVIDIA H100", "8 x NVIDIA H100", "1 core of X, 4 GiB"]) == ["NVIDIA H100", "X"]
    assert kinds_of_machine([machine()]) == kinds_of_machine([machine().replace("cores", "core")]) != []


CONTENT: dict[str, Any] = {
    "title": "Tiny & small",
    "question": "Does it work?",
    "recipe": {
        "corpus": {"embedded": {"languages": ["es", "fr"]}},
        "lm": {"schedule": {"decrement": 0.5, "stair_steps": 2, "unit": "steps"}},
    },
    "data": {"all": 1.0, "some": 0.3},
    "systems": {
        "baseline": {"schedule": {"shape": "none"}},
        "scheduled": {},
        "mask": {"interleave": {"replace_with": "mask"}},
    },
    "comparisons": [{"system": "mask", "against": "baseline"}],
    "evaluations": 2,
    "grid": [
        {"systems": ["baseline", "scheduled"], "seeds": [1, 2, 3], "steps": [10]},
        {"systems": ["mask"], "data": ["some"], "steps": [10]},
    ],
}
HOURS = {"all": {"es": 2.5, "fr": 0.5}, "some": {"es": 0.75, "fr": 0.15}}
REPLICATED = [(data, system) for data in ("all", "some") for system in ("baseline", "scheduled")]
SHARES = {"baseline": 0.6, "scheduled": 0.15, "mask": 0.6}


@pytest.fixture(scope="module", autouse=True)
def quick_pages() -> Iterator[None]:
    """Pages with few resamples and without their figures, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(findings, "difference", partial(difference, samples=100))
        patch.setattr(figures, "_save", lambda figure, path: None)
        yield


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that looks at the figures."""
    monkeypatch.setattr(figures, "_save", SAVE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished grid as files: nothing was trained, the scores are made up."""
    run = tmp_path_factory.mktemp("grid")
    (run / "experiment.yaml").write_text(yaml.safe_dump(CONTENT))
    ids = [f"u{i}" for i in range(TESTED)]
    rows = [Pair(i, "test", "es", "en", None, None, "x", t) for i, t in zip(ids, REFERENCES, strict=True)]
    write_manifest(run / "corpus", rows)
    for name, hours in HOURS.items():
        counts = {language: {"pairs": 10, "hours": value} for language, value in hours.items()}
        write_json(run / f"subsets/{name}/stage.json", {"format": FORMAT, "status": "done", "counts": counts})
    for number, trial in enumerate(parse_experiment(CONTENT).trials):
        write_trial(run, trial.name, trial.system, number, ids)
    return run


def write_trial(run: Path, name: str, system: str, number: int, ids: list[str]) -> None:
    spoken, written = (damaged(REFERENCES, SHARES[system] + extra, number) for extra in (0.1, 0.0))

    def score(texts: list[str]) -> Interval:
        value = round(BLEU().corpus_score(texts, [REFERENCES]).score, 4)
        return Interval(value, value - 3.21, value + 4.56)

    for stage in ("lm", "scores"):
        write_json(
            run / stage / name / "stage.json", {"format": FORMAT, "status": "done", "seconds": 66.0 + 60 * number}
        )
    evaluations = [{"step": step, "bleu": 10.0 * step / 10 + number, "wer": 50.0} for step in (5, 10)]
    (run / "lm" / name / "dev.jsonl").write_text("".join(json.dumps(x) + "\n" for x in evaluations))
    session = {"commit": f"abc{number}", "command": "unitweave experiment x --out FOLDER", "machine": "1 core of X"}
    write_json(run / "lm" / name / "provenance.json", [session])
    agreement = Interval(100 * SHARES[system] + number)
    row = system_scores(score(spoken), text_bleu=score(written), transcript_wer=score(written), agreement_wer=agreement)
    row.languages = {code: system_scores(score(spoken), text_bleu=score(written)) for code in ("es", "fr")}
    ceiling = system_scores(Interval(87.65, 80.0, 90.0), asr_wer=Interval(4.31))
    ceilings = {"reference speech": ceiling} if not number else {}
    write_scores(run / "scores" / name / "scores.json", Scores(SIGNATURE, {name: row}, ceilings))
    lines = []
    for i, id in enumerate(ids):
        own = ScoredOutput(spoken[i], spoken[i], 1.0, "", written[i])
        line = ScoredUtterance(id, "es" if i % 2 else "fr", None, REFERENCES[i], {name: own})
        lines.append(json.dumps(to_json(line)))
    (run / "scores" / name / "utterances.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("docs") / "results.md", [folder])


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, the head left out."""
    below = text[text.index(heading) :]
    lines = re.search(r"(?:^\|.*\n?)+", below, re.MULTILINE)
    assert lines
    return [[trial.strip() for trial in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


@pytest.mark.slow
def test_the_page_has_the_numbers_of_the_files_and_where_they_come_from(page: Path, folder: Path) -> None:
    text = page.read_text()
    assert "Partial" not in text
    rows = rows_of(text, "### Every training")
    grid = read_grid(folder)
    assert len(rows) == len(grid.results) == 13
    for row, result in zip(rows, grid.results, strict=True):
        number = grid.results.index(result)
        asr, written = result.scores.asr_bleu, result.scores.text_bleu
        assert row[:5] == ["scratch", result.trial.data, result.trial.system, "10", str(result.trial.seed)]
        assert row[5] == f"{asr.score:.1f} [{asr.low:.1f}, {asr.high:.1f}]"
        assert row[6].startswith(f"{written.score:.1f} [")
        assert row[8:] == [
            f"{100 * SHARES[result.trial.system] + number:.1f}",
            f"{1.1 + number:.1f}",
            f"abc{number}",
            "`unitweave experiment x --out FOLDER`",
            "?",
            "1 core of X",
        ]
    assert [row[3] for row in rows_of(text, "### Training speech")] == ["2.50", "0.50", "0.75", "0.15"]
    assert rows_of(text, "### Ceilings") == [["reference speech", "87.7 [80.0, 90.0]", "4.3"]]
    curves = rows_of(text, "Dev text BLEU during training")
    (baseline,) = (row for row in curves if row[:5] == ["scratch", "some", "baseline", "10", "3"])
    number = sum(i for i, r in enumerate(grid.results) if (r.trial.data, r.trial.system) == ("some", "baseline")) / 3
    assert baseline[5:] == [f"{5 + number:.1f}", f"{10 + number:.1f}"], "a mean over the seeds at each evaluation"
    assert str(SIGNATURE) in text and "Does it work?" in text
    assert rows_of(text, "### Systems") == [
        ["baseline", "schedule.shape: none", "0%", "0 % of the run"],
        ["scheduled", "none", "90%", "40 % of the run"],
        ["mask", "interleave.replace_with: mask", "90%", "40 % of the run"],
    ]
    scores = [[r.score("asr_bleu") for r in grid.find(("scratch", d, 10), s).values()] for d, s in REPLICATED]
    scatter = np.mean([np.var(three, ddof=1) for three in scores]) ** 0.5
    assert f"scatter by {scatter:.1f} ASR-BLEU (standard deviation, pooled over the 4 systems" in text
    assert "; the dev score of baseline and scheduled was still rising at the end" in text


@pytest.mark.slow
def test_a_model_with_a_schedule_of_its_own_has_a_row_of_its_own_where_it_counts(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    changed = CONTENT | {"models": {"scratch": {}, "stairs": {"schedule": {"stair_steps": 4}}}}
    further = {
        "models": ["stairs"],
        "systems": ["baseline", "scheduled"],
        "data": ["some"],
        "seeds": [1],
        "steps": [10],
    }
    first = [block | {"models": ["scratch"]} for block in CONTENT["grid"]]
    (run / "experiment.yaml").write_text(yaml.safe_dump({**changed, "grid": [*first, further]}))
    for number, system in enumerate(("baseline", "scheduled")):
        write_trial(run, f"stairs_some_{system}_10_s1", system, number, [f"u{i}" for i in range(TESTED)])
    text = write_page(tmp_path / "results.md", [run]).read_text()
    assert rows_of(text, "### Systems") == [
        ["baseline", "schedule.shape: none", "0%", "0 % of the run"],
        ["scheduled (scratch)", "none", "90%", "40 % of the run"],
        ["scheduled (stairs)", "none", "90%", "80 % of the run"],
        ["mask", "interleave.replace_with: mask", "90%", "40 % of the run"],
    ]


def outputs_of(folder: Path, result: Result) -> list[ScoredOutput]:
    lines = read_utterances(folder / "scores" / result.trial.name)
    return [line.outputs[result.trial.name] for line in lines]


def heard(folder: Path, result: Result) -> list[str]:
    """What the recognizer heard of one trial, normalized."""
    return [output.asr_normalized for output in outputs_of(folder, result)]


def written(folder: Path, result: Result) -> list[str]:
    """What the model wrote."""
    return [output.translation or "" for output in outputs_of(folder, result)]


@pytest.mark.slow
def test_each_language_is_compared_on_its_own_utterances(page: Path, folder: Path) -> None:
    text, grid = page.read_text(), read_grid(folder)
    rows = [row for row in rows_of(text, "### Per language") if row[3] == "some"]
    assert [row[:2] for row in rows] == [["es", "0.75"], ["fr", "0.15"]]  # most speech first
    for row, first in zip(rows, (1, 0), strict=True):
        ours, theirs = (
            [BLEU().corpus_score(heard(folder, r)[first::2], [REFERENCES[first::2]]).score for r in found.values()]
            for found in (grid.find(("scratch", "some", 10), system) for system in ("scheduled", "baseline"))
        )
        mean = (sum(ours) - sum(theirs)) / len(ours)
        assert row[7].startswith(f"{mean:+.1f} [") and row[8] == "3"
        assert f"{row[9]}: scratch, some, {row[0]} ({row[1]} h, 10 steps): scheduled is" in text


@pytest.mark.slow
def test_parts_of_the_test_split_are_shown_apart(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    content = CONTENT | {"parts": {"teens": "u1?", "rest": "*", "none": "x*"}}
    (run / "experiment.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    rows = [
        row for row in rows_of(write_page(tmp_path / "r.md", [run]).read_text(), "### Parts of the") if row[3] == "some"
    ]
    assert [row[:2] for row in rows] == [["teens", "10"], ["rest", "30"]], "an utterance is in one part"
    grid = read_grid(run)
    for row, chosen in zip(rows, (range(10, 20), [*range(10), *range(20, TESTED)]), strict=True):
        for first, texts in ((6, heard), (10, written)):
            means = []
            for system in ("baseline", "scheduled"):
                found = grid.find(("scratch", "some", 10), system).values()
                outputs = [[texts(run, r)[i] for i in chosen] for r in found]
                scores = [BLEU().corpus_score(one, [[REFERENCES[i] for i in chosen]]).score for one in outputs]
                means.append(sum(scores) / len(scores))
            assert row[first : first + 2] == [f"{mean:.1f}" for mean in means]
            assert row[first + 2].startswith(f"{means[1] - means[0]:+.1f} [")


@pytest.mark.slow
def test_the_comparison_has_means_spread_and_a_finding_by_rule(page: Path, folder: Path) -> None:
    text = page.read_text()
    grid = read_grid(folder)
    first, *_ = rows_of(text, "### scheduled against baseline")
    assert first[:5] == ["scratch", "some", "0.90", "10", "ASR-BLEU"]
    theirs, ours = (
        [r.scores.asr_bleu.score for r in grid.results if (r.trial.data, r.trial.system) == ("some", system)]
        for system in ("baseline", "scheduled")
    )
    for trial, scores in zip(first[5:7], (theirs, ours), strict=True):
        assert trial == f"{np.mean(scores):.1f} ({min(scores):.1f} to {max(scores):.1f})"
    assert first[7].startswith(f"{np.mean(ours) - np.mean(theirs):+.1f} [")
    each = [our - their for our, their in zip(ours, theirs, strict=True)]
    assert first[8:] == [f"{np.std(each, ddof=1):.1f}", "3 on 1", "indicated"], "three trainings establish nothing"
    assert "- indicated: scratch, some (0.90 h, 10 steps): scheduled is" in text
    assert "], 3 trainings on 1 kind of machine" in text
    (mask,) = rows_of(text, "### Ablations and further systems")
    assert mask[4] == "mask" and mask[9] in ("indicated", "open")  # one seed establishes nothing
    assert (mask[7], mask[11]) == ("1", "1"), "seeds of each difference"
    asked, _ = rows_of(text, "### Further comparisons")
    assert asked[4:7] == ["mask", "baseline", "ASR-BLEU"] and asked[9:12] == mask[10:13]


@pytest.mark.slow
def test_what_is_heard_against_what_was_written_is_compared_over_the_trainings(
    page: Path, folder: Path, tmp_path: Path
) -> None:
    grid = read_grid(folder)
    first, *_ = rows_of(page.read_text(), "### Does the speech say what was written?")
    found = {s: [r.score("agreement_wer") for r in grid.find(("scratch", "some", 10), s).values()] for s in SHARES}
    each = np.subtract(found["scheduled"], found["baseline"])
    half = 4.303 * np.std(each, ddof=1) / 3**0.5
    assert first[:5] == ["scratch", "some", "0.90", "10", "3"]
    assert first[5:7] == [
        f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        for values in (found["baseline"], found["scheduled"])
    ]
    assert first[7] == f"{each.mean():+.1f} [{each.mean() - half:+.1f}, {each.mean() + half:+.1f}]"
    run = shutil.copytree(folder, tmp_path / "run")
    for at in [*(run / "scores").glob("*_s3/scores.json"), *(run / "scores").glob("*_all_*/scores.json")]:
        content = read_json(at)
        for scores in content["systems"].values():
            scores.pop("agreement_wer", None)
        write_json(at, content)
    (row,) = rows_of(write_page(tmp_path / "results.md", [run]).read_text(), "### Does the speech")
    assert row[4] == "2" and row[7] == f"{each[:2].mean():+.1f}", "no interval over two trainings"


@pytest.mark.slow
def test_figures_stand_beside_the_page_and_nothing_changes_when_written_again(
    drawn: None, folder: Path, tmp_path: Path
) -> None:
    page = write_page(tmp_path / "results.md", [folder])
    text = page.read_text()
    linked = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert sorted(Path(link).name for link in linked) == [
        f"tiny-small-{name}.svg" for name in ("asr-bleu", "curves", "languages", "text-bleu")
    ]
    before = {link: (page.parent / link).read_bytes() for link in linked}
    assert all(content.startswith(b"<?xml") and b"</svg>" in content for content in before.values())
    labels = (page.parent / page.stem / "tiny-small-languages.svg").read_text()
    assert labels.index(">es</text>") < labels.index(">fr</text>"), "in the order of no set, which differs by process"
    write_page(page, [folder])
    assert page.read_text() == text
    assert {link: (page.parent / link).read_bytes() for link in linked} == before


def test_a_grid_with_missing_cells_is_called_partial_and_names_them(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "grid")
    shutil.rmtree(tmp_path / "grid/scores/scratch_all_scheduled_10_s2")
    shutil.rmtree(tmp_path / "grid/scores/scratch_some_mask_10_s1")
    shutil.rmtree(tmp_path / "grid/lm/scratch_some_mask_10_s1")
    text = write_page(tmp_path / "results.md", [tmp_path / "grid"]).read_text()
    assert text.count("**Partial: 11 of 13 trials are done.**") == 2
    assert "- `scratch_all_scheduled_10_s2` (begun)\n- `scratch_some_mask_10_s1` (not begun)" in text
    assert "### Ablations and further systems" not in text
    row = next(r for r in rows_of(text, "### scheduled against baseline") if r[1] == "all")
    assert row[9] == "2 on 1"  # two seeds are left


def test_an_experiment_that_has_just_begun_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(CONTENT))
    text = write_page(tmp_path / "results.md", [tmp_path]).read_text()
    assert "**Partial: 0 of 13 trials are done.**" in text and "nothing yet" in text


@pytest.mark.slow
def test_a_longer_training_with_fewer_seeds_stands_beside_the_one_with_more(
    drawn: None, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    longer = {"systems": ["baseline", "scheduled"], "data": ["some"], "seeds": [1], "steps": [20]}
    (run / "experiment.yaml").write_text(yaml.safe_dump({**CONTENT, "grid": [*CONTENT["grid"], longer]}))
    for number, system in ((5, "baseline"), (8, "scheduled")):
        write_trial(run, f"scratch_some_{system}_20_s1", system, number, [f"u{i}" for i in range(TESTED)])
    text = write_page(tmp_path / "results.md", [run]).read_text()
    assert "- indicated: scratch, some (0.90 h, 10 steps): scheduled is" in text
    assert "scratch, some (0.90 h, 20 steps): scheduled is" in text
    figure = (tmp_path / "results/tiny-small-asr-bleu.svg").read_text()
    assert ">scratch (es, fr), 10 steps</text>" in figure and ">mask</text>" in figure


@pytest.mark.slow
def test_cells_of_other_settings_or_of_other_units_are_missing(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    trials = parse_experiment(CONTENT).trials
    plan = parse_experiment(CONTENT)
    write_json(run / "units/stage.json", {"format": FORMAT, "status": "done", "fingerprint": "ours"})
    for trial, units in zip(trials[:3], ("ours", "ours", "older"), strict=True):
        path = run / "lm" / trial.name / "stage.json"
        settings = asdict(plan.recipe.systems[trial.name]) | {"of_an_older_version": 1}
        write_json(path, json.loads(path.read_text()) | {"settings": settings, "inputs": {"units": units}})
    grid = read_grid(run)
    assert [(trial, state) for trial, state in grid.missing] == [(trials[2], "out of date")]
    path = run / "lm" / trials[1].name / "stage.json"
    record = json.loads(path.read_text())
    record["settings"]["training"]["learning_rate"] = 0.5
    write_json(path, record)
    text = write_page(tmp_path / "results.md", [run]).read_text()
    assert f"- `{trials[1].name}` (out of date)\n- `{trials[2].name}` (out of date)" in text
    assert len(rows_of(text, "### Every training")) == len(trials) - 2
    assert [row[1] for row in plan_rows(run, plan, trials)[:3]] == ["done", "out of date", "out of date"]
    assert estimate(run, plan, trials[1]) > 0, "it has to be done anew"


@pytest.mark.parametrize(
    ("part", "changes", "state"),
    [
        ("lm", {}, "done"),
        ("lm", {"tasks": {"s2st": 1.0, "mt": 1.0}}, "out of date"),
        ("lm", {"tasks": {}}, "out of date"),
        ("lm", {"pretrained": "a digest"}, "out of date"),
        ("translate", {"num_beams": 4}, "out of date"),
        ("scores", {"recognizer": "whisper"}, "out of date"),
        ("scores", {"ceilings": True}, "done"),  # which the first trial has for all
    ],
)
def test_a_cell_made_otherwise_is_out_of_date(
    folder: Path, tmp_path: Path, part: str, changes: dict[str, Any], state: str
) -> None:
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    plan = parse_experiment(CONTENT)
    trial, recipe = plan.trials[0], plan.recipe
    made = {"lm": recipe.systems[trial.name], "translate": recipe.translate, "scores": recipe.score}
    for name, settings in made.items():
        path = run / name / trial.name / "stage.json"
        record = json.loads(path.read_text()) if path.exists() else {"format": FORMAT, "status": "done"}
        write_json(path, record | {"settings": asdict(settings) | (changes if name == part else {})})
    assert trial_state(run, plan, trial) == state


@pytest.mark.slow
def test_pretrained_weights_count_and_not_their_folder(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    for name in ("these", "others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    trial = parse_experiment(CONTENT).trials[0]
    path = run / "lm" / trial.name / "stage.json"
    settings = asdict(parse_experiment(CONTENT).recipe.systems[trial.name])
    made_with = settings | {"pretrained": weights_digest(str(tmp_path / "these"))}
    write_json(path, json.loads(path.read_text()) | {"settings": made_with})
    states = {}
    for name in ("these", "others", "nowhere"):
        models = {"scratch": {"pretrained": str(tmp_path / name)}}
        states[name] = trial_state(run, parse_experiment(CONTENT | {"models": models}), trial)
    assert states == {"these": "done", "others": "out of date", "nowhere": "done"}, "elsewhere they cannot be compared"
    assert trial_state(run, parse_experiment(CONTENT), trial) == "out of date"


@pytest.mark.slow
def test_a_language_without_training_speech_has_scores_and_no_place_in_the_figure(
    drawn: None, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    for name in HOURS:
        counts = {"es": {"pairs": 1, "hours": 2}}
        write_json(run / f"subsets/{name}/stage.json", {"format": FORMAT, "status": "done", "counts": counts})
    text = write_page(tmp_path / "results.md", [run]).read_text()
    assert any(row[:2] == ["fr", "0.00"] for row in rows_of(text, "### Per language"))
    assert ">fr</text>" not in (tmp_path / "results/tiny-small-languages.svg").read_text()


@pytest.mark.slow
def test_a_baseline_with_more_steps_is_compared_with_the_method_that_had_fewer(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    longer = {"systems": ["baseline"], "data": ["some"], "seeds": [1], "steps": [20]}
    (run / "experiment.yaml").write_text(yaml.safe_dump({**CONTENT, "grid": [*CONTENT["grid"], longer]}))
    write_trial(run, "scratch_some_baseline_20_s1", "baseline", 5, [f"u{i}" for i in range(TESTED)])
    text = write_page(tmp_path / "results.md", [run]).read_text()
    row, *_ = rows_of(text, "### Against a system with more steps")
    found = {r.trial.name: r.scores.asr_bleu.score for r in read_grid(run).results}
    ours, theirs = found["scratch_some_scheduled_10_s1"], found["scratch_some_baseline_20_s1"]
    assert row[:7] == ["scratch", "some", "0.90", "10", "scheduled", "baseline", "20"]
    assert row[7:10] == ["ASR-BLEU", f"{theirs:.1f}", f"{ours:.1f}"]
    assert row[10].startswith(f"{ours - theirs:+.1f} [") and row[11] == "1"
    assert f"{row[12]}: scratch, some (0.90 h, scheduled 10 steps, baseline 20): scheduled is" in text
    equal = [r for r in rows_of(text, "### scheduled against baseline, at equal steps") if r[1] == "some"]
    assert {r[3] for r in equal} == {"10"}, "equal steps stay what they were"


@pytest.mark.slow
def test_the_method_is_compared_with_a_further_system_that_had_more_steps(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    longer = {"systems": ["mask"], "data": ["some"], "seeds": [1], "steps": [20]}
    asked = [*CONTENT["comparisons"], {"system": "scheduled", "against": "mask"}]
    changed = {**CONTENT, "comparisons": asked, "grid": [*CONTENT["grid"], longer]}
    (run / "experiment.yaml").write_text(yaml.safe_dump(changed))
    write_trial(run, "scratch_some_mask_20_s1", "mask", 5, [f"u{i}" for i in range(TESTED)])
    text = write_page(tmp_path / "results.md", [run]).read_text()
    rows = rows_of(text, "### Against a system with more steps")
    assert [row[3:7] for row in rows] == [["10", "scheduled", "mask", "20"]] * 2
    assert "scratch, some (0.90 h, scheduled 10 steps, mask 20): scheduled is" in text
    assert {row[4] for row in rows_of(text, "### Further comparisons")} == {"mask"}, "its reverse is an ablation"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("lm/{}/dev.jsonl", '{"step": 5, "bleu": 1.0}\n{}\n'),
        ("lm/{}/dev.jsonl", '{"step": "x"}\n'),
        ("lm/{}/dev.jsonl", '{"step": 5, "bleu": "x"}\n'),
        ("lm/{}/provenance.json", "[1]"),
        ("lm/{}/provenance.json", '[{"threads": "x"}]'),
        ("lm/{}/provenance.json", '[{"machine": 1}]'),
        ("subsets/all/stage.json", '{"format": 2, "status": "done", "counts": {"es": 1}}'),
        ("subsets/all/stage.json", '{"format": 2, "status": "done", "counts": {"es": {"hours": 1}}}'),
        ("subsets/all/stage.json", '{"format": 2, "status": "running"}'),
        ("scores/{}/utterances.jsonl", '{"id": "u0"'),
        ("scores/{}/scores.json", '{"signature"'),
        ("lm/{}/provenance.json", ""),
        ("lm/{}/stage.json", '{"format": 2'),
        ("experiment.yaml", "title: x\ngrid: 3\n"),
        ("experiment.yaml", "title: x\nrecipe: {lm: {steps: 3}}\n"),
    ],
)
def test_a_damaged_file_is_named_in_one_line_and_not_archived(
    folder: Path, tmp_path: Path, file: str, content: str
) -> None:
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    path = run / file.format(parse_experiment(CONTENT).trials[0].name)
    path.write_text(content)
    with pytest.raises(InputError, match=rf"{path}|{path.parent}") as caught:
        write_page(tmp_path / "page.md", [run])
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=re.escape(str(caught.value))):
        write_archive(tmp_path / "kept", run)
    assert not (tmp_path / "kept").exists(), "nothing damaged is archived"


@pytest.mark.parametrize("options", [[], ["--without-texts"]])
def test_an_archive_makes_the_same_page_and_has_no_models(
    drawn: None, folder: Path, tmp_path: Path, options: list[str]
) -> None:
    page = write_page(tmp_path / "before/results.md", [folder])
    run = tmp_path / "grid"
    shutil.copytree(folder, run)
    (run / "lm/scratch_all_scheduled_10_s2/model").mkdir()
    (run / "lm/scratch_all_scheduled_10_s2/model/model.safetensors").write_bytes(b"large")
    dev = run / "lm/scratch_all_scheduled_10_s2/dev.jsonl"
    rows = [json.loads(line) | {"examples": [{"translation": REFERENCES[0]}]} for line in dev.read_text().splitlines()]
    dev.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["experiment", "archive", str(run), "-o", str(tmp_path / "kept"), *options]) == 0
    assert not list((tmp_path / "kept").rglob("model*"))
    texts = [p.tgt_text for p in read_manifest(tmp_path / "kept/corpus")]
    assert texts == ([None] * len(REFERENCES) if options else REFERENCES)
    files = [path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert any(REFERENCES[0].encode() in content for content in files) == (not options)
    assert main(["experiment", "archive", str(tmp_path / "kept"), "-o", str(tmp_path / "again"), *options]) == 0
    assert [p.read_bytes() for p in sorted((tmp_path / "again").rglob("*.*")) if p.is_file()] == [
        p.read_bytes() for p in sorted((tmp_path / "kept").rglob("*.*")) if p.is_file()
    ]
    shutil.rmtree(run)
    assert write_page(tmp_path / "docs/results.md", [tmp_path / "kept"]).read_text() == page.read_text()
    drawings = [sorted((place.parent / "results").iterdir()) for place in (tmp_path / "docs/results.md", page)]
    assert [p.read_bytes() for p in drawings[0]] == [p.read_bytes() for p in drawings[1]] != []
    if options:
        counts = next((tmp_path / "kept/scores").glob("*/counts.jsonl"))
        counts.write_text(counts.read_text().replace("[", "[7, ", 1))
        with pytest.raises(InputError, match=r"counts\.jsonl: damaged"):
            write_page(tmp_path / "page.md", [tmp_path / "kept"])


def test_natural_text_is_compared_as_its_score_is(folder: Path, tmp_path: Path) -> None:
    """The references are normalized: "The soup is hot." and "the soup is hot" have to count alike."""
    run = Path(shutil.copytree(folder, tmp_path / "grid"))
    for trial in parse_experiment(CONTENT).trials:
        place = run / "scores" / trial.name
        scores, lines = read_scores(place), read_utterances(place)
        scores.systems[trial.name].natural_bleu = Interval(12.3)
        write_scores(place / "scores.json", scores)
        for line in lines:
            line.outputs[trial.name].translation = f"{line.outputs[trial.name].translation}.".capitalize()
        (place / "utterances.jsonl").write_text("".join(json.dumps(to_json(line)) + "\n" for line in lines))
    assert main(["experiment", "archive", str(run), "-o", str(tmp_path / "kept"), "--without-texts"]) == 0
    for place in (run, tmp_path / "kept"):
        for ours, theirs in zip(read_grid(place).results, read_grid(folder).results, strict=True):
            assert (ours.counts["text_bleu"] == theirs.counts["text_bleu"]).all()


@pytest.mark.parametrize("metric", ["asr_bleu", "text_bleu"])
@pytest.mark.parametrize("options", [[], ["--without-texts"]])
def test_outputs_that_do_not_add_up_to_their_score_are_refused(
    folder: Path, tmp_path: Path, options: list[str], metric: str
) -> None:
    kept = tmp_path / "kept"
    assert main(["experiment", "archive", str(folder), "-o", str(kept), *options]) == 0
    name = parse_experiment(CONTENT).trials[0].name
    scores = read_scores(kept / "scores" / name)
    setattr(scores.systems[name], metric, Interval(12.34))
    write_scores(kept / "scores" / name / "scores.json", scores)
    with pytest.raises(
        InputError, match=rf"its {metric} adds up to [\d.]+, but scores\.json has 12\.34; write the archive again"
    ):
        write_page(tmp_path / "page.md", [kept])


@pytest.mark.slow
def test_an_archive_loses_no_cells_and_is_nothing_to_go_on_from(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, kept = tmp_path / "grid", tmp_path / "kept"
    shutil.copytree(folder, run)
    weights = tmp_path / "somewhere/weights"
    content = CONTENT | {"models": {"scratch": {}, "other": {"pretrained": str(weights)}}}
    content["grid"] = [block | {"models": ["scratch"]} for block in CONTENT["grid"]]
    (run / "experiment.yaml").write_text(yaml.safe_dump(content))
    stage = run / "subsets/some/stage.json"
    record = json.loads(stage.read_text())
    for command, archived in {
        "unitweave experiment /home/me/x --out /home/me/run --plan": "unitweave experiment x --out FOLDER --plan",
        "unitweave experiment '/home/a b/x y.yaml' -o '/home/a b'": "unitweave experiment 'x y.yaml' -o FOLDER",
        "unitweave experiment ../me/x --out=/run --only a=~me/g": "unitweave experiment x --out=FOLDER --only a=g",
    }.items():
        stage.write_text(json.dumps(record | {"provenance": {"command": command}}))
        write_archive(kept, run)
        assert json.loads((kept / "subsets/some/stage.json").read_text())["provenance"]["command"] == archived
    good = stage.read_text()
    stage.write_text(json.dumps(record | {"provenance": {"command": "unitweave 'experiment"}}))
    with pytest.raises(InputError, match=r"stage\.json: damaged \(the command"):
        write_archive(kept, run)
    for origin in (None, [], {"command": 3}):
        stage.write_text(json.dumps(record | {"provenance": origin}))
        write_archive(kept, run)
    stage.write_text(good)
    write_archive(kept, run)
    assert "somewhere" not in (kept / "experiment.yaml").read_text(), "of nobody's business"
    before = {path: file_digest(path) for path in kept.rglob("*") if path.is_file()}
    write_archive(kept, run)  # again, with the same trials
    shutil.rmtree(run / "scores/scratch_some_mask_10_s1")
    with pytest.raises(InputError, match="scratch_some_mask_10_s1"):
        write_archive(kept, run)
    with pytest.raises(InputError, match="is not an archive"):
        write_archive(run, run)
    shutil.rmtree(run / "scores")
    with pytest.raises(InputError, match="nothing to archive"):
        write_archive(tmp_path / "none", run)
    for damaged_record in (
        "[]",
        '{"format": 3, "build": "", "trials": []}',
        '{"format": 1}',
        '{"format": 2, "build": "", "trials": 7}',
        '{"format": 2, "build": 1, "trials": []}',
    ):
        shutil.copytree(kept, tmp_path / "damaged")
        (tmp_path / "damaged/archive.json").write_text(damaged_record)
        with pytest.raises(InputError, match=r"archive\.json: damaged"):
            read_grid(tmp_path / "damaged")
        shutil.rmtree(tmp_path / "damaged")
    assert main(["experiment", "reduced", "--out", str(kept)]) == 2
    assert "an archive without models" in capsys.readouterr().err
    assert {path: file_digest(path) for path in kept.rglob("*") if path.is_file()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"grid", "kept"}


@pytest.mark.slow
def test_an_archive_is_replaced_only_by_one_that_has_all_of_it(folder: Path, tmp_path: Path) -> None:
    run, kept = tmp_path / "grid", tmp_path / "kept"
    shutil.copytree(folder, run)
    write_archive(kept, run)
    before = {path: file_digest(path) for path in kept.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="contains the sentences, which would be lost"):
        write_archive(kept, run, texts=False)
    with pytest.raises(InputError, match="is the archive that is read"):
        write_archive(kept, kept)
    session = run / "lm/scratch_all_baseline_10_s1/provenance.json"
    own = session.read_text()
    session.write_text(own.replace("1 core of X", "2 cores of Y, 8 GiB"))
    with pytest.raises(InputError, match=r"is another training than .* and would be lost"):
        write_archive(kept, run)
    session.write_text(own)
    assert {path: file_digest(path) for path in kept.rglob("*") if path.is_file()} == before
    (kept / "NOTE").write_text("mine")
    with pytest.raises(InputError, match="NOTE: is no part of an archive and would be lost"):
        write_archive(kept, run)
    (kept / "NOTE").unlink()
    write_archive(kept, run)


@pytest.mark.parametrize("name", ["report", "page.json", ".", "..", "grid"])
def test_a_page_is_a_markdown_file_and_nothing_else_is_overwritten(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", "results", str(folder), "--page", name]) == 2
    assert "give it a name that ends in .md" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="choose another --out"):
        write_expected(folder / "experiment.yaml", [folder])


@pytest.mark.parametrize("changes", [{"systems": 3}, {"models": [1]}, {"data": "x"}, {"grid": "all"}, {"grid": {}}])
def test_a_damaged_experiment_is_refused_before_it_is_merged(
    folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "experiment.yaml").write_text(yaml.safe_dump(CONTENT | changes))
    for folders in ((folder, other), (other, folder)):
        with pytest.raises(InputError, match=f"other: damaged experiment .{next(iter(changes))} must be a"):
            read_grid(*folders)


@pytest.mark.slow
def test_a_page_imports_no_schedule_that_an_archive_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_by_page.py").write_text("def ratio(step, steps):\n    return 0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    schedule = {"shape": "function", "function": "imported_by_page:ratio"}
    content = CONTENT | {"systems": CONTENT["systems"] | {"scheduled": {"schedule": schedule}}}
    (other / "experiment.yaml").write_text(yaml.safe_dump(content))
    text = write_page(tmp_path / "results.md", [other]).read_text()
    assert "| by imported_by_page:ratio | as the function says |" in text
    assert "imported_by_page" not in sys.modules


@pytest.mark.slow
def test_figures_of_titles_that_only_signs_tell_apart_are_two(folder: Path, tmp_path: Path, drawn: None) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "experiment.yaml").write_text(yaml.safe_dump(CONTENT | {"title": "Tiny, small!\n# Not a heading"}))
    (folder_again := tmp_path / "again").mkdir()
    shutil.copytree(other, folder_again, dirs_exist_ok=True)
    (folder_again / "experiment.yaml").write_text(yaml.safe_dump(CONTENT | {"title": "Tiny & small; not a heading"}))
    text = write_page(tmp_path / "two.md", [other, folder_again]).read_text()
    assert "\n# Not" not in text
    assert "two/tiny-small-not-a-heading-curves.svg" in text and "two/tiny-small-not-a-heading-2-curves.svg" in text
    assert (tmp_path / "two/tiny-small-not-a-heading-2-curves.svg").exists()


@pytest.mark.slow
def test_a_ceiling_without_speech_and_names_that_look_like_tex_make_a_page(
    folder: Path, tmp_path: Path, drawn: None
) -> None:
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    for path in run.glob("scores/*/scores.json"):
        scores = json.loads(path.read_text())
        if not (ceilings := list(scores.get("ceilings", {}).values())):
            continue
        (ceiling,) = ceilings
        scores["ceilings"] = {"$a_{b$": ceiling, "text only": {k: v for k, v in ceiling.items() if k != "asr_bleu"}}
        scores["ceilings"]["text only"]["asr_bleu"] = None
        path.write_text(json.dumps(scores))
    page = write_page(tmp_path / "page.md", [run])
    assert "text only" in page.read_text()
    assert "$a_{b$" in (tmp_path / "page/tiny-small-asr-bleu.svg").read_text()


def test_a_manifest_with_columns_of_other_types_is_read_where_they_fit(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    path, texts = run / "corpus/manifest.parquet", pa.array([["x"]] * TESTED)
    table = pq.read_table(path)
    pq.write_table(
        table.set_column(table.column_names.index("src_seconds"), "src_seconds", pa.array([1.5] * TESTED)), path
    )
    read_grid(run)
    pq.write_table(table.set_column(table.column_names.index("tgt_text"), "tgt_text", texts), path)
    with pytest.raises(InputError, match=r"manifest\.parquet: damaged; a column has the wrong type"):
        read_grid(run)


def test_what_cannot_be_a_score_is_refused(folder: Path, tmp_path: Path) -> None:
    kept, name = tmp_path / "kept", "scratch_all_baseline_10_s1"
    write_archive(kept, folder, texts=False)
    scores, counts, dev = kept / f"scores/{name}/scores.json", kept / f"scores/{name}/counts.jsonl", kept / f"lm/{name}"
    good, lines = scores.read_text(), counts.read_text().splitlines()
    scores.write_text(re.sub(r'"score": [\d.]+', '"score": NaN', good, count=1))
    with pytest.raises(InputError, match=r"scores\.json: damaged \(a number in it is not finite"):
        read_grid(kept)
    scores.write_text(good)
    counts.write_text("\n".join(reversed(lines)) + "\n")
    with pytest.raises(InputError, match="in another order, so the two cannot be compared"):
        read_grid(kept)
    for place, change in ((8, 1000), (0, 1000), (3, -1000)):
        row = json.loads(lines[0])
        row["asr_bleu"][place] += change
        counts.write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
        with pytest.raises(InputError, match="cannot be a sentence's"):
            read_grid(kept)
    counts.write_text("\n".join(lines) + "\n")
    curve = (dev / "dev.jsonl").read_text().splitlines()
    (dev / "dev.jsonl").write_text(curve[-1].replace('"bleu"', '"other"') + "\n")
    assert "baseline" not in findings.still_rising(findings.method_against_baseline(read_grid(kept))[-1])
    write_page(tmp_path / "results.md", [kept])


def parts(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The finished grid as two folders: the second has the third seed, and says so in its own grid."""
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(folder, first)
    shutil.copytree(folder, second)
    replicated, ablation = CONTENT["grid"]
    for run, seeds, others in ((first, [1, 2], [ablation]), (second, [3], [])):
        grid = [replicated | {"seeds": seeds}, *others]
        (run / "experiment.yaml").write_text(yaml.safe_dump(CONTENT | {"grid": grid}))
        for path in run.glob("scores/*"):
            if int(path.name[-1]) not in seeds or ("mask" in path.name and not others):
                shutil.rmtree(path)
    return first, second


@pytest.mark.slow
def test_parts_of_an_experiment_make_one_page(page: Path, folder: Path, tmp_path: Path) -> None:
    first, second = parts(folder, tmp_path)
    write_archive(tmp_path / "kept", second)
    joined = write_page(tmp_path / "results.md", [first, tmp_path / "kept"]).read_text()
    assert "Partial" not in joined and "build" not in joined
    for heading in (
        "### scheduled against baseline",
        "### Ablations and further systems",
        "### Per language",
        "### Ceilings",
    ):
        assert rows_of(joined, heading) == rows_of(page.read_text(), heading)
    expected = rows_of(page.read_text(), "### Every training")
    assert sorted(rows_of(joined, "### Every training")) == sorted(expected)
    (first / "experiment.yaml").write_text(yaml.safe_dump(CONTENT))
    alone = write_page(tmp_path / "alone.md", [first]).read_text()
    assert "**Partial: 9 of 13 trials are done.**" in alone
    assert len(read_grid(first, second).results) == 13


@pytest.mark.slow
def test_systems_are_compared_only_on_the_same_units(folder: Path, tmp_path: Path) -> None:
    first, second = parts(folder, tmp_path)
    moved = "scratch_some_baseline_10_s1"
    shutil.move(first / "scores" / moved, second / "scores" / moved)
    ceilings = second / "scores/scratch_all_baseline_10_s3/scores.json"
    row = to_json(system_scores(Interval(76.54)))
    write_json(ceilings, read_json(ceilings) | {"ceilings": {"reference speech": row}})
    for run, content in ((first, b"1 2 3"), (second, b"1 2 4")):
        (run / "units").mkdir()
        (run / "units/units-00000.parquet").write_bytes(content)
    grid = read_grid(first, second)
    assert [grid.builds[r.build] for r in grid.results if r.trial.seed == 3] == ["B"] * 4
    text = write_page(tmp_path / "results.md", [first, second]).read_text()
    seeds = {row[1]: row[9] for row in rows_of(text, "### scheduled against baseline")}
    assert seeds == {"some": "2 on 1", "all": "3 on 1"}, "seed 1 of the two systems is of different builds"
    assert "2 builds of the shared stages, A and B" in text
    assert [row[:3] for row in rows_of(text, "### Ceilings")] == [
        ["A", "reference speech", "87.7 [80.0, 90.0]"],
        ["B", "reference speech", "76.5"],
    ]
    made = {tuple(row[1:5]): row[5] for row in rows_of(text, "### Every training")}
    assert made["some", "baseline", "10", "1"] == "B" and made["some", "scheduled", "10", "1"] == "A"


@pytest.mark.slow
def test_trainings_on_several_machines_and_thread_counts_together_establish_a_headline(
    page: Path, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for path in other.glob("lm/*/provenance.json"):
        sessions = read_json(path)
        write_json(path, [session | {"machine": "4 cores of Y, 8 GiB", "threads": 4} for session in sessions])
    text = write_page(tmp_path / "two.md", [folder, other, folder]).read_text()
    (row, *_) = rows_of(text, "### scheduled against")
    assert row[9:] == ["6 on 2", "established"], "each trial counts once for each machine"
    alone = rows_of(page.read_text(), "### scheduled against")
    assert "by itself" not in page.read_text(), "there is only one machine"
    apart = rows_of(text, "Each kind of machine by itself")
    assert [own[4] for own in apart] == ["X", "X", "Y", "Y"] * (len(alone) // 2)
    for own in apart:
        (same,) = (r for r in alone if r[:4] == own[:4] and r[4] == own[5])
        assert own[6:] == [*same[5:8], same[9].split()[0]], "each machine has what its own page says"
    for path in other.glob("lm/*/provenance.json"):
        write_json(path, [session | {"machine": "1 core of X"} for session in read_json(path)])
    grid, text = read_grid(folder, other), write_page(tmp_path / "same.md", [folder, other]).read_text()
    (row, *_) = rows_of(text, "### scheduled against")
    assert row[9:] == ["3 on 1", "indicated"], "the same digits with other threads are no further training"
    assert (len(grid.results), len(grid.repeated)) == (13, 13)
    assert text.index("Not counted, since each is one of these trainings over again") < text.index("- `scratch_all_")
    for path in other.glob("lm/*/dev.jsonl"):
        path.write_text(path.read_text().replace('"wer": 50.0', '"wer": 49.9'))
    (row, *_) = rows_of(write_page(tmp_path / "one.md", [folder, other]).read_text(), "### scheduled against")
    assert row[9:] == ["6 on 1", "indicated"], "other threads are other trainings, but on no other machine"
    assert len(read_grid(folder, other).results) == 26


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"systems": CONTENT["systems"] | {"mask": {"interleave": {"sides": "source"}}}}, "systems.mask"),
        ({"data": {"all": 1.0, "some": 0.4}}, "data.some"),
        ({"evaluations": 5}, "evaluations"),
        ({"recipe": {}}, "recipe"),
    ],
)
def test_what_differs_is_no_part_of_the_same_experiment(
    folder: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    first, second = parts(folder, tmp_path)
    (second / "experiment.yaml").write_text(yaml.safe_dump(CONTENT | changes))
    with pytest.raises(InputError, match=f"{words} differs"):
        write_page(tmp_path / "results.md", [first, second])


def test_parts_of_other_data_are_refused(folder: Path, tmp_path: Path) -> None:
    first, second = parts(folder, tmp_path)
    for run in (first, second):
        write_json(run / "corpus/stage.json", {"format": FORMAT, "status": "done", "fingerprint": run.name})
    with pytest.raises(InputError, match=r"first, .*second: not parts of one experiment; their corpus has different"):
        write_page(tmp_path / "results.md", [first, second])
