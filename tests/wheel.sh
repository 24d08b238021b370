#!/usr/bin/env bash
# Builds the wheel, installs it in an environment of its own and runs a very small demo outside of the clone: recipes, the
# phrasebook and the templates have to come with the package. PYTHON names the interpreter (3.11 or newer); ENVIRONMENT, if
# set, names a virtual environment to use, which may have torch already.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3.11}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
environment=${ENVIRONMENT:-$work/environment}
[ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
pip() { "$environment/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

# From a copy: building writes into the folder that it builds from.
cp -r "$here/pyproject.toml" "$here/README.md" "$here/LICENSE" "$here/src" "$work/"
rm -rf "$work"/src/*.egg-info
pip wheel --no-deps --wheel-dir "$work/dist" "$work"
rm -rf "$work/src" "$work/build"
pip uninstall --yes unitweave 2> /dev/null || true
pip install --constraint "$here/constraints.txt" "$(echo "$work"/dist/*.whl)[demo]"

cd "$work"
unset PYTHONPATH
"$environment/bin/python" - <<'END'
import sys
import unitweave

assert not {"torch", "transformers"} & set(sys.modules)
assert "site-packages" in unitweave.__file__, unitweave.__file__
assert unitweave.Translator and "torch" in sys.modules
END
"$environment/bin/unitweave" run demo --out run \
    --corpus.embedded.train 24 --corpus.embedded.dev 4 --corpus.embedded.test 4 \
    --encoder.training.steps 2 --codebook.num_units 32 --codebook.max_frames 2000 \
    --text_lm.extra_sentences 50 --text_lm.copy_task_steps 1 --text_lm.training.steps 2 --lm.training.steps 2 --lm.interleave.min_alignment_score 0 \
    --vocoder.training.steps 2 --translate.max_units_per_frame 0.1 --translate.max_text_tokens_per_second 1
test -s run/report.html
echo "the wheel runs the demo outside of the clone: $("$environment/bin/python" --version), $(ls "$work/dist")"
