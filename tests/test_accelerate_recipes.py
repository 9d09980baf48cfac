"""The launch configurations, parsed by accelerate itself. Other tests run those for the CPU."""

import os
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

RECIPES = Path(__file__).parents[1] / "recipes" / "accelerate"


def launch(*words):
    """The command line as parsed by `accelerate launch`."""
    args, *_ = _validate_launch_command(launch_command_parser().parse_args([*map(str, words)]))
    return args


@pytest.mark.parametrize(
    ("name", "processes", "precision", "on_cpu", "many_gpus"),
    [
        ("cpu", 1, "no", True, False),
        ("cpu_processes", 2, "no", True, False),
        ("gpu", 1, "bf16", False, False),
        ("gpus", 8, "bf16", False, True),
        ("nodes", 16, "bf16", False, True),
    ],
)
def test_a_configuration_means_what_its_name_says(name, processes, precision, on_cpu, many_gpus):
    args = launch("--config_file", RECIPES / f"{name}.yaml", "scripts/train.py")
    assert (args.num_processes, args.mixed_precision) == (processes, precision)
    assert (args.use_cpu, args.multi_gpu) == (on_cpu, many_gpus)


def test_every_configuration_is_tested():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {"cpu", "cpu_processes", "gpu", "gpus", "nodes"}


def test_slurm_starts_one_launcher_a_machine_that_knows_the_others(tmp_path):
    """Stand-ins for Slurm's commands and for accelerate record their arguments."""
    for name, lines in {
        "scontrol": "echo node7; echo node8",
        "srun": 'shift; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "accelerate": 'printf "%s\\n" "$@" > "$CALLS/$SLURM_NODEID"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "4321", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path)}
    words = ["recipes/resnet50.yaml", "--output_dir", "outputs/with a blank"]
    subprocess.run([RECIPES / "slurm.sbatch", *words], env=environment, cwd=RECIPES.parents[1], check=True)
    for machine in (0, 1):
        verb, *given = (tmp_path / str(machine)).read_text().splitlines()
        args = launch(*given)
        assert verb == "launch" and [args.training_script, *args.training_script_args] == ["scripts/train.py", *words]
        prepare_multi_gpu_env(args)
        assert (args.nnodes, args.nproc_per_node, args.machine_rank) == ("2", "4", machine)
        assert (args.rdzv_backend, args.rdzv_endpoint) == ("c10d", "node7:29821")
