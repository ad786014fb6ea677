// Runs a program that was built for WASI, with the whole file system and the environment: `node run.mjs program.wasm [argument…]`.

import { readFileSync } from "node:fs";
import { argv, env, exit } from "node:process";
import { WASI } from "node:wasi";

const [program, ...args] = argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...args], env, preopens: { "/": "/" }, returnOnExit: true });
// Node 20 does not keep it alive while the program runs. If it is collected within one of its functions, a lock is destroyed that the
// function holds, and node aborts without a message.
globalThis.wasi = wasi;
const module = new WebAssembly.Module(readFileSync(program));
exit(wasi.start(new WebAssembly.Instance(module, wasi.getImportObject())));
