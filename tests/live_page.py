"""The real page with a live camera that stops after a few seconds, for its test in a browser: ``live_page.py SECONDS``."""

from __future__ import annotations

import sys
from functools import partial

from hsemotion_space.settings import Settings
from hsemotion_space.ui import app

if __name__ == "__main__":
    app.build_live = partial(app.build_live, limit_s=float(sys.argv[1]))
    app.launch(Settings.from_env())
