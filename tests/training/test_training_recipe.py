from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from error_codes import raises_code
from training_makers import RECIPE

from hsemotion_space.training.augment import Augmentation
from hsemotion_space.training.files import DataError
from hsemotion_space.training.recipe import Recipe, Source, Teaching, read_recipe

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
TEACHING = '[teaching]\nfile = "soft.parquet"\nweight = 0.75\n'
GOOD = f"""arch = "x"
size = 64
steps = 5
mean = [0.485, 0.456, 0.406]
args = {{ img_size = 64, drop_rate = 0.2 }}
[augmentation]
gray = 0.5
{TEACHING}[[sources]]
name = "a"
files = ["a-*.parquet"]
share = 1
"""


def test_read_recipe_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(GOOD)
    assert read_recipe(file) == Recipe(
        "x", 64, (Source("a", ("a-*.parquet",), 1.0),), {"img_size": 64, "drop_rate": 0.2}, mean=(0.485, 0.456, 0.406), steps=5,
        augmentation=Augmentation(gray=0.5), teaching=Teaching("soft.parquet", 0.75),
    )  # fmt: skip
    assert type(read_recipe(file).args["img_size"]) is int


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("steps", "stepz", "unknown_key"),
        ('arch = "x"', "", "missing_key"),
        ("gray", "grey", "unknown_key"),
        ("share = 1", 'share = "most"', "kind"),
        ('files = ["a-*.parquet"]', 'files = "a"', "kind"),
        ("share = 1", 'share = 1\nformat = "zip"', "kind"),
        ("share = 1", "share = 1\ntuning = 1.5", "range"),
        ("size = 64", "size = ", "unusable"),
        ("steps = 5", "steps = 5.5", "kind"),
        ("steps = 5", "steps = 0", "range"),
        ("steps = 5", 'steps = 5\noptimizer = "sgd"', "kind"),
        ("steps = 5", "steps = 5\nhead_steps = 5", "head_steps"),
        ("[0.485, 0.456, 0.406]", "[0.485, 0.456]", "kind"),
        ("drop_rate = 0.2", 'drop_rate = "a"', "kind"),
        ("share = 1", 'share = 1\n[[sources]]\nname = "a"\nfiles = ["b"]\nshare = 1', "sources"),
        ('file = "soft.parquet"', "", "missing_key"),
        ("weight = 0.75", "weight = 1.5", "range"),
        ("weight = 0.75", "temperature = 0", "range"),
        ("weight = 0.75", "weights = { a = 2 }", "range"),
        ("weight = 0.75", "weights = { c = 0.5 }", "weights"),
        ("weight = 0.75", "heavy = 1", "unknown_key"),
        (TEACHING + "[[sources]]", "[[sources]]\nunlabeled = true", "no_teacher"),
    ],
)
def test_read_recipe_names_the_wrong_key(tmp_path: Path, old: str, new: str, code: str) -> None:
    file = tmp_path / "recipe.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with raises_code(DataError, code) as caught:
        read_recipe(file)
    assert str(file) in str(caught.value)
    with raises_code(DataError, "unreadable", file=tmp_path / "none.toml"):
        read_recipe(tmp_path / "none.toml")


def test_recipe_chooses_nothing_on_rows_that_are_trained_on(tmp_path: Path) -> None:
    with raises_code(DataError, "choose"):
        replace(RECIPE, choose="best", sources=(Source("a", ("a",), 1.0, train_on_tuning=True),))


def test_read_recipe_of_the_repository() -> None:
    files = list(CHECKPOINTS.glob("*/recipe.toml"))
    assert len(files) >= 4
    for file in files:
        recipe = read_recipe(file)
        assert (recipe.steps > 0, recipe.optimizer, recipe.choose) == (True, "adamw", "last")


@pytest.mark.parametrize(
    "record", sorted(CHECKPOINTS.glob("*/training.json")), ids=lambda file: file.parent.name
)
def test_read_recipe_of_a_bundled_run(record: Path) -> None:
    now = json.loads(json.dumps(asdict(read_recipe(record.with_name("recipe.toml")))))
    recorded = json.loads(record.read_text("utf-8"))["recipe"]
    for old, new in zip(recorded.pop("sources"), now["sources"], strict=True):
        assert {key: new[key] for key in old} == old
    augmentation = recorded.pop("augmentation")
    assert {key: now["augmentation"][key] for key in augmentation} == augmentation
    assert now["augmentation"]["light"] == augmentation.get("light", 0)
    assert {key: now[key] for key in recorded} == recorded


def test_lr_rises_holds_and_falls_to_zero() -> None:
    recipe = replace(RECIPE, steps=1000, peak_lr=0.002, warmup=0.03, decay=0.4)
    assert recipe.lr(0) == pytest.approx(0.002 / 30)
    assert recipe.lr(29) == recipe.lr(600) == 0.002
    assert recipe.lr(800) == pytest.approx(0.001)
    assert recipe.lr(999) == pytest.approx(0.002 / 400)
    assert recipe.lr(1000) == 0


def test_lr_of_the_head() -> None:
    recipe = replace(RECIPE, steps=1000, peak_lr=0.002, warmup=0.03, decay=0.4)
    constant = replace(RECIPE, steps=10, head_steps=3, head_lr=0.01, peak_lr=0.002, schedule="constant")
    assert [constant.lr(step) for step in range(10)] == [0.01] * 3 + [0.002] * 7
    later = replace(recipe, steps=1200, head_steps=200, head_lr=0.01)
    assert {later.lr(step) for step in range(200)} == {0.01}
    assert [later.lr(200 + step) for step in range(1001)] == [recipe.lr(step) for step in range(1001)]


def test_read_recipe_with_sam(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    for addition, expected in (
        ("", 0.05),
        ('optimizer = "sam"\n', 0.0),
        ('optimizer = "sam"\nweight_decay = 0.01\n', 0.01),
    ):
        file.write_text(addition + GOOD)
        assert read_recipe(file).weight_decay == expected
