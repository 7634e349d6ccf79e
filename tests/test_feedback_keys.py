"""Secrets, hashes of people and addresses, and receipt codes."""

from __future__ import annotations

import re
import stat
import threading
from pathlib import Path

import pytest
from feedback_makers import refused
from intake_makers import ADDRESS, KEYS, run_all

from hsemotion_space.feedback.keys import CHECK_SYMBOLS, CODE_SYMBOLS, Keys, read_code
from hsemotion_space.settings import Settings


def test_from_settings_makes_one_secret_in_a_race(tmp_path: Path) -> None:
    secrets = set()
    for number in range(20):
        folder, start, found = tmp_path / str(number) / "data", threading.Barrier(6), []

        def make(folder: Path = folder, start: threading.Barrier = start, found: list[bytes] = found) -> None:
            start.wait(30)
            found.append(Keys.from_settings(Settings(feedback_data=folder)).secret)

        run_all([make] * 6)
        assert len(found) == 6
        assert len(set(found)) == 1
        assert [file.name for file in folder.iterdir()] == ["secret"]
        assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
        secrets.add(found[0])
    assert len(secrets) == 20
    assert {len(secret) for secret in secrets} == {32}


def test_from_settings_with_a_secret(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    keys = Keys.from_settings(Settings(feedback_data=folder, feedback_secret="correct horse battery"))
    assert not folder.exists()
    assert keys != Keys.from_settings(Settings(feedback_secret="correct horse battery!"))
    assert "correct horse" not in repr(keys)
    with refused("secret_short"):
        Keys.from_settings(Settings(feedback_secret="short"))


@pytest.mark.parametrize("content", [b"", b"ab", b"zz" * 32, b"\xff" * 64, b"a" * 66])
def test_from_settings_with_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with refused("secret_damaged") as caught:
        Keys.from_settings(Settings(feedback_data=tmp_path))
    assert str(tmp_path) not in str(caught.value)
    assert (tmp_path / "secret").read_bytes() == content


def test_from_settings_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refused("secret_file") as caught:
        Keys.from_settings(Settings(feedback_data=tmp_path / "file" / "data"))
    assert str(tmp_path) not in str(caught.value)


def test_keys_of_different_purposes_differ() -> None:
    code = KEYS.code("x")
    contributor = KEYS.contributor(code)
    hashes = [
        contributor,
        KEYS.pseudonym(contributor),
        KEYS.pseudonym(KEYS.pseudonym(contributor)),
        KEYS.media(contributor),
    ]
    hashes += [KEYS.client(ADDRESS, day) for day in range(3)] + [Keys(b"j" * 32).contributor(code)]
    assert len(set(hashes)) == len(hashes)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in hashes)


def test_client_of_one_customer() -> None:
    same = [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),
        ("::ffff:198.51.100.7", ADDRESS),
        ("", "unknown"),
        ("\ud800", ""),
    ]
    other = [("2001:db8:1:2::1", "2001:db8:1:3::1"), (ADDRESS, "198.51.100.8"), ("", ADDRESS)]
    assert all(KEYS.client(first, 1) == KEYS.client(second, 1) for first, second in same)
    assert all(KEYS.client(first, 1) != KEYS.client(second, 1) for first, second in other)


def test_read_code_however_it_was_typed() -> None:
    for number in range(200):
        code = KEYS.code(str(number))
        assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{2}[0-9A-Z*~$=]", code)
        sloppy = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
        assert read_code(code) == read_code(f"  {sloppy}\n") == read_code(code.replace("-", "")) == code
        assert KEYS.contributor(sloppy) == KEYS.contributor(code)
    assert len({KEYS.code(str(number)) for number in range(5000)}) == 5000


def test_read_code_notices_every_wrong_symbol_and_swap_of_neighbors() -> None:
    for number in range(10):
        code = KEYS.code(str(number)).replace("-", "")
        wrong = {code[:-1], code + "0", code * 100, ""}
        for place, right in enumerate(code):
            symbols = CODE_SYMBOLS if place < len(code) - 1 else CHECK_SYMBOLS
            wrong |= {code[:place] + symbol + code[place + 1 :] for symbol in symbols if symbol != right}
            wrong.add(code[:place] + code[place + 1 : place + 2] + right + code[place + 2 :])
        for text in wrong - {code}:
            with refused("mistyped"):
                read_code(text)
