"""The page as a file: nothing of others is code in it, and the script is of modules with tests of their own."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from accel_trainer.report.page.document import ASSETS, as_html, script_of
from accel_trainer.report.page.gather import Wishes, gather

SCRIPTS = Path(__file__).parent / "scripts"
NEEDED_VARIABLE = "ACCEL_TRAIN_NEED_BROWSER"


@pytest.fixture
def page() -> str:
    contents = replace(gather([], Wishes()), notes=["</script><script>alert(1)</script><!--"])
    return as_html(contents, "<b>a & b</b>", "1.0")


def test_what_others_have_named_is_text(page: str) -> None:
    assert page.count("<script") == page.count("</script>") == 3
    assert "<!--" not in page.partition("<body>")[2]
    assert "<title>&lt;b&gt;a &amp; b&lt;/b&gt;</title>" in page


def test_the_policy_allows_these_scripts_and_no_request(page: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; ")
    scripts = re.findall(r"<script(?: type=\"module\")?>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    for content in (*scripts, *re.findall(r"<style>(.*?)</style>", page, re.DOTALL)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)


def test_the_library_has_its_licence_in_the_page(page: str) -> None:
    assert "The MIT License (MIT)" in page
    assert "Copyright (c) 2022 Leon Sorokin" in page


def test_all_modules_are_in_the_script_once_and_import_nothing() -> None:
    script = script_of("main.mjs")
    for module in ASSETS.glob("*.mjs"):
        assert script.count(module.read_text().splitlines()[0]) == 1
    assert not re.findall(r"^\s*(?:import|export)\b", script, re.MULTILINE)


def test_the_modules_pass_their_own_tests() -> None:
    node = shutil.which("node")
    if node is None:
        assert NEEDED_VARIABLE not in os.environ, "there is no node"
        pytest.skip("needs node")
    words = [node, "--test", *map(str, sorted(SCRIPTS.glob("*.test.mjs")))]
    result = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout
    assert "fail 0" in result.stdout
