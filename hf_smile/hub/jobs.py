"""`hf-smile train ... --job FLAVOR`: train on a hired machine with Jobs of the Hub."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import warnings
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
        words: words of the command line, `[RECIPE.yaml] [--any_setting value ...]`.

    Raises:
        SmileError: a setting is wrong, data or backbone are not on the Hub, or the result would not be published.

    >>> Job(["--data_dir", "me/faces", "--job", "a10g-small", "--push_to_hub", "--hub_model_id", "me/smile"]).flavor
    'a10g-small'
    """

    def __init__(self, words: Sequence[str]) -> None:
        (data, _, model, self.training), _ = SettingsParser(list(SETTINGS.values())).read(words)
        self.words, self.flavor = read_words(words), self.training.job
        self.data_dir, self.backbone = data.data_dir, model.backbone
        if not (self.training.push_to_hub and self.training.hub_model_id):
            raise SmileError(
                "the disk of a hired machine is deleted when the job ends; "
                "add --push_to_hub --hub_model_id OWNER/NAME (and --hub_private_repo for a private repository)"
            )
        check_repo_id(self.training.hub_model_id)
        if not re.fullmatch(r"\d+(\.\d+)?[smhd]?", self.training.job_timeout):
            raise SmileError(f"job_timeout is {self.training.job_timeout!r}; it must be a time such as 45m or 2h")
        if self.training.seeds is not None:
            raise SmileError("a job trains and publishes one model; leave out --seeds, or start a job for each --seed")
        if self.training.report_to != "none":
            raise SmileError(f"{self.training.report_to} is not installed on hired machines; leave out --report_to")
        if data.corrections:
            raise SmileError("--corrections is a file on this machine; use it with hf-smile push dataset instead")
        _check_is_remote("--data_dir", self.data_dir, "hf-smile push dataset {} OWNER/NAME")
        if "/" in self.backbone or Path(self.backbone).is_dir():  # otherwise it is a timm name
            is_run = Path(self.backbone, "test_metrics.json").is_file()
            upload = "hf-smile push model {} OWNER/NAME --private" if is_run else "hf upload OWNER/NAME {} --private"
            _check_is_remote("--backbone", self.backbone, upload)
        for teacher in self.training.teachers or []:
            _check_is_remote("--teachers", teacher, "hf-smile push model {} OWNER/NAME --private")

    def start(self) -> Iterator[str]:
        """Start the job, and yield its page, the lines of its log and the address of the result.

        With `dry_run`, only the request is yielded.

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
        """Check that token, machine, data and backbone are valid, without changing anything."""
        if retry(api.whoami)["auth"].get("accessToken", {}).get("role") == "read":
            raise SmileError("your token can only read, but the job must publish; use one with write permission")
        machines = {machine.name: machine for machine in retry(api.list_jobs_hardware)}
        if self.flavor not in machines:
            raise SmileError(f"there is no such machine; choose one of {', '.join(machines)}")
        models = [(name, "model") for name in [self.backbone, *(self.training.teachers or [])]]
        for repo_id, kind in [(self.data_dir, "dataset"), *models]:
            if "/" in repo_id:
                with hub_errors(repo_id):
                    retry(partial(api.repo_info, repo_id, repo_type=kind))
        machine = machines[self.flavor]
        logger.info("%s, $%.4g per %s", machine.pretty_name, machine.unit_cost_usd, machine.unit_label)

    def _send(self, api: HfApi, token: str) -> JobInfo:
        words = [*without(self.words, *_FOR_THIS_MACHINE), "--disable_tqdm", "true"]
        with tempfile.TemporaryDirectory() as folder, hub_errors(f"--job {self.flavor}"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'HfApi.run_uv_job' is experimental")
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
                raise SmileError(  # retrying could hire a second machine
                    f"the Hub did not confirm that the job started ({first_line(error)}). Check "
                    f"{constants.ENDPOINT}/settings/jobs before you try again"
                ) from None


class _Unsent(HfApi):
    """A Hub client that changes nothing on the Hub."""

    request: dict[str, Any]

    def create_bucket(self, bucket_id: str, **options: Any) -> Any:
        return SimpleNamespace(url=f"{self.endpoint}/buckets/{bucket_id}")

    def batch_bucket_files(self, *args: Any, **options: Any) -> None:
        pass

    def run_job(self, **request: Any) -> Any:
        """Keep the request, without secrets."""
        request["secrets"] = dict.fromkeys(request["secrets"], "(secret)")
        request["volumes"] = [volume.to_dict() for volume in request["volumes"]]
        self.request = {name: value for name, value in request.items() if value is not None}


def pack_code(folder: Path) -> Path:
    """Write this package, its modules and templates, to `hf_smile.zip` in `folder`."""
    package = Path(__file__).parents[1]
    with zipfile.ZipFile(folder / "hf_smile.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in package.rglob("*") if path.suffix in _SENT):
            archive.write(path, path.relative_to(package.parent))
    return folder / "hf_smile.zip"


def _check_is_remote(option: str, place: str, upload: str) -> None:
    if Path(place).exists():
        raise SmileError(
            f"{option} {place} is on this machine, but the job runs on another one. "
            f"Upload it, and give its Hub id:\n{upload.format(place)}"
        )
    if message := missing_folder(place):
        raise SmileError(f"{option} {message}; a job needs a Hub id: OWNER/NAME")


def _follow(api: HfApi, job: JobInfo, token: str) -> Iterator[str]:
    """Yield the log of a job until it ends.

    Raises:
        SmileError: the job fails, or the connection is lost.
    """
    try:
        with hub_errors(f"{job.url} keeps running, but its log can't be read"):
            for line in api.fetch_job_logs(job_id=job.id, follow=True):
                yield visible(line.replace(token, "(secret)"))
            status = retry(lambda: api.inspect_job(job_id=job.id)).status
    except KeyboardInterrupt:
        logger.warning("The job keeps running; stop it with: hf jobs cancel %s", job.id)
        raise
    if status.stage != JobStage.COMPLETED:
        why = f" ({status.message})" if status.message else ""
        raise SmileError(f"{job.url} ended with {status.stage}{why}; its log is above")
