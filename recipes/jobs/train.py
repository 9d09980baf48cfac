# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "huggingface_hub==2.4.0",
#     "matplotlib==3.11.2",
#     "numpy==2.4.6",
#     "onnxruntime==1.31.1",
#     "opencv-python-headless==4.14.0.94",
#     "pandas==3.1.1",
#     "pillow==12.3.0",
#     "PyYAML==6.0.3",
#     "tqdm==4.70.1",
#     "torch==2.15.0",
#     "torchvision==0.29.2",
#     "timm==1.0.31",
#     "transformers==5.23.0",
#     "datasets==5.2.0",
#     "accelerate==1.15.0",
#     "evaluate==0.4.6",
#     "pyarrow==26.0.1",
#     "psutil==7.2.2",
#     "safetensors==0.8.0",
#     "scikit-learn==1.9.1",
#     "scipy==1.17.1",
#     "threadpoolctl==3.8.0",
#     "jinja2==3.1.6",
#     "onnx==1.23.2",
#     "onnxscript==0.7.2",
#     "captum==0.9.0",
# ]
#
# [tool.uv]
# exclude-newer = "2026-11-26T00:00:00Z"
# ///
"""Run `hf-smile train ... --job FLAVOR` on the hired machine: `uv run train.py hf_smile.zip`.

The archive contains the package of the machine that started the job. HF_SMILE_WORDS is a JSON list of the command-line
arguments, and HF_TOKEN is the token.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

code = tempfile.mkdtemp()
shutil.unpack_archive(sys.argv[1], code)
words = json.loads(os.environ["HF_SMILE_WORDS"])
# The launcher starts one process per GPU.
launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet", "-m", "hf_smile"]
sys.exit(subprocess.call([*launch, "train", *words], env=os.environ | {"PYTHONPATH": code}))
