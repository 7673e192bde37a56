#!/usr/bin/env bash
# What a container does: head | worker | health | a shell, python or ray | anything else is a hypertune command.
set -euo pipefail

# Trials send numbers through Ray, never images: 100 MiB of shared memory are enough, where Ray would take 30% of all.
STORE=$((100 * 1024 * 1024))
NODE=${TMPDIR:-/tmp}/hypertune-node # the mark of a container that is a node; it holds the cluster's address

say() {
  echo "entrypoint.sh: $*" >&2
  exit 2
}

# A node listens on its network and runs what it is sent: without a token it would run anybody's code.
need_token() {
  [[ ${RAY_AUTH_MODE:-} == token ]] || say "a node needs RAY_AUTH_MODE=token, got '${RAY_AUTH_MODE:-}'"
  if [[ -z ${RAY_AUTH_TOKEN:-} ]]; then
    local file=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
    [[ -r $file && -s $file ]] || say "no token: $file is missing, empty or not readable by uid $(id -u)"
  fi
}

case ${1:-} in
  head) # no trials here: the drivers of the jobs and Ray's own processes need the room
    need_token
    echo 127.0.0.1:6379 > "$NODE"
    exec ray start --head --block --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 \
      --num-cpus=0 --num-gpus=0 --object-store-memory="$STORE" --disable-usage-stats "${@:2}"
    ;;
  worker)
    need_token
    # The name is resolved here: Ray's own resolver asks the name server first, and gives up where that one is slow.
    address=$(getent ahostsv4 "${RAY_HEAD:?the host name of the head}" | awk 'NR == 1 {print $1}' || true)
    [[ -n $address ]] || say "no address for the host $RAY_HEAD"
    echo "$address:6379" > "$NODE"
    exec ray start --block --address="$address:6379" --object-store-memory="$STORE" --disable-usage-stats "${@:2}"
    ;;
  health) # a node is well while the head answers to its token; that its own processes live, `ray start --block` sees to
    [[ -e $NODE ]] || exit 0 # a container for one command
    exec ray health-check --address "$(< "$NODE")"
    ;;
  bash | sh | python | ray | hypertune) exec "$@" ;;
  *) exec hypertune "$@" ;;
esac
