#!/usr/bin/env python3
"""Builds the page and serves it on this machine alone.

    python3 examples/web/serve.py                    then open http://127.0.0.1:8000
    python3 examples/web/serve.py --check            compares the page's numbers with those of this machine, in Chromium
    python3 examples/web/serve.py --picture page.png takes a picture of it, in Chromium

Needs the target: `rustup target add wasm32-unknown-unknown`, or the nightly toolchain with its rust-src, from which the standard
library is built then.
"""

import argparse
import gzip
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = "wasm32-unknown-unknown"
FILES = ["index.html", "page.js"]


def run(command, **options):
    return subprocess.run(command, cwd=HERE, check=True, **options)


def installed():
    """Whether the standard library for the target is there."""
    found = subprocess.run(["rustc", "--print", "target-libdir", "--target", TARGET], capture_output=True, text=True)
    return found.returncode == 0 and Path(found.stdout.strip()).is_dir()


def build():
    """Builds the page in a folder, and gives that."""
    command = ["cargo", "build", "--locked", "--release", "--lib", "--target", TARGET]
    if not installed():
        command = ["cargo", "+nightly", *command[1:], "-Zbuild-std=std,panic_abort"]
    run(command, env=os.environ | {"RUSTFLAGS": "-Ctarget-feature=+simd128"})
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
    module = target / TARGET / "release" / "gradflow_web.wasm"
    folder = target / "page"
    folder.mkdir(exist_ok=True)
    for file in [*(HERE / name for name in FILES), module]:
        shutil.copy(file, folder)
    size, small = module.stat().st_size, len(gzip.compress(module.read_bytes(), 9))
    print(f"{module.name}: {size / 1024:.0f} KiB, {small / 1024:.0f} KiB compressed by gzip")
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(folder, port):
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=folder))


def chromium(*arguments):
    browser = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if browser is None:
        sys.exit("no Chromium on the path: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--virtual-time-budget=60000"]
        return run([browser, *flags, *arguments], capture_output=True, text=True).stdout


def check(address):
    """Compares what the page computes with what the same functions compute on this machine."""
    page = re.search(r"<pre>(.*?)</pre>", chromium("--dump-dom", f"{address}/?check"), re.S)
    if page is None:
        sys.exit("the page shows no numbers")
    page = json.loads(html.unescape(page[1]))
    own = run(["cargo", "run", "--locked", "--quiet", "--release", "--bin", "numbers"], capture_output=True, text=True)
    own = json.loads(own.stdout)
    for name, tolerance in [("norms", 1e-3), ("logits", 1e-4)]:
        pairs = list(zip(flat(page[name]), flat(own[name]), strict=True))
        # Of norms from 1e-20 to 1e6 each counts by itself: rounding grows along the way.
        scale = (lambda a: abs(a)) if name == "norms" else (lambda _: max(abs(b) for _, b in pairs))
        largest = max(abs(a - b) / scale(b) for a, b in pairs)
        print(f"{name}: {len(pairs)} numbers, largest relative difference {largest:.1e}")
        if not largest <= tolerance:
            sys.exit(f"{name}: expected at most {tolerance}")
    print(f"text: {page['text']!r}")
    if page["text"] != own["text"]:
        sys.exit(f"text: expected {own['text']!r}")


def flat(numbers):
    return [x for part in numbers for x in (flat(part) if isinstance(part, list) else [part])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="[8000]")
    parser.add_argument("--check", action="store_true", help="compare, and end")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="take a picture, and end")
    arguments = parser.parse_args()
    folder = build()
    once = arguments.check or arguments.picture
    server = serve(folder, 0 if once else arguments.port)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    if not once:
        print(f"{address}  (Ctrl-C ends)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if arguments.check:
        check(address)
    if arguments.picture:
        chromium(f"--screenshot={arguments.picture.resolve()}", "--window-size=1000,1560", address)
    server.shutdown()


if __name__ == "__main__":
    main()
