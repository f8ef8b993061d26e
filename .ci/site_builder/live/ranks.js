// A ranking to rearrange: nine measures follow (measures.js).
import { listMeasures, randomFloor } from "./measures.js";
import { element, line, picture, readData } from "./parts.js";

const { labels, classes, parent, frames, sprite } = readData();      // number 0 is the query
const N = labels.length - 1, NAMES = {
  nn: ["NN", "the first rank only"], ft: ["FT", "the first NG ranks"], st: ["ST", "the first 2 NG ranks"],
  map8: ["mAP8", "the whole list, emotions; the top counts most"],
  map2: ["mAP2", "the whole list, polarities only"],
  dcg: ["DCG", "the whole list, mean over all cuts"], ndcg: ["nDCG", "the whole list, one cut at its end"],
  anmrr: ["ANMRR", "a window of ranks; smaller is better"], f1: ["F1", "the first 20 ranks, as one lot"],
};
const tier = (i) => (labels[i] === labels[0] ? 0 : parent[labels[i]] === parent[labels[0]] ? 1 : 2);
const network = Array.from({ length: N }, (_, i) => i + 1);
const byTier = (sign) => [...network].sort((a, b) => sign * (tier(a) - tier(b)) || a - b);
const ORDERS = {
  "as the network ranks them": () => network, "perfect": () => byTier(1), "the worst": () => byTier(-1),
  "shuffle": () => {
    const order = [...network];
    for (let i = N - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  },
};
let order = [...network], held = null;
const fineOf = (list) => list.map((i) => Number(tier(i) === 0));
const coarseOf = (list) => list.map((i) => Number(tier(i) < 2));
const measure = (list) => listMeasures(fineOf(list), coarseOf(list));
const floor = randomFloor(fineOf(network), coarseOf(network)), best = measure(byTier(1));
let before = measure(order);

const told = line(), ranking = element("ol", { class: "ranking", "aria-label": "ranking, best first" });
const tiles = Object.fromEntries(network.map((i) => {
  const { css, sign, words, colour } = frames[tier(i)], number = element("span", { class: "rank" });
  const image = picture(sprite, i, { "aria-hidden": true }), name = `${classes[labels[i]]}, ${words}`;
  Object.assign(image.style, { border: `3px ${css} ${colour}` });
  const button = element("button", { type: "button", class: "tile", title: name, "aria-describedby": "how" },
    image, element("span", { class: "mark", "aria-hidden": true }, sign), number);
  return [i, { item: element("li", {}, button), button, number, name }];
}));
const rows = Object.fromEntries(Object.entries(NAMES).map(([name, [short, what]]) => {
  const bar = element("span", { class: "fill" }), value = element("td", { class: "number" });
  const moved = element("td", { class: "number moved" }), mark = element("span", { class: "floor" });
  mark.style.left = `${100 * floor[name]}%`;
  const track = element("div", { class: "track", title: `random order: ${floor[name].toFixed(3)}` }, bar, mark);
  const head = element("th", { scope: "row" }, short);
  return [name, { row: element("tr", {}, head, value, moved, element("td", {}, track), element("td", {}, what)),
    bar, value, moved }];
}));

const signed = (x) => (Math.abs(x) < 5e-4 ? "" : (x < 0 ? "−" : "+") + Math.abs(x).toFixed(3));

function refresh(previous) {
  const now = measure(order);
  for (const [name, { bar, value, moved }] of Object.entries(rows)) {
    const change = now[name] - previous[name];
    value.textContent = now[name].toFixed(3);
    moved.textContent = signed(change);
    moved.classList.toggle("worse", name === "anmrr" ? change > 0 : change < 0);
    bar.style.width = `${100 * now[name]}%`;
  }
  order.forEach((i, k) => {
    const { button, number, name } = tiles[i];
    number.textContent = k + 1;
    button.setAttribute("aria-label", `rank ${k + 1}: ${name}`);
  });
  return now;
}

// Puts the tiles in order; an element that stays where it is keeps the focus and the pointer.
function arrange() {
  order.forEach((i, k) => {
    if (ranking.children[k] !== tiles[i].item) ranking.insertBefore(tiles[i].item, ranking.children[k] ?? null);
  });
}

function change(list, words) {
  order = [...list];
  const focused = document.activeElement;
  arrange();
  if (ranking.contains(focused)) focused.focus();
  const now = refresh(before);
  const step = (name) => `${NAMES[name][0]} ${before[name].toFixed(3)} → ${now[name].toFixed(3)}`;
  told.say(`${words}: ${["map8", "ft", "dcg", "anmrr"].map(step).join(", ")}.`);
  before = now;
}

const moved = (i, to) => {
  const rest = order.filter((other) => other !== i);
  rest.splice(Math.min(Math.max(to, 0), N - 1), 0, i);
  return rest;
};

for (const [key, { button, name }] of Object.entries(tiles)) {
  const i = Number(key);
  button.onkeydown = (event) => {
    const at = order.indexOf(i), columns = getComputedStyle(ranking).gridTemplateColumns.split(" ").length;
    const to = {
      ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns, Home: 0, End: N - 1,
    }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const target = Math.min(Math.max(to, 0), N - 1);
    if (!event.shiftKey) tiles[order[target]].button.focus();
    else if (target !== at) change(moved(i, target), `${name}, from rank ${at + 1} to ${target + 1}`);
  };
  button.onpointerdown = (event) => {
    if (event.button !== 0) return;
    held = { i, from: order.indexOf(i) };
    button.classList.add("held");
  };
}

// While a tile is held, the list follows the pointer and the measures follow the list.
addEventListener("pointermove", (event) => {
  const tile = held && document.elementFromPoint(event.clientX, event.clientY)?.closest(".tile");
  if (!tile || !ranking.contains(tile) || tile === tiles[held.i].button) return;
  order = moved(held.i, [...ranking.children].indexOf(tile.parentElement));
  arrange();
  refresh(before);
});
const release = () => {
  if (!held) return;
  const { i, from } = held, to = order.indexOf(i);
  tiles[i].button.classList.remove("held");
  held = null;
  if (from !== to) change(order, `${tiles[i].name}, from rank ${from + 1} to ${to + 1}`);
};
addEventListener("pointerup", release);
addEventListener("pointercancel", release);

const relevant = fineOf(network).reduce((sum, x) => sum + x, 0);
document.getElementById("figure").append(
  element("p", { class: "help", id: "how" },
    "Drag an image to another rank. By keyboard: Tab to one, arrow keys walk, Shift and an arrow key moves it."),
  element("div", { class: "asked" },
    element("div", { class: "query" },
      picture(sprite, 0, { role: "img", "aria-label": `The query: ${classes[labels[0]]}` }),
      element("p", {}, `query: ${classes[labels[0]]}`, element("br"), `NG = ${relevant} of ${N}`)), ranking),
  element("div", { class: "buttons" }, ...Object.entries(ORDERS).map(([name, make]) =>
    element("button", { type: "button", onclick: () => change(make(), name) }, name))),
  told.el, element("div", { class: "table" }, element("table", { class: "measures" },
    element("caption", {}, "Line in a bar: a list in random order. Coloured: the change by the last move."),
    element("thead", {}, element("tr", {}, ...["measure", "value", "change", "", "looks at"].map((text) =>
      element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...Object.values(rows).map(({ row }) => row)))));
arrange();
refresh(before);
told.say("Nothing has been moved yet.");
window.figure = { change: (list) => change(list, "set"), values: () => measure(order), floor, best, order: () => order };
