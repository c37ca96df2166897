#!/usr/bin/env bash
# Fine-tunes on four nodes with Slurm, one process per node: sbatch slurm.sh
#SBATCH --job-name=peft
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
# The host of rank 0; peft derives it from Slurm's variables if this line is left out.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR

# SIGTERM, two minutes before the time limit, saves a checkpoint; --resume continues it when the job runs again.
srun --kill-on-bad-exit=1 peft train \
    --model /models/flan-t5-base --data /data/train.jsonl --validation /data/dev.jsonl \
    --prompt 'Summarize: {dialogue}' --target '{summary}' \
    --batch-size 8 --accumulate 4 --resume --output "$HOME/adapters/summaries"
