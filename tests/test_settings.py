from __future__ import annotations

import pwd
import re
from dataclasses import fields
from pathlib import Path

import pytest
from error_codes import raises_code

from hsemotion_space.settings import PipelineConfig, Settings, SettingsError


def test_defaults_need_no_environment(isolated_user: Path) -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert settings.cache == isolated_user / ".cache" / "hsemotion-space"
    assert (settings.checkpoints.parent / "pyproject.toml").exists()


def test_a_user_without_a_home_has_settings_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_user: int) -> None:
        raise KeyError("no such user")

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    settings = Settings.from_env({})
    assert settings.cache == Path("/.cache/hsemotion-space")
    assert settings.feedback_data == Path("/.local/share/hsemotion-space")


def test_every_variable_is_read_with_its_type() -> None:
    given = {
        "checkpoints": "a/b", "cache": "c", "engine": "torch", "threads": "2", "workers": "1", "host": "0.0.0.0", "port": "80",
        "hosts": "a.example", "upload_mb_per_client": "3", "upload_mb": "4", "free_mb": "5",
        "job_time_limit_s": "1.5", "results_ttl_s": "60", "feedback": "off", "feedback_data": "d", "feedback_database": "sqlite://",
        "feedback_repo": "o/n", "feedback_secret": "s", "review_token": "t", "reviewers": "a, b", "oauth_secret": "c",
        "metrics_token": "m",
    }  # fmt: skip
    assert set(given) == {item.name for item in fields(Settings)} - {"limits"}
    settings = Settings.from_env(
        {f"HSEMOTION_{name.upper()}": text for name, text in given.items()} | {"HSEMOTION_LIMITS": "x"}
    )
    assert settings == Settings(
        Path("a/b"),
        Path("c"),
        "torch",
        2,
        1,
        "0.0.0.0",
        80,
        "a.example",
        3,
        4,
        5,
        1.5,
        60.0,
        "off",
        Path("d"),
        "sqlite://",
        "o/n",
        "s",
        "t",
        "m",
        "a, b",
        "c",
    )
    assert settings.reviewer_names == {"a", "b"}
    assert "secret=" not in repr(settings)
    assert "token=" not in repr(settings)


def test_secrets_are_left_out_by_what_they_are() -> None:
    settings = Settings(
        feedback_secret="s3cret",
        review_token="s3cret",
        feedback_database="postgresql://a:s3cret@b/c",
        feedback_repo="o/n",
    )
    assert "s3cret" not in repr(settings)
    assert settings.without_secrets() == Settings(feedback_repo="o/n")
    assert set(Settings.secret_variables()) == {
        f"HSEMOTION_{name}"
        for name in ("FEEDBACK_SECRET", "REVIEW_TOKEN", "METRICS_TOKEN", "FEEDBACK_DATABASE", "OAUTH_SECRET")
    }
    named = {
        item.name for item in fields(Settings) if re.search("secret|token|password|database|key", item.name)
    }
    assert {f"HSEMOTION_{name.upper()}" for name in named} <= set(Settings.secret_variables())


def test_a_space_says_where_to_listen_and_how_to_sign_in() -> None:
    space = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "7000", "OAUTH_CLIENT_SECRET": "s3cret"}
    assert Settings.from_env(space).oauth_secret == "s3cret"
    assert (Settings.from_env(space).host, Settings.from_env(space).port) == ("0.0.0.0", 7000)
    assert Settings.from_env(space | {"HSEMOTION_HOST": "127.0.0.2"}).host == "127.0.0.2"


@pytest.mark.parametrize(
    ("name", "value"),
    [("ENGINE", "tensorrt"), ("PORT", "http"), ("PORT", "70000"), ("THREADS", "1.5"), ("THREADS", "-1"),
     ("WORKERS", "0"), ("WORKERS", "3"), ("JOB_TIME_LIMIT_S", "soon"),
     ("JOB_TIME_LIMIT_S", "nan"), ("RESULTS_TTL_S", "-1"),
     ("UPLOAD_MB", "0"), ("FREE_MB", "-1"), ("FEEDBACK", "maybe"), ("FEEDBACK_REPO", "name")],
)  # fmt: skip
def test_errors_name_the_variable_and_the_value(name: str, value: str) -> None:
    with raises_code(SettingsError, "out_of_range", "unknown_choice") as caught:
        Settings.from_env({f"HSEMOTION_{name}": value})
    assert caught.value.message.values["name"] == f"HSEMOTION_{name}" and value in str(caught.value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("sample_fps", (0, 60), (-1, 60.1, float("nan"))),
        ("smoothing", (0, 3.0), (-0.1, 3.1, float("inf"))),
        ("detect_every", (1, 30), (0, 31, True)),
        ("detection_side", (160, 1920), (159, 1921)),
        ("min_face", (12, 400), (11, 401)),
    ],
)
def test_config_ranges(name: str, good: tuple[float, ...], bad: tuple[float, ...]) -> None:
    for value in good:
        assert getattr(PipelineConfig(**{name: value}), name) == value
    for value in (*bad, "5", None):
        with raises_code(SettingsError, "out_of_range") as caught:
            PipelineConfig(**{name: value})
        known = caught.value.message.values
        assert (known["name"], known["low"], known["high"]) == (name, min(good), max(good))
