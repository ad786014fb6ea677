"use strict";

// Runs on the audio thread. The output is the probability of voice as a signal: nothing is sent, and nothing is allocated.
class Listener extends AudioWorkletProcessor {
  constructor({ processorOptions: { module } }) {
    super();
    this.voice = new WebAssembly.Instance(module, {}).exports;
    this.voice.voice_start();
    // The memory does not grow any more, so the block stays where it is.
    this.block = new Float32Array(this.voice.memory.buffer, this.voice.voice_block(), 128);
  }

  process(inputs, outputs) {
    if (inputs[0].length > 0) this.block.set(inputs[0][0]);
    else this.block.fill(0); // before the microphone's first samples
    outputs[0][0].fill(this.voice.voice_hear());
    return true;
  }
}

registerProcessor("listener", Listener);
