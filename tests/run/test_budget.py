from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.data.annotated import Annotated, Task
from ubend.errors import InputError
from ubend.method.network import check_input_size
from ubend.run.budget import (
    USABLE,
    WIDTHS,
    Facts,
    Speed,
    choose_parts,
    diameters,
    fewer_pixels,
    make_plan,
    middle,
    step_bytes,
)
from ubend.run.recipe import BudgetConfig, TrainingConfig, load_recipe

SHIPPED = load_recipe("default")
DEFAULT = replace(SHIPPED, tiles=replace(SHIPPED.tiles, batch=4))
INSTANCES = Task("instances", (), None)


def facts(*sizes, diameter=None, small=None, channels=1, classes=2):
    return Facts(sizes or ((512, 512),), channels, classes, diameter, small)


def timed(minutes):
    return replace(DEFAULT, training=TrainingConfig(minutes=minutes))


def two_cores(recipe):
    """Seconds of a step that are 0.3 for 4 × 256×256 of width 16, and grow with pixels and the power 1.5 of width."""
    tiles = recipe.tiles
    return 0.3 * tiles.batch * tiles.size**2 / (4 * 256**2) * (recipe.network.width / 16) ** 1.5


def planned(minutes, speed=two_cores, images=None, **choices):
    return make_plan(timed(minutes), images or facts(), seconds=60 * minutes, speed=speed, **choices)


def image(labels, pixels=None):
    labels = np.asarray(labels, np.int32)
    return Annotated("a", np.zeros(labels.shape, np.uint8) if pixels is None else pixels, labels, None)


# what the data say


@pytest.mark.parametrize(
    ("sizes", "diameter", "size", "depth", "coarse", "batch"),
    [
        ([(512, 512)], None, 256, 4, 0, 1),
        ([(512, 512)], 39, 256, 4, 0, 1),
        ([(512, 512)], 107, 256, 5, 1, 1),  # of pixels as the network sees them
        ([(1030, 1349)], 180, 256, 6, 2, 1),
        ([(2048, 2048)], 700, 272, 6, 2, 1),  # one and a half diameters, in multiples of 16
        ([(4096, 4096)], 900, 352, 7, 2, 1),  # wider than the 188 px that depth 4 sees
        ([(4096, 4096)], 2000, 384, 7, 2, 1),  # no larger
        ([(300, 2000)], 200, 80, 6, 2, 10),  # no more than the image has
        ([(200, 200)], 200, 112, 5, 1, 5),  # it must have something left
        ([(100, 100)], 150, 112, 4, 0, 5),
        ([(32, 32)], 10, 32, 3, 0, 16),
        ([(40, 90)], 10, 40, 3, 0, 16),
        ([(1, 1)], None, 8, 1, 0, 16),
        ([(32, 32), (100, 80)], None, 80, 4, 0, 10),  # the largest image rules
        ([(8192, 8192)], 30, 256, 4, 0, 1),
    ],
)
def test_tiles_and_resolution_follow_images_and_objects(sizes, diameter, size, depth, coarse, batch):
    plan = make_plan(SHIPPED, facts(*sizes, diameter=diameter))
    network, tiles = plan.recipe.network, plan.recipe.tiles
    assert (tiles.size, network.depth, network.coarse, tiles.batch) == (size, depth, coarse, batch)
    assert ("resolution" in " ".join(plan.words)) is (coarse > 0)


@pytest.mark.parametrize(("small", "coarse"), [(None, 2), (80, 2), (79, 1), (40, 1), (39, 0)])
def test_small_objects_keep_their_pixels(small, coarse):
    assert make_plan(SHIPPED, facts(diameter=200, small=small)).recipe.network.coarse == coarse


@given(
    st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), min_size=1, max_size=3),
    st.none() | st.floats(1, 3000),
    st.sampled_from(["same", "none"]),
    st.integers(1, 6),
)
def test_any_plan_is_one_that_the_network_takes(sizes, diameter, padding, depth):
    recipe = replace(DEFAULT, network=replace(DEFAULT.network, padding=padding, depth=depth))
    chosen = make_plan(recipe, facts(*sizes, diameter=diameter)).recipe
    check_input_size(chosen.network.core, chosen.tiles.size, chosen.tiles.size)
    again = make_plan(chosen, facts((9, 9), diameter=1)).recipe
    assert again == chosen  # nothing is left to choose


