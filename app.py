"""``stclip serve`` as a Space of Hugging Face; spaces/README.md says how one is made.

STCLIP_SERVE, a variable of the Space, holds options of ``stclip serve`` that replace those below.
"""

import os
import shlex

from stclip.cli import run
from stclip.commands.serve import main

OPTIONS = "--max-minutes 2 --max-upload 100 --max-work 15"

if __name__ == "__main__":  # and not where a worker is started
    words = shlex.split(os.environ.get("STCLIP_SERVE", OPTIONS))
    port = os.environ.get("GRADIO_SERVER_PORT", "7860")
    run(lambda: main(["--host", "0.0.0.0", "--port", port, *words]))
