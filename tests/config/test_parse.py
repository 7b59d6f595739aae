"""From the bytes of a file to a job: everything that can be wrong before a parameter is looked at."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from helpers import plant_no_file

from accel_trainer.config import job_name, parse_job, read_job
from accel_trainer.core.errors import InvalidJob, UserError

MINIMAL = b'{"architecture": "resnet18"}'


def problems(content: bytes) -> list[str]:
    """The lines that are said of a file with this content."""
    with pytest.raises(UserError) as caught:
        parse_job(content, "job", where="folder/job.json")
    lines = caught.value.problems
    assert all(line.startswith("folder/job.json: ") for line in lines)
    assert not any("\n" in line for line in lines)
    return [line.removeprefix("folder/job.json: ") for line in lines]


def problem(content: bytes) -> str:
    """The one line that is said of a file with this content."""
    (line,) = problems(content)
    return line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty; a job is a JSON object"),
        (b"  \n ", "the file is empty; a job is a JSON object"),
        (
            b"{'architecture': 'resnet18'}",
            'line 1, column 2: texts stand in double quotes: "architecture" (1 more such: line 1, column',
        ),
        (b"{'architecture': 1}", 'line 1, column 2: texts stand in double quotes: "architecture"'),
        (b'{\n  "architecture" "resnet18"\n}', "line 2, column 17: a ':' is missing after the key"),
        (b"[1, 2]", "a job is a JSON object, {...}, not a list"),
        (b'"resnet18"', "a job is a JSON object, {...}, not a str"),
        (b"null", "a job is a JSON object, {...}, not a NoneType"),
        (b'{"architecture": "r\xe9seau"}', "is not UTF-8 text (line 1, byte 19; in Latin-1 it would be '\xe9')"),
        (MINIMAL.decode().encode("utf-16"), "is UTF-16 text; save the file as UTF-8"),
        (MINIMAL.decode().encode("utf-16-le"), "is UTF-16 text; save the file as UTF-8"),
        (b'{"architecture": "resnet18",\n "seed": 1,\n "seed": 2}', "seed: given twice, in lines 2 and 3; keep one"),
        (b'{"architecture": "resnet18", "criterion_args": {"weight": 1, "weight": 1}}', "weight: given twice"),
        (b'{"architecture": "resnet18",\n "clip_grad_norm": NaN}', "line 2, column 20: NaN is not a number in JSON"),
        (b'{"optimizer_args": {"lr": Infinity}}', "line 1, column 27: Infinity is not a number in JSON"),
        (b'{"optimizer_args": {"lr": -Infinity}}', "line 1, column 27: -Infinity is not a number in JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"criterion_args":' * 10_000, "is nested too deeply"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"seed": 9223372036854775808}', "seed: has a number that is too large"),
        (b'{"optimizer_args": {"lr": 1' + b"0" * 400 + b"}}", "optimizer_args: has a number that is too large"),
        (b'{"description": "a\\ud800b"}', "description: has half a character"),
        (b'{"criterion_args": {"a": ["\\udfff"]}}', "criterion_args: has half a character"),
        (b'{"a\\u0000b": 1}', r"'a\x00b': a key may not contain control characters"),
        (b'{"optimizer_args": {"a\\nb": 1}}', r"'a\nb': a key may not contain control characters"),
        (b'{"wandb": {"\\u001b[2J": 1}}', r"'\x1b[2J': a key may not contain control characters"),
        (b'{"a\\ud800b": 1}', r"'a\ud800b': a key may not contain control characters"),
        (b'{"architecture": "resnet18", "name": "x"}', "name: a job has the name of its file"),
    ],
)
def test_a_file_that_is_no_job_is_reported_in_plain_words(content: bytes, said: str) -> None:
    assert any(said in line for line in problems(content)), problems(content)
    assert said in problems(content)[0], "what is most in the way comes first"


@pytest.mark.parametrize(
    ("given", "key", "message", "hint"),
    [
        ({"seed": -1}, "seed", "-1 is not allowed: it should be greater than or equal to 0", None),
        ({"wandb": {"mode": "onlin"}}, "wandb.mode", "; did you mean 'online'", None),
        ({"Noise": {"ssnrs": [0.1, 0.2], "probs": [0.1, 0.2, 0.3]}}, "Noise", "has 3 probs for 2 ssnrs", None),
        ({"swa": {"start": 200}}, "swa.start", "200 is after the last epoch (100)", None),
        ({"primary_metric": "acc"}, "primary_metric", "'acc' is not measured with", "it is one of acc1, acc5"),
    ],
)
def test_a_mistake_has_its_file_key_message_and_hint_in_fields(
    given: dict[str, Any], key: str, message: str, hint: str | None
) -> None:
    content = json.dumps({"architecture": "resnet18", **given}).encode()
    with pytest.raises(InvalidJob) as caught:
        parse_job(content, "job", where="folder/job.json")
    (found,) = caught.value.details
    assert (found.where, found.key) == ("folder/job.json", key)
    assert message in found.message
    assert (found.hint or "").startswith(hint or "")
    assert (found.hint is None) == (hint is None)


@pytest.mark.parametrize("key", ["clip_grad_norm", "optimizer_args"])
def test_a_number_too_large_to_be_one_is_refused(key: str) -> None:
    """1e999 is JSON, but Python reads it as infinity."""
    value = "1e999" if key == "clip_grad_norm" else '{"lr": 1e999}'
    assert key in problem(f'{{"architecture": "resnet18", "{key}": {value}}}'.encode())


def test_arguments_nested_too_deeply_to_be_written_again_are_refused() -> None:
    nested = "[" * 400 + "]" * 400
    assert "nested" in problem(f'{{"architecture": "resnet18", "criterion_args": {{"a": {nested}}}}}'.encode())


def test_thousands_of_duplicate_keys_are_reported_in_one_short_line() -> None:
    """Also in no time: as many comparisons as there are pairs of keys would take minutes."""
    content = "{" + ", ".join(f'"{i % 15000}": 1' for i in range(20_000)) + "}"
    lines = problems(content.encode())
    assert "0, 1, 10, 100, 1000," in lines[0]
    assert len(lines[0]) < 200
    assert len(lines) <= 21


def test_a_long_description_is_a_description() -> None:
    long = "x" * 200_000
    content = f'{{"architecture": "resnet18", "description": "{long}"}}'.encode()
    assert parse_job(content, "job", where="job.json").description == long


def test_a_byte_order_mark_is_accepted() -> None:
    assert parse_job(b"\xef\xbb\xbf" + MINIMAL, "job", where="job.json").architecture == "resnet18"


def test_a_job_has_the_name_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "my job.json"
    path.write_bytes(MINIMAL)
    assert read_job(path).name == "my job"
    assert read_job(path, name="other").name == "other"


def unreadable(kind: str, path: Path) -> None:
    other = path.with_name("other")
    match kind:
        case "missing":
            pass
        case "pipe" | "device" | "folder":
            plant_no_file(path, kind)
        case "link to a job":
            other.write_bytes(MINIMAL)
            path.symlink_to(other)
        case "dangling link":
            path.symlink_to(other)
        case "too large":
            path.write_bytes(b" " * 256 * 1024 + MINIMAL)
        case "noise":
            path.write_bytes(random.Random(0).randbytes(1_000_000))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "cannot be read: No such file or directory"),
        ("folder", "cannot be read: not a regular file"),
        ("pipe", "cannot be read: not a regular file"),
        ("device", "is a symbolic link"),
        ("link to a job", "is a symbolic link"),
        ("dangling link", "is a symbolic link"),
        ("too large", "cannot be read: larger than 256 KiB"),
        ("noise", "cannot be read: larger than 256 KiB"),
    ],
)
def test_what_is_not_a_small_file_is_not_read(tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "job.json"
    unreadable(kind, path)
    with pytest.raises(UserError) as caught:
        read_job(path)
    assert caught.value.problems == [f"{path}: {said}"]


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_never_more_than_a_mistake(seed: int) -> None:
    with pytest.raises(UserError):
        parse_job(random.Random(seed).randbytes(1 << seed % 18), "job", where="job.json")


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "my job", "lr=0.1,wd=1e-4", "Größe-日本", "v1.2", "x" * 120, "é" * 60])
def test_a_name_may_have_any_printable_characters(name: str) -> None:
    assert job_name(Path("queue", f"{name}.json")) == name


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("job.yaml", "ends in .json"),
        ("job", "ends in .json"),
        (".json", "ends in .json"),
        ("a\nb.json", "control characters"),
        ("a\x1b[2Jb.json", "control characters"),
        ("a\u202egnp.json", "control characters"),
        ("a..b.json", "'..'"),
        ("...json", "'..'"),
        ("a\\b.json", "'\\'"),
        ("-rf.json", "may not begin with '-'"),
        (".hidden.json", "may not begin with '.'"),
        ("x" * 121 + ".json", "120 bytes, not 121"),
        ("é" * 61 + ".json", "120 bytes, not 122"),
    ],
)
def test_a_name_that_could_mislead_is_refused(file: str, said: str) -> None:
    with pytest.raises(UserError, match=r"a job") as caught:
        job_name(Path("queue", file))
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
