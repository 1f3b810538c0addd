// Figures as people write them; the twin of render/quantities.py.

const PREFIXES = { s: ["", "m", "µ", "n", "p"], J: ["", "m", "µ", "n", "p"], B: ["", "Ki", "Mi", "Gi", "Ti"] };

function number(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
  const digits = Math.max(0, 2 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// The factor and prefix that bring a value near one.
function prefixOf(value, unit) {
  const prefixes = PREFIXES[unit];
  if (!prefixes || value === 0) return [1, ""];
  if (unit === "B") {
    const power = Math.min(prefixes.length - 1, Math.max(0, Math.floor(Math.log(Math.abs(value)) / Math.log(1024))));
    return [1024 ** -power, prefixes[power]];
  }
  const power = Math.min(prefixes.length - 1, Math.max(0, Math.ceil(-Math.log10(Math.abs(value)) / 3)));
  return [1000 ** power, prefixes[power]];
}

function quantity(value, unit) {
  const [factor, prefix] = prefixOf(value, unit);
  return `${number(value * factor)} ${prefix}${unit}`.trim();
}

// A round value on an axis, without the zeros that say nothing.
function tickText(value, unit) {
  const [text, ...rest] = quantity(value, unit).split(" ");
  const short = text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text;
  return [short, ...rest].join(" ");
}

function bounds(low, high, value, unit) {
  if (low === value && high === value) return "";
  const [factor] = prefixOf(value, unit);
  return `[${number(low * factor)}, ${number(high * factor)}]`;
}

// Make an element; text is always set as text, never as markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
