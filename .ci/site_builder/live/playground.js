// The loss playground: which pairs of a batch a loss touches, in which direction, and how hard (batch_losses.js).
import { LOSSES, WITHOUT_SCALE, lossOnBatch, lossSentence } from "./batch_losses.js";
import { choice, draw, element, line, picture, readData, sheet, slider } from "./parts.js";

const { batches, labels, classes, parent, sprite, highest } = readData();
const KINDS = Object.fromEntries(Object.entries(batches).map(([kind, batch]) => [batch.title, kind]));
for (const batch of Object.values(batches)) Object.assign(batch, { labels, parent });
const B = labels.length, CELL = 10, LEFT = 82, TOP = 6, SIDE = B * CELL;
const state = { batch: "trained", loss: "EP", scale: 1, lambda: 0.5, anchor: 5 };
const first = labels.flatMap((label, i) => (i && label === labels[i - 1] ? [] : [i]));         // of each class
const heavy = (i) => parent[labels[i]] !== parent[labels[i - 1]];

const EDGE = LEFT + SIDE + 8, newMap = () => sheet(EDGE + 54, SIDE + 74, "map");
const maps = { cosines: newMap(), touched: newMap() };
const bars = sheet(760, 170, "row"), strip = element("div", { class: "thumbnails", "aria-hidden": true });
const [sum, words, told] = [line(), line(), line()];

// dark blue for -1, white for 0, dark red for 1
const shade = (s) => `color-mix(in oklab, ${s < 0 ? "#0b4a8f" : "#8f1d2c"} ${Math.round(100 * Math.abs(s))}%, #f4f1ea)`;
const cell = (i, j) => ({ x: LEFT + j * CELL, y: TOP + i * CELL, width: CELL, height: CELL });

function frame() {
  const at = (i) => first[i] + ((first[i + 1] ?? B) - first[i]) / 2;
  return [
    ...first.slice(1).map((i) => draw("path", {
      d: `M${LEFT} ${TOP + i * CELL}h${SIDE}M${LEFT + i * CELL} ${TOP}v${SIDE}`,
      class: heavy(i) ? "polarity" : "class",
    })),
    ...first.flatMap((i, k) => {
      const name = classes[labels[i]], x = LEFT + at(k) * CELL, y = TOP + SIDE + 10;
      return [
        draw("text", { x: LEFT - 5, y: TOP + at(k) * CELL + 4, class: "end" }, name),
        draw("text", { x, y, class: "end", transform: `rotate(-55 ${x} ${y})` }, name),
      ];
    }),
    draw("rect", {
      x: LEFT - 1, y: TOP + state.anchor * CELL - 1.5, width: SIDE + 2, height: CELL + 3, class: "chosen",
    }),
  ];
}

