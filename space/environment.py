"""The environment variables that Gradio and Matplotlib read. Import this module before Gradio."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from hf_smile.errors import MissingPackageError
from hf_smile.utils.extras import needed_by, require

try:
    with needed_by("the demo"):
        require("gradio", "starlette")
except MissingPackageError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

PORT = os.environ.pop("GRADIO_SERVER_PORT", "")
"""The requested port. Gradio fails with a traceback if it is not a number, and silently replaces a port in use."""

UPLOADS = tempfile.TemporaryDirectory(prefix="hf_smile_", ignore_cleanup_errors=True)
"""The upload folder, deleted when the server ends. Gradio's default, /tmp/gradio, is shared by all servers."""

os.environ["GRADIO_TEMP_DIR"] = str(Path(UPLOADS.name).resolve())
# By default, Gradio tabulates the last 10,000 requests after each request, for a page that the demo does not show.
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
# During the first request, Gradio asks Matplotlib for its backend. If none is set, this imports pyplot, which takes
# 0.7 s.
os.environ["MPLBACKEND"] = "agg"
os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # no log: the visitor is told about a clip that can't be read
if "SPACE_ID" in os.environ:  # trust the Hub's proxy, or all visitors have its address
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")
