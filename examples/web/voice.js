"use strict";

const RATE = 16000, BLOCK = 128; // as in voice/src
const SHOWN = 10, KEPT = 30; // seconds

let heard = []; // [seconds, probability of voice]
let listening; // the microphone's stream and its audio context, while listening

const compiled = async () => WebAssembly.compile(await (await fetch("gradflow_voice.wasm")).arrayBuffer());

function drawVoice() {
  const { pen, width, height } = penOn("voice");
  const [left, right, top, bottom] = [52, width - 12, 10, height - 20];
  const end = heard.length > 0 ? heard[heard.length - 1][0] : 0;
  const x = (time) => right - ((end - time) / SHOWN) * (right - left);
  const y = (probability) => bottom - probability * (bottom - top);
  for (const probability of [0, 0.5, 1]) rule(pen, left, right, y(probability), probability);
  pen.textAlign = "center";
  pen.fillText(`probability of voice, the last ${SHOWN} seconds`, (left + right) / 2, bottom + 12);
  pen.lineWidth = 2;
  pen.strokeStyle = color("gru");
  pen.beginPath();
  for (const [time, probability] of heard) if (time >= end - SHOWN) pen.lineTo(x(time), y(probability));
  pen.stroke();
}

function show(words) {
  byId("verdict").textContent = words;
}

// Shows the verdict of the newest probability.
function judge() {
  show(heard[heard.length - 1][1] > 0.5 ? "voice" : "no voice");
}

// An error message for the user.
function inWords(error) {
  const words = {
    NotAllowedError: "The microphone was refused. The browser asks again if you allow it in the page's settings.",
    NotFoundError: "There is no microphone.",
    NotReadableError: "The microphone cannot be read: another program may have it.",
    NotSupportedError: `This browser cannot listen at ${RATE / 1000} kHz.`,
  };
  return words[error.name] ?? `This page cannot listen: ${error}`;
}

async function listen() {
  // Only pages from https or from this machine may ask.
  if (!navigator.mediaDevices) throw new Error("a page must come from https, or from this machine.");
  const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const module = await compiled();
  listening = { microphone: await navigator.mediaDevices.getUserMedia({ audio: raw }) };
  const context = listening.context = new AudioContext({ sampleRate: RATE });
  await context.audioWorklet.addModule("listener.js");
  const listener = new AudioWorkletNode(context, "listener", {
    channelCount: 1, channelCountMode: "explicit", outputChannelCount: [1], processorOptions: { module },
  });
  const meter = new AnalyserNode(context, { fftSize: 32 }), newest = new Float32Array(32);
  context.createMediaStreamSource(listening.microphone).connect(listener).connect(meter);
  await context.resume();
  heard = [];
  listening.timer = setInterval(() => {
    meter.getFloatTimeDomainData(newest);
    heard.push([context.currentTime, newest[newest.length - 1]]);
    while (heard[0][0] < context.currentTime - KEPT) heard.shift();
    judge();
    drawVoice();
  }, 20);
}

function stopListening() {
  clearInterval(listening?.timer);
  listening?.microphone.getTracks().forEach((track) => track.stop());
  listening?.context?.close();
  listening = undefined;
  show("");
}

async function toggle() {
  const button = byId("listen");
  button.disabled = true;
  try {
    if (!listening) await listen();
    else stopListening();
  } catch (error) {
    stopListening();
    show(inWords(error));
  }
  button.textContent = listening ? "Stop" : "Listen to the microphone";
  button.disabled = false;
}

// The probabilities in a WAV file of 16 bits at RATE, block by block, on this thread.
async function probabilities(address) {
  const voice = (await WebAssembly.instantiate(await compiled(), {})).exports;
  voice.voice_start();
  const samples = new Int16Array(await (await fetch(address)).arrayBuffer(), 44);
  const block = new Float32Array(voice.memory.buffer, voice.voice_block(), BLOCK), found = [];
  for (let start = 0; start + BLOCK <= samples.length; start += BLOCK) {
    for (let n = 0; n < BLOCK; n++) block[n] = samples[start + n] / 32768;
    found.push(voice.voice_hear());
  }
  return found;
}

// For serve.py --picture.
async function showClip() {
  heard = (await probabilities("voice.wav")).map((probability, n) => [((n + 1) * BLOCK) / RATE, probability]);
  judge();
  drawVoice();
}

// For serve.py --check: sends what is heard in this number of seconds of the microphone, or an error message.
async function report(seconds) {
  await toggle();
  if (listening) await new Promise((done) => setTimeout(done, 1000 * seconds));
  await tell(listening ? heard : byId("verdict").textContent);
}
