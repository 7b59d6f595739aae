"""All mistakes of a file at once: slips of JSON, unknown words, wrong values, contradictions of what is left."""

import json
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.api.verdicts import in_whole_file
from accel_trainer.config import parse_job
from accel_trainer.config.json_syntax import find_slips, without
from accel_trainer.core.errors import InvalidJob, UserError


def lines(content: str) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        parse_job(content.encode(), "job", where="job.json")
    return [line.removeprefix("job.json: ") for line in caught.value.problems]


def test_mistakes_of_every_kind_are_in_one_answer_the_most_specific_first() -> None:
    found = lines(
        """{
    "architecture": "resnet18",
    "amp": True,
    "num_epoch": 3,
    "seed": -1,
    "starting_params": "a/b.pt",
    "class_subset": [1, 1],
    "optimizer_args": {"lr": "fast"},
}"""
    )
    said = [
        "line 3, column 12: True is Python; in JSON it is true",
        "line 8, column 37: a comma after the last entry (a trailing comma); remove it",
        "num_epoch: unknown key; did you mean 'num_epochs'",
        "starting_params: a word of older files; it is finetune_args.starting_params today",
        "seed: -1 is not allowed",
        "class_subset: [1, 1] names a class twice",
        "optimizer_args.lr: 'fast' is not allowed",
    ]
    assert len(found) == len(said)
    assert [line.startswith(part) for line, part in zip(found, said, strict=True)] == [True] * len(said), found


@pytest.mark.parametrize(
    "given",
    [
        # What is wrong may be what the others need: nothing is said of them.
        {"num_veiws": 2, "criterion": "SimCLRLoss"},
        {"num_views": "2", "criterion": "SimCLRLoss"},
        {"num_epoch": 900, "swa": {"start": 500}},
        {"criterion": 3, "primary_metric": "SimCLRLoss"},
        {"video": "yes", "Blur": {"sigmas": [1, 2], "probs": [1, 1]}},
        {"finetune": "yes", "finetune_args": {"starting_params": "a/b.pt"}},
    ],
)
def test_nothing_is_said_of_what_a_mistake_hides(given: dict[str, Any]) -> None:
    assert len(lines(json.dumps({"architecture": "resnet18", **given}))) == 1


def test_a_misspelt_architecture_key_is_not_missing_as_well() -> None:
    assert lines('{"architectur": "resnet18"}') == [
        "architectur: unknown key; did you mean 'architecture' or 'architecture_args'?"
    ]


def test_an_old_name_of_an_architecture_is_named_with_the_command() -> None:
    (line,) = lines('{"architecture": "cornet-s"}')
    assert line == (
        "architecture: 'cornet-s' is a name of older files; it is 'cornet_s' today; accel-train migrate job.json "
        "writes today's job"
    )


