// LSTM and GRU in WebAssembly: gradflow with vector instructions and without, and onnxruntime-web, one thread each.
//
//     node bench.mjs [--no-peer] [--rounds 9] [--csv file] [points that contain this, as T50 or lstm]

import { readFileSync, writeFileSync } from "node:fs";
import { argv } from "node:process";
import { parseArgs } from "node:util";

const { values: options, positionals } = parseArgs({
  args: argv.slice(2),
  allowPositionals: true,
  options: {
    "no-peer": { type: "boolean", default: false },
    rounds: { type: "string", default: "9" },
    csv: { type: "string" },
    build: { type: "string", multiple: true, default: ["simd", "scalar"] },
  },
});

// The least time of a measurement, in milliseconds.
const LEAST = 20;

function gradflow(build) {
  const module = new WebAssembly.Module(readFileSync(new URL(`target/${build}.wasm`, import.meta.url)));
  const { exports } = new WebAssembly.Instance(module, {});
  const floats = (address, count) => new Float32Array(exports.memory.buffer, address, count);
  return {
    exports,
    prepare: ({ cell, T, B, H }) => exports.prepare(cell === "lstm", T, B, H),
    onnx: () => new Uint8Array(exports.memory.buffer, exports.onnx(), exports.onnx_bytes()).slice(),
    // As onnxruntime-web does: the input is copied in, the output out.
    run: (x) => {
      floats(exports.input(), x.length).set(x);
      exports.run();
      return floats(exports.output(), x.length).slice();
    },
  };
}

async function onnxruntime() {
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.numThreads = 1;
  let session;
  return {
    prepare: async (bytes) => {
      await session?.release();
      session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
    },
    run: async (x, { T, B, H }) => (await session.run({ x: new ort.Tensor("float32", x, [T, B, H]) })).y.data,
  };
}

// Milliseconds of one of `count` runs. One after another is waited for only if it has to be.
async function timed(run, count) {
  const start = performance.now();
  for (let k = 0; k < count; k++) {
    const result = run();
    if (result instanceof Promise) await result;
  }
  return (performance.now() - start) / count;
}

async function enough(run) {
  for (let count = 1; ; count *= 2) {
    const each = await timed(run, count);
    if (each * count >= LEAST / 2) return Math.max(1, Math.ceil(LEAST / each));
  }
}

const points = ["lstm", "gru"].flatMap((cell) =>
  [1, 50].flatMap((T) => [1, 16].flatMap((B) => [16, 64, 128, 256].map((H) => ({ cell, T, B, H }))))
).filter((p) => positionals.every((text) => `${p.cell} T${p.T} B${p.B} H${p.H}`.split(" ").includes(text)));

const builds = Object.fromEntries(options.build.map((build) => [build, gradflow(build)]));
const peer = options["no-peer"] ? undefined : await onnxruntime();
const rows = [["cell", "T", "B", "H", ...options.build, ...(peer ? ["onnxruntime-web"] : [])]];
console.log(`best of ${options.rounds} rounds, microseconds a run; below others: their time by that of ${options.build[0]}`);
for (const point of points) {
  const x = Float32Array.from({ length: point.T * point.B * point.H }, (_, k) => Math.sin(k * 0.7));
  const sides = [];
  for (const build of Object.values(builds)) {
    build.prepare(point);
    sides.push(() => build.run(x));
  }
  if (peer) {
    await peer.prepare(builds[options.build[0]].onnx());
    sides.push(() => peer.run(x, point));
  }
  const want = await sides[0]();
  for (const side of sides.slice(1)) {
    const got = await side();
    const error = got.reduce((most, y, k) => Math.max(most, Math.abs(y - want[k])), 0);
    if (!(error < 1e-5)) throw new Error(`${JSON.stringify(point)}: outputs differ by ${error}`);
  }
  const counts = [];
  for (const side of sides) counts.push(await enough(side));
  const best = sides.map(() => Infinity);
  for (let round = 0; round < options.rounds; round++) {
    for (let k = 0; k < sides.length; k++) {
      const side = (round + k) % sides.length;
      best[side] = Math.min(best[side], await timed(sides[side], counts[side]));
    }
  }
  const micros = best.map((ms) => (1000 * ms).toFixed(1));
  rows.push([point.cell, point.T, point.B, point.H, ...micros]);
  const ratios = best.map((ms) => (ms / best[0]).toFixed(2));
  console.log(`${point.cell} T${point.T} B${point.B} H${point.H}`.padEnd(20), ...micros.map((t, k) => `${t} (${ratios[k]})`.padEnd(18)));
}
if (options.csv) writeFileSync(options.csv, rows.map((row) => row.join(",")).join("\n") + "\n");
