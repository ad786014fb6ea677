"use strict";

const STEPS = 100;
const WRITTEN = 320; // characters
const byId = (id) => document.getElementById(id);
const value = (id) => Number(byId(id).value);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

let wasm;

// The memory is looked up after the call, which may have made it larger: the old buffer is then gone.
const floats = (start, count) => Array.from(new Float32Array(wasm.memory.buffer, start, count));
const norms = (kind, a, b, steps) => floats(wasm.gradient_norms(kind, a, b, steps), steps);
const logits = () => floats(wasm.writer_logits(), wasm.writer_classes());

function read(text) {
  for (const character of text) wasm.writer_read(character.codePointAt(0));
}

function write(count, temperature) {
  let text = "";
  for (let i = 0; i < count; i++) {
    const code = wasm.writer_draw(temperature);
    wasm.writer_read(code);
    text += String.fromCodePoint(code);
  }
  return text;
}

// The lines of the picture; each is recomputed only when its own sliders move.
const lines = {
  rnn: { name: "RNN", of: () => norms(0, value("gain"), value("input"), STEPS) },
  lstm: { name: "LSTM", of: () => norms(1, value("forget"), 0, STEPS) },
  gru: { name: "GRU", of: () => norms(2, value("update"), 0, STEPS) },
};

const LOW = -14, HIGH = 8; // powers of ten

// A pen for an empty canvas, in the page's pixels.
function penOn(id) {
  const canvas = byId(id), scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "12px system-ui, sans-serif";
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  return { pen, width, height };
}

// A faint line across a picture, with a number at its left end.
function rule(pen, left, right, y, label) {
  pen.strokeStyle = color("line");
  pen.beginPath();
  pen.moveTo(left, y);
  pen.lineTo(right, y);
  pen.stroke();
  pen.fillStyle = color("faint");
  pen.textAlign = "right";
  pen.fillText(label, left - 8, y);
}

function draw() {
  const { pen, width, height } = penOn("flow");
  const [left, right, top, bottom] = [52, width - 64, 10, height - 34];
  const x = (distance) => left + (distance / (STEPS - 1)) * (right - left);
  const y = (log) => bottom - ((Math.min(Math.max(log, LOW), HIGH) - LOW) / (HIGH - LOW)) * (bottom - top);

  for (let log = LOW; log <= HIGH; log += 2) rule(pen, left, right, y(log), log === 0 ? "1" : `1e${log}`);
  pen.textAlign = "center";
  for (let distance = 0; distance <= STEPS; distance += 20) {
    pen.fillText(distance, x(Math.min(distance, STEPS - 1)), bottom + 14);
  }
  pen.fillText("distance from the loss (steps)", (left + right) / 2, bottom + 28);

  pen.lineWidth = 2.5;
  pen.textAlign = "left";
  const labels = [];
  for (const [id, line] of Object.entries(lines)) {
    pen.strokeStyle = color(id);
    pen.beginPath();
    line.norms.forEach((norm, distance) => pen.lineTo(x(distance), y(Math.log10(norm))));
    pen.stroke();
    labels.push({ id, name: line.name, at: y(Math.log10(line.norms[STEPS - 1])) });
  }
  // Names beside the ends of the lines, one below the other if the ends are close.
  labels.sort((a, b) => a.at - b.at);
  labels.forEach((label, i) => {
    if (i > 0) label.at = Math.max(label.at, labels[i - 1].at + 15);
    pen.fillStyle = color(label.id);
    pen.fillText(label.name, right + 8, label.at);
  });
}

function measure(...ids) {
  const start = performance.now();
  for (const id of ids) lines[id].norms = lines[id].of();
  byId("timing").textContent = `The last picture's gradients took ${(performance.now() - start).toFixed(0)} ms.`;
  for (const id of ["gain", "input", "forget", "update", "temperature"]) byId(`${id}-value`).textContent = value(id);
  draw();
}

function goOn() {
  byId("temperature-value").textContent = value("temperature");
  wasm.writer_restart(1);
  read(byId("typed").value);
  const next = logits(), largest = Math.max(...next);
  const weights = next.map((logit) => Math.exp(logit - largest)), total = weights.reduce((a, b) => a + b);
  byId("written").textContent = write(WRITTEN, value("temperature"));
  const likely = weights.map((weight, id) => [weight / total, id]).sort((a, b) => b[0] - a[0]).slice(0, 12);
  byId("bars").replaceChildren(...likely.map(([share, id]) => {
    const bar = document.createElement("div"), code = wasm.writer_character(id);
    bar.innerHTML = `<i style="height:${Math.max(1, share * 70)}px"></i>`;
    bar.append(code === 10 ? "⏎" : code === 32 ? "␣" : String.fromCodePoint(code), document.createElement("br"),
      `${(share * 100).toFixed(0)}%`);
    return bar;
  }));
}

// Sends numbers, or an error message, to serve.py.
const tell = (what) => fetch("told", { method: "POST", body: JSON.stringify(what) });

// The numbers that serve.py --check compares with those computed by native code.
async function numbers() {
  const settings = [[0, 1.0, 0.1], [0, 1.5, 0.1], [0, 1.5, 3.0], [1, 0.0, 0.0], [1, 3.0, 0.0], [2, 3.0, 0.0]];
  wasm.writer_restart(1);
  read("the gradient ");
  const after = logits();
  return {
    norms: settings.map(([kind, a, b]) => norms(kind, a, b, 40)), logits: after, text: write(40, 0.2),
    probabilities: await probabilities("voice.wav"),
  };
}

async function main() {
  if (location.search === "?picture") fetch("rest"); // see serve.py
  const bytes = await (await fetch("gradflow_web.wasm")).arrayBuffer();
  wasm = (await WebAssembly.instantiate(bytes, {})).instance.exports;
  wasm.writer_restart(1);
  if (location.search === "?check") return tell(await numbers());
  for (const id of ["gain", "input"]) byId(id).addEventListener("input", () => measure("rnn"));
  byId("forget").addEventListener("input", () => measure("lstm"));
  byId("update").addEventListener("input", () => measure("gru"));
  for (const id of ["typed", "temperature"]) byId(id).addEventListener("input", goOn);
  byId("listen").addEventListener("click", toggle);
  for (const redraw of [draw, drawVoice]) window.addEventListener("resize", redraw);
  measure("rnn", "lstm", "gru");
  goOn();
  drawVoice();
  if (location.search === "?picture") {
    await showClip();
    await tell("drawn");
  }
  if (location.search === "?listen") await report(24);
}

main().catch((error) => {
  byId("timing").textContent = `This page needs WebAssembly with simd128: ${error}`;
  if (location.search) tell(`${error}`);
});
