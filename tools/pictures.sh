#!/usr/bin/env bash
# Takes the pictures of the dashboards that the README shows: the demo, a Prometheus that scrapes it with the pack's rules,
# and after a while Grafana's drawing code (tools/render) in a browser without a window.
#
#   tools/pictures.sh [MINUTES]   how long the demo runs before; default 16, so that 15 minutes are full
#
# Writes docs/img/NAME-light.png and NAME-dark.png, 1440 pixels wide, and docs/img/panels.json: what was drawn.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes="${1:-16}"
# Often enough for lines without steps, and what many services are scraped at.
interval=5s
sidecar=target/release/golden-sidecar
PATH="$PATH:$PWD/target/venv/bin"

work="$(mktemp -d)"
started=()
end() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap end EXIT

"$sidecar" demo --listen 127.0.0.1:0 --admin 127.0.0.1:0 >"$work/demo.txt" &
started+=($!)
until admin="$(sed -n 's|^  admin *http://\([0-9.:]*\).*|\1|p' "$work/demo.txt")" && [ -n "$admin" ]; do sleep 0.1; done

cat >"$work/prometheus.yml" <<CONFIGURATION
global: {scrape_interval: $interval, evaluation_interval: $interval}
rule_files: ["$PWD/alerts/golden-sidecar.rules.yml"]
scrape_configs: [{job_name: shop, static_configs: [{targets: ["$admin"]}]}]
CONFIGURATION
# A free port: the kernel's choice, given back at once.
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
target/prometheus-new/usr/bin/prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" \
    --web.listen-address="127.0.0.1:$port" --enable-feature=exemplar-storage --log.level=error &
started+=($!)

echo "pictures: $minutes minutes of the demo (admin port: http://$admin)"
sleep "$((minutes * 60))"

# For what the demo promises to all (src/demo), so that colours mean what they would for its owner.
"$sidecar" pack --objective 96.5 --latency 1s --out "$work/pack" >/dev/null
node tools/render/render.mjs --prometheus "http://127.0.0.1:$port" --dashboards "$work/pack/dashboards" --out "$work/out" \
    --theme both --range 15m --scrape-interval "$interval" --var 'route=/checkout/{id}'
mkdir -p docs/img
cp "$work"/out/*.png docs/img/
# Which panels the pictures show: a test compares it with the dashboards.
node -e '
    const { dashboards } = JSON.parse(require("fs").readFileSync(process.argv[1], "utf8"));
    const drawn = {};
    for (const { uid, panels } of dashboards) drawn[uid] = panels.map((panel) => panel.title);
    console.log(JSON.stringify(drawn, null, 2));
' "$work/out/report.json" >docs/img/panels.json
echo "pictures: docs/img"
