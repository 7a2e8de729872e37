#!/bin/bash
# Install the lowest version of every dependency that pyproject.toml allows, and try what users do first.
#
#   scripts/lowest_versions.sh FOLDER [EXTRAS]
#
# FOLDER gets a fresh environment (venv) and constraints.txt. EXTRAS are those to install, default all that are
# small. With TORCH_FROM=SITE-PACKAGES torch is linked from another environment and not downloaded: its wheels
# are large, and its range is one release wide. Takes a few minutes, most of them downloads.
set -euo pipefail
folder=${1:?name a folder for the environment}
extras=${2:-search,hub,detect,train,litert,tflite,openvino,heif,postgresql}
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$folder"
${PYTHON:-python3} -m venv "$folder/venv"
python=$folder/venv/bin/python
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')

if [ -n "${TORCH_FROM:-}" ]; then
  for name in torch torchgen functorch torch-*.dist-info; do
    for path in "$TORCH_FROM"/$name; do [ ! -e "$path" ] || ln -sfn "$path" "$site/"; done
  done
fi

"$python" - "$root/pyproject.toml" "$folder/constraints.txt" <<'END'
"""`name>=1.2` of pyproject.toml becomes `name==1.2`; development tools and torch are left to pip."""
import re, sys, tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *(one for name, group in extras.items() if name not in ("dev", "docs") for one in group)]
pairs = [re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", one) for one in wanted]
lines = sorted({f"{found[1]}=={found[2]}" for found in pairs if found and found[1] != "torch"})
with open(sys.argv[2], "w") as file:
    file.write("\n".join(lines) + "\n")
END

# Without -q, for the conflict that pip found is only told there.
"$python" -m pip install --progress-bar off -c "$folder/constraints.txt" "$root[$extras]" > "$folder/pip.log" 2>&1 ||
  { grep -A 9 "conflict is caused by" "$folder/pip.log" || tail -n 9 "$folder/pip.log"; exit 1; }
"$python" -m pip list > "$folder/installed.txt"
cd "$folder"
bneck=venv/bin/bneck
export OMP_NUM_THREADS=1 XDG_CACHE_HOME=$PWD/cache
unset PYTHONPATH
rm -rf run
"$bneck" doctor
"$bneck" count v3-small --json > count.json
"$bneck" train v3-small-0.35 --resolution 32 --epochs 0.2 --out run
"$bneck" evaluate run
for format in onnx tflite openvino; do "$bneck" export run --format $format --precision int8 --out "run/small-$format.${format/openvino/xml}"; done
"$bneck" measure run run/small-onnx.onnx --rounds 3
"$bneck" report run
echo "the lowest versions work: $folder/installed.txt"
