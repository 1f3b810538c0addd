// The report: one state (filters, selection), shown by the chart panels, the table and the details.

class Report {
  constructor(data) {
    this.data = data;
    this.selected = null;
    this.hidden = new Set(); // numbers of targets that are filtered out
    this.byKey = new Map(data.columns.key.map((key, index) => [key, index]));
    this.searchable = data.recipes.map((recipe) => `${recipe.name}\n${recipe.text}`.toLowerCase());
    this.dark = window.matchMedia("(prefers-color-scheme: dark)");
    this.header();
    this.cards();
    this.controls();
    this.figures();
    this.table = new Table(this);
    this.update();
    window.addEventListener("hashchange", () => this.followAddress());
    this.dark.addEventListener("change", () => this.update());
    new ResizeObserver(() => this.drawPanels()).observe(document.getElementById("panels"));
    this.followAddress();
  }

  colour(target) {
    return this.data.targets[target][this.dark.matches ? "dark" : "light"];
  }

  header() {
    const { data } = this, count = data.columns.key.length;
    document.title = `${data.model} · SparseFab report`;
    document.getElementById("title").textContent = data.model;
    const baselines = data.evaluations.filter((evaluation) => evaluation.baseline !== null).map((evaluation) => `${number(evaluation.baseline)} (${evaluation.protocol.split(";")[0]})`);
    const baseline = baselines.length ? ` Baseline ${data.metric}: ${[...new Set(baselines)].join("; ")}.` : "";
    document.getElementById("subtitle").textContent = `${data.recipes.length} recipes on ${data.targets.length} targets, ${count.toLocaleString("en-US")} points.${baseline}`;
    const versions = Object.entries(data.versions).map(([name, version]) => `${name} ${version}`).join(", ");
    const settings = Object.entries(data.settings_given).map(([name, value]) => `${name} = ${value}`).join(", ");
    const rows = [["command", element("code", {}, data.command)], ["made", data.created], ["seed", String(data.seed)], ["commit", data.commit], ["settings", settings], ["versions", versions]];
    document.getElementById("run").append(...pairs(rows));
    const used = new Set(data.columns.provenance);
    const meanings = Object.entries(data.provenance_meaning).filter(([name]) => used.has(name)).map(([name, meaning]) => [badge(name), meaning]);
    document.getElementById("provenance").append(...pairs(meanings));
  }

  cards() {
    const { data } = this;
    document.getElementById("limits").textContent = `Within ${data.limits}, on each target the fastest recipe.`;
    const judged = data.evaluations.some((evaluation) => evaluation.baseline !== null);
    if (!data.recommendations.length) document.getElementById("limits").textContent = judged || !data.settings.length ? "No point has both a loss and a latency, so there is nothing to compare." : "The model is known by shape alone: no accuracy was judged, so nothing is recommended.";
    const open = new Set([...document.querySelectorAll("#cards details")].map((node, place) => (node.open ? place : -1)));
    const cards = data.recommendations.map((made, place) => {
      const number = data.targets.findIndex((target) => target.name === made.target);
      const choice = made.key ? element("a", { href: `#point=${made.key}` }, made.recipe) : element("span", { class: "bad" }, "nothing within the limits");
      const card = element("article", { class: "card" },
        element("h3", {}, `${made.target}, ${data.phase_labels[made.phase]}`, made.provenance ? badge(made.provenance) : null), element("div", { class: "choice" }, choice),
        made.key ? element("div", { class: "figures" }, `${made.latency}; ${data.loss_label} ${made.loss}`) : null,
        element("details", { open: made.key === null || open.has(place) }, element("summary", {}, "because"), element("ul", {}, ...made.reasons.map((reason) => element("li", {}, reason)))));
      card.style.setProperty("--mark", this.colour(number));
      return card;
    });
    document.getElementById("cards").replaceChildren(...cards);
  }

  // Pictures that the page carries; they follow no filter.
  figures() {
    const made = this.data.figures.map(([title, source]) => element("figure", {}, element("figcaption", {}, title), element("img", { src: source, alt: title, loading: "lazy", decoding: "async" })));
    document.getElementById("figures").append(...made);
    document.getElementById("figures-section").hidden = !made.length;
    document.getElementById("chart-title").textContent = this.data.title;
  }

  controls() {
    const { data } = this, update = () => this.update();
    this.phase = document.getElementById("phase");
    this.phase.append(...(data.phases.length > 1 ? [new Option("both", "")] : []), ...data.phases.map((phase) => new Option(data.phase_labels[phase], phase)));
    this.setting = document.getElementById("setting");
    this.setting.append(...data.settings.map(([, , , label], place) => new Option(label, place)));
    if (data.settings.length > 1) this.setting.append(new Option("all (table only)", ""));
    this.recipe = document.getElementById("recipe");
    this.frontOnly = document.getElementById("front-only");
    for (const control of [this.phase, this.setting, this.frontOnly]) control.addEventListener("change", update);
    this.recipe.addEventListener("input", update);
    this.chips = data.targets.map((target, number) => {
      const chip = element("button", { type: "button", class: "chip", "aria-pressed": "true" });
      chip.addEventListener("click", () => {
        this.hidden.has(number) ? this.hidden.delete(number) : this.hidden.add(number);
        chip.setAttribute("aria-pressed", String(!this.hidden.has(number)));
        this.update();
      });
      return chip;
    });
    document.getElementById("targets").append(...this.chips);
  }

