#!/usr/bin/env python3
"""Builds the page and serves it on this machine alone.

    python3 examples/web/serve.py                    then open http://127.0.0.1:8000
    python3 examples/web/serve.py --check            compares the page's numbers with those of this machine, in Chromium, and has
                                                     it listen to a file in place of a microphone
    python3 examples/web/serve.py --picture page.png takes a picture of it, in Chromium

Needs the target: `rustup target add wasm32-unknown-unknown`, or the nightly toolchain with its rust-src, from which the standard
library is built then.
"""

import argparse
import gzip
import http.server
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = "wasm32-unknown-unknown"
FILES = ["index.html", "page.js", "voice.js", "listener.js"]
MODULES = ["gradflow_web.wasm", "gradflow_voice.wasm"]
BLOCKS = 125 # of samples, a second: see voice/src/exports.rs


def run(command, **options):
    return subprocess.run(command, cwd=HERE, check=True, **options)


def installed():
    """Whether the standard library for the target is installed."""
    found = subprocess.run(["rustc", "--print", "target-libdir", "--target", TARGET], capture_output=True, text=True)
    return found.returncode == 0 and Path(found.stdout.strip()).is_dir()


def build():
    """Builds the page in a folder, and returns the folder."""
    command = ["cargo", "build", "--locked", "--release", "--lib", "--target", TARGET]
    flags = "-Ctarget-feature=+simd128"
    if not installed():
        command = ["cargo", "+nightly", *command[1:], "-Zbuild-std=std"]
        # A panic ends the module without a message, which nobody would see: 8 % less to download.
        flags += " -Zunstable-options -Cpanic=immediate-abort"
    run(command, env=os.environ | {"RUSTFLAGS": flags})
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
    modules = [target / TARGET / "release" / name for name in MODULES]
    folder = target / "page"
    folder.mkdir(exist_ok=True)
    for file in [*(HERE / name for name in FILES), *modules]:
        shutil.copy(file, folder)
    for module in modules:
        size, small = module.stat().st_size, len(gzip.compress(module.read_bytes(), 9))
        print(f"{module.name}: {size / 1024:.0f} KiB, {small / 1024:.0f} KiB compressed by gzip")
    return folder


def native(program, *arguments):
    """The JSON that a program of these crates prints on this machine."""
    command = ["cargo", "run", "--locked", "--quiet", "--release", "--bin", program, "--", *arguments]
    return json.loads(run(command, capture_output=True, text=True).stdout)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        """Answers `rest` when the page has reported that it is drawn: until then Chromium's virtual time stands still."""
        if self.path != "/rest":
            return super().do_GET()
        self.server.told.get(timeout=60)
        self.send_response(204)
        self.end_headers()

    def do_POST(self):
        """Takes the numbers that the page reports."""
        self.server.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()


def serve(folder, port):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=folder))
    server.told = queue.Queue()
    return server


def chromium(profile, *arguments):
    """The command that runs Chromium without a window."""
    browser = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if browser is None:
        sys.exit("no Chromium on the path: apt-get install chromium")
    return [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *arguments]


def picture(address, file):
    """Takes a picture once the page is drawn."""
    with tempfile.TemporaryDirectory() as profile:
        command = chromium(profile, "--virtual-time-budget=60000", f"--screenshot={file}", "--window-size=1000,2220")
        run([*command, f"{address}/?picture"], capture_output=True)


def told(server, address, *arguments):
    """The report of a page: numbers, or an error."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # With a port for debugging, the browser runs until it is ended.
        command = chromium(profile, *arguments, "--remote-debugging-port=0", address)
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return server.told.get(timeout=120)
        except queue.Empty:
            sys.exit(f"{address} has told nothing")
        finally:
            browser.terminate()
            browser.wait()


def check(server, address, clip):
    """Compares the page's results with those of the same functions on this machine."""
    page = told(server, f"{address}/?check")
    if isinstance(page, str):
        sys.exit(f"the page: {page}")
    own = native("numbers") | clip
    for name, tolerance in [("norms", 1e-3), ("logits", 1e-4), ("probabilities", 1e-3)]:
        pairs = list(zip(flat(page[name]), flat(own[name]), strict=True))
        # Norms range from 1e-20 to 1e6, so each has its own scale: rounding grows along the way.
        scale = (lambda a: abs(a)) if name == "norms" else (lambda _: max(abs(b) for _, b in pairs))
        largest = max(abs(a - b) / scale(b) for a, b in pairs)
        print(f"{name}: {len(pairs)} numbers, largest relative difference {largest:.1e}")
        if not largest <= tolerance:
            sys.exit(f"{name}: expected at most {tolerance}")
    print(f"text: {page['text']!r}")
    if page["text"] != own["text"]:
        sys.exit(f"text: expected {own['text']!r}")


def check_microphone(server, address, wav, clip):
    """Lets the page listen: without permission, and to the file, which is played repeatedly, from an unknown starting time."""
    microphone = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={wav}"]
    refused = told(server, f"{address}/?listen", *microphone, "--deny-permission-prompts")
    print(f"microphone: {refused!r}")
    if "refused" not in refused:
        sys.exit("microphone: expected that it is refused")
    allowed = ["--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required"]
    heard = told(server, f"{address}/?listen", *microphone, *allowed)
    if isinstance(heard, str):
        sys.exit(f"microphone: {heard}")
    expected, voice = clip["probabilities"], clip["voice"]
    place = lambda time, start: round((time + start) * BLOCKS) % len(expected)
    distance = lambda start: sum(abs(p - expected[place(time, start)]) for time, p in heard) / len(heard)
    starts = [n / BLOCKS for n in range(len(expected))]
    start = min(starts, key=distance)
    means = []
    for speaks in (True, False):
        part = [p for time, p in heard if voice[place(time, start)] == speaks]
        means.append(sum(part) / len(part))
    print(f"microphone: {len(heard)} probabilities in {heard[-1][0] - heard[0][0]:.0f} s, mean distance {distance(start):.3f}")
    print(f"microphone: mean probability {means[0]:.2f} during voice, {means[1]:.2f} during noise")
    if not (distance(start) <= 0.15 and means[0] >= means[1] + 0.5):
        sys.exit("microphone: expected a distance of at most 0.15, and means at least 0.5 apart")


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
    wav = folder / "voice.wav"
    clip = native("clip", str(wav))
    if arguments.check:
        check(server, address, clip)
        check_microphone(server, address, wav, clip)
    if arguments.picture:
        picture(address, arguments.picture.resolve())
    server.shutdown()


if __name__ == "__main__":
    main()
