"""The folder of an export: what is in it, what is never in it, and what it never overwrites."""

import getpass
import io
import json
import re
import socket
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from accel_trainer import Run, UserError, __version__
from accel_trainer.export.facts import without_folders
from accel_trainer.export.folder import exported_folder

REPOSITORY = Path(__file__).parents[2]


def front_of(folder: Path) -> dict[str, object]:
    """The metadata of a card."""
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


# -- the card ---------------------------------------------------------------------------------------------------------


def test_the_card_says_what_the_run_has_measured(trained: Run, tmp_path) -> None:
    trained.export(tmp_path / "out", license="apache-2.0")
    front = front_of(tmp_path / "out")
    assert (front["license"], front["library_name"]) == ("apache-2.0", "accel-train")
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"] == {"name": "digits", "type": "digits", "split": "validation"}
    best = trained.summary.best
    assert result["metrics"][0] == {
        "type": "accuracy",
        "name": "Top-1 accuracy (%)",
        "value": pytest.approx(best, abs=1e-3),
    }
    text = (tmp_path / "out/README.md").read_text()
    assert "| `optimizer_args.lr` | 0.003 |" in text
    assert re.search(r"\| train \| 3 \| \d+ \|", text)
    assert f"| torch | {torch.__version__.partition('+')[0]} |" in text


def test_the_card_is_the_same_each_time_and_names_no_license_by_itself(trained: Run, tmp_path) -> None:
    texts = []
    for name in ("one", "two"):
        trained.export(tmp_path / name)
        texts.append((tmp_path / name / "README.md").read_text())
    assert texts[0] == texts[1]
    assert "license" not in front_of(tmp_path / "one")


def test_names_that_mean_something_in_markdown_or_html_are_shown_as_they_are(make_run, tmp_path) -> None:
    run = make_run("small_cnn", {"features": [4, 4, 4]}, dataset="<i>birds</i>")
    environment = json.loads((run.path / "environment.json").read_text())
    (run.path / "environment.json").write_text(json.dumps({**environment, "job": "<b> & *new*"}))
    run.export(tmp_path / "out", "brain-score")
    text = (tmp_path / "out/README.md").read_text()
    assert "\n# \\<b> & \\*new\\*\n" in text
    assert "trained on \\<i>birds\\</i> with" in text
    assert json.loads((tmp_path / "out/brain_score.json").read_text())["identifier"] == "b-new"


def test_a_card_without_a_validation_of_these_weights_claims_none(make_run, tmp_path) -> None:
    run = make_run("small_cnn", {"features": [4, 4, 4]})
    (run.path / "performance.csv").unlink()
    run.export(tmp_path / "out")
    assert "model-index" not in front_of(tmp_path / "out")
    assert "no validation is recorded" in (tmp_path / "out/README.md").read_text()


def test_the_card_cites_this_package_as_it_asks_to_be(trained: Run, tmp_path) -> None:
    about = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    trained.export(tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    for part in (about["title"], about["authors"][0]["name"], __version__):
        assert f"{{{part}}}" in text


def test_nothing_of_the_machine_is_in_an_export(make_run, tmp_path) -> None:
    secret = f"{tmp_path}/secret"
    run = make_run(
        "small_cnn",
        {"features": [4, 4, 4]},
        data_root=secret,
        dataset=f"hf:{secret}/birds",
        model_dir=secret,
        Noise={"noise_types": ["fourier"], "mean_magnitude_path": f"{secret}/mean.npy"},
    )
    for file_format in ("hf",):
        run.export(tmp_path / file_format, file_format)
        content = b"".join(path.read_bytes() for path in (tmp_path / file_format).rglob("*") if path.is_file())
        for word in (str(tmp_path), str(run.path), socket.gethostname(), str(REPOSITORY), str(Path.home())):
            assert word.encode() not in content, word
        assert f"/{getpass.getuser()}/".encode() not in content
    assert "birds" in (tmp_path / "hf/README.md").read_text()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/me/birds", "birds"),
        ("~/birds", "birds"),
        ("hf:/home/me/birds:small", "hf:birds:small"),
        ("hf:owner/birds", "hf:owner/birds"),
        ("birds/small", "birds/small"),
        ({"a": ["/x/y", 1.5]}, {"a": ["y", 1.5]}),
    ],
)
def test_of_a_path_the_last_part_is_said(value: object, shown: object) -> None:
    assert without_folders(value) == shown


