// Runs a program that was built for WASI, with the whole file system and the environment: `node run.mjs program.wasm [argument…]`.

import { readFileSync } from "node:fs";
import { argv, env, exit } from "node:process";
import { WASI } from "node:wasi";

const [program, ...args] = argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...args], env, preopens: { "/": "/" }, returnOnExit: true });
// Node 20 does not keep this object alive while the program runs. If it is collected during a call of one of its functions, a lock that
// the function holds is destroyed, and node aborts without a message.
globalThis.wasi = wasi;
const module = new WebAssembly.Module(readFileSync(program));
exit(wasi.start(new WebAssembly.Instance(module, wasi.getImportObject())));