  // The chips are the legend as well: colour, mark and line of each target.
  legend() {
    this.data.targets.forEach((target, number) => {
      const made = (name, attributes) => {
        const node = document.createElementNS("http://www.w3.org/2000/svg", name);
        for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
        return node;
      };
      const colour = this.colour(number), picture = made("svg", { viewBox: "0 0 22 12", "aria-hidden": "true" });
      picture.append(made("path", { d: "M0 6H22", stroke: colour, "stroke-width": 1.6, "stroke-dasharray": target.dashes.join(" ") }));
      const shapes = { s: "M7 2h8v8h-8z", "^": "M11 1l5 10h-10z", o: "M7 6a4 4 0 1 0 8 0a4 4 0 1 0 -8 0" };
      picture.append(made("path", { d: shapes[target.mark], fill: colour }));
      this.chips[number].replaceChildren(picture, `${target.name} (${target.device})`);
    });
  }

  update() {
    const { columns, settings } = this.data, words = this.recipe.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matching = this.searchable.map((text) => words.every((word) => text.includes(word)));
    const setting = this.setting.value === "" ? null : settings[Number(this.setting.value)];
    const passing = [];
    for (let index = 0; index < columns.key.length; index++) {
      if (this.hidden.has(columns.target[index]) || !matching[columns.recipe[index]]) continue;
      if (this.phase.value && columns.phase[index] !== this.phase.value) continue;
      if (setting && (columns.batch[index] !== setting[0] || columns.context[index] !== setting[1] || columns.kv[index] !== setting[2])) continue;
      if (this.frontOnly.checked && columns.rank[index] !== "front") continue;
      passing.push(index);
    }
    this.passing = passing;
    this.legend();
    this.cards();
    this.makePanels();
    this.drawPanels();
    this.table.show([...passing]);
  }

  makePanels() {
    const { data } = this, root = document.getElementById("panels");
    const setting = this.setting.value === "" ? null : data.settings[Number(this.setting.value)];
    const phases = setting ? data.phases.filter((phase) => !this.phase.value || phase === this.phase.value) : [];
    this.panels = phases.map((phase) => new Panel(this, phase, `${data.phase_labels[phase]} (${setting[3]})`));
    const hint = data.settings.length ? "Choose one batch, context and cache to draw a chart: only equal ones compare." : "No point has both figures of the axes.";
    root.replaceChildren(...(this.panels.length ? this.panels.map((panel) => panel.root) : [element("p", { class: "quiet" }, hint)]));
  }

  // Panels share the loss axis, so that prefill and decode can be read side by side.
  drawPanels() {
    const { columns } = this.data, drawn = this.passing.filter((index) => columns.rank[index] !== "none");
    const reach = (indices, from, to) => indices.reduce(([low, high], index) => [Math.min(low, columns[from][index]), Math.max(high, columns[to][index])], [Infinity, -Infinity]);
    const front = drawn.filter((index) => columns.rank[index] === "front");
    const [[low, high], [lowest, highest]] = [reach(drawn, "y", "y"), reach(front, "y_low", "y_high")];
    const bottom = Math.min(0, low, lowest), top = Math.max(high, highest) > bottom ? Math.max(high, highest) : bottom + 1;
    for (const panel of this.panels) {
      const members = drawn.filter((index) => columns.phase[index] === panel.phase);
      const log = this.data.axes.x.log, own = front.filter((index) => columns.phase[index] === panel.phase);
      // bars of the front are drawn whole, unless one reaches so far down that a logarithmic axis would lose the rest
      const [low_x, high_x] = reach(members, "x", "x"), [low_bar, high_bar] = reach(own, "x_low", "x_high");
      const least = Math.min(low_x, log ? Math.max(low_bar, low_x / 10) : low_bar), most = Math.max(high_x, log ? Math.min(high_bar, high_x * 10) : high_bar);
      const margin = log ? 1.25 : (most - least) * 0.05 || 1;
      const [left, right] = log ? [least / margin, most * margin] : [least - margin, most + margin];
      panel.draw(members, members.length ? { low: bottom, high: top, left, right } : null);
    }
  }

  tooltip(index, x, y) {
    const box = document.getElementById("tooltip");
    box.hidden = index === null;
    if (index === null) return;
    if (this.shown !== index) box.replaceChildren(...tooltipContent(this.data, index));
    this.shown = index;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, x + 16 + width > window.innerWidth ? x - width - 12 : x + 16)}px`;
    box.style.top = `${Math.max(4, y + 16 + height > window.innerHeight ? y - height - 12 : y + 16)}px`;
  }

  // Select a point (null: none) and say so in the address, which is then a link to it.
  select(index, scroll) {
    const address = index === null ? " " : `#point=${this.data.columns.key[index]}`;
    if (window.location.hash !== address.trim()) history.replaceState(null, "", address === " " ? window.location.pathname + window.location.search : address);
    this.show(index, scroll);
  }

  followAddress() {
    const key = /^#point=(.+)$/.exec(window.location.hash)?.[1];
    const index = key === undefined ? undefined : this.byKey.get(decodeURIComponent(key));
    if (index !== undefined) this.show(index, true);
  }

  show(index, scroll) {
    this.selected = index;
    for (const panel of this.panels) panel.highlight();
    const details = document.getElementById("details");
    if (index === null) {
      details.hidden = true;
    } else {
      showDetails(this, index);
      if (scroll) {
        this.table.reveal(index);
        details.scrollIntoView({ block: "nearest" });
      }
    }
    for (const row of document.querySelectorAll("#table tbody tr")) {
      const selected = index !== null && row.dataset.key === this.data.columns.key[index];
      row.classList.toggle("selected", selected);
      selected ? row.setAttribute("aria-selected", "true") : row.removeAttribute("aria-selected");
    }
  }
}

new Report(JSON.parse(document.getElementById("data").textContent));
document.documentElement.dataset.readyMs = String(Math.round(performance.now()));
