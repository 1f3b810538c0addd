// The table of all points that pass the filters: sorted by any column, shown a page at a time.

const PAGE_ROWS = 50;
const RANK_ORDER = { front: 0, indistinguishable: 1, dominated: 2, outside: 3, none: 4 };
const STATUS_TEXT = { failed: "failed", absent: "not possible" };

// name, heading, kind (text, or the unit of a figure), and whether a plus sign is shown
function tableColumns(data) {
  const item = data.columns.item.find((_, index) => data.columns.status[index] === "ok") ?? "token";
  const wanted = [
    ["recipe", "recipe", "text"], ["target", "target", "text"], ["phase", "phase", "text"], ["batch", "batch", ""], ["context", "context", ""], ["kv", "cache", "text"],
    ["rank", "standing", "text"], ["loss", data.better === "lower" ? `Δ ${data.metric}` : `${data.metric} lost`, "", true], ["accuracy", data.metric, ""],
    ["latency_s", "latency", "s"], ["throughput_tokens_per_s", `${item}s/s`, ""], ["energy_per_token_j", `energy/${item}`, "J"],
    ["price_per_million_tokens_usd", `USD/million ${item}s`, ""], ["memory_bytes", "memory", "B"], ["weight_bytes", "weights", "B"],
    ["bits_per_weight", "bits/weight", ""], ["lut", "LUT", ""], ["ff", "FF", ""], ["dsp", "DSP", ""], ["bram18", "BRAM18", ""], ["uram", "URAM", ""],
    ["support", "kernel", "text"], ["fidelity", "evaluation", "text"], ["provenance", "origin of cost", "text"],
  ];
  const several = (name) => new Set(data.columns[name]).size > 1;
  const hidden = { batch: !several("batch"), context: !several("context"), kv: !several("kv"), phase: !several("phase"), fidelity: !several("fidelity") };
  return wanted
    .filter(([name]) => !hidden[name] && data.columns[name] && data.columns[name].some((value) => value !== null))
    .map(([name, heading, kind, signed]) => ({ name, heading, kind, signed: Boolean(signed), text: kind === "text" }));
}

class Table {
  constructor(report) {
    this.report = report;
    this.columns = tableColumns(report.data);
    this.sort = { name: "latency_s", descending: false };
    this.page = 0;
    this.rows = [];
    const head = element("tr");
    for (const column of this.columns) {
      const button = element("button", { type: "button" }, column.heading);
      button.addEventListener("click", () => this.sortBy(column.name));
      column.header = element("th", { scope: "col", class: column.text ? "text" : null, "data-column": column.name }, button);
      head.append(column.header);
    }
    document.querySelector("#table thead").append(head);
    this.body = document.querySelector("#table tbody");
    this.body.addEventListener("click", (event) => this.clicked(event));
    document.getElementById("previous").addEventListener("click", () => this.turn(this.page - 1));
    document.getElementById("next").addEventListener("click", () => this.turn(this.page + 1));
  }

  show(indices) {
    this.rows = indices;
    this.order();
    this.turn(0);
  }

  sortBy(name) {
    this.sort = { name, descending: this.sort.name === name && !this.sort.descending };
    this.order();
    this.turn(0);
  }

  // What a point is sorted by; what is unknown comes last either way.
  sortValue(name, index) {
    const { columns, recipes, targets } = this.report.data;
    if (name === "recipe") return recipes[columns.recipe[index]].name;
    if (name === "target") return targets[columns.target[index]].name;
    if (name === "rank") return RANK_ORDER[columns.rank[index]];
    return columns[name][index];
  }

  order() {
    const { name, descending } = this.sort, sign = descending ? -1 : 1;
    const values = new Map(this.rows.map((index) => [index, this.sortValue(name, index)]));
    const collator = new Intl.Collator("en", { numeric: true });
    this.rows.sort((one, other) => {
      const a = values.get(one), b = values.get(other);
      if (a === null || b === null) return (a === null) - (b === null) || one - other;
      return sign * (typeof a === "string" ? collator.compare(a, b) : a - b) || one - other;
    });
    for (const column of this.columns) {
      column.header.setAttribute("aria-sort", column.name === name ? (descending ? "descending" : "ascending") : "none");
    }
  }

  turn(page) {
    const pages = Math.max(1, Math.ceil(this.rows.length / PAGE_ROWS));
    this.page = Math.min(Math.max(0, page), pages - 1);
    const shown = this.rows.slice(this.page * PAGE_ROWS, (this.page + 1) * PAGE_ROWS);
    this.body.replaceChildren(...shown.map((index) => this.row(index)));
    document.getElementById("count").textContent = `${this.rows.length.toLocaleString("en-US")} of ${this.report.data.columns.key.length.toLocaleString("en-US")}`;
    document.getElementById("page-number").textContent = `page ${this.page + 1} of ${pages}`;
    document.getElementById("previous").disabled = this.page === 0;
    document.getElementById("next").disabled = this.page === pages - 1;
    document.getElementById("pages").hidden = pages === 1;
  }

  reveal(index) {
    const place = this.rows.indexOf(index);
    if (place >= 0) this.turn(Math.floor(place / PAGE_ROWS));
  }

  row(index) {
    const { columns } = this.report.data, selected = index === this.report.selected;
    const cells = this.columns.map((column) => this.cell(column, index));
    return element("tr", { "data-key": columns.key[index], class: selected ? "selected" : null, "aria-selected": selected ? "true" : null }, ...cells);
  }

  cell(column, index) {
    const { columns, recipes, targets } = this.report.data, { name, kind } = column;
    if (name === "recipe") {
      const label = recipes[columns.recipe[index]].name;
      return element("td", { class: "text recipe", title: label }, element("a", { href: `#point=${columns.key[index]}` }, label));
    }
    if (name === "target") return element("td", { class: "text" }, targets[columns.target[index]].name);
    if (name === "phase") return element("td", { class: "text" }, this.report.data.phase_labels[columns.phase[index]]);
    if (name === "rank") {
      const status = STATUS_TEXT[columns.status[index]];
      return element("td", { class: status ? "text bad" : "text", title: columns.reason[index] || columns.broken[index].join(", ") || null }, status ?? (columns.rank[index] === "none" ? "no figures" : columns.rank[index] === "outside" ? "outside the limits" : columns.rank[index]));
    }
    const value = columns[name][index];
    if (name === "provenance") return element("td", { class: "text" }, columns.status[index] === "ok" ? badge(value) : "-");
    if (value === null) return element("td", { class: column.text ? "text" : null }, "-");
    if (column.text) return element("td", { class: "text" }, name === "kv" && value === "" ? "the device's own" : value);
    if (name === "batch" || name === "context") return element("td", {}, String(value));
    const low = columns[`${name}_low`], high = columns[`${name}_high`];
    const text = (column.signed && value > 0 ? "+" : "") + quantity(value, kind);
    const spread = low ? bounds(low[index], high[index], value, kind) : "";
    return element("td", {}, text, spread ? element("small", {}, ` ${spread}`) : null);
  }

  clicked(event) {
    const row = event.target.closest("tr");
    if (!row || event.target.closest("a")) return; // a link changes the address, and that selects
    this.report.select(this.report.byKey.get(row.dataset.key), false);
  }
}

function badge(provenance) {
  return element("span", { class: `badge ${provenance.split(" ")[0]}` }, provenance);
}
