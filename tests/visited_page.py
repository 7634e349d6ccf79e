"""The real page, where each visitor says by ``X-Forwarded-For`` which network they come from, as behind the
proxy of a Space."""

from __future__ import annotations

from hsemotion_space.settings import Settings
from hsemotion_space.ui import app, clients

if __name__ == "__main__":
    # in the environment Gradio would read it too
    clients.is_space = lambda: True
    app.launch(Settings.from_env())
