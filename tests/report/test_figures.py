"""What the figures show: the data in them, not their looks."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from modpose.plot import figures, grids, scatter
from modpose.plot.figures import DisplayStyle
from modpose.report import pose_figures

EM = DisplayStyle((0.0, 1.0), (0.0, 1.0), "lower")
NATURAL = DisplayStyle((0.0, 1.0), (0.0, 1.0), "upper")


def png_size(figure) -> tuple[int, int]:
    """Render (warnings are errors) and return the size in pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).size


def shown(figure) -> np.ndarray:
    """The picture of a figure with one."""
    (image,) = figure.axes[0].images
    return np.asarray(image.get_array())


def pictures(n: int, height: int = 8, width: int = 8, colour: bool = False) -> np.ndarray:
    rng = np.random.default_rng(n)
    return rng.random((n, height, width, 3) if colour else (n, height, width))


def test_learning_curves_show_the_numbers() -> None:
    epoch = np.arange(1, 31)
    metrics = {"epoch": epoch, "elbo": -50.0 - 100 / epoch, "val_elbo": -55.0 - 100 / epoch}
    figure = figures.learning_curves(metrics)
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["training", "validation"]
    assert np.array_equal(lines[1].get_ydata(), metrics["val_elbo"])
    assert png_size(figure)[0] == round(figures.WIDTH * figures.DPI)


@pytest.mark.parametrize("epochs", [1, 2, 5, 18, 30])
def test_learning_curves_count_whole_epochs(epochs: int) -> None:
    epoch = np.arange(1, epochs + 1)
    for ax in figures.learning_curves({"epoch": epoch, "elbo": -50.0 - 1 / epoch}).axes:
        low, high = ax.get_xlim()
        ticks = np.array([tick for tick in ax.get_xticks() if low <= tick <= high])
        assert np.array_equal(ticks, ticks.round())


def test_given_poses_have_no_curve_of_their_kl() -> None:
    metrics = {name: np.arange(3.0) for name in ("epoch", "elbo", "recon", "kl_content")}
    figure = figures.learning_curves(metrics | {"kl_pose": np.zeros(3)})
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.axison]
    assert len(titles) == 3 and "KL of pose" not in titles


@pytest.mark.parametrize("epochs", [1, 2, 12])
def test_learning_curves_of_a_short_run_or_without_validation(epochs: int) -> None:
    metrics = {"epoch": np.arange(epochs) + 1, "elbo": np.full(epochs, -3.0)}
    metrics["val_elbo"] = np.full(epochs, np.nan)
    figure = figures.learning_curves(metrics)
    assert len(figure.axes[0].lines) == 1
    png_size(figure)


@pytest.mark.parametrize("colour", [False, True])
def test_comparison_places_each_picture(colour: bool) -> None:
    images, posed, upright = (pictures(n, colour=colour)[:5] for n in (5, 6, 7))
    figure = figures.comparison(images, posed, upright, NATURAL, blocks=2)
    sheet = shown(figure)
    assert np.array_equal(sheet[:8, :8], images[0])
    assert np.array_equal(sheet[:8, 9:17], posed[0])
    assert np.array_equal(sheet[9:17, 18:26], upright[1])
    second_block = 26 + 3
    assert np.array_equal(sheet[:8, second_block : second_block + 8], images[3])
    png_size(figure)


def test_em_pictures_are_drawn_from_the_bottom() -> None:
    images = pictures(4)
    assert np.array_equal(shown(figures.sheet(images, 4, EM))[:, :8], images[0, ::-1])
    assert np.array_equal(shown(figures.sheet(images, 4, NATURAL))[:, :8], images[0])


def test_manifold_has_the_highest_second_latent_on_top() -> None:
    codes = grids.manifold_codes(np.zeros((3, 2)), 5)
    drawn = np.repeat(codes[:, 1] / 4 + 0.5, 16).reshape(25, 4, 4)
    figure = figures.manifold(drawn, 5, EM, ["first", "second"])
    sheet = shown(figure)
    assert sheet[0, 0] > sheet[-1, 0]
    ax = figure.axes[0]
    places, texts = ax.get_yticks(), [t.get_text().replace("−", "-") for t in ax.get_yticklabels()]
    values = [float(text) for text in texts]
    assert values[np.argmin(places)] == pytest.approx(codes[:, 1].max(), abs=0.05)
    png_size(figure)


