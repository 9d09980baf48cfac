"""What Gradio reads from the environment when it is imported. Has to be imported before it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PORT = os.environ.pop("GRADIO_SERVER_PORT", "")
"""As it was given. Gradio would end in a traceback where it is no number, and quietly take the next one in use."""

UPLOADS = tempfile.TemporaryDirectory(prefix="hf_smile_", ignore_cleanup_errors=True)
"""Of this server alone, and gone when it ends; Gradio's own is /tmp/gradio, which all servers of a machine share."""

os.environ["GRADIO_TEMP_DIR"] = str(Path(UPLOADS.name).resolve())
# Else Gradio tabulates the last 10,000 requests after each of them, for a page that the demo does not show.
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
if "SPACE_ID" in os.environ:  # the Hub's proxy tells who asks; else all visitors would be one
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")
