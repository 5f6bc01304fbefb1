"use strict";
// Show the denials of the limit that the two sliders select. Every figure was computed before; nothing is estimated.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const rate = byId("rate"), burst = byId("burst");
byId("sliders").hidden = false;
byId("picture").hidden = true; // the same curves, without sliders
const WIDTH = Math.max(300, Math.min(760, byId("sliders").clientWidth));
const MAX_NAMES = 20, LEFT = 56, RIGHT = 32, TOP = 12, BOTTOM = 276, LINE = 18;
byId("curves").setAttribute("viewBox", `0 0 ${WIDTH} 300`);
const count = (number) => number.toLocaleString("en-US");
function percent(part, whole) {
  const percentage = 100 * part / whole, smaller = Math.min(percentage, 100 - percentage);
  if (smaller <= 0) return `${percentage}\u00a0%`;
  const digits = percentage >= 10 && percentage <= 99 ? 1 : Math.max(2, 1 - Math.floor(Math.log10(smaller)));
  return `${Number(percentage.toFixed(digits))}\u00a0%`;
}

const highest = Math.max(...data.bursts, ...data.curves.flatMap((curve) => curve.bursts));
const x = (place) => LEFT + (WIDTH - LEFT - RIGHT) * place / Math.max(1, data.rates.length - 1);
const y = (value) => BOTTOM - (BOTTOM - TOP) * Math.log(value / 0.8) / Math.log(highest / 0.8);

function draw(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  byId("curves").append(element);
  return element;
}

const steps = [];
for (let power = 1; power <= highest; power *= 10) steps.push(power);
for (const value of steps) {
  draw("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" });
  draw("text", { x: LEFT - 8, y: y(value) + 5, "text-anchor": "end" }, count(value));
}
const marks = [0, Math.floor(data.rates.length / 2), data.rates.length - 1];
for (const place of marks) draw("text", { x: x(place), y: BOTTOM + 20, "text-anchor": "middle" }, data.rates[place]);
data.curves.forEach((curve, number) => {
  const points = curve.bursts.map((value, place) => `${x(place)},${y(value)}`).join(" ");
  draw("polyline", { points, class: "curve", "stroke-opacity": 1 - 0.15 * number });
});
// The label of a line is below its beginning; lines whose labels would overlap share that of the lowest.
const labels = [];
for (const curve of data.curves) {
  const place = y(curve.bursts[0]) + LINE, last = labels.at(-1);
  if (last && place - last.place < LINE) {
    last.names.push(curve.name);
    last.place = place;
  }
  else labels.push({ place, names: [curve.name] });
}
for (const { place, names } of labels) {
  draw("text", { x: LEFT + 6, y: place, class: "label" }, names.length > 1 ? `${names[0]} to ${names.at(-1)}` : names[0]);
}
const dot = draw("circle", { r: 7, class: "dot" });

function show() {
  const row = Number(rate.value), column = Number(burst.value), chosen = data.bursts[column];
  const requests = data.requestsDenied[row][column], clients = data.clientsDenied[row][column];
  const limit = `token-bucket, ${data.rates[row]}, burst ${count(chosen)}`;
  byId("rate-value").textContent = data.rates[row];
  byId("burst-value").textContent = count(chosen);
  byId("effect").textContent = clients === 0
    ? `${limit}, denies nothing.`
    : `${limit}, denies ${count(requests)} of ${count(data.offered)} requests (${percent(requests, data.offered)}), `
      + `to ${count(clients)} of ${count(data.clients)} clients (${percent(clients, data.clients)}).`;
  rate.setAttribute("aria-valuetext", data.rates[row]);
  burst.setAttribute("aria-valuetext", String(chosen));
  dot.setAttribute("cx", x(row));
  dot.setAttribute("cy", y(chosen));
  const denied = data.listed.filter((client) => client.needs[row] > chosen)
    .sort((first, second) => second.needs[row] - first.needs[row]).slice(0, MAX_NAMES);
  const list = document.createElement("ul");
  for (const client of denied) {
    const item = document.createElement("li"), name = document.createElement("bdi");
    name.textContent = client.name;
    item.append(name, ` needs ${count(client.needs[row])}, sent ${count(client.requests)} requests`);
    list.append(item);
  }
  if (clients > denied.length) {
    const item = document.createElement("li");
    item.textContent = `${count(clients - denied.length)} more`;
    list.append(item);
  }
  byId("denied").replaceChildren(list);
}

rate.max = data.rates.length - 1;
burst.max = data.bursts.length - 1;
[rate.value, burst.value] = data.start;
rate.addEventListener("input", show);
burst.addEventListener("input", show);
show();