function drawMaps(batch, { gradient, force }) {
  const pairs = gradient.flatMap((row, i) => row.map((g, j) => ({ i, j, g, s: batch.G[i][j] })));
  const largest = Math.max(...pairs.map(({ g }) => Math.abs(g))) || 1, strongest = Math.max(...force) || 1;
  maps.cosines.svg.replaceChildren(
    ...pairs.map(({ i, j, s }) => draw("rect", { ...cell(i, j), fill: shade(s) })), ...frame(),
    ...Array.from({ length: 41 }, (_, k) => 1 - k / 20).flatMap((s, k) => [
      draw("rect", { x: EDGE, y: TOP + 4 * k, width: 12, height: 4.2, fill: shade(s) }),
      k % 20 ? "" : draw("text", { x: EDGE + 17, y: TOP + 4 * k + 6 }, `${s}`),
    ]));
  const touched = pairs.filter(({ g }) => g).flatMap(({ i, j, g }) => {
    const [x, y, r] = [LEFT + (j + 0.5) * CELL, TOP + (i + 0.5) * CELL, 0.48 * CELL * Math.sqrt(Math.abs(g) / largest)];
    const mark = g < 0 ? draw("circle", { cx: x, cy: y, r, class: "pulled" })
      : draw("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, class: "pushed" });
    return [draw("rect", { ...cell(i, j), class: `tint ${g < 0 ? "pulled" : "pushed"}` }), mark];
  });
  maps.touched.svg.replaceChildren(
    draw("rect", { x: LEFT, y: TOP, width: SIDE, height: SIDE, class: "untouched" }), ...touched, ...frame(),
    ...force.map((f, i) =>
      draw("rect", { x: EDGE, y: TOP + i * CELL + 1.5, width: (46 * f) / strongest, height: CELL - 3, class: "force" })),
    draw("text", { x: EDGE + 23, y: TOP + SIDE + 14, class: "middle" }, "force"));
}

function drawRow(batch, row) {
  const width = 720 / B, X = (j) => 36 + j * width, Y = (s) => 78 - 62 * s, cosines = batch.G[state.anchor];
  bars.svg.replaceChildren(
    draw("path", { d: `M36 ${Y(0)}H756`, class: "axis" }),
    ...[1, 0, -1].map((s) => draw("text", { x: 30, y: Y(s) + 4, class: "end" }, `${s}`)),
    ...cosines.map((s, j) => (j === state.anchor ? draw("text", { x: X(j + 0.5), y: Y(0) + 5, class: "middle star" },
      "★")
      : draw("rect", {
        x: X(j) + 3, y: Math.min(Y(s), Y(0)), width: width - 6, height: Math.max(Math.abs(62 * s), 1),
        class: row[j] < 0 ? "pulled" : row[j] > 0 ? "pushed" : "alone",
      }))),
    ...first.map((i, k) => {
      const next = first[k + 1] ?? B;
      return draw("text", { x: X((i + next) / 2), y: 160, class: "middle" }, classes[labels[i]]);
    }),
    ...first.slice(1).map((i) => draw("path", { d: `M${X(i)} 8V148`, class: heavy(i) ? "polarity" : "class" })));
  const pulled = row.filter((g) => g < 0).length, pushed = row.filter((g) => g > 0).length;
  const text = `row ${state.anchor}, ${classes[labels[state.anchor]]}: ${pulled} pulled, ${pushed} pushed`;
  bars.describe(`The cosines of ${text}.`);
  told.say(`Anchor: ${text}. Bars are its cosines to the other images, blue where the loss pulls and orange where it `
    + "pushes.");
  picker.setAttribute("aria-valuenow", state.anchor);
  picker.setAttribute("aria-valuetext", text);
  [...strip.children].forEach((node, i) => node.classList.toggle("chosen", i === state.anchor));
  strip.style.visibility = batch.images ? "" : "hidden";
}

// Eq. 14: the share of the pair loss against the attention loss
function totalSentence({ attention }, { loss }) {
  const part = `λ = ${state.lambda.toFixed(2)}: ${(state.lambda * loss).toFixed(4)} from the pair loss`;
  if (attention === null) return `${part}; random directions come from no network, so there is no attention loss.`;
  const rest = (1 - state.lambda) * attention;
  return `${part} and ${rest.toFixed(4)} from the attention loss (${attention.toFixed(4)}), in all `
    + `${(state.lambda * loss + rest).toFixed(4)} (Eq. 14); λ multiplies every force.`;
}

const found = () => lossOnBatch(state.loss, state.scale, batches[state.batch]);

function refresh() {
  const batch = batches[state.batch], result = found(), sentence = lossSentence(state.loss, state.scale, batch, result);
  drawMaps(batch, result);
  maps.cosines.describe(`Heat map of the cosines of ${batch.title}, 32 by 32, classes in blocks of four.`);
  maps.touched.describe(`Map of the pairs that the loss touches. ${sentence}`);
  drawRow(batch, result.gradient[state.anchor]);
  words.say(sentence);
  sum.say(totalSentence(batch, result));
  scale.show({ value: state.scale, disabled: WITHOUT_SCALE.includes(state.loss) });
}

function change(values) {
  Object.assign(state, values);
  state.anchor = Math.min(Math.max(state.anchor, 0), B - 1);
  batchChoice.select.value = batches[state.batch].title;
  lossChoice.select.value = state.loss;
  lambda.show({ value: state.lambda });
  refresh();
}

const batchChoice = choice("batch", Object.keys(KINDS), (title) => change({ batch: KINDS[title] }));
const lossChoice = choice("loss", LOSSES, (loss) => change({ loss }));
const scale = slider("scale", { min: 1, max: highest, step: 1, value: 1 }, (v) => change({ scale: v }));
const lambda = slider("λ (Eq. 14)", { min: 0, max: 1, step: 0.05, value: 0.5 }, (v) => change({ lambda: v }));
strip.append(...labels.map((_, i) => picture(sprite, i, { onclick: () => change({ anchor: i }) })));

// one place that takes the keyboard; a click on a row of either map chooses it, too
const picker = element("div", {
  class: "maps", role: "slider", tabindex: 0, "aria-label": "anchor row", "aria-orientation": "vertical",
  "aria-valuemin": 0, "aria-valuemax": B - 1,
  onkeydown: (event) => {
    const now = state.anchor, next = {
      ArrowDown: now + 1, ArrowRight: now + 1, ArrowUp: now - 1, ArrowLeft: now - 1, PageDown: now + 4,
      PageUp: now - 4, Home: 0, End: B - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    change({ anchor: next });
  },
}, ...Object.entries(maps).map(([name, { svg }]) => element("figure", {},
  element("figcaption", {}, name === "cosines" ? "cosines" : "what the loss touches"), svg)));
for (const { svg } of Object.values(maps)) {
  svg.addEventListener("click", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const row = Math.floor((at.y - TOP) / CELL);
    if (row >= 0 && row < B) change({ anchor: row });
    picker.focus({ preventScroll: true });
  });
}
document.getElementById("figure").append(
  element("p", { class: "help" },
    "Click a row of a map, or Tab to the maps and use the arrow keys, to choose the anchor."),
  element("div", { class: "controls first" }, batchChoice.el, lossChoice.el, scale.el, lambda.el),
  words.el, sum.el, picker,
  element("p", { class: "key" }, element("span", { class: "dot pulled" }), "pulled together ",
    element("span", { class: "dot pushed" }), "pushed apart; areas are strengths"),
  told.el, element("div", { class: "scrolled", tabindex: 0, role: "group", "aria-label": "The anchor's row" },
    element("div", { class: "anchor-row" }, strip, bars.svg)));
change({});
window.figure = { change, found };
