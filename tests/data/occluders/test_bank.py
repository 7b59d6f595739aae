import logging
import os
import pickle
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import cache_folder
from accel_trainer.data.occluders import png_masks as masks_module
from accel_trainer.data.occluders.bank import NAMES_IN_JOBS, OTHER_NAMES, Form, open_forms
from accel_trainer.data.occluders.listing import OccluderFiles
from accel_trainer.data.occluders.masks import Masks
from accel_trainer.data.occluders.synthetic import FORMS, TODAYS_FORMS, make_occluders

# Binary masks whose top 3 of 10 rows are covered: visibility 70.
TOP = torch.zeros(10, 6, dtype=torch.uint8)
TOP[:3] = 255


def some_masks(number: int, visibility: int = 70) -> torch.Tensor:
    """uint8 (number, 10, 6), each mask another one: its top rows are covered, and what is there is its index."""
    masks = torch.zeros(number, 10, 6, dtype=torch.uint8)
    masks[:, : 10 - visibility // 10] = 255
    masks[:, -1, 0] = torch.arange(number, dtype=torch.uint8)
    return masks


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return tmp_path / "occluders"


@pytest.fixture
def save(bank: Path) -> Callable[..., Path]:
    """Writes an occluders.pt."""

    def write(masks: Any, form: str = "mud", visibility: int = 70, **options: Any) -> Path:
        path = bank / form / str(visibility) / "occluders.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(masks, path, **options)
        return path

    return write


@pytest.fixture
def save_png(bank: Path) -> Callable[..., Path]:
    def write(
        pixels: torch.Tensor, name: str, mode: str | None = None, form: str = "mud", visibility: int = 70
    ) -> Path:
        path = bank / form / str(visibility) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels.numpy())
        (image.convert(mode) if mode else image).save(path, "PNG")
        return path

    return write


def only_level(bank: Path) -> Masks:
    (form,) = open_forms(bank, ["mud"], None)
    (masks,) = form.levels.values()
    return masks