SLIPS = [
    ('{"a": 1,}', '{"a": 1}', "column 8: a comma after the last entry (a trailing comma)"),
    ('{"a": [1, 2,]}', '{"a": [1, 2]}', "column 12: a comma after the last item of the list (a trailing comma)"),
    ('{"a": 1 "b": 2}', '{"a": 1, "b": 2}', "column 8: a comma is missing here"),
    ('{"a": ["x" "y"]}', '{"a": ["x", "y"]}', "column 11: a comma is missing here"),
    ('{"a" 1}', '{"a": 1}', "column 5: a ':' is missing after the key"),
    ('{"a"= 1}', '{"a": 1}', "column 5: between a key and its value stands ':'"),
    ("{'a': 'it\\'s'}", '{"a": "it\'s"}', "column 2: texts stand in double quotes"),
    ('{"a": 1} # of mine', '{"a": 1} ', "column 10: JSON has no comments"),
    ('{"a": 1 /* of\nmine */}', '{"a": 1 }', "column 9: JSON has no comments"),
    ('{"a": None}', '{"a": null}', "column 7: None is Python; in JSON it is null"),
    ('{"a": TRUE}', '{"a": true}', "column 7: TRUE is true in JSON"),
    ('{"a": NaN}', '{"a": null}', "column 7: NaN is not a number in JSON"),
    ('{"a": -inf}', '{"a": null}', "column 7: -inf is not a number in JSON"),
    ('{"a": .5}', '{"a": 0.5}', "column 7: the number .5 is 0.5 in JSON"),
    ('{"a": -1.e-3}', '{"a": -1.0e-3}', "column 7: the number -1.e-3 is -1.0e-3 in JSON"),
    ('{"a": 5/6}', '{"a": null}', "column 7: 5/6 is no number"),
    ('{"a": (1, 2)}', '{"a": [1, 2]}', "column 7: a list stands in [ ], not in ( )"),
    ('{"a": resnet18}', '{"a": "resnet18"}', "column 7: the text resnet18 needs double quotes"),
    ('{a: 1}', '{"a": 1}', "column 2: the key a needs double quotes"),
    ('{"a": }', '{"a":  null}', "column 7: the key \"a\" has no value"),
    ('{"a": 1, , "b": 2}', '{"a": 1,  "b": 2}', "column 10: a comma too many"),
    ('{"a": [1, 2}', '{"a": [1, 2]}', "column 12: '}' closes the '[' of line 1, column 7"),
    ('{"a": {"b": 1}', '{"a": {"b": 1}}', "column 15: the '{' of line 1 is never closed"),
    ('{"a": 1}}', '{"a": 1}', "column 9: there is more after the end of the job"),
    ('{"a": "C:\\data"}', '{"a": "C:\\\\data"}', "column 7: '\\d' means nothing in JSON"),
    ('{"a": "x\ty"}', '{"a": "x\\ty"}', "column 9: a tab inside a text"),
    ('{"a":\u20031}', '{"a": 1}', "column 6: a space that is no plain one (em space, U+2003); type it anew"),
    ('{"a":\u200b1}', '{"a":1}', "column 6: a space that is no plain one (zero width space, U+200B); remove it"),
    ('{"a": tr\u200bue}', '{"a": true}', "column 9: a space that is no plain one (zero width space"),
    ('{"a": res\u200bnet}', '{"a": "resnet"}', "column 7: the text resnet needs double quotes"),
    ('{"a":\ufeff1}', '{"a":1}', "column 6: a space that is no plain one (zero width no-break space, U+FEFF)"),
    ('{"a":\x0c1}', '{"a": 1}', "column 6: a space that is no plain one (control character, U+000C)"),
    ('{"a": \'x\ty\'}', '{"a": "x\\ty"}', 'column 9: texts stand in double quotes: "x\\ty"; a tab inside a text'),
    ('{"a": "x\x01y"}', '{"a": "x\\u0001y"}', "column 9: a control character (U+0001) inside a text"),
    ("{\u2018a\u2019: 1}", '{"a": 1}', "column 2: these are typographic quotes"),
    ("{\xaba\xbb: 1}", '{"a": 1}', "column 2: these are typographic quotes"),
    ('{\u201ca\tb": 1}', '{"a\\tb": 1}', "column 2: these are typographic quotes"),
    ('{"a"\uff1a1}', '{"a":1}', "column 5: a full-width"),
    ("{\u201ca\u201d: 1}", '{"a": 1}', "column 2: these are typographic quotes"),
    ('{"a":\u00a01}', '{"a": 1}', "column 6: a space that is no plain one"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meant", "said"), SLIPS)
def test_every_slip_of_json_is_named_in_plain_words_and_its_place(text: str, meant: str, said: str) -> None:
    assert f"line 1, {said}" in lines(text)[0]
    assert without(text, find_slips(text)) == meant


@pytest.mark.parametrize(
    "slip",
    [
        '"num_epochs":,',
        '"num_epochs": 5/6,',
        '"num_epochs": NaN,',
        '"num_epochs",',
    ],
)
def test_a_key_whose_value_is_lost_is_not_taken_for_its_default(slip: str) -> None:
    (line,) = lines('{"architecture": "resnet18", ' + slip + ' "swa": {"start": 500}}')
    assert line.startswith("num_epochs: line 1, column ")


def test_a_lost_value_is_named_from_the_top_of_the_job_on() -> None:
    text = '{"architecture":, "scheduler_args": {"step_size": 3}, "optimizer_args": {"betas": [0.9, 1/2], "lr":}}'
    assert [line.partition(": ")[0] for line in lines(text)] == [
        "architecture",
        "optimizer_args.betas",
        "optimizer_args.lr",
    ]


def test_what_is_wrong_beside_a_lost_value_is_said_too() -> None:
    found = lines('{"architecture": "resnet18", "dataset":, "seed": -1, "num_epoch": 3}')
    assert [line.partition(":")[0] for line in found] == ["dataset", "num_epoch", "seed"]
    found = lines('{"architecture": "resnet18", "dataset":, "class_subset": [1, 1]}')
    assert [line.partition(":")[0] for line in found] == ["dataset", "class_subset"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 1),
        ('{"optimizer_args": {"lr": 0.1, "dataset": "digits"}', 1),
        ('{"class_subset": [0, 1, 2}', 2),
        ('{"architecture": "resnet18", : "digits"}', 1),
        ('{"architecture": "resnet18"}, "dataset": "digits"}', 1),
    ],
)
def test_after_a_slip_of_structure_nothing_else_is_looked_for(tmp_path: Path, text: str, number: int) -> None:
    assert len(lines(text)) == number
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(InvalidJob):
        in_whole_file(path, lambda job: pytest.fail(f"looked at {job}"))


