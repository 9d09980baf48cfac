"""Two processes on one machine: every image once per epoch, even if one of them is stopped in the middle of it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hf_smile.errors import SmileDataError
from hf_smile.shards.write import Sharding, write_shards
from hf_smile.training.samplers import EpochBatches

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reports(sample_dir, tmp_path_factory):
    """The reports of the two processes."""
    shards, folder = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("runs")
    write_shards(sample_dir, shards, Sharding(images_per_shard=20, divisible_by=2))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    script = [sys.executable, str(Path(__file__).with_name("train_in_processes.py")), str(shards), str(folder)]
    environment = os.environ | rendezvous | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(script, env=environment | {"RANK": rank, "LOCAL_RANK": rank}, cwd=ROOT) for rank in "01"
    ]
    try:
        assert [process.wait(600) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [json.loads((folder / f"report_{rank}.json").read_text()) for rank in (0, 1)]


def ids(reports, data, run, epoch):
    """The ids of the images that both processes trained on in an epoch."""
    return [image_id for report in reports for image_id in report[data]["seen"][run].get(epoch, [])]


@pytest.mark.parametrize("data", ["cached", "streamed"])
def test_each_image_is_seen_once_an_epoch(reports, data):
    for epoch in "01":
        seen = ids(reports, data, 0, epoch)
        assert len(seen) == len(set(seen)) == 86
        shares = [len(report[data]["seen"][0][epoch]) for report in reports]
        assert abs(shares[0] - shares[1]) <= 2


@pytest.mark.parametrize("data", ["cached", "streamed"])
def test_one_of_them_told_to_stop_stops_both_and_they_go_on_as_if_it_had_not(reports, data):
    places = {"stream_0.json", "stream_1.json"} if data == "streamed" else set()
    for report in reports:
        assert report[data]["stopped"] and report[data]["checkpoint"] == "checkpoint-9" and report[data]["equal"]
        assert {"rng_state_0.pth", "rng_state_1.pth"} | places <= set(report[data]["sealed"])
    before, after = ids(reports, data, 1, "1"), ids(reports, data, 2, "1")
    assert before and after and sorted(before + after) == sorted(ids(reports, data, 0, "1"))


@pytest.mark.parametrize(("draws", "processes"), [(86, 2), (86, 4), (64, 4), (5, 4), (33, 4)])
def test_batches_for_processes_hold_each_draw_once_and_are_equally_full(draws, processes):
    shares = [EpochBatches(range(draws), 8, process, processes) for process in range(processes)]
    batches = [batch for share in shares for batch in share]
    assert sorted(draw for batch in batches for draw in batch) == [*range(draws)]
    assert {len([*share]) for share in shares} == {len(share) for share in shares} == {len(batches) // processes}
    assert min(map(len, batches)) >= 1 and max(map(len, batches)) <= min(8, min(map(len, batches)) + 1)


def test_what_does_not_fill_a_batch_of_each_may_be_left_out():
    shares = [EpochBatches(range(37), 8, process, 2, drop_last=True) for process in (0, 1)]
    assert [[len(batch) for batch in share] for share in shares] == [[8, 8], [8, 8]]
    assert not {draw for batch in shares[0] for draw in batch} & {draw for batch in shares[1] for draw in batch}
    with pytest.raises(SmileDataError, match="7 images are too few for 1 process with batches of 8"):
        EpochBatches(range(7), 8, drop_last=True)


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(SmileDataError, match="3 images are too few for 4 processes"):
        EpochBatches(range(3), 8, 0, 4)
