"""Every problem of a spec is found at once, each with its key and a way out."""

from pathlib import Path

import pytest

from include.errors import SpecError
from include.settings import Settings
from include.spec.loader import InvalidSpecError, find_spec, load_spec, spec_paths
from include.spec.schema import Spec

SMALL = """
model: small
task: binary
ingest:
  source: {kind: file, path: data/*.csv}
  target: left
"""


def write(folder: Path, text: str, name: str = "small.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(InvalidSpecError) as caught:
        load_spec(write(folder, text))
    return {p.key: f"{p.rule}. {p.fix}" for p in caught.value.problems}


def test_four_keys_are_enough(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, SMALL))
    assert spec.primary.metric == "roc_auc"
    assert len(spec.candidates) == 2
    assert spec.retrain.schedule is None


def test_canonical_form_reads_back_the_same(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, SMALL))
    assert Spec.model_validate(spec.canonical()) == spec


def test_all_problems_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
model: small
task: binry
ownr: me
ingest:
  source: {kind: file, pth: x.csv}
  target: y
  features: {numeric: [a, a]}
validate: {min_rows: 0, max_age: soon}
train:
  candidates:
    - {estimator: sklearn.svm.SVC, serch: {}}
    - estimator: sklearn.linear_model.Ridge
      search: {alpha: {low: 3, high: 1}}
register: {approval: maybe}
deploy: {steps: [50, 10]}
monitor: {labels: {dealy: 3d}}
retrain: {on: [data, drft], schedule: "99", timezone: Mars/Base}
""",
    )
    assert found["task"] == (
        "must be one of binary, multiclass, regression, got 'binry'. Did you mean 'binary'?"
    )
    assert found["monitor.labels.dealy"].endswith("Did you mean 'delay'?")
    assert found["ownr"].endswith("Did you mean 'owner'?")
    assert found["ingest.source.pth"].endswith("Did you mean 'path'?")
    assert found["ingest.source.path"].startswith("is required")
    assert "name each column once" in found["ingest.features"]
    assert "greater than or equal to 1" in found["validate.min_rows"]
    assert "duration" in found["validate.max_age"]
    assert found["train.candidates[0].serch"].endswith("Did you mean 'search'?")
    assert "low must be below high" in found["train.candidates[1].search.alpha"]
    assert "register.approval" in found
    assert "rising percentages" in found["deploy.steps"]
    assert found["retrain.on[1]"].endswith("Did you mean 'drift'?")
    assert "cron" in found["retrain.schedule"]
    assert "time zone" in found["retrain.timezone"]


@pytest.mark.parametrize(
    ("text", "key", "rule"),
    [
        ("evaluate: {minimum: {rmse: 3}}", "evaluate.minimum.rmse", "must be a binary metric"),
        (
            "evaluate: {primary: {metric: auc}}",
            "evaluate.primary.metric",
            "must be a binary metric",
        ),
        ("validate: {max_age: 1d}", "validate.max_age", "needs ingest.time"),
        (
            "deploy: {rollout: ab, decide: labels}",
            "deploy.decide",
            "labels needs monitor.labels, got none",
        ),
        (
            "train: {candidates: [{estimator: os.system}]}",
            "train.candidates[0].estimator",
            "allowed prefix",
        ),
        (
            "evaluate: {slices: [{column: email, max_regression: 0.1}]}",
            "evaluate.slices.0.column",
            "dropped column",
        ),
    ],
)
def test_problems_across_sections(tmp_path: Path, text: str, key: str, rule: str) -> None:
    whole = SMALL.replace("target: left", "target: left\n  drop: [email]") + text
    assert rule in problems(tmp_path, whole)[key]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: [1", "valid YAML"),
        ("", "got nothing"),
        ("- 1", "got list"),
        (SMALL + "task: regression\n", "stands twice"),
        ("a: \x00", "valid YAML"),
    ],
)
def test_text_that_is_no_spec(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(InvalidSpecError, match=rule):
        load_spec(write(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="readable text file"):
        load_spec(tmp_path / "none.yaml")


def test_name_must_match_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="file's stem 'other'"):
        load_spec(write(tmp_path, SMALL, "other.yaml"))


def test_extra_prefix_is_a_setting(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL + "train: {candidates: [{estimator: acme.models.Net}]}")
    with pytest.raises(InvalidSpecError, match="EVERGREEN_CODE_PREFIXES"):
        load_spec(path)
    assert (
        load_spec(path, Settings(code_prefixes="acme")).candidates[0].estimator == "acme.models.Net"
    )


def test_yaml_means_what_it_says(tmp_path: Path) -> None:
    text = SMALL.replace("target: left", "target: left\n  positive: Yes") + (
        "retrain: {on: [data]}\n"
        "train: {candidates: [{estimator: sklearn.linear_model.Ridge, params: {tol: 1e-3}}]}\n"
    )
    spec = load_spec(write(tmp_path, text))
    assert spec.ingest.positive == "Yes"
    assert spec.retrain.on == ("data",)
    assert spec.candidates[0].params == {"tol": 0.001}


def test_long_lists_are_cut_in_the_text_only(tmp_path: Path) -> None:
    keys = "\n".join(f"key{n}: 1" for n in range(15))
    with pytest.raises(InvalidSpecError) as caught:
        load_spec(write(tmp_path, SMALL + keys))
    assert len(caught.value.problems) == 15
    assert "and 5 more" in str(caught.value)


def test_a_yml_file_is_listed_and_refused_with_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL, "small.yml")
    assert spec_paths(Settings(models=tmp_path)) == [path]
    with pytest.raises(
        SpecError, match=r"small\.yml: must end in \.yaml, got \.yml\. Rename it to small\.yaml\."
    ):
        load_spec(path)


def test_unknown_model_suggests_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, SMALL)
    settings = Settings(models=tmp_path)
    assert find_spec("small", settings) == spec_paths(settings)[0]
    with pytest.raises(SpecError, match="Did you mean 'small'"):
        find_spec("smal", settings)


def test_hash_moves_with_what_shapes_the_model_only(tmp_path: Path) -> None:
    base = load_spec(write(tmp_path, SMALL)).spec_hash
    same = load_spec(write(tmp_path, SMALL + "owner: me\nnotify: {to: ['json://x']}")).spec_hash
    other = load_spec(write(tmp_path, SMALL + "train: {seed: 7}")).spec_hash
    assert same == base
    assert other != base


@pytest.mark.parametrize("hold", ["24h", "2d"])
def test_a_hold_as_long_as_the_patience_is_refused(tmp_path: Path, hold: str) -> None:
    """Nothing could ever pass: a step that is not through within its patience is stopped."""
    found = problems(tmp_path, f"{SMALL}deploy: {{rollout: canary, hold: {hold}}}\n")
    assert "hold must be shorter than patience" in found["deploy"]
    longer = f"{SMALL}deploy: {{rollout: canary, hold: {hold}, patience: 3d}}\n"
    assert load_spec(write(tmp_path, longer)).deploy.patience.days == 3