def test_what_a_recipe_keeps_is_kept():
    kept = replace(DEFAULT, budget=BudgetConfig())
    plan = make_plan(kept, facts((32, 32), diameter=300), seconds=1e5, speed=two_cores)
    assert (plan.recipe.network, plan.recipe.tiles) == (DEFAULT.network, DEFAULT.tiles)
    for fixed in ("coarse", "depth", "size"):
        one = replace(DEFAULT, budget=replace(DEFAULT.budget, **{fixed: False}))
        assert make_plan(one, facts(diameter=300)).recipe.network.coarse == 0
    size = replace(DEFAULT, tiles=replace(DEFAULT.tiles, size=512), budget=replace(DEFAULT.budget, size=False))
    assert make_plan(size, facts((100, 100))).recipe.tiles.batch == 4  # of tiles as large as the recipe's
    deep = replace(DEFAULT, network=replace(DEFAULT.network, depth=6), budget=replace(DEFAULT.budget, depth=False))
    assert make_plan(deep, facts((32, 32))).recipe.tiles.size == 256


def test_a_tile_and_a_depth_that_are_kept_and_do_not_fit():
    kept = replace(DEFAULT, tiles=replace(DEFAULT.tiles, size=100), budget=BudgetConfig())
    with pytest.raises(InputError, match="nearest sizes to 100 are 96 and 112"):
        make_plan(kept, facts())
    free = make_plan(replace(kept, budget=BudgetConfig(depth=True)), facts())
    assert (free.recipe.tiles.size, free.recipe.network.depth) == (100, 2)


def test_channels_and_classes_are_not_of_the_recipe():
    network = make_plan(DEFAULT, facts(channels=7, classes=12)).recipe.network
    assert (network.in_channels, network.classes) == (1, 2)


# what the time says


@pytest.mark.parametrize(
    ("minutes", "width", "steps"), [(1, 8, 566), (2, 16, 400), (10, 16, 2000), (60, 16, 12000), (120, 32, 8485)]
)
def test_width_follows_the_minutes(minutes, width, steps):
    plan = planned(minutes)
    assert plan.recipe.network.width == width
    assert plan.steps == steps
    assert plan.recipe.tiles.batch == 4


def test_ten_hours_take_the_widest():
    assert planned(600).recipe.network.width == WIDTHS[-1]


def test_a_slow_machine_takes_smaller_steps():
    plan = planned(1, lambda recipe: 10 * two_cores(recipe))
    assert (plan.recipe.network.width, plan.recipe.tiles.batch) == (8, 1)
    assert "this machine is slow" in " ".join(plan.words)


def test_only_what_may_be_affordable_is_measured():
    asked = []
    planned(10, lambda recipe: asked.append(recipe.network.width) or two_cores(recipe))
    assert set(asked) == {16}


@given(st.floats(1, 600), st.floats(1e-4, 100))
def test_more_minutes_never_make_a_narrower_network(minutes, factor):
    def speed(recipe):
        return factor * two_cores(recipe)

    widths = [planned(more * minutes, speed).recipe.network.width for more in (1, 2, 4)]
    assert widths == sorted(widths)


def test_a_run_by_steps_depends_on_no_machine():
    recipe = replace(DEFAULT, training=TrainingConfig(minutes=0, steps=50))
    plan = make_plan(recipe, facts((100, 100)))
    assert (plan.steps, plan.seconds_a_step, plan.recipe.network.width) == (50, None, 16)
    assert plan.words[0].startswith("50 steps of 16 tiles of 112×112; width 16, depth 4, 1.9 million parameters, ")


# what the memory says


