import pytest

from accel_trainer.core.text import did_you_mean, listed, printable


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("resnet81", "; did you mean 'resnet18'?"),
        ("ADAMW", "; did you mean 'AdamW'?"),  # case does not keep them apart
        ("mobilenet", ""),
        ("", ""),
    ],
)
def test_the_nearest_spelling_is_offered_and_nothing_where_none_is_near(word: str, hint: str) -> None:
    assert did_you_mean(word, ["resnet18", "AdamW", "vgg11"]) == hint


def test_at_most_two_spellings_are_offered() -> None:
    assert did_you_mean("resnet1", ["resnet11", "resnet12", "resnet13"]).count("resnet") == 2


@pytest.mark.parametrize(
    ("count", "text"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (9, "0, 1, 2 and 6 more")]
)
def test_a_long_list_ends_in_how_many_more_there_are(count: int, text: str) -> None:
    assert listed(map(str, range(count)), at_most=3) == text


def test_names_that_are_commands_to_a_terminal_are_written_out() -> None:
    assert listed(["a", "b\nc", "\x1b[2J"]) == r"a, 'b\nc', '\x1b[2J'"


def test_text_keeps_its_lines_and_its_letters_and_nothing_else() -> None:
    assert printable("Größe 日本\n\tx") == "Größe 日本\n\tx"
    assert printable("a\x1b]0;title\x07\r\u202eb\x00\ud800") == r"a\x1b]0;title\x07\r\u202eb\x00\ud800"
