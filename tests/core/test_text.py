import pytest

from accel_trainer.core.text import did_you_mean, listed, one_line, printable, printable_log, with_part


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


EVIL = "a\nb\r\x1b[2J\x1b]0;x\x07\u202e\x9b\u2028\x00"


def test_a_value_in_a_line_makes_no_line_of_its_own() -> None:
    assert one_line(EVIL) == r"a\nb\r\x1b[2J\x1b]0;x\x07\u202e\x9b\u2028\x00"
    assert one_line("plain é 日本 [red]x[/red]") == "plain é 日本 [red]x[/red]"


@pytest.mark.parametrize(
    "kept", ["\x1b[0m", "\x1b[1;31m", "\x1b[38;5;200m", "\x1b[38;2;8;8;8m", "\x1b[m", "\r", "\t", "é"]
)
def test_colors_and_progress_bars_of_a_log_stay(kept: str) -> None:
    assert printable_log(f"x{kept}y\n") == f"x{kept}y\n"


@pytest.mark.parametrize(
    "escaped",
    ["\x1b[2J", "\x1b[H", "\x1b[1A", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\\\", "\x1bP1$r\x1b\\\\", "\x1bc",
     "\x1b[?25l", "\x9b31m", "\x08", "\x00", "\x7f", "\u202e", "\u2066", "\x0b", "\x0c", "\x85", "\udcff"],
)  # fmt: skip
def test_what_else_a_log_would_tell_a_terminal_is_written_out(escaped: str) -> None:
    shown = printable_log(f"a\x1b[32m{escaped}b\n")
    assert shown.startswith("a\x1b[32m")
    assert "\x1b" not in shown[6:]
    assert shown[6:-1].isprintable()


MARKS = "<!-- begin -->", "<!-- end -->"


def test_a_part_goes_between_its_marks_and_nothing_else_changes() -> None:
    page = "before\n<!-- begin -->\nold\n<!-- end -->\nafter\n"
    made = with_part(page, MARKS, "new\nlines")
    assert made == "before\n<!-- begin -->\nnew\nlines\n<!-- end -->\nafter\n"
    assert with_part(made, MARKS, "new\nlines") == made


@pytest.mark.parametrize(
    "page", ["", "<!-- begin -->\n", "<!-- end -->\n<!-- begin -->\n", "<!-- begin --><!-- end -->" * 2]
)
def test_a_page_without_its_marks_is_left_alone(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        with_part(page, MARKS, "new")