def test_little_memory_takes_the_batch_then_the_tile_then_the_width():
    needed = step_bytes(DEFAULT)
    assert planned(10, memory=int(needed / USABLE) + 1).recipe.tiles.batch == 4
    assert planned(10, memory=int(0.7 * needed / USABLE)).recipe.tiles.batch == 2
    small = planned(10, memory=240 * 10**6).recipe
    assert (small.tiles.batch, small.tiles.size < 256) == (1, True)
    least = planned(10, memory=1).recipe
    assert (least.network.width, least.tiles.batch, least.tiles.size) == (8, 1, 64)


def test_memory_is_told():
    words = planned(10, memory=550 * 10**6).words[-1]
    assert words == "2 × 256×256 at width 16: 550 MB of memory are free, 630 MB would have been needed."


def test_memory_of_what_is_kept_does_not_matter():
    kept = replace(timed(10), budget=BudgetConfig())
    assert make_plan(kept, facts(), memory=1).recipe == kept


def test_float32_takes_more():
    assert 1.4 * step_bytes(DEFAULT) < step_bytes(DEFAULT, sixteen_bits=False) < 2 * step_bytes(DEFAULT)


# words


def test_the_plan_in_words():
    plan = planned(10, images=facts((512, 512), diameter=22.4))
    assert plan.words == (
        "10 minutes → about 2,000 steps of 4 tiles of 256×256; width 16, depth 4, 1.9 million parameters; "
        "0.3 s a step, 630 MB of memory",
        "Tiles of 256×256: large objects measure about 22 px.",
    )


def test_small_images_in_words():
    words = planned(1, images=facts((32, 32), diameter=9)).words
    assert words[0].startswith("1 minute → about ")
    assert words[1] == "Tiles of 32×32: the images have 32 rows or columns at most, large objects measure about 9 px."
    assert words[2] == "Depth 3: each pixel sees 92 px around it."


# measuring


class Bench:
    """A machine with a clock of its own, on which a step takes what `two_cores` says, and the first one more."""

    def __init__(self, factor=1.0, first=1.0):
        self.time, self.factor, self.first, self.tried = 0.0, factor, first, []

    def trial(self, recipe):
        self.tried.append((recipe.network.width, recipe.tiles.batch, recipe.tiles.size))
        extra = [self.first]

        def step():
            self.time += self.factor * two_cores(recipe) + (extra.pop() if extra else 0)

        return step

    def speed(self, allowed):
        return Speed(self.trial, allowed, lambda: self.time)


def test_speed_is_that_of_steps_after_the_first():
    bench = Bench()
    speed = bench.speed(20)
    assert speed(DEFAULT) == pytest.approx(0.3)
    assert speed(DEFAULT) == pytest.approx(0.3)
    assert bench.tried == [(16, 1, 128), (16, 4, 256)]  # one small tile first; nothing twice


def test_making_a_network_is_no_step():
    bench = Bench()
    making = bench.trial

    def trial(recipe):
        bench.time += 100  # what torch loads when the first optimiser is made
        return making(recipe)

    assert Speed(trial, 20, lambda: bench.time)(DEFAULT) == pytest.approx(0.3)
    assert bench.tried == [(16, 1, 128), (16, 4, 256)]


def test_where_the_time_does_not_allow_it_speed_is_foretold():
    bench = Bench(first=0.0)
    assert bench.speed(0.5)(DEFAULT) == pytest.approx(0.3, rel=0.05)
    assert bench.tried == [(16, 1, 128)]
    assert bench.time < 0.5


def test_measuring_stops_when_its_time_is_over():
    bench = Bench(factor=1000, first=0.0)
    bench.speed(1)(DEFAULT)
    assert bench.tried == [(16, 1, 128)]
    assert bench.time == pytest.approx(0.3 * 1000 / 16)  # one step of one small tile


# the facts


def squares(*sides):
    labels = np.zeros((64, 70 * len(sides)), np.int32)
    for k, side in enumerate(sides):
        labels[1 : 1 + side, 70 * k : 70 * k + side] = k + 1
    return labels