# -- preprocessing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "JPEG"])
@pytest.mark.parametrize("size", [(50, 41), (18, 18), (7, 30), (16, 200)])
def test_the_preprocessing_beside_the_weights_has_the_bits_of_the_run(trained: Run, tmp_path, mode, size) -> None:
    noise = Image.effect_noise(size, 90)
    picture = Image.merge("RGB", [noise, noise.rotate(90), noise.transpose(Image.Transpose.ROTATE_180)])
    content = io.BytesIO()
    picture.convert("RGB" if mode == "JPEG" else mode).save(content, "JPEG" if mode == "JPEG" else "PNG")
    trained.export(tmp_path / "out")
    preprocess = load_preprocess(tmp_path / "out")
    path = tmp_path / "image"
    path.write_bytes(content.getvalue())
    assert torch.equal(preprocess(path), trained.transform(path))
    with Image.open(path) as opened:
        assert torch.equal(preprocess(opened), trained.transform(opened))


@pytest.mark.parametrize("how", ["bicubic", "bicubic-squash", "bilinear-squash"])
def test_images_are_resized_as_the_job_says(make_run, image: Path, tmp_path, how: str) -> None:
    run = make_run("small_cnn", {"features": [4, 4, 4]}, eval_resize=how)
    run.export(tmp_path / "out")
    assert torch.equal(load_preprocess(tmp_path / "out")(image), run.transform(image))
    by, _, squash = how.partition("-")
    text = (tmp_path / "out/README.md").read_text()
    where = "Pillow" if by == "bicubic" else "torch"
    assert f"({by}, antialiased, on bytes, in {where})" in text
    assert ("Both sides of an image are resized to 18" in text) == bool(squash)


BLT = {"features": [4, 6, 8], "kernel_sizes": [3, 3, 3]}


@pytest.mark.parametrize("sigmas", [None, [0, 0], [2, 1.5, 0.4, 9, 0]])
def test_clips_are_made_of_an_image_as_in_the_validation(make_run, image: Path, tmp_path, sigmas) -> None:
    """Blurred frames in other sums, of which the last bits differ."""
    blur = {} if sigmas is None else {"Blur": {"sigmas": sigmas}}
    run = make_run("blt_bl", BLT, video=True, num_views=2 if sigmas is None else 1, **blur)
    run.export(tmp_path / "out")
    ours, theirs = load_preprocess(tmp_path / "out")(image), run.transform(image)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if sigmas is None else 1e-5)
    text = (tmp_path / "out/README.md").read_text()
    assert f"The model takes clips (batch, {len(theirs)}, 3, 16, 16)" in text
    assert ("in pixels: 2, 1.5, 0.4, 9, 0 (" in text) == (sigmas is not None and len(sigmas) == 5)


def test_a_blur_by_chance_is_said(make_run, tmp_path) -> None:
    run = make_run("blt_bl", BLT, video=True, Blur={"sigmas": [3, 2, 1], "probs": [0.5, 1, 0]})
    run.export(tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert "in pixels: 3, 2, 0 (" in text
    assert "with probability only: 0.5, 1, 0. `preprocess` blurs them always" in text


def load_preprocess(folder: Path):
    names = {"__file__": str(folder / "preprocessing.py"), "__name__": "preprocessing"}
    exec((folder / "preprocessing.py").read_text(), names)
    return names["preprocess"]


# -- files of others --------------------------------------------------------------------------------------------------


def test_an_export_replaces_an_earlier_one_and_what_python_has_compiled_of_it(trained: Run, tmp_path) -> None:
    out = tmp_path / "deep/out"
    trained.export(out, weights="final")
    (out / "__pycache__").mkdir()
    (out / "__pycache__/preprocessing.cpython-311.pyc").touch()
    written = trained.export(out)
    assert json.loads((out / "config.json").read_text())["accel_train"]["weights"] == "best"
    assert set(written.files) | {"config.json"} == {path.name for path in out.iterdir()}


def test_files_of_others_are_never_overwritten(trained: Run, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    trained.export(out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"files of something else: notes\.txt; give another folder"):
        trained.export(out)
    (out / "notes.txt").unlink()
    (out / "README.md").write_text("my own words")
    with pytest.raises(UserError, match=r"changed since: README\.md"):
        trained.export(out)
    assert (out / "README.md").read_text() == "my own words"
    for other in (trained.path, tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"files of something else|is no folder"):
            trained.export(other)


def test_what_comes_into_the_folder_meanwhile_stays(tmp_path) -> None:
    def write_while_another_does() -> None:
        with exported_folder(tmp_path / "out") as aside:
            (aside / "config.json").write_text("{}")
            (tmp_path / "out").mkdir()
            (tmp_path / "out/mine").touch()

    with pytest.raises(UserError, match="mine"):
        write_while_another_does()
    assert (tmp_path / "out/mine").exists()
    assert not list(tmp_path.glob(".*"))


def test_after_a_mistake_there_is_nothing(trained: Run, tmp_path) -> None:
    for mistake, words in (({"weights": "swa"}, "no swa weights"), ({"format": "tf"}, "no format 'tf'")):
        with pytest.raises(UserError, match=words):
            trained.export(tmp_path / "out", **mistake)
    with pytest.raises(UserError, match="torchvision has no 'small_cnn'"):
        trained.export(tmp_path / "out", "torchvision")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))
