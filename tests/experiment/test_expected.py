"""The published page and the demo's range follow from the archives, and a run says whether it lies in that range."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.scoring import SIGNATURE, system_scores
from unitweave.cli import main
from unitweave.config.recipe import builtin_recipes, load_recipe
from unitweave.core.errors import InputError
from unitweave.core.records import to_json
from unitweave.experiment.expected import Expected, expected_for, in_words, score_range
from unitweave.experiment.page import write_page
from unitweave.metrics.intervals import Interval
from unitweave.metrics.significance import range_of_a_further_one
from unitweave.pipeline import open_run
from unitweave.score.scores import Scores

ROOT = Path(__file__).parent.parent.parent
ARCHIVES = ROOT / "results/archives"
OF_THE_DEMO = [ARCHIVES / "demo", ARCHIVES / "demo-epyc"]
DEMO = next(path for path in builtin_recipes() if path.stem == "demo")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["replication", "demo", "three-languages", "human-small"])
def test_a_published_page_is_what_its_archives_give(name: str, tmp_path: Path) -> None:
    machines = [path for path in (ARCHIVES / name, ARCHIVES / f"{name}-epyc") if path.exists()]
    written = write_page(tmp_path / f"{name}.md", machines)
    assert written.read_text() == (ROOT / f"results/{name}.md").read_text()


@pytest.mark.slow
def test_the_demos_range_is_what_its_archives_give(tmp_path: Path) -> None:
    kept = DEMO.with_name("demo.expected.json")
    found = score_range(OF_THE_DEMO)
    assert to_json(found) == json.loads(kept.read_text())
    out = tmp_path / "x.json"
    assert main(["experiment", "expect", *map(str, OF_THE_DEMO), "--out", str(out)]) == 0
    assert out.read_bytes() == kept.read_bytes()
    with pytest.raises(InputError, match="--system zzz: the experiment has: baseline, scheduled"):
        score_range(OF_THE_DEMO[1:], "zzz")
    with pytest.raises(InputError, match="at least three trainings"):
        score_range([ARCHIVES / "replication"], "baseline-fast")


def test_the_docs_give_the_range_of_the_file() -> None:
    known = expected_for(load_recipe(DEMO))
    assert known is not None
    row = "| {:.1f} to {:.1f} | {:.1f} to {:.1f} | {:.1f} to {:.1f} |".format(
        *known.baseline, *known.scheduled, *known.difference
    )
    for page in ("README.md", "docs/demo.md"):
        assert re.sub(r"\+(?=\d)", "", (ROOT / page).read_text()).count(row) == 1, page


def test_the_recipe_of_a_demo_has_a_range_and_a_changed_one_has_none(tmp_path: Path) -> None:
    assert expected_for(open_run(tmp_path / "run", "demo").recipe) is not None
    recipe = open_run(tmp_path / "run").recipe
    assert expected_for(recipe) is not None
    assert expected_for(replace(recipe, codebook=replace(recipe.codebook, num_units=128))) is None


def test_a_run_is_told_whether_it_lies_in_the_range() -> None:
    low, high = range_of_a_further_one([10.0, 12.0, 14.0])
    assert (low, high) == pytest.approx((12 - 4.303 * 2 * (4 / 3) ** 0.5, 12 + 4.303 * 2 * (4 / 3) ** 0.5))
    low, high = range_of_a_further_one([float(i) for i in range(15)])
    assert (high - low) / 2 == pytest.approx(2.145 * 20**0.5 * (1 + 1 / 15) ** 0.5), "14 degrees of freedom"
    known = Expected(["a"], 3, ["X", "Y"], 120, (20.0, 21.0), (30.0, 34.0), (10.0, 14.0), (2.1, 21.9))
    for scheduled, place in ((22.0, "below"), (30.0, "inside"), (55.0, "above")):
        systems = {"baseline": system_scores(Interval(20.0)), "scheduled": system_scores(Interval(scheduled))}
        said = in_words(known, Scores(SIGNATURE, systems, {}))
        assert "3 earlier trainings" in said and "X and Y" in said and "difference 10.0 to 14.0" in said
        assert f"Here the difference is {scheduled - 20:+.1f}: {place} the range" in said
