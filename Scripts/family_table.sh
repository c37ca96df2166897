#!/usr/bin/env bash
# Writes the table of families, tasks and methods in docs/models.md from what the code does with a small model of each family.
# FamilyTableTests checks that it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
PEFT_WRITE_TABLE=$PWD/docs/models.md swift test --filter 'FamilyTableTests'
