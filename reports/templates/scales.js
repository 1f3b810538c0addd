// Axes: a logarithmic one for latency, a linear or asinh one for loss.

function niceTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const ticks = [];
  for (let index = Math.ceil(low / step); index * step <= high * (1 + 1e-12); index++) ticks.push(index * step);
  return ticks;
}

function logScale(low, high, from, to) {
  const start = Math.log(low), span = Math.log(high) - start || 1;
  const ticks = [];
  const steps = high / low < 8 ? [1, 2, 3, 5, 7] : high / low < 100 ? [1, 2, 5] : [1];
  for (let decade = Math.floor(Math.log10(low)); decade <= Math.log10(high); decade++) {
    for (const step of steps) {
      const value = Number(`${step}e${decade}`);
      if (value >= low && value <= high) ticks.push(value);
    }
  }
  return { at: (value) => from + ((Math.log(value) - start) / span) * (to - from), ticks };
}

function linearScale(low, high, from, to) {
  return { at: (value) => from + ((value - low) / (high - low)) * (to - from), ticks: niceTicks(low, high, 8) };
}

// asinh(value / width): linear about zero, logarithmic beyond `width` on either side.
function asinhScale(low, high, from, to, width) {
  const bend = (value) => Math.asinh(value / width);
  const start = bend(low), span = bend(high) - start;
  const ticks = [0];
  const largest = Math.ceil(Math.log10(Math.max(-low, high))), smallest = Math.floor(Math.log10(width)) - 1;
  for (const step of [1, 5, 2]) {
    for (let decade = largest; decade >= smallest; decade--) {
      for (const value of [Number(`${step}e${decade}`), Number(`-${step}e${decade}`)]) {
        const apart = Math.min(...ticks.map((tick) => Math.abs(bend(value) - bend(tick))));
        if (value >= low && value <= high && apart >= span / 10) ticks.push(value);
      }
    }
  }
  return { at: (value) => from + ((bend(value) - start) / span) * (to - from), ticks: ticks.filter((tick) => tick >= low && tick <= high) };
}
