#!/bin/sh
# The providers agree on a job: its file has the policy for the service and every party's fingerprint.
# job.sh NAME...
set -eu
job=/job/job.toml
for name in "$@"; do
    set -- "$@" --party "$name=$(cat "/public/$name/fingerprint")"
    shift
done
rm -f "$job"
convelo init "$job" --name "${JOB_NAME:-first-job}" --policy /public/platform/policy.toml \
    --service "${SERVICE:-service:7443}" "$@"
convelo check "$job"