def test_a_key_given_twice_is_named_from_the_top_of_the_job_on() -> None:
    text = '{"architecture": "resnet18", "optimizer_args": {\n"lr": 0.1,\n"lr": 0.2}}'
    assert lines(text) == ["optimizer_args.lr: given twice, in lines 2 and 3; keep one"]


def test_a_key_that_is_empty_is_named() -> None:
    assert lines('{"architecture": "resnet18", "": 1}') == ['"": unknown key']
    (line,) = lines('{"architecture": "resnet18", "Occlusion": {"form": "a", "": 1}}')
    assert line == 'Occlusion."": unknown key'


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("defalt", "default"),
        ("contrastiv", "contrastive"),
        ("contrastive-noblur", "contrastive-no-blur"),
        ("contrastive-weakresize", "contrastive-weak-resize"),
        ("default-randaug", "default-randaugment"),
        ("contrastive_no_blur-augmix", "contrastive-no-blur-augmix"),
    ],
)
def test_a_misspelt_transform_type_names_the_nearest(given: str, near: str) -> None:
    (line,) = lines(json.dumps({"architecture": "resnet18", "transform_type": given}))
    assert line.endswith(f"; did you mean {near!r}?")


def test_each_of_several_odd_characters_is_named_with_its_place() -> None:
    text = '{"a":\xa0\xa01,\n"b":\xa0\u20032,\n\u201cc\u201d: \u201cd\u201d}'
    assert [line.removeprefix("job.json: ") for line in lines(text)][:4] == [
        "line 1, column 6: a space that is no plain one (no-break space, U+00A0); type it anew (2 more such: line 1, "
        "column 7; line 2, column 5)",
        "line 2, column 6: a space that is no plain one (em space, U+2003); type it anew",
        'line 3, column 1: these are typographic quotes; texts stand in straight ones, "',
        'line 3, column 6: these are typographic quotes; texts stand in straight ones, "',
    ]
    many = lines("{" + '"a":\xa01,' * 99 + '"b": 1}')[0]
    assert "(98 more such: line 1, column 13; " in many
    assert many.count("column") == 6


def test_a_text_with_one_typographic_quote_is_told_so() -> None:
    assert "no closing quote in its line; \u201d is a typographic quote" in lines('{"a\u201d: 1}')[0]


@pytest.mark.parametrize("text", ['{"a": "x}', '{"a": 1, "b": "c\n}'])
def test_a_text_that_is_never_closed_is_named_and_nothing_is_read_beyond_it(text: str) -> None:
    (line,) = lines(text)
    assert "this text has no closing quote in its line" in line


@pytest.mark.parametrize("text", ["{" * 99_999, "/*" * 99_999, "'" * 99_999, "[1 " * 50_000, "{'a' " * 40_000, "}" * 9])
def test_no_text_keeps_the_reader_for_long(text: str) -> None:
    assert 1 <= len(lines(text)) <= 21


def test_what_json_accepts_has_no_slips() -> None:
    for value in ({"a": [1, -2.5e-3, True, None, 'x\\ty \u201c "'], "b": {}, "": []}, [], "x", 1.5e300, None):
        assert find_slips(json.dumps(value)) == []
        assert find_slips(json.dumps(value, indent=2, ensure_ascii=False)) == []


def test_what_is_wrong_with_an_evaluation_is_said_by_the_keys_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps({"evaluate": "models/a/b", "degradations": ["blur"]}))
    for option, key in (("degrade", "degradations"), ("levels", "degradations"), ("weights", "weights")):

        def refuse(job: object, option: str = option) -> None:
            raise UserError("is not there", option=option)

        with pytest.raises(UserError) as caught:
            in_whole_file(path, refuse)
        assert caught.value.problems == [f"{key}: is not there"]
