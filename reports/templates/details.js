// The selected point: its figures, its recipe, and what its cost is made of.

const FIGURES = [
  ["accuracy", "", null], ["loss", "", null], ["latency_s", "s", "latency"], ["throughput_tokens_per_s", "", null], ["energy_per_token_j", "J", null],
  ["power_w", "W", "power"], ["price_per_million_tokens_usd", "USD", null], ["memory_bytes", "B", "memory on the device"], ["weight_bytes", "B", "weights with metadata"],
  ["bits_per_weight", "", "bits per weight"], ["lut", "", "LUT"], ["ff", "", "FF"], ["dsp", "", "DSP"], ["bram18", "", "BRAM18"], ["uram", "", "URAM"],
];

function figureLabel(data, name, label, index) {
  const item = data.columns.item[index];
  const labels = { accuracy: data.metric, loss: data.loss_label, throughput_tokens_per_s: `${item}s per second`, energy_per_token_j: `energy per ${item}`, price_per_million_tokens_usd: `price of a million ${item}s` };
  return label ?? labels[name];
}

function figureText(data, name, unit, index) {
  const { columns } = data, value = columns[name]?.[index];
  if (value === null || value === undefined) return null;
  const low = columns[`${name}_low`], spread = low ? bounds(low[index], columns[`${name}_high`][index], value, unit) : "";
  return `${name === "loss" && value > 0 ? "+" : ""}${quantity(value, unit)} ${spread}`.trim();
}

function pairs(list) {
  return list.flatMap(([label, content]) => (content === null || content === undefined || content === "" ? [] : [element("dt", {}, label), element("dd", {}, content)]));
}

function tooltipContent(data, index) {
  const { columns, recipes, targets } = data, target = targets[columns.target[index]];
  const table = element("table");
  for (const [name, unit, label] of FIGURES.slice(0, 5)) {
    const text = figureText(data, name, unit, index);
    if (text) table.append(element("tr", {}, element("td", {}, figureLabel(data, name, label, index)), element("td", {}, text)));
  }
  return [element("b", {}, recipes[columns.recipe[index]].name), element("div", {}, `${target.name} (${target.device}), ${data.phase_labels[columns.phase[index]]}, ${columns.rank[index]} `, badge(columns.provenance[index])), table];
}

function showDetails(report, index) {
  const { data } = report, { columns } = data, root = document.getElementById("details");
  const recipe = data.recipes[columns.recipe[index]], target = data.targets[columns.target[index]], evaluation = data.evaluations[columns.evaluation[index]];
  const close = element("button", { type: "button" }, "Close");
  close.addEventListener("click", () => report.select(null, false));
  const cache = columns.kv[index] ? `, cache ${columns.kv[index]}` : "";
  const setting = `batch ${columns.batch[index]}, context ${columns.context[index]}${cache}`;
  const head = element("header", {}, element("h2", {}, recipe.name), element("span", { class: "quiet" }, `on ${target.name} (${target.device}), ${data.phase_labels[columns.phase[index]]}, ${setting}`), columns.status[index] === "ok" ? badge(columns.provenance[index]) : null, close);
  const status = columns.status[index] === "ok" ? null : element("p", { class: "bad" }, `${STATUS_TEXT[columns.status[index]]}: ${columns.reason[index]}`);
  const figures = FIGURES.map(([name, unit, label]) => [figureLabel(data, name, label, index), figureText(data, name, unit, index)]);
  const tied = columns.tied_with[index].flatMap((other, place) => [place ? ", " : "", element("a", { href: `#point=${columns.key[other]}` }, data.recipes[columns.recipe[other]].name)]);
  const origin = [
    ["breaks", columns.broken[index].join(", ")], ["standing", columns.rank[index] === "none" ? "" : columns.rank[index]], ["not to be told apart from", tied.length ? element("span", {}, ...tied) : ""],
    ["cost", columns.status[index] === "ok" ? `${columns.provenance[index]}: ${data.provenance_meaning[columns.provenance[index]]}` : ""], ["kernel", columns.support[index]],
    ["baseline", evaluation.baseline === null ? "" : `${number(evaluation.baseline)} ${data.metric}`], ["protocol", evaluation.protocol], ["data", evaluation.data_hash],
    ["stays in float", several(evaluation.float_layers)], ["evaluation", columns.fidelity[index]], ["key", element("a", { href: `#point=${columns.key[index]}` }, columns.key[index])],
  ];
  const arch = data.archs[columns.arch[index]], manifest = target.device === "FPGA" && columns.status[index] === "ok" ? data.verilog[columns.arch[index]] : null;
  const design = manifest ? [element("h3", {}, "Verilog"), element("p", {}, element("a", { href: manifest }, manifest))] : [];
  if (arch) design.unshift(element("h3", {}, "Accelerator"), element("pre", {}, arch));
  root.replaceChildren(head, ...(status ? [status] : []), element("div", { class: "columns" },
    element("div", {}, element("h3", {}, "Figures"), element("dl", {}, ...pairs(figures))),
    element("div", {}, element("h3", {}, "Recipe"), element("pre", { id: "recipe-text" }, recipe.text), ...design),
    element("div", {}, element("h3", {}, "Terms of the cost"), element("div", { id: "terms" }, ...terms({ ...JSON.parse(columns.terms[index]), ...JSON.parse(data.shared_terms[columns.shared[index]]) }).filter(Boolean)), element("h3", {}, "Origin"), element("dl", {}, ...pairs(origin)))));
  root.hidden = false;
}

// A few names in a row; more of them behind their number.
function several(names) {
  if (names.length <= 6) return names.join(", ");
  return element("details", {}, element("summary", {}, `${names.length} layers`), names.join(", "));
}

// Times as bars of one scale, everything else as text.
function terms(values) {
  const entries = Object.entries(values).flatMap(([name, value]) => (name === "terms_s" ? Object.entries(value).map(([term, seconds]) => [`${term}_s`, seconds]) : [[name, value]]));
  if (!entries.length) return [element("p", { class: "quiet" }, "none given")];
  const isTime = ([name, value]) => name.endsWith("_s") && !name.endsWith("_per_s") && typeof value === "number";
  const longest = Math.max(...entries.filter(isTime).map(([, value]) => value), 0) || 1;
  return entries.map(([name, value]) => {
    if (isTime([name, value])) return element("div", { class: "term" }, name.slice(0, -2).replaceAll("_", " "), element("div", { class: "bar", style: `width:${(100 * value) / longest}%` }), quantity(value, "s"));
    if (Array.isArray(value)) return value.length ? element("div", {}, name.replaceAll("_", " "), element("ul", { class: "quiet" }, ...value.map((line) => element("li", {}, typeof line === "string" ? line : JSON.stringify(line))))) : null;
    const text = name.endsWith("_bytes") && typeof value === "number" ? quantity(value, "B") : typeof value === "number" ? number(value) : typeof value === "string" ? value : JSON.stringify(value, null, 1);
    return element("div", { class: "term" }, name.replaceAll("_", " "), element("span"), typeof value === "object" ? element("pre", {}, text) : text);
  });
}
