"""Streaming yields each image once per epoch, in a different order in each, and resumes at any position."""

import json
import shutil
from pathlib import Path

import pytest

from hf_smile.errors import SmileDataError
from hf_smile.shards import write
from hf_smile.shards.folder import shard_files
from hf_smile.shards.stream import ShardBatches
from hf_smile.shards.write import Sharding, write_shards


@pytest.fixture(scope="module")
def files(sample_dir, tmp_path_factory):
    """Six shards of about fifteen images, in row groups of six."""
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_ROW_GROUP", 6)
        write_shards(sample_dir, folder, Sharding(images_per_shard=20, divisible_by=2))
    return shard_files(folder, "train")


def epoch_of(batches, epoch=0):
    batches.set_epoch(epoch)
    return [[row["image_id"] for row in rows] for rows in batches]


@pytest.mark.parametrize("processes", [1, 2, 4])  # six shards can't be divided by 4, so rows are alternated
def test_each_image_is_seen_once_an_epoch_in_equally_many_batches(files, processes):
    for epoch in (0, 1):
        streams = [ShardBatches(files, 8, rank, processes, buffer_size=16) for rank in range(processes)]
        batches = [epoch_of(stream, epoch) for stream in streams]
        assert {len(own) for own in batches} == {len(streams[0])}
        assert all(6 <= len(batch) <= 8 for own in batches for batch in own) or processes == 4
        seen = [image_id for own in batches for batch in own for image_id in batch]
        assert len(seen) == len(set(seen)) == 86


def test_the_order_follows_from_seed_and_epoch(files):
    order = [epoch_of(ShardBatches(files, 8, seed=seed), epoch) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert order[0] == order[1] and order[0] != order[2] != order[3] != order[0]


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize("buffer_size", [7, 1000])
def test_it_goes_on_in_the_middle_of_an_epoch(files, processes, buffer_size):
    stream = ShardBatches(files, 5, processes - 1, processes, buffer_size=buffer_size)
    whole = epoch_of(stream, 1)
    for done in (1, len(whole) // 2, len(whole) - 1):
        state = json.loads(json.dumps(stream.state_dict(done)))
        again = ShardBatches(files, 5, processes - 1, processes, buffer_size=buffer_size)
        again.load_state_dict(state)
        rest = epoch_of(again, 1)
        assert rest[done:] == whole[done:]
        assert epoch_of(again, 2) == epoch_of(stream, 2)  # the next epoch is complete
        epoch_of(stream, 1)
    assert buffer_size > 100 or not rest[0]  # earlier rows were not read again


def test_it_does_not_go_on_with_other_shards(files):
    state = ShardBatches(files, 8).state_dict(0)
    with pytest.raises(SmileDataError, match="not those the run began with"):
        ShardBatches(files[:-1], 8).load_state_dict(state)


def test_a_shard_that_is_damaged_inside_is_named(files, tmp_path):
    copies = [Path(shutil.copy(file, tmp_path)) for file in files]
    content = bytearray(copies[2].read_bytes())
    content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)
    copies[2].write_bytes(content)
    with pytest.raises(SmileDataError, match=rf"{copies[2]} can't be read to its end .*; write it again"):
        epoch_of(ShardBatches(copies, batch_size=4))


def test_too_few_images_for_so_many_processes(files):
    with pytest.raises(SmileDataError, match="too few for 50 processes"):
        ShardBatches(files[:1], 8, 0, 50)
