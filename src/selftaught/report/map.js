"use strict";
// The map: points or images on a canvas, the nearest one enlarged beside the pointer.
const PALETTE = ["#3b7dd8", "#e07b39", "#2fa36b", "#c94f7c", "#8a63d2", "#b59a1e", "#19a7b5",
  "#d0503f", "#7b8794", "#5f9e2f"];

for (const box of document.querySelectorAll(".map")) {
  const points = JSON.parse(box.querySelector("script").textContent);
  const frame = box.querySelector(".canvas"), canvas = frame.querySelector("canvas");
  const tip = box.querySelector(".tip"), picture = tip.querySelector("canvas");
  const words = tip.querySelector("span"), sprite = box.querySelector(".sprite");
  const buttons = [...box.querySelectorAll("[data-show]")], legend = box.querySelector(".legend");
  const count = points.x.length, margin = 14, zoom = 2;
  let shown = points.legend ? "points" : "images", only = -1, at = -1, width = 0, height = 0;

  const color = (kind) => kind < 0 || !points.legend ? (points.legend ? "#9aa3ad" : PALETTE[0])
    : kind < PALETTE.length ? PALETTE[kind] : `hsl(${(kind * 137.5) % 360} 55% 55%)`;
  const x = (i) => margin + points.x[i] * (width - 2 * margin);
  const y = (i) => height - margin - points.y[i] * (height - 2 * margin);
  const visible = (i) => only < 0 || points.kind[i] === only;

  function thumbnail(context, i, left, top, side) {
    const s = points.side;
    context.drawImage(sprite, (i % points.columns) * s, Math.floor(i / points.columns) * s, s, s,
      left, top, side, side);
  }

  function draw() {
    const scale = window.devicePixelRatio || 1, style = getComputedStyle(box);
    width = frame.clientWidth;
    height = Math.round(Math.min(width * 0.75, 620));
    canvas.style.height = height + "px";
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    if (shown === "images" && sprite.complete) {
      const side = Math.max(20, Math.min(36, width / 24)), taken = new Set();
      for (let i = 0; i < count; i++) {  // one image a cell, so that none hides another
        const column = Math.floor(x(i) / side), row = Math.floor(y(i) / side);
        const cell = row + "," + column;
        if (!visible(i) || taken.has(cell)) continue;
        taken.add(cell);
        thumbnail(context, i, column * side, row * side, side - 1);
        if (points.legend) {
          context.fillStyle = color(points.kind[i]);
          context.fillRect(column * side, row * side + side - 4, side - 1, 3);
        }
      }
    } else {
      const radius = count > 4000 ? 2 : count > 800 ? 3 : 4;
      for (const bright of [false, true]) {
        for (let i = 0; i < count; i++) {
          if (visible(i) !== bright) continue;
          context.globalAlpha = bright ? 0.8 : 0.12;
          context.fillStyle = color(points.kind[i]);
          context.beginPath();
          context.arc(x(i), y(i), radius, 0, 2 * Math.PI);
          context.fill();
        }
      }
      context.globalAlpha = 1;
    }
    if (at >= 0) {
      context.strokeStyle = style.getPropertyValue("--ink");
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x(at), y(at), 7, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  function point(event) {
    const place = canvas.getBoundingClientRect();
    const px = event.clientX - place.left, py = event.clientY - place.top;
    let best = -1, distance = 40 * 40;
    for (let i = 0; i < count; i++) {
      if (!visible(i)) continue;
      const d = (x(i) - px) ** 2 + (y(i) - py) ** 2;
      if (d < distance) [best, distance] = [i, d];
    }
    if (best === at) return;
    at = best;
    draw();
    tip.hidden = at < 0;
    if (at < 0) return;
    const side = zoom * points.side;
    picture.width = picture.height = side;
    picture.getContext("2d").clearRect(0, 0, side, side);
    thumbnail(picture.getContext("2d"), at, 0, 0, side);
    const kind = points.kind[at] < 0 ? "" : points.kinds[points.kind[at]] + "\n";
    words.textContent = kind + points.names[at];
    tip.style.left = Math.max(0, Math.min(x(at) + 14, width - tip.offsetWidth)) + "px";
    const above = y(at) + 14 + tip.offsetHeight > height;
    tip.style.top = Math.max(0, above ? y(at) - 14 - tip.offsetHeight : y(at) + 14) + "px";
  }

  function leave() {
    at = -1;
    tip.hidden = true;
    draw();
  }

  function press() {
    for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.show === shown);
    for (const [kind, button] of [...legend.children].entries()) {
      button.setAttribute("aria-pressed", only === kind);
    }
    leave();
  }

  for (const button of buttons) {
    button.addEventListener("click", () => { shown = button.dataset.show; press(); });
  }
  if (points.legend) {
    for (const [kind, name] of points.kinds.entries()) {
      const button = document.createElement("button"), dot = document.createElement("i");
      button.type = "button";
      dot.style.background = color(kind);
      button.append(dot, name);
      button.addEventListener("click", () => { only = only === kind ? -1 : kind; press(); });
      legend.append(button);
    }
  }
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", leave);
  sprite.addEventListener("load", draw);
  new ResizeObserver(() => { if (frame.clientWidth !== width) draw(); }).observe(frame);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  press();
}