def test_diameters_of_instances():
    sides = np.sqrt(4 / np.pi) * np.array([10, 10, 40])
    expected = np.quantile(sides[1:], 0.1), np.quantile(sides, 0.9)  # the first touches the edge
    assert diameters([image(squares(10, 10, 40))], INSTANCES) == pytest.approx(expected)


def test_what_the_edge_cuts_is_not_small():
    labels = np.zeros((100, 100), np.int32)
    labels[30:60, 30:60], labels[:3, 5:9], labels[97:, 50:53] = 1, 2, 3
    small, _ = diameters([image(labels)], INSTANCES)
    assert small == pytest.approx(np.sqrt(4 / np.pi) * 30)
    assert diameters([image(labels[:3])], INSTANCES)[0] == pytest.approx(np.sqrt(4 / np.pi * 12))


def test_a_net_of_membranes_is_thin():
    net = np.zeros((200, 200), np.int32)
    net[::40], net[:, ::40] = 1, 1
    assert diameters([image(net)], Task("binary", (0, 1), None))[1] < 3
    disc = np.hypot(*(np.indices((101, 101)) - 50)) <= 20
    assert diameters([image(disc)], Task("binary", (0, 1), None)) == (None, pytest.approx(41, abs=2))


def test_where_there_is_no_diameter():
    nothing = image(np.zeros((9, 9)))
    assert diameters([nothing], INSTANCES) == (None, None)
    assert diameters([nothing], Task("binary", (0, 1), None)) == (None, None)
    assert diameters([nothing], Task("classes", (0, 1, 2), None)) == (None, None)


def test_the_middle_of_colour():
    pixels = np.arange(6 * 5 * 3).reshape(6, 5, 3)
    assert (middle(pixels, 2) == pixels[2:4, 1:3]).all()
    assert (middle(pixels, 100) == pixels).all()


# fewer pixels


def test_fewer_pixels_are_the_middles_then_fewer_images():
    images = [image(np.zeros((600, 900)), np.zeros((600, 900, 3))) for _ in range(4)]
    assert fewer_pixels(images, 4 * 600 * 900) == images
    cut = fewer_pixels(images, 4 * 300**2)
    assert [one.image.shape for one in cut] == [(300, 300, 3)] * 4
    assert [one.labels.shape for one in fewer_pixels(images, 2 * 256**2)] == [(256, 256)] * 2
    assert [one.labels.shape for one in fewer_pixels(images, 1)] == [(256, 256)]


def area(parts):
    return sum((rows.stop - rows.start) * (columns.stop - columns.start) for _, rows, columns in parts)


def test_parts_cover_no_pixel_twice_and_about_as_many_as_wanted():
    images = [image(np.indices((2000, 1000)).sum(0) % 3), image(np.indices((300, 100)).sum(0) % 3)]
    parts = choose_parts(images, 500_000, tile=64, seed=0)
    assert 500_000 <= area(parts) < 700_000
    seen = [np.zeros(one.labels.shape, int) for one in images]
    for number, rows, columns in parts:
        seen[number][rows, columns] += 1
    assert max(one.max() for one in seen) == 1
    assert choose_parts(images, 500_000, tile=64, seed=0) == parts != choose_parts(images, 500_000, tile=64, seed=1)
    whole = choose_parts(images, 10**7, tile=64, seed=0)
    assert area(whole) == 2000 * 1000 + 300 * 100


@pytest.mark.parametrize("seed", range(5))
def test_parts_show_each_class(seed):
    labels = np.zeros((1024, 1024), np.int32)
    labels[5, 7], labels[1000, 40:60] = 1, 2
    parts = choose_parts([image(labels)], 1, tile=32, seed=seed)
    assert {int(value) for _, rows, columns in parts for value in np.unique(labels[rows, columns])} == {0, 1, 2}
    assert area(parts) < 0.05 * labels.size


def test_parts_of_objects_hold_objects():
    labels = np.zeros((1024, 1024), np.int32)
    labels[:100, :100] = np.arange(10_000).reshape(100, 100)
    parts = choose_parts([image(labels)], 1, tile=64, seed=3)
    assert all(labels[rows, columns].any() for _, rows, columns in parts)
