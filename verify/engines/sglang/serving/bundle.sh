#!/bin/bash
# bundle.sh RELEASE KERNEL FOLDER: one archive of SGLang RELEASE, the Hopper part of sglang-kernel
# KERNEL, and the packages beside them, for `serve --device cuda` on a host without a package index
# (Python 3.12, x86-64, with a GPU build of torch and what such an installation brings).
# 0.5.17 goes with 0.4.5: 54 MB. The pins are those of 0.5.17.
set -eu
release=$1 kernel=$2 out=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
platforms=$(for n in $(seq 5 39); do echo "--platform manylinux_2_${n}_x86_64"; done
    echo --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any)
fetch() {
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp $platforms -d "$1" "${@:2}"
}
fetch "$work/kernel" "sglang-kernel==$kernel"
fetch "$work/wheels" "sglang==$release" flashinfer-python==0.6.15.post1 transformers==5.12.1 \
    tokenizers==0.22.2 apache-tvm-ffi==0.1.11 compressed-tensors==0.18.0 openai==2.8.0 \
    outlines==0.1.11 outlines_core==0.1.26 xgrammar==0.2.7 llguidance==1.9.1 pydantic==2.14.4 \
    pydantic_core==2.50.5 annotated-types annotated-doc typing_inspection distro easydict einops \
    fastapi starlette anyio sniffio gguf httpx interegular jiter loguru msgspec orjson \
    partial-json-parser pybase64 python-multipart pyzmq setproctitle dill uvicorn watchfiles \
    zstandard ipython traitlets click tabulate prompt_toolkit jedi parso stack-data executing \
    asttokens pure-eval matplotlib-inline decorator ipython_pygments_lexers pexpect ptyprocess \
    wcwidth cloudpickle opentelemetry-api importlib_metadata zipp truststore platformdirs
mkdir "$work/site"
for wheel in "$work"/wheels/*.whl; do unzip -q -o "$wheel" -d "$work/site"; done
# kernels of attention that no case takes, and other GPUs', are a gigabyte
unzip -q -o "$work"/kernel/*.whl -d "$work/site" -x 'sgl_kernel/flash_ops*' \
    'sgl_kernel/infllm_ops*' 'sgl_kernel/flashmla_ops*' 'sgl_kernel/sm100/*'
rm -rf "$work"/site/zstandard/_cffi* "$work"/site/sglang/multimodal_gen/test
find "$work/site" -name tests -type d -prune -exec rm -rf {} +
mkdir -p "$out"
tar c -C "$work/site" . | xz -T0 -6 >"$out/site-$release.tar.xz"
ls -l "$out"
