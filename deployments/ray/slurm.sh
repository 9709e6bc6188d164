#!/bin/bash
# A Ray cluster inside a Slurm job, and a run on it:  sbatch deployments/ray/slurm.sh EXPERIMENT.yaml
# The folder of the project and of its runs is on a file system that all nodes see.
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
set -euo pipefail
umask 077
cd "$SLURM_SUBMIT_DIR"

RAY_PORT=6379
STORE=$((10 * 2**30)) # bytes of a node's object store; rows and results go through files
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
HEAD_IP=$(srun --nodes=1 --ntasks=1 --nodelist="$HEAD" hostname --ip-address | awk '{print $1}')

# The token of this job, which Slurm's nodes read from the shared folder; it is removed with the job.
mkdir -p services
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$PWD/services/ray-token-$SLURM_JOB_ID RAY_USAGE_STATS_ENABLED=0
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
python -c "import secrets; print(secrets.token_hex(32), end='')" > "$RAY_AUTH_TOKEN_PATH"

node() { srun --overlap --nodes="$1" --ntasks="$1" "${@:2}" & }
node 1 --nodelist="$HEAD" .venv/bin/ray start --block --head --node-ip-address="$HEAD_IP" --port=$RAY_PORT \
  --object-store-memory=$STORE --include-dashboard=false
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  node $((SLURM_JOB_NUM_NODES - 1)) --exclude="$HEAD" .venv/bin/ray start --block --address="$HEAD_IP:$RAY_PORT" \
    --object-store-memory=$STORE
  sleep 20
fi
srun --overlap --nodes=1 --ntasks=1 --nodelist="$HEAD" \
  .venv/bin/mars refine "$1" compute.backend=ray "compute.address=$HEAD_IP:$RAY_PORT"
