#!/usr/bin/env bash
# hotkey on a kind cluster: builds the image, makes the cluster, puts Kafka and Redis into it and installs the
# chart. Run it again after a change: each step takes over what is there. down.sh removes the cluster.
set -euo pipefail
here="${BASH_SOURCE[0]%/*}"
root="$here/../.."

declare -A install=(
    [docker]=docs.docker.com/engine/install
    [kind]=kind.sigs.k8s.io/docs/user/quick-start
    [kubectl]=kubernetes.io/docs/tasks/tools
    [helm]=helm.sh/docs/intro/install
)
missing=0
for tool in docker kind kubectl helm; do
    command -v "$tool" >/dev/null && continue
    echo "$tool is not on the PATH; how to install it: ${install[$tool]}" >&2
    missing=1
done
if ((missing)); then
    echo "Nothing was started. Without Docker, make demo shows the same on local processes." >&2
    exit 1
fi
if ! docker info >/dev/null 2>&1; then
    echo "docker is installed, but its engine does not answer (docker info). Start it and try again." >&2
    echo "Without Docker, make demo shows the same on local processes." >&2
    exit 1
fi

version="$(sed -n 's/^appVersion: *//p' "$root/charts/hotkey-operator/Chart.yaml")"
image="hotkey-operator:$version"
kubectl=(kubectl --context kind-hotkey)

echo "== image $image"
docker build --tag "$image" "$root"

echo "== cluster"
if ! kind get clusters | grep -qx hotkey; then
    kind create cluster --config "$here/kind.yaml" --wait 120s
fi
kind load docker-image --name hotkey "$image"

echo "== Kafka and Redis"
"${kubectl[@]}" apply -f "$here/namespace.yaml"
"${kubectl[@]}" apply -f "$here/kafka.yaml" -f "$here/redis.yaml"
"${kubectl[@]}" rollout status --namespace hotkey statefulset/kafka --timeout 300s
"${kubectl[@]}" rollout status --namespace hotkey deployment/redis --timeout 300s
"${kubectl[@]}" exec --namespace hotkey kafka-0 -- /opt/kafka/bin/kafka-topics.sh \
    --bootstrap-server localhost:9092 --create --if-not-exists --topic clicks --partitions 12

echo "== operator"
helm upgrade --install hotkey "$root/charts/hotkey-operator" --kube-context kind-hotkey --namespace hotkey \
    --values "$here/values.yaml" --wait --timeout 300s

cat <<'NEXT'

hotkey runs. Kafka is at localhost:30092, Redis at redis://localhost:30379/0 (this machine only). Next:
  kubectl --context kind-hotkey apply -f examples/policies/minimal.yaml
  kubectl --context kind-hotkey get hotkeypolicies --watch
  kubectl --context kind-hotkey describe hotkeypolicy clicks
  examples/kind/down.sh
NEXT
