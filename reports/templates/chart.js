// One panel: the points of one phase at one batch, context and cache. Two canvases lie on one another: the points, drawn once
// for each change of filters, and what is under the pointer or selected, drawn at every move.

const MARGIN = { left: 72, right: 14, top: 30, bottom: 44 };
const MARK_SIZE = { front: 5, rest: 3.4 };
const MOST_BARS = 40; // of a target; a denser front shows the bounds of every second point, every third, ...
const REACH = 14; // pixels within which a point is under the pointer

class Panel {
  constructor(report, phase, title) {
    this.report = report;
    this.phase = phase;
    this.title = title;
    this.places = []; // [x, y, index] of what is drawn
    this.hovered = null;
    this.frontSize = MARK_SIZE.front;
    this.base = element("canvas", { role: "img", "aria-label": `${title}: chart of the points in the table below` });
    this.overlay = element("canvas", { "data-phase": phase });
    this.note = element("div", { class: "empty" });
    this.root = element("div", { class: "panel" }, this.base, this.overlay, this.note);
    this.overlay.addEventListener("pointermove", (event) => this.hover(event));
    this.overlay.addEventListener("pointerleave", () => this.leave());
    this.overlay.addEventListener("click", () => this.hovered !== null && report.select(this.hovered, true));
  }