@pytest.mark.parametrize("origin", ["upper", "lower"])
def test_angles_turn_the_way_pictures_do(origin) -> None:
    angle = np.array([42.0] * 70 + [-118.0] * 30)
    figure = pose_figures.angle_histogram(angle, None, origin)
    polar = figure.axes[0]
    assert polar.get_theta_direction() == (1 if origin == "lower" else -1)
    bars = {
        round(np.rad2deg(bar.get_x() + bar.get_width() / 2)): bar.get_height()
        for bar in polar.patches
        if bar.get_height() > 0
    }
    assert bars == {45: 70, -115: 30}
    assert np.allclose(polar.get_xlim(), (-np.pi, np.pi))
    png_size(figure)


def test_a_small_positive_angle_is_drawn_counter_clockwise_for_em() -> None:
    """An object on the +x axis, rotated by +30 degrees, is drawn above the axis."""
    axis = np.arange(41) - 20
    x, y = np.meshgrid(axis, axis)
    theta = np.deg2rad(30)
    picture = np.exp(-((x - 12 * np.cos(theta)) ** 2 + (y - 12 * np.sin(theta)) ** 2) / 4)
    row, column = np.unravel_index(np.argmax(EM.image(picture[None])[0]), (41, 41))
    assert column > 20
    assert row < 20  # rows of a drawn picture count from the top


@pytest.mark.parametrize("origin", ["upper", "lower"])
def test_shift_histograms_count_every_image(origin) -> None:
    shift = np.random.default_rng(0).normal(0, 1, (500, 2)).clip(-2, 2)
    figure = pose_figures.shift_histograms(shift, 1.0, origin, "Å")
    assert figure.axes[0].collections[0].get_array().sum() == 500
    assert figure.axes[0].yaxis_inverted() == (origin == "upper")
    png_size(figure)


def test_shifts_that_are_all_zero_are_drawn() -> None:
    png_size(pose_figures.shift_histograms(np.zeros((10, 2)), None, "lower", "px"))


def test_errors_and_scatters_against_truth() -> None:
    rng = np.random.default_rng(0)
    error = rng.normal(0, 4, 400)
    figure = figures.error_histogram(error, "error", "degrees")
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 400
    assert f"{np.median(np.abs(error)):.3g} degrees" in figure.axes[0].get_title(loc="left")
    true, found = rng.normal(size=(2, 50)), rng.normal(size=(2, 50))
    figure = figures.truth_scatter(true, found, [("a", "b"), ("c", "d")], equal=True)
    points = figure.axes[1].collections[0].get_offsets()
    assert np.allclose(points, np.stack([true[1], found[1]], axis=1))
    png_size(figure)


def test_small_sheets_render() -> None:
    look = NATURAL
    png_size(figures.sheet(pictures(1), 1, look))
    png_size(figures.traversals(pictures(6).reshape(2, 3, 8, 8), ["z1", "z2"], look))
    paths = pictures(6).reshape(2, 3, 8, 8)
    figure = figures.interpolations(pictures(2), paths, pictures(3)[:2], look)
    sheet = shown(figure)
    assert np.array_equal(sheet[:8, 10:18], paths[0, 0])
    assert np.array_equal(sheet[10:18, 36:44], pictures(3)[1])
    png_size(figures.titled_pictures(list(pictures(5)), list("abcde"), "upper", 3))


# --- scatter ----------------------------------------------------------------------------------


def test_categories_are_in_natural_order() -> None:
    found = scatter.categories("label", np.array([10, 2, 2, 1]))
    assert found is not None
    assert found.categories == ("1", "2", "10")
    assert found.values.tolist() == [2, 1, 1, 0]


def test_labels_that_are_missing_or_too_many() -> None:
    found = scatter.categories("label", np.array([1.0, np.nan, 2.0]))
    assert found is not None
    assert found.categories == ("1", "2", "–")
    assert scatter.categories("label", np.arange(200)) is None