def problems(bank: Path, forms: Sequence[str] = ("mud",), visibility: Sequence[int] | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        open_forms(bank, forms, visibility)
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


def all_of(masks: Masks) -> torch.Tensor:
    return torch.stack([masks.read(i) for i in range(len(masks))])


# -- occluders.pt -----------------------------------------------------------------------------------------------

RGBA = torch.randint(0, 256, (5, 4, 10, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RGBA[:, 3] = TOP
ALPHA = some_masks(5)


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (ALPHA, ALPHA[:, None]),
        (ALPHA[:, None], ALPHA[:, None]),
        (RGBA, RGBA),
        (RGBA[:, None], RGBA),
        (ALPHA / 255, ALPHA[:, None]),
        (RGBA[:, None].double() / 255, RGBA),
        (torch.full((1, 2, 2), 0.3, dtype=torch.bfloat16), torch.full((1, 1, 2, 2), 77, dtype=torch.uint8)),
        (ALPHA > 100, (ALPHA[:, None] > 100).byte() * 255),
        ((ALPHA > 100).byte(), (ALPHA[:, None] > 100).byte() * 255),
        (ALPHA.float(), ALPHA[:, None]),
        (RGBA[:, None].float(), RGBA),
        ([ALPHA[:2], ALPHA[2:4, None], ALPHA[4:]], ALPHA[:, None]),
        ((ALPHA[:2], ALPHA[:0], ALPHA[2:]), ALPHA[:, None]),
        ([RGBA[:4], RGBA[4:]], RGBA),
        ([ALPHA[:4], ALPHA[4:]], ALPHA[:, None]),
        (torch.nn.Parameter(ALPHA / 255), ALPHA[:, None]),
    ],
)
def test_every_kind_of_file_is_read_as_bytes_of_alpha_or_rgba(
    bank: Path, save: Callable[..., Path], saved: Any, expected: torch.Tensor
) -> None:
    save(saved)
    masks = only_level(bank)
    assert len(masks) == len(expected)
    assert masks.num_channels == expected.shape[1]
    read = all_of(masks)
    assert read.dtype == torch.uint8
    assert not read.requires_grad
    torch.testing.assert_close(read, expected, rtol=0, atol=0)


def test_a_file_is_neither_mapped_nor_read_whole(bank: Path, save: Callable[..., Path]) -> None:
    path = save(torch.full((400, 256, 256), 80, dtype=torch.uint8))
    before = own_kilobytes()
    level = only_level(bank)
    level.read(399)
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert own_kilobytes() - before < path.stat().st_size // 1024 // 2


@pytest.mark.parametrize("kind", ["tensor", "list", "float", "texture", "png"])
def test_masks_whose_file_is_cut_short_meanwhile_are_an_error_and_no_signal(
    bank: Path, save: Callable[..., Path], save_png: Callable[..., Path], kind: str
) -> None:
    masks = some_masks(60)
    match kind:
        case "tensor":
            path = save(masks)
        case "list":
            path = save([masks[:20], masks[20:]])
        case "float":
            path = save(masks.half() / 255)
        case "texture":
            path = save(masks[:, None].repeat(1, 4, 1, 1))
        case _:
            for number in range(60):
                save_png(masks[number], f"{number:02}.png")
    level = only_level(bank)
    assert torch.equal(level.read(59)[-1, :3], masks[59, :3])
    if kind == "png":
        (path,) = packs()
    os.truncate(path, 0)
    with pytest.raises(UserError, match=f"cannot read {path}: the file has become shorter"):
        level.read(59)


def own_kilobytes() -> int:
    """Memory of this process that is not a mapped file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])


@pytest.mark.parametrize("textured", [False, True])
def test_a_mask_that_was_read_is_the_callers_own(bank: Path, save: Callable[..., Path], textured: bool) -> None:
    save(RGBA if textured else ALPHA)
    masks = only_level(bank)
    before = masks.read(2).clone()
    masks.read(2).fill_(7)
    assert torch.equal(masks.read(2), before)
    assert masks.read(2).untyped_storage().nbytes() == before.numel()


def test_the_old_format_of_torch_is_read_whole_with_a_warning(
    bank: Path, save: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = save(ALPHA, _use_new_zipfile_serialization=False)
    assert torch.equal(all_of(only_level(bank)), ALPHA[:, None])
    (told,) = (record.getMessage() for record in caplog.records)
    assert told == f"{path} cannot be mapped, so each process reads it whole; save it anew with torch.save(masks)"


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, bank: Path, save: Callable[..., Path], plain_pickle: bool
) -> None:
    path = save([ALPHA, Malicious(tmp_path / "was here")])
    if plain_pickle:
        path.write_bytes(pickle.dumps(Malicious(tmp_path / "was here")))
    assert problems(bank) == [
        f"Occlusion.occluder_dir: {path} holds more than plain tensors, which is not loaded since it could run code, "
        "or is damaged; save it with torch.save(masks)"
    ]
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize(
    "damage", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"\x80\x02no"]
)
def test_a_damaged_file_of_masks_is_reported(
    bank: Path, save: Callable[..., Path], damage: Callable[[bytes], bytes]
) -> None:
    path = save(ALPHA)
    path.write_bytes(damage(path.read_bytes()))
    (problem,) = problems(bank)
    assert problem.startswith(f"Occlusion.occluder_dir: {path} ")
    assert "torch.save" in problem


def test_a_file_that_cannot_be_opened_is_reported(bank: Path) -> None:
    (bank / "mud" / "70" / "occluders.pt").mkdir(parents=True)
    assert problems(bank) == [f"Occlusion.occluder_dir: cannot read {bank}/mud/70/occluders.pt: not a regular file"]


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        ({"masks": ALPHA}, "holds a dict, not a tensor of masks"),
        ([ALPHA, "text"], "holds a str, not a tensor of masks"),
        ([], "has no masks in it"),
        (ALPHA[:0], "has no masks in it"),
        (ALPHA[0], "has shape (10, 6); wanted (N, H, W), (N, 1, H, W), (N, 4, H, W) or (N, 1, 4, H, W)"),
        (
            RGBA[:, :3],
            "has shape (5, 3, 10, 6); wanted (N, H, W), (N, 1, H, W), (N, 4, H, W) or (N, 1, 4, H, W)",
        ),
        (
            RGBA[:, None].expand(-1, 2, -1, -1, -1),
            "has shape (5, 2, 4, 10, 6); wanted (N, H, W), (N, 1, H, W), (N, 4, H, W) or (N, 1, 4, H, W)",
        ),
        (ALPHA.long(), "is torch.int64; wanted uint8 from 0 to 255, float from 0 to 1, or bool"),
        (ALPHA * -1.0, "is torch.float32 with values outside of 0 to 255"),
        (ALPHA / float("nan"), "is torch.float32 with values outside of 0 to 255"),
        (ALPHA.float().to_sparse(), "is a tensor of layout torch.sparse_coo on cpu, not a plain one"),
        (
            torch.zeros(1, dtype=torch.uint8).expand(5, 10**6, 10**6),
            "has masks of 1,000,000 x 1,000,000 pixels, which are too many",
        ),
        ([ALPHA, RGBA], "has masks of different shapes: (1, 10, 6), (4, 10, 6)"),
        ([ALPHA, ALPHA[:, :5]], "has masks of different shapes: (1, 5, 6), (1, 10, 6)"),
        (
            [ALPHA[:4], ALPHA[:4]],
            "is a list of (4, H, W): four masks each, or one with a texture? save one tensor instead",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_a_file_without_any_masks_is_reported(bank: Path, save: Callable[..., Path], saved: Any, reason: str) -> None:
    path = save(saved)
    assert problems(bank) == [f"Occlusion.occluder_dir: {path} {reason}"]


# -- PNGs -------------------------------------------------------------------------------------------------------


def packs() -> list[Path]:
    return sorted((cache_folder() / "occluders").glob("[!.]*"))


def test_pngs_come_in_the_order_of_their_names(bank: Path, save_png: Callable[..., Path]) -> None:
    for index in (3, 0, 2, 1):
        save_png(ALPHA[index], f"{index}.{'PNG' if index == 2 else 'png'}")
    (bank / "mud" / "70" / "readme.txt").write_text("not a mask")
    (bank / "mud" / "70" / "._0.png").write_text("what macOS leaves")
    masks = only_level(bank)
    assert len(masks) == 4
    assert masks.num_channels == 1
    torch.testing.assert_close(all_of(masks), ALPHA[:4, None], rtol=0, atol=0)


SIXTEEN_BITS = torch.from_numpy((TOP // 2).numpy().astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("pixels", "mode"), [(TOP // 2, "L"), (TOP, "1"), (TOP // 2, "P"), (TOP // 2, "RGB"), (SIXTEEN_BITS, None)]
)
def test_pngs_without_an_alpha_channel_count_as_alpha(
    bank: Path, save_png: Callable[..., Path], pixels: torch.Tensor, mode: str | None
) -> None:
    save_png(pixels, "a.png", mode)
    expected = TOP if mode == "1" else TOP // 2
    masks = only_level(bank)
    assert masks.num_channels == 1
    torch.testing.assert_close(masks.read(0), expected[None], rtol=0, atol=0)


def test_pngs_with_alpha_have_four_channels(bank: Path, save_png: Callable[..., Path]) -> None:
    save_png(RGBA[0].permute(1, 2, 0), "a.png")
    save_png(torch.stack([TOP // 3, TOP], dim=-1), "b.png")
    masks = only_level(bank)
    assert masks.num_channels == 4
    torch.testing.assert_close(masks.read(0), RGBA[0], rtol=0, atol=0)
    torch.testing.assert_close(masks.read(1), torch.stack([TOP // 3] * 3 + [TOP]), rtol=0, atol=0)


def test_among_pngs_with_alpha_the_others_are_black(bank: Path, save_png: Callable[..., Path]) -> None:
    for number in range(60):
        save_png(TOP, f"{number:02}.png")
    # Not one of those that are looked at when the level is opened.
    save_png(RGBA[0].permute(1, 2, 0), "57b.png")
    masks = only_level(bank)
    assert masks.num_channels == 4
    torch.testing.assert_close(masks.read(58), RGBA[0], rtol=0, atol=0)
    torch.testing.assert_close(masks.read(0), torch.stack([TOP * 0] * 3 + [TOP]), rtol=0, atol=0)


def test_pngs_of_another_size_get_the_size_of_the_first(bank: Path, save_png: Callable[..., Path]) -> None:
    save_png(TOP, "a.png")
    save_png(ALPHA[1].repeat_interleave(2, 0).repeat_interleave(3, 1), "b.png")
    masks = only_level(bank)
    torch.testing.assert_close(all_of(masks), torch.stack([TOP, ALPHA[1]])[:, None], rtol=0, atol=0)


def test_pngs_are_packed_once_at_the_first_read(
    bank: Path, save_png: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for index in range(5):
        save_png(ALPHA[index], f"{index}.png")
    masks = only_level(bank)
    assert not packs()
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(masks.read, [0, 1, 2, 3, 4] * 4))
    (pack,) = packs()
    packed = np.load(pack)
    assert packed.dtype == np.uint8
    assert packed.shape == (5, 1, 10, 6)
    written = pack.stat().st_mtime_ns
    assert torch.equal(torch.stack(read[-5:]), all_of(only_level(bank)))
    assert packs() == [pack]
    assert pack.stat().st_mtime_ns == written
    told = [record.getMessage() for record in caplog.records if record.name == masks_module.__name__]
    assert told == [f"packing 5 occluders of {bank}/mud/70 into the cache, once"]


@pytest.mark.parametrize("damage", ["zeroed pixels", "short", "empty"])
def test_a_damaged_pack_of_pngs_is_packed_anew(bank: Path, save_png: Callable[..., Path], damage: str) -> None:
    for index in range(5):
        save_png(ALPHA[index], f"{index}.png")
    files = OccluderFiles(open_forms(bank, ["mud"], None))
    marks = files.marks(np.arange(5), lambda: False)
    (pack,) = packs()
    content = pack.read_bytes()
    header = len(content) - ALPHA[:5].numel() - 5 * 8
    damaged = {
        "zeroed pixels": content[:header] + bytes(ALPHA[:5].numel()) + content[-5 * 8 :],
        "short": content[: len(content) // 2],
        "empty": b"",
    }
    pack.write_bytes(damaged[damage])
    files = OccluderFiles(open_forms(bank, ["mud"], None))
    assert np.array_equal(files.marks(np.arange(5), lambda: False), marks)
    assert torch.equal(all_of(only_level(bank)), ALPHA[:5, None])
    assert pack.read_bytes() == content


def test_a_packed_folder_is_not_mapped_and_its_masks_are_the_callers_own(
    bank: Path, save_png: Callable[..., Path]
) -> None:
    save_png(TOP, "a.png")
    masks = only_level(bank)
    masks.read(0).fill_(7)
    assert torch.equal(masks.read(0)[0], TOP)
    assert str(packs()[0]) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("change", ["content", "size", "name", "another", "one less", "mtime"])
def test_a_folder_that_has_changed_is_packed_anew(bank: Path, save_png: Callable[..., Path], change: str) -> None:
    paths = [save_png(ALPHA[index], f"{index}.png") for index in range(3)]
    all_of(only_level(bank))
    match change:
        case "content":
            save_png(ALPHA[4], "1.png")
        case "size":
            times = paths[1].stat()
            path = save_png(ALPHA[4], "1.png")
            path.write_bytes(path.read_bytes() + b"as some editors do")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        case "name":
            paths[0].rename(paths[0].with_name("9.png"))
        case "another":
            save_png(ALPHA[4], "4.png")
        case "one less":
            paths[1].unlink()
        case "mtime":
            os.utime(paths[1], (1, 1))
    expected = {
        "content": [0, 4, 2], "size": [0, 4, 2], "name": [1, 2, 0],
        "another": [0, 1, 2, 4], "one less": [0, 2], "mtime": [0, 1, 2],
    }[change]  # fmt: skip
    assert torch.equal(all_of(only_level(bank)), ALPHA[expected, None])
    assert len(packs()) == 2


def test_folders_with_the_same_files_have_packs_of_their_own(bank: Path, save_png: Callable[..., Path]) -> None:
    masks = {"mud": ALPHA[1], "dirt": ALPHA[2]}
    for name, mask in masks.items():
        path = save_png(mask, "a.png", form=name)
        # What a PNG ends in does not matter.
        path.write_bytes(path.read_bytes().ljust(200, b"\0"))
        os.utime(path, (1, 1))
    for form in open_forms(bank, ["mud", "dirt"], None):
        assert torch.equal(form.levels[70].read(0)[0], masks[form.name])


def test_a_file_of_masks_comes_before_pngs(
    bank: Path, save: Callable[..., Path], save_png: Callable[..., Path]
) -> None:
    save(ALPHA)
    save_png(TOP, "a.png")
    assert len(only_level(bank)) == 5


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff not a png but quite long enough to be one"])
def test_a_file_that_is_no_png_is_reported(bank: Path, save_png: Callable[..., Path], content: bytes) -> None:
    save_png(TOP, "a.png").with_name("b.png").write_bytes(content)
    path = bank / "mud" / "70" / "b.png"
    assert problems(bank) == [f"Occlusion.occluder_dir: {path} is not a PNG; replace or delete it"]


def damaged(path: Path) -> Path:
    """Cut off within its pixels."""
    whole = path.read_bytes()
    data = whole.index(b"IDAT")
    path.write_bytes(whole[: data + 8] + struct.pack(">I", 0))
    return path


def test_a_damaged_png_of_a_mask_is_reported(bank: Path, save_png: Callable[..., Path]) -> None:
    path = damaged(save_png(TOP, "a.png"))
    (problem,) = problems(bank)
    assert problem.startswith(f"Occlusion.occluder_dir: cannot read {path}: ")


def test_a_damaged_png_leaves_no_pack_behind(bank: Path, save_png: Callable[..., Path]) -> None:
    for number in range(60):
        save_png(TOP, f"{number:02}.png")
    path = damaged(save_png(TOP, "57b.png"))
    masks = only_level(bank)
    for _ in range(2):
        with pytest.raises(UserError, match=f"cannot read {path}"):
            masks.read(0)
    assert packs() == []


def test_a_png_that_was_removed_is_reported(bank: Path, save_png: Callable[..., Path]) -> None:
    path = save_png(TOP, "a.png")
    masks = only_level(bank)
    path.unlink()
    with pytest.raises(UserError, match=f"Occlusion.occluder_dir: cannot read {path}: No such file"):
        masks.read(0)


# -- folders ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_forms(bank: Path, save: Callable[..., Path], save_png: Callable[..., Path]) -> Path:
    for level in (90, 10, 50):
        save(some_masks(3, level), "mudSplash", level)
    save_png(some_masks(1, 20)[0], "a.png", form="polkadot", visibility=20)
    (bank / "mudSplash" / "notes").mkdir()
    (bank / ".trash").mkdir()
    return bank


def levels(forms: list[Form]) -> dict[str, list[int]]:
    return {form.name: list(form.levels) for form in forms}


def test_forms_come_as_asked_with_their_levels_ascending(two_forms: Path) -> None:
    opened = open_forms(two_forms, ["polkadot", "mudSplash", "polkadot"], None)
    assert [form.name for form in opened] == ["polkadot", "mudSplash"]
    assert levels(opened) == {"polkadot": [20], "mudSplash": [10, 50, 90]}


def test_only_the_asked_levels_are_opened(two_forms: Path) -> None:
    (two_forms / "mudSplash" / "50" / "occluders.pt").write_text("damaged")
    assert levels(open_forms(two_forms, ["mudSplash"], [90, 10])) == {"mudSplash": [10, 90]}


def test_a_tilde_in_the_path_stands_for_home(two_forms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(two_forms.parent))
    assert levels(open_forms(Path("~/occluders"), ["polkadot"], None)) == {"polkadot": [20]}


def test_a_missing_folder_is_reported_with_where_to_get_one(bank: Path) -> None:
    assert problems(bank) == [
        f"Occlusion.occluder_dir: no folder {bank}; get the Visual Occluders Dataset "
        "(https://github.com/ddcoggan/VisualOccludersDataset), or make a stand-in: "
        f"accel-train make-occluders {bank}"
    ]


def test_a_missing_form_is_reported_with_those_that_exist(two_forms: Path) -> None:
    assert problems(two_forms, ["polkaDots"]) == [
        f"Occlusion.form: no form 'polkaDots'; {two_forms} has mudSplash, polkadot; did you mean 'polkadot'?"
    ]


def test_an_empty_folder_has_no_forms(bank: Path) -> None:
    bank.mkdir()
    assert problems(bank) == [f"Occlusion.form: no form 'mud'; there are no folders in {bank}"]


def test_a_form_without_any_levels_is_reported(bank: Path) -> None:
    (bank / "mud" / "256").mkdir(parents=True)
    assert problems(bank, visibility=[50]) == [
        f"Occlusion.form: {bank}/mud has no folders of a visibility in percent, such as 50/"
    ]


def test_a_missing_visibility_is_reported_with_those_that_exist(two_forms: Path) -> None:
    assert problems(two_forms, ["mudSplash"], [50, 40, 30]) == [
        f"Occlusion.visibility: mudSplash has no 30, 40; {two_forms}/mudSplash has 10, 50, 90"
    ]


def test_a_level_without_any_masks_is_reported(two_forms: Path) -> None:
    (two_forms / "mudSplash" / "50" / "occluders.pt").unlink()
    assert problems(two_forms, ["mudSplash"]) == [
        f"Occlusion.occluder_dir: {two_forms}/mudSplash/50 has no occluders.pt and no PNGs"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_reported(two_forms: Path) -> None:
    (two_forms / "mudSplash").chmod(0)
    assert problems(two_forms, ["mudSplash"]) == [
        f"Occlusion.occluder_dir: cannot read {two_forms}/mudSplash: Permission denied"
    ]
    (two_forms / "mudSplash").chmod(0o700)


def test_all_mistakes_of_the_occluders_are_reported_at_once(two_forms: Path) -> None:
    (two_forms / "mudSplash" / "10" / "occluders.pt").write_text("damaged")
    (two_forms / "mudSplash" / "90" / "occluders.pt").unlink()
    told = problems(two_forms, ["mudSplash", "bars", "polkadot"], [10, 20, 90])
    assert [problem.split()[0] for problem in told] == [
        "Occlusion.visibility:",
        "Occlusion.occluder_dir:",
        "Occlusion.occluder_dir:",
        "Occlusion.form:",
        "Occlusion.visibility:",
    ]


@pytest.mark.parametrize("visibility", [10, 20, 30, 70, 80, 90])
@pytest.mark.parametrize("png", [False, True])
def test_inverted_masks_of_occluders_are_refused_here(
    bank: Path, save: Callable[..., Path], save_png: Callable[..., Path], visibility: int, png: bool
) -> None:
    inverted = some_masks(3, 100 - visibility)
    inverted[:, -1, 0] = inverted[:, -1, 1]
    if png:
        save_png(inverted[0], "a.png", visibility=visibility)
    else:
        save(inverted, visibility=visibility)
    assert problems(bank) == [
        f"Occlusion.occluder_dir: {bank}/mud/{visibility}: masks cover {visibility}% where visibility {visibility} "
        f"means {100 - visibility}%; invert them: 255 is what covers the image"
    ]
    assert not packs()


def test_the_alpha_of_textured_masks_shows_whether_they_are_inverted(bank: Path, save: Callable[..., Path]) -> None:
    masks = torch.zeros(3, 4, 10, 6, dtype=torch.uint8)
    masks[:, 3] = some_masks(3, 10)
    save(masks, visibility=10)
    open_forms(bank, ["mud"], None)
    masks[:, :3] = 255
    masks[:, 3] = some_masks(3, 90)
    save(masks, visibility=10)
    assert "masks cover 10% where visibility 10 means 90%" in problems(bank)[0]


def test_the_alpha_of_textured_pngs_shows_whether_they_are_inverted(bank: Path, save_png: Callable[..., Path]) -> None:
    for alpha, texture in ((some_masks(1, 10)[0], 0), (some_masks(1, 90)[0], 255)):
        save_png(torch.stack([torch.full_like(alpha, texture)] * 3 + [alpha], dim=-1), "a.png", visibility=10)
        if texture == 0:
            open_forms(bank, ["mud"], None)
    assert "masks cover 10% where visibility 10 means 90%" in problems(bank)[0]


@pytest.mark.parametrize("covered", range(0, 101, 10))
@pytest.mark.parametrize("visibility", [40, 50, 60])
def test_masks_that_are_not_clearly_inverted_are_taken(
    bank: Path, save: Callable[..., Path], visibility: int, covered: int
) -> None:
    save(some_masks(3, 100 - covered), visibility=visibility)
    open_forms(bank, ["mud"], None)


def test_masks_are_looked_at_over_all_of_a_level(bank: Path, save: Callable[..., Path]) -> None:
    right, inverted = torch.ones(200, 1, 4, 4), torch.zeros(200, 1, 4, 4)
    save([right, inverted], visibility=10)  # mean 0.5: as near to the one as to the other
    open_forms(bank, ["mud"], None)
    save([right[:50], inverted], visibility=10)
    assert "masks cover 20%" in problems(bank)[0]


# -- names of forms ---------------------------------------------------------------------------------------------------

# make_images.py of https://github.com/ddcoggan/VisualOccludersDataset (7732ca1) lists these.
TODAYS = {
    *(f"{way}_bars_{count}" for way in ("horizontal", "vertical", "oblique") for count in ("02", "04", "08", "16")),
    *(f"{how}_{shape}" for how in ("filled", "empty") for shape in ("ellipses", "triangles", "rectangles")),
    *("natural", "natural_silhouette", "mud_splash", "patch_drop", "polkadot", "polkasquare", "pink_noise"),
    *("cardinal_crossed_bars", "oblique_crossed_bars", "curved_lines", "straight_lines"),
    *("coarse_noise", "fine_noise", "fine_oriented_noise"),
}
RENAMED = [
    *(f"bar{way}{count}" for way in ("Horz", "Vert", "Obl") for count in ("04", "08", "16")),
    *("crossBarCardinal", "crossBarOblique", "mudSplash"),
]


def test_all_forms_of_the_data_set_and_their_earlier_names_can_be_made() -> None:
    assert len(TODAYS) == 32
    assert {*TODAYS, *RENAMED, *NAMES_IN_JOBS} == FORMS.keys()
    assert TODAYS_FORMS.keys() == TODAYS


@pytest.mark.parametrize("name", RENAMED)
def test_a_form_is_found_by_its_name_in_another_edition(tmp_path: Path, name: str) -> None:
    other = OTHER_NAMES[name]
    assert other in TODAYS
    for there, asked in ((other, name), (name, other)):
        make_occluders(tmp_path / there, [there], [50], number=2, size=16, report=lambda _: None)
        (form,) = open_forms(tmp_path / there, [asked], None)
        assert list(form.levels) == [50]


@pytest.mark.parametrize(
    "name",
    [*(f"bar{way}02" for way in ("Horz", "Vert", "Obl")),
     *(f"{shape}_{how}" for shape in ("rectangles", "triangles", "ellipses") for how in ("empty", "filled"))],
)  # fmt: skip
def test_a_form_of_an_archived_job_is_found_by_its_name_today(tmp_path: Path, name: str) -> None:
    other = OTHER_NAMES[name]
    assert other in TODAYS
    assert OTHER_NAMES[other] == name
    make_occluders(tmp_path, [other], [50], number=2, size=16, report=lambda _: None)
    (form,) = open_forms(tmp_path, [name], None)
    assert (form.name, list(form.levels)) == (name, [50])
    (tmp_path / other).rename(tmp_path / name)
    assert list(open_forms(tmp_path, [other], None)[0].levels) == [50]
    make_occluders(tmp_path / "again", [name, other], [50], number=2, size=16, report=lambda _: None)
    made = [(tmp_path / "again" / form / "50" / "occluders.pt").read_bytes() for form in (name, other)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("naturalUntexturedCropped2", "such shapes as natural_silhouette, in one folder"),
        ("naturalUntextured", "such shapes as natural_silhouette, in one folder"),
        ("naturalTexturedCropped", "such shapes as natural, in one folder"),
        ("barVert12", r"has vertical_bars_\*, with 02, 04, 08 and 16 bars, and none like it"),
        ("barAll04", "has horizontal_bars_04, vertical_bars_04, oblique_bars_04, with"),
    ],
)
def test_a_form_of_an_archived_job_without_an_equal_says_what_is_near(tmp_path: Path, name: str, said: str) -> None:
    make_occluders(tmp_path, ["natural", "natural_silhouette"], [50], number=2, size=16, report=lambda _: None)
    with pytest.raises(UserError, match=f"no form '{name}'; .*{said}"):
        open_forms(tmp_path, [name], None)
    (tmp_path / "natural_silhouette").rename(tmp_path / name)
    assert open_forms(tmp_path, [name], None)[0].name == name


def test_a_form_of_ones_own_is_a_folder_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "hands" / "30").mkdir(parents=True)
    torch.save(torch.full((2, 30, 300, 200), 255, dtype=torch.uint8)[:, :1], tmp_path / "hands" / "30" / "occluders.pt")
    (form,) = open_forms(tmp_path, ["hands"], [30])
    assert form.levels[30].read(1).shape == (1, 300, 200)


def test_a_misspelt_earlier_name_of_a_form_is_near_to_it(tmp_path: Path) -> None:
    make_occluders(tmp_path, ["horizontal_bars_04"], [50], number=2, size=16, report=lambda _: None)
    with pytest.raises(UserError, match=r"no form 'barHorz4'; .* did you mean 'barHorz04'\?"):
        open_forms(tmp_path, ["barHorz4"], None)