  draw(indices, limits) {
    const style = getComputedStyle(document.documentElement);
    this.colours = Object.fromEntries(["card", "ink", "quiet", "grid", "accent"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.width = this.root.clientWidth;
    this.height = this.root.clientHeight;
    this.places = [];
    const context = this.prepare(this.base);
    this.prepare(this.overlay);
    this.note.textContent = indices.length ? "" : "No point passes the filters.";
    if (!limits) return;
    this.scale(limits);
    this.axes(context);
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, MARGIN.top - 8, this.width - MARGIN.left - MARGIN.right + 8, this.height - MARGIN.top - MARGIN.bottom + 8);
    context.clip();
    const { columns } = this.report.data;
    const front = indices.filter((index) => columns.rank[index] === "front");
    const rest = indices.filter((index) => columns.rank[index] !== "front");
    for (const index of rest) this.mark(context, index, rest.length > 1500 ? 0.3 : 0.6);
    this.fronts(context, front);
    const crowd = Math.ceil(front.length / (MOST_BARS * this.report.data.targets.length));
    front.forEach((index, place) => place % crowd === 0 && this.bars(context, index));
    this.frontSize = crowd > 1 ? MARK_SIZE.rest : MARK_SIZE.front;
    for (const index of front) this.mark(context, index, 1);
    context.restore();
    this.places = [...rest, ...front].map((index) => [...this.place(index), index]);
    this.highlight();
  }

  prepare(canvas) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(this.width * ratio);
    canvas.height = Math.round(this.height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    return context;
  }

  scale(limits) {
    const width = this.report.data.linear_width;
    const across = [limits.left, limits.right, MARGIN.left, this.width - MARGIN.right];
    this.x = this.report.data.axes.x.log ? logScale(...across) : linearScale(...across);
    const ends = [limits.low, limits.high, this.height - MARGIN.bottom - 14, MARGIN.top + 14];
    this.y = width === null ? linearScale(...ends) : asinhScale(...ends, width);
  }

  axes(context) {
    const bottom = this.height - MARGIN.bottom, right = this.width - MARGIN.right;
    context.lineWidth = 1;
    context.fillStyle = this.colours.quiet;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of this.y.ticks) {
      const y = this.y.at(tick);
      context.strokeStyle = tick === 0 ? this.colours.quiet : this.colours.grid;
      this.line(context, MARGIN.left, y, right, y);
      context.fillText(tickText(tick, this.report.data.axes.y.unit), MARGIN.left - 8, y);
    }
    context.strokeStyle = this.colours.grid;
    context.textAlign = "center";
    context.textBaseline = "top";
    let free = -Infinity;
    for (const tick of this.x.ticks) {
      const x = this.x.at(tick), text = tickText(tick, this.report.data.axes.x.unit), half = context.measureText(text).width / 2;
      this.line(context, x, MARGIN.top, x, bottom);
      if (x - half < free || x + half > this.width) continue;
      context.fillText(text, x, bottom + 7);
      free = x + half + 8;
    }
    context.fillText(this.report.data.x_labels[this.phase], (MARGIN.left + right) / 2, bottom + 25);
    context.fillStyle = this.colours.ink;
    context.font = context.font.replace("12px", "600 13px");
    context.fillText(this.title, (MARGIN.left + right) / 2, 4);
    context.font = context.font.replace("600 13px", "12px");
    context.save();
    context.translate(13, (MARGIN.top + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.fillStyle = this.colours.quiet;
    context.textBaseline = "middle";
    context.fillText(this.report.data.axes.y.label, 0, 0);
    context.restore();
  }

  fronts(context, front) {
    const { columns, targets, axes } = this.report.data;
    targets.forEach((target, number) => {
      const places = front.filter((index) => columns.target[index] === number).map((index) => this.place(index)).sort((a, b) => a[0] - b[0] || b[1] - a[1]);
      if (!places.length) return;
      context.beginPath();
      context.moveTo(...places[0]);
      for (let step = 1; step < places.length; step++) {
        context.lineTo(...(axes.x.larger ? [places[step - 1][0], places[step][1]] : [places[step][0], places[step - 1][1]]));
        context.lineTo(...places[step]);
      }
      context.strokeStyle = this.report.colour(number);
      context.lineWidth = 1.6;
      context.setLineDash(target.dashes);
      context.stroke();
      context.setLineDash([]);
    });
  }

  bars(context, index) {
    const { columns } = this.report.data, [x, y] = this.place(index);
    context.globalAlpha = 0.5;
    context.lineWidth = 1;
    context.strokeStyle = this.report.colour(columns.target[index]);
    this.line(context, this.x.at(this.report.data.axes.x.log ? Math.max(columns.x_low[index], columns.x[index] * 1e-3) : columns.x_low[index]), y, this.x.at(columns.x_high[index]), y);
    this.line(context, x, this.y.at(columns.y_low[index]), x, this.y.at(columns.y_high[index]));
    context.globalAlpha = 1;
  }

  mark(context, index, alpha) {
    const { columns, targets } = this.report.data, target = columns.target[index], front = columns.rank[index] === "front";
    const [x, y] = this.place(index), size = front ? this.frontSize : MARK_SIZE.rest;
    context.beginPath();
    if (targets[target].mark === "s") context.rect(x - size * 0.9, y - size * 0.9, size * 1.8, size * 1.8);
    else if (targets[target].mark === "^") {
      context.moveTo(x, y - size * 1.15);
      context.lineTo(x + size * 1.1, y + size * 0.85);
      context.lineTo(x - size * 1.1, y + size * 0.85);
      context.closePath();
    } else context.arc(x, y, size, 0, 2 * Math.PI);
    context.globalAlpha = alpha;
    context.lineWidth = 1;
    if (front) {
      context.fillStyle = this.report.colour(target);
      context.fill();
    }
    context.strokeStyle = front && size === MARK_SIZE.front ? this.colours.card : this.report.colour(target);
    context.stroke();
    context.globalAlpha = 1;
  }

  place(index) {
    const { columns } = this.report.data;
    return [this.x.at(columns.x[index]), this.y.at(columns.y[index])];
  }

  line(context, x, y, toX, toY) {
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(toX, toY);
    context.stroke();
  }

  hover(event) {
    const box = this.overlay.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let nearest = REACH ** 2, found = null;
    for (const [left, top, index] of this.places) {
      const distance = (left - x) ** 2 + (top - y) ** 2;
      if (distance <= nearest) [nearest, found] = [distance, index];
    }
    if (found !== this.hovered) {
      this.hovered = found;
      this.overlay.style.cursor = found === null ? "" : "pointer";
      this.highlight();
    }
    this.report.tooltip(found, event.clientX, event.clientY);
  }

  leave() {
    this.hovered = null;
    this.highlight();
    this.report.tooltip(null);
  }

  highlight() {
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    for (const index of new Set([this.report.selected, this.hovered])) {
      const place = this.places.find((known) => known[2] === index);
      if (!place) continue;
      this.bars(context, index);
      this.mark(context, index, 1);
      context.beginPath();
      context.arc(place[0], place[1], 9, 0, 2 * Math.PI);
      context.strokeStyle = this.colours.ink;
      context.lineWidth = 2;
      context.stroke();
    }
  }
}