def test_views_by_number_of_latents() -> None:
    rng = np.random.default_rng(0)
    angle, score = rng.uniform(-180, 180, 60), rng.normal(size=60)

    def names(k: int, angle_deg=angle) -> list[str]:
        z = rng.standard_normal((60, k))
        return [view.name for view in scatter.content_views(z, 0, angle_deg, score)]

    assert names(1) == ["content and angle", "content and ELBO"]
    assert names(1, None) == ["content and ELBO"]
    assert names(2) == ["content"]
    assert names(4) == ["PCA, components 1 and 2", "t-SNE", "PCA, components 3 and 4"]


@pytest.mark.parametrize("kind", ["categories", "cyclic", "number"])
def test_still_shows_every_point(kind) -> None:
    rng = np.random.default_rng(0)
    values = np.repeat([0.0, 1.0], 15) if kind == "categories" else rng.uniform(-180, 180, 30)
    colouring = scatter.Colouring("column", kind, values, ("a", "b"))
    view = scatter.View("v", rng.normal(size=30), rng.normal(size=30), "x", "y")
    figure = scatter.still(view, colouring)
    points = np.concatenate([c.get_offsets() for c in figure.axes[0].collections])
    assert np.allclose(points, np.stack([view.x, view.y], axis=1))
    png_size(figure)


def test_thumbnails_lie_where_the_page_looks_for_them() -> None:
    levels = np.linspace(0, 1, 7)
    tiles = np.repeat(levels, 400).reshape(7, 20, 20)
    columns = scatter.columns_of(7)
    uri = scatter.thumbnail_sheet(tiles, columns, side=16)
    head, data = uri.split(",")
    assert head == "data:image/webp;base64"
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) / 255
    for k, level in enumerate(levels):
        tile = sheet[16 * (k // columns) :][:16, 16 * (k % columns) :][:, :16]
        assert np.allclose(tile, level, atol=0.02)


def test_wide_pictures_keep_their_proportions_in_thumbnails() -> None:
    uri = scatter.thumbnail_sheet(np.zeros((1, 10, 40, 3)), 1, side=16)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))) / 255
    assert sheet[8, 8].max() < 0.1
    assert sheet[1, 8].min() > 0.9


@pytest.mark.parametrize("values", [[1.5, -2.25, np.nan, 3.0], [0.0, 2.0, 1.0], [7.0, 7.0]])
def test_numbers_of_the_page_are_those_of_the_column(values: list[float]) -> None:
    column = np.array(values)
    colouring = scatter.Colouring("column", "number", column)
    view = scatter.View("v", column, column, "x", "y")
    data = scatter.interactive([view], [colouring], np.arange(len(column)), [])
    packed = data["colourings"][0]["values"]
    codes = np.frombuffer(base64.b64decode(packed["codes"]), "<u2")
    read = np.where(codes == scatter.MISSING, np.nan, packed["low"] + packed["step"] * codes)
    spread = np.nanmax(column) - np.nanmin(column)
    assert np.array_equal(np.isnan(read), np.isnan(column))
    assert np.nanmax(np.abs(read - column)) <= spread / 65534 / 2 * (1 + 1e-9)


def test_a_sheet_of_two_thousand_noisy_thumbnails_is_small() -> None:
    tiles = np.random.default_rng(0).random((2000, 8, 8))
    uri = scatter.thumbnail_sheet(tiles, scatter.columns_of(2000))
    assert len(uri) < 1.4 * scatter.SHEET_BYTES


def test_a_strip_of_volumes_names_its_rows_where_they_are() -> None:
    """Nine volumes of 6³ are two blocks of three rows, each row named at its middle."""
    strip = figures.volume_strip(pictures(54).reshape(9, 6, 8, 8)[..., :6, :6], ["a"] * 9)
    [axis] = strip.axes
    rows = [(t.get_text(), t.get_position()[1]) for t in axis.texts if t.get_text() != "a"]
    block = 3 * 6 + 2 + 4
    middles = [block * i + 7 * k + 3.0 for i in range(2) for k in range(3)]
    assert rows == list(zip(["along z", "along y", "slice"] * 2, middles, strict=True))
    left = min(text.get_window_extent().x0 for text in axis.texts)
    assert left >= 0
