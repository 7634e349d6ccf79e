"""Sign-in of reviewers with their account of the Hugging Face Hub, in a Space alone."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import gradio as gr
from gradio import oauth
from gradio.utils import get_space

from hsemotion_space.settings import Settings

LIBRARIES = ("authlib", "itsdangerous")  # of gradio[oauth], which Spaces install


def can_sign_in(settings: Settings) -> bool:
    """Return whether a sign-in proves who somebody is.

    Outside of a Space, Gradio signs in whoever presses the button as the owner of the machine's token, and
    without the platform's secret anybody could write the cookie that says who has signed in.
    """
    return bool(
        settings.reviewer_names
        and settings.oauth_secret
        and get_space()
        and os.environ.get("OAUTH_CLIENT_ID")
        and all(map(find_spec, LIBRARIES))
    )


def prepare_sign_in(settings: Settings) -> None:
    """Hand the secret to Gradio, which looked for it in the environment; before the page is launched."""
    oauth.OAUTH_CLIENT_SECRET = settings.oauth_secret or None
    if settings.reviewer_names and not can_sign_in(settings):
        words = "HSEMOTION_REVIEWERS is ignored: sign-in works in a Space with hf_oauth: true alone."
        print(words, file=sys.stderr)  # noqa: T201


def reviewer_name(settings: Settings, profile: gr.OAuthProfile | None) -> str:
    """Return the user name of a reviewer who has signed in; empty for anybody else."""
    name = profile.username if profile is not None else ""
    return name if name in settings.reviewer_names and can_sign_in(settings) else ""
