#!/bin/sh
# Runs every GPU statement of the project and prints one table; see gpu_checks.py, or --help.
cd "$(dirname "$0")/.." || exit 1
if [ -z "$PYTHON" ]; then
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
# glibc hands large blocks back and faults them in again at every step otherwise
export MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_MMAP_THRESHOLD_=100000000000
export CUBLAS_WORKSPACE_CONFIG="${CUBLAS_WORKSPACE_CONFIG:-:4096:8}" # the same bits each time
exec "$PYTHON" -m benchmarks.gpu_checks "$@"
