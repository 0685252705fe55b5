from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.errors import InputError, RecipeError
from ubend.run.recipe import (
    RECIPES,
    BudgetConfig,
    EnergyConfig,
    OptimiserConfig,
    Recipe,
    TrainingConfig,
    load_recipe,
    recipe_from_dict,
    to_toml,
)


def written(folder, text):
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_survive_being_written_and_read(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.about
    assert load_recipe(written(tmp_path, to_toml(recipe))) == recipe
    assert recipe_from_dict(asdict(recipe)) == recipe


@given(about=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_about_a_recipe_survives(about, tmp_path_factory):
    recipe = Recipe(about=about)
    assert load_recipe(written(tmp_path_factory.mktemp("recipe"), to_toml(recipe))) == recipe


def test_the_paper_in_numbers():
    paper = load_recipe("paper")
    assert (paper.tiles.batch, paper.tiles.size) == (1, 572)
    assert (paper.network.width, paper.network.depth) == (64, 4)
    assert (paper.network.padding, paper.network.normalisation) == ("none", "none")
    assert paper.network.dropout == 0.5
    assert (paper.optimiser.kind, paper.optimiser.momentum) == ("sgd", 0.99)
    assert (paper.energy.w0, paper.energy.sigma, paper.energy.balance) == (10, 5, "frequency")
    assert paper.energy.border_on == "everywhere"
    assert paper.energy.dice == 0
    assert (paper.augmentation.elastic_points, paper.augmentation.elastic_sigma) == (3, 10)
    assert paper.prediction.views == "rotations"


def test_a_file_says_only_what_differs(tmp_path):
    mine = load_recipe(written(tmp_path, "[network]\nwidth = 8\n"))
    default = load_recipe("default")
    kept = replace(default.budget, width=False)
    assert mine == replace(default, network=replace(default.network, width=8), budget=kept)


def test_a_number_that_stands_in_a_file_is_kept(tmp_path):
    mine = load_recipe(written(tmp_path, "[tiles]\nsize = 128\nbatch = 2\naimed = 0.5\n"))
    assert mine.budget == BudgetConfig(width=True, depth=True, coarse=True, size=False, batch=False)
    asked = load_recipe(written(tmp_path, "[network]\nwidth = 24\n[budget]\nwidth = true\n"))
    assert asked.budget == load_recipe("default").budget
    with pytest.raises(RecipeError, match="network is a table, not 3"):
        load_recipe(written(tmp_path, "network = 3"))


def test_only_default_leaves_something_to_the_budget():
    assert load_recipe("default").budget == BudgetConfig(width=True, depth=True, coarse=True, size=True, batch=True)
    assert load_recipe("paper").budget == Recipe().budget == BudgetConfig()


def test_base_names_another_start(tmp_path):
    mine = load_recipe(written(tmp_path, 'base = "paper"\n[tiles]\nsize = 188\n'))
    paper = load_recipe("paper")
    assert mine == replace(paper, tiles=replace(paper.tiles, size=188))


def test_a_whole_number_does_for_a_fraction(tmp_path):
    rate = load_recipe(written(tmp_path, "[optimiser]\nlearning_rate = 1\n")).optimiser.learning_rate
    assert isinstance(rate, float)
    assert rate == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer]\nkind = 'sgd'", r"unknown key 'optimizer'; did you mean 'optimiser'\?"),
        ("[network]\nwidht = 8", r"\[network\]: unknown key 'widht'; did you mean 'width'\?"),
        ("[tiles]\nqqqqq = 8", "unknown key 'qqqqq'; there are size, batch, aimed"),
        ("network = 3", "network is a table, not 3"),
        ("[about]\nx = 1", r"about is a text, not \{'x': 1\}"),
        ("[network]\nwidth = '8'", r"\[network\]: width is a whole number, not '8'"),
        ("[network]\nwidth = 8.0", "width is a whole number, not 8.0"),
        ("[network]\nwidth = true", "width is a whole number, not True"),
        ("[network]\ndropout = true", "dropout is a number, not True"),
        ("[augmentation]\nflip = 1", "flip is true or false, not 1"),
        ("[network]\npadding = 'valid'", "padding is 'none' or 'same', not 'valid'"),
        ("[network]\nwidth = 0", "a network needs width from 1 to 4096, not 0"),
        ("[tiles]\nbatch = 0", "tiles need .* batch >= 1"),
        ("[augmentation]\nnoise = -1", "noise of the augmentation is 0 or more"),
        ("[augmentation]\nrotation = nan", "rotation is a finite number, not nan"),
        ("[optimiser]\nlearning_rate = inf", "learning_rate is a finite number, not inf"),
        ("[optimiser]\nlearning_rate = 0", "learning_rate is above 0, not 0"),
        ("[optimiser]\nmomentum = 1", "momentum is below 1, not 1"),
        ("[optimiser]\nwarm_up = -0.1", "warm_up is at least 0, not -0.1"),
        ("[energy]\nsigma = 0", "sigma is above 0, not 0"),
        ("[energy]\ngap = -1", "gap is at least 0, not -1"),
        ("[training]\nheld_out = 1", "held_out is below 1, not 1"),
        ("[training]\nminutes = -1", "minutes is at least 0, not -1"),
        ("[network\nwidth = 8", r"mine.toml is not TOML: .*line 1"),
        ("base = 'mine.toml'", "base is one of the shipped recipes, default or paper, not 'mine.toml'"),
        ("base = 3", "base is one of the shipped recipes, default or paper, not 3"),
    ],
)
def test_a_wrong_recipe_is_refused_and_says_what_is_allowed(text, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, text))


def test_a_file_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes('about = "µ"'.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin.toml is not TOML: .*utf-8"):
        load_recipe(tmp_path / "latin.toml")


def test_a_name_that_is_none():
    with pytest.raises(RecipeError, match=r"no recipe 'papr': shipped are default, paper.*did you mean 'paper'\?"):
        load_recipe("papr")
    with pytest.raises(RecipeError, match=r"or give a TOML file$"):
        load_recipe("missing/file.toml")


@pytest.mark.parametrize(
    "make",
    [
        lambda: EnergyConfig(sigma=float("nan")),
        lambda: OptimiserConfig(learning_rate=float("nan")),
        lambda: TrainingConfig(held_out=float("nan")),
    ],
)
def test_nan_is_within_no_limits(make):
    with pytest.raises(InputError, match="not nan"):
        make()
