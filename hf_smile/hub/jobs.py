"""`hf-smile train ... --job FLAVOR`: the run on a hired machine, by the Jobs of the Hub."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub import HfApi, JobInfo, JobStage, constants, get_token
from huggingface_hub.errors import HTTPError

from hf_smile.errors import SmileError, first_line
from hf_smile.hub.connection import check_repo_id, connect, hub_errors, is_transient, retry
from hf_smile.training.parser import SettingsParser
from hf_smile.training.settings import SETTINGS, read_words, without
from hf_smile.utils.console import visible
from hf_smile.utils.hub_id import missing_folder
from hf_smile.utils.shipped import shipped

logger = logging.getLogger(__name__)

_FOR_THIS_MACHINE = ("job", "job_timeout", "dry_run", "no_dry_run")
_SENT = (".py", ".md", ".typed")


class Job:
    """A run on a hired machine.

    Args:
        words: of the command line, `[RECIPE.yaml] [--any_setting value ...]`.

    Raises:
        SmileError: a setting is wrong; data or backbone are not on the Hub; the result would be lost with the machine.

    >>> Job(["--data_dir", "me/faces", "--job", "a10g-small", "--push_to_hub", "--hub_model_id", "me/smile"]).flavor
    'a10g-small'
    """

    def __init__(self, words: Sequence[str]) -> None:
        (data, _, model, self.training), _ = SettingsParser(list(SETTINGS.values())).read(words)
        self.words, self.flavor = read_words(words), self.training.job
        self.data_dir, self.backbone = data.data_dir, model.backbone
        if not (self.training.push_to_hub and self.training.hub_model_id):
            raise SmileError(
                "the disk of a hired machine is gone when the job ends; "
                "add --push_to_hub --hub_model_id OWNER/NAME (and --hub_private_repo, so that nobody else sees it)"
            )
        check_repo_id(self.training.hub_model_id)
        if not re.fullmatch(r"\d+(\.\d+)?[smhd]?", self.training.job_timeout):
            raise SmileError(f"job_timeout is {self.training.job_timeout!r}; it is a time such as 45m or 2h")
        if self.training.seeds is not None:
            raise SmileError("a job trains and publishes one model; leave out --seeds, or start a job for each --seed")
        if self.training.report_to != "none":
            raise SmileError(f"{self.training.report_to} is not installed on the hired machine; leave out --report_to")
        if data.corrections:
            raise SmileError("--corrections is a file on this machine; give it to hf-smile push dataset instead")
        _check_is_remote("--data_dir", self.data_dir, "hf-smile push dataset {} OWNER/NAME")
        if "/" in self.backbone or Path(self.backbone).is_dir():  # else a name that timm knows
            is_run = Path(self.backbone, "test_metrics.json").is_file()
            upload = "hf-smile push model {} OWNER/NAME --private" if is_run else "hf upload OWNER/NAME {} --private"
            _check_is_remote("--backbone", self.backbone, upload)

    def start(self) -> Iterator[str]:
        """Send it: its page, its log line by line, and where the result is; with `dry_run` only what would be sent.

        Raises:
            SmileError: the Hub refuses, has no such machine, data or backbone, or the job fails.
        """
        api, token = connect(), str(get_token())
        with hub_errors(f"--job {self.flavor}"):
            self._check_on_the_hub(api)
        if self.training.dry_run:
            unsent = _Unsent()
            self._send(unsent, token)
            yield json.dumps(unsent.request, indent=2)
            return
        job = self._send(api, token)
        yield f"The job: {job.url}"
        yield from _follow(api, job, token)
        yield f"Published: {constants.ENDPOINT}/{self.training.hub_model_id}"

    def _check_on_the_hub(self, api: HfApi) -> None:
        """Ask whether everything is there; changes nothing."""
        if retry(api.whoami)["auth"].get("accessToken", {}).get("role") == "read":
            raise SmileError("your token may only read, and the job is to publish; take one with write permission")
        machines = {machine.name: machine for machine in retry(api.list_jobs_hardware)}
        if self.flavor not in machines:
            raise SmileError(f"there is no such machine; there are {', '.join(machines)}")
        for repo_id, kind in ((self.data_dir, "dataset"), (self.backbone, "model")):
            if "/" in repo_id:
                with hub_errors(repo_id):
                    retry(partial(api.repo_info, repo_id, repo_type=kind))
        machine = machines[self.flavor]
        logger.info("%s, $%.4g a %s", machine.pretty_name, machine.unit_cost_usd, machine.unit_label)

    def _send(self, api: HfApi, token: str) -> JobInfo:
        words = [*without(self.words, *_FOR_THIS_MACHINE), "--disable_tqdm", "true"]
        with tempfile.TemporaryDirectory() as folder, hub_errors(f"--job {self.flavor}"):
            try:
                return api.run_uv_job(
                    str(shipped("recipes") / "jobs" / "train.py"),
                    script_args=[str(pack_code(Path(folder)))],
                    env={"HF_SMILE_WORDS": json.dumps(words)},
                    secrets={"HF_TOKEN": token},
                    flavor=self.flavor,
                    timeout=self.training.job_timeout,
                )
            except HTTPError as error:
                if not is_transient(error):
                    raise
                raise SmileError(  # another try might hire a second machine
                    f"the Hub did not say whether the job runs ({first_line(error)}). Look at "
                    f"{constants.ENDPOINT}/settings/jobs before you try again"
                ) from None


class _Unsent(HfApi):
    """The client of the Hub, but for what changes something there."""

    request: dict[str, Any]

    def create_bucket(self, bucket_id: str, **options: Any) -> Any:
        return SimpleNamespace(url=f"{self.endpoint}/buckets/{bucket_id}")

    def batch_bucket_files(self, *args: Any, **options: Any) -> None:
        pass

    def run_job(self, **request: Any) -> Any:
        """Keeps the request, without what is secret."""
        request["secrets"] = dict.fromkeys(request["secrets"], "(secret)")
        request["volumes"] = [volume.to_dict() for volume in request["volumes"]]
        self.request = {name: value for name, value in request.items() if value is not None}


def pack_code(folder: Path) -> Path:
    """This package as `hf_smile.zip` in `folder`: its modules and templates."""
    package = Path(__file__).parents[1]
    with zipfile.ZipFile(folder / "hf_smile.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in package.rglob("*") if path.suffix in _SENT):
            archive.write(path, path.relative_to(package.parent))
    return folder / "hf_smile.zip"


def _check_is_remote(option: str, place: str, upload: str) -> None:
    if Path(place).exists():
        raise SmileError(
            f"{option} {place} is on this machine, and the job runs on another. Nothing is uploaded unasked; "
            f"upload it yourself and give its id:\n{upload.format(place)}"
        )
    if message := missing_folder(place):
        raise SmileError(f"{option} {message}; a job takes what is on the Hub: OWNER/NAME")


def _follow(api: HfApi, job: JobInfo, token: str) -> Iterator[str]:
    """The log of a job until it ends.

    Raises:
        SmileError: it does not end well, or the connection breaks for good.
    """
    try:
        with hub_errors(f"{job.url} keeps running, but its log can't be followed"):
            for line in api.fetch_job_logs(job_id=job.id, follow=True):
                yield visible(line.replace(token, "(secret)"))
            status = retry(lambda: api.inspect_job(job_id=job.id)).status
    except KeyboardInterrupt:
        logger.warning("The job keeps running; end it with: hf jobs cancel %s", job.id)
        raise
    if status.stage != JobStage.COMPLETED:
        why = f" ({status.message})" if status.message else ""
        raise SmileError(f"{job.url} ended with {status.stage}{why}; its log is above")
