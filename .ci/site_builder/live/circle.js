// The circle of generated negatives: circle.js of the widget draws, circle_values.js computes.
import circleView from "../../../apse_nb/static/circle.js";
import {
  AXIS, ROLES, circleValues, lossesSentence, marksOf, numberText, pointTexts, positiveStrip, problemOf, rolesOf,
  stripSentence,
} from "./circle_values.js";
import { choice, draw, element, line, makeModel, readData, sheet, slider, tick } from "./parts.js";

const { start, looks, highest, colours } = readData();
const HARDNESS = { "β from class probabilities (Eq. 11)": null, "β by hand": "beta", "λ₀ by hand": "lambda_0" };
const GENERATE = { "inter and intra": ["inter", "intra"], "intra only": ["intra"], "inter only": ["inter"] };
const WORDS = { ep: "EP, original negatives", gep: "GEP, generated negatives" };
let circle = structuredClone(start);

const looksNow = () => ROLES.map((role) => ({ ...looks[role], shown: rolesOf(circle).includes(role) }));
const points = makeModel({ angles: ROLES.map((role) => circle[role]), looks: looksNow(), texts: [], marks: [] });
const [losses, forces] = [line(), line()], readings = element("div", { class: "readings" });
const bars = sheet(400, 170, "bars"), strips = [sheet(400, 165, "strip"), sheet(400, 165, "strip")];
readings.append(bars.svg, ...strips.map((s) => s.svg));

function drawBars({ losses: parts }) {
  const reach = 1.25 * Math.max(...Object.values(parts).flat()) + 0.01, height = (v) => (105 * v) / reach;
  bars.svg.replaceChildren(
    draw("rect", { x: 60, y: 4, width: 10, height: 10, class: "ep" }), draw("text", { x: 75, y: 13 }, WORDS.ep),
    draw("rect", { x: 230, y: 4, width: 10, height: 10, class: "gep" }), draw("text", { x: 245, y: 13 }, WORDS.gep),
    draw("path", { d: "M50 145H390", class: "axis" }),
    ...Object.entries(parts).flatMap(([name, pair], k) => [
      draw("text", { x: 110 + 110 * k, y: 162, class: "middle" }, name),
      ...pair.flatMap((v, i) => {
        const x = 72 + 110 * k + 40 * i;
        return [
          draw("rect", { x, y: 145 - height(v), width: 36, height: height(v), class: i ? "gep" : "ep" }),
          draw("text", { x: x + 18, y: 140 - height(v), class: "middle" }, v.toFixed(2)),
        ];
      }),
    ]),
  );
}

function drawStrip({ svg }, strip) {
  const { x, before, after, over } = strip, end = over === "angle" ? 180 : 1;
  const reach = 1.15 * Math.max(...before.map(Math.abs), ...after.map(Math.abs), 1e-6);
  const [X, Y] = [(v) => 50 + (335 * v) / end, (v) => 68 - (62 * v) / reach];
  const curve = (ys) => ys.map((y, i) => `${i ? "L" : "M"}${X(x[i]).toFixed(1)} ${Y(y).toFixed(1)}`).join("");
  const area = (keep) => `${curve(after.map(keep))}L${X(x.at(-1))} ${Y(0)}L${X(x[0])} ${Y(0)}Z`;
  const ticks = over === "angle" ? [0, 30, 60, 90, 120, 150, 180] : [0, 0.2, 0.4, 0.6, 0.8, 1];
  svg.replaceChildren(
    draw("path", { d: area((y) => Math.max(y, 0)), class: "near" }),
    draw("path", { d: area((y) => Math.min(y, 0)), class: "away" }),
    draw("path", { d: `M${X(0)} ${Y(0)}H${X(end)}M${X(0)} 6V130H${X(end)}`, class: "axis" }),
    draw("path", { d: curve(before), class: "curve-ep" }), draw("path", { d: curve(after), class: "curve-gep" }),
    ...ticks.map((t) => draw("text", { x: X(t), y: 143, class: "middle" }, over === "angle" ? `${t}°` : `${t}`)),
    draw("text", { x: X(end / 2), y: 159, class: "middle" }, AXIS[over]),
    draw("text", { x: 44, y: 20, class: "end" }, "nearer"), draw("text", { x: 44, y: 122, class: "end" }, "away"),
    draw("text", { x: 44, y: 72, class: "end" }, "0"),
    ...strip.turns.flatMap((t) => [
      draw("path", { d: `M${X(t)} ${Y(0) - 5}l5 5l-5 5l-5 -5Z`, class: "turn-mark" }),
      draw("text", { x: X(t), y: Y(0) - 9, class: "middle" }, numberText(t, over)),
    ]),
    strip.now === null ? "" : draw("path", { d: `M${X(strip.now)} 6V130`, class: "now" }),
  );
}

function change(values) {
  const wanted = { ...circle, ...values }, problem = problemOf(wanted);
  if (!problem) circle = wanted;
  refresh();
  if (problem) forces.say(problem, true);
}

const byHand = () => (circle.lambda_0 !== null ? "lambda_0" : circle.beta !== null ? "beta" : null);
const share = { min: 0, max: 1, step: 0.005, value: 0 };
const [own, same, opposite] = ["anchor", "same", "opposite"].map((role) => looks[role].lines[1]);
const pairOf = (field, i) => (v) => change({ [field]: circle[field].map((old, k) => (k === i ? v : old)) });
const controls = {
  hardness: choice("hardness", Object.keys(HARDNESS), (text) => {
    const { beta, lambda_0 } = circleValues(circle), to = (name, now) => (HARDNESS[text] === name ? now.same : null);
    change({ beta: to("beta", beta), lambda_0: to("lambda_0", lambda_0) });
  }),
  beta: slider("β", share, (v) => change({ beta: v })),
  lambda_0: slider("λ₀", share, (v) => change({ lambda_0: v })),
  anchorSame: slider(`anchor as ${same}`, share, pairOf("anchor_confidences", 0)),
  sameAnchor: slider(`${same} as ${own}`, share, pairOf("negative_confidences", 0)),
  anchorOpposite: slider(`anchor as ${opposite}`, share, pairOf("anchor_confidences", 1)),
  oppositeAnchor: slider(`${opposite} as ${own}`, share, pairOf("negative_confidences", 1)),
  scale: slider("scale", { min: 1, max: highest, step: 1, value: 1 }, (v) => change({ scale: v })),
  generate: choice("generate in", Object.keys(GENERATE), (text) => change({ generate_in: GENERATE[text] })),
  through: tick("gradient through λ₀", (on) => change({ through_lambda: on })),
  two: tick("opposite negative too", (on) => change({ negatives: on ? 2 : 1 })),
};
const again = element("button", { type: "button", onclick: () => change(structuredClone(start)) }, "Start again");

function showControls({ beta, lambda_0 }) {
  const hand = byHand(), { anchor_confidences: mine, negative_confidences: theirs, negatives } = circle;
  const set = (name, value, used) => controls[name].show({ value: Number(value.toFixed(3)), disabled: !used });
  controls.hardness.select.value = Object.keys(HARDNESS).find((text) => HARDNESS[text] === hand);
  set("beta", beta.same, hand === "beta");
  set("lambda_0", lambda_0.same, hand === "lambda_0");
  set("anchorSame", mine[0], !hand);
  set("sameAnchor", theirs[0], !hand);
  set("anchorOpposite", mine[1], !hand && negatives === 2);
  set("oppositeAnchor", theirs[1], !hand && negatives === 2);
  set("scale", circle.scale, true);
  controls.generate.select.value = Object.keys(GENERATE).find((k) => `${GENERATE[k]}` === `${circle.generate_in}`);
  controls.through.box.checked = circle.through_lambda;
  controls.through.box.disabled = hand === "lambda_0";
  controls.two.box.checked = negatives === 2;
}

function refresh() {
  const values = circleValues(circle), sentence = lossesSentence(values, looks);
  points.put({
    angles: ROLES.map((role) => circle[role]), looks: looksNow(), texts: pointTexts(circle, values),
    marks: marksOf(circle, values, looks, colours),
  });
  showControls(values);
  drawBars(values);
  bars.describe(`Bars of the losses: ${sentence}`);
  ["angle", circle.lambda_0 === null ? "beta" : "lambda_0"].forEach((over, i) => {
    const strip = positiveStrip(circle, over), words = stripSentence(circle, strip, values.pull.positive[1]);
    drawStrip(strips[i], strip);
    strips[i].describe(`Pull on the positive, dashed under EP, solid under GEP. ${words}`);
    if (i === 0) forces.say(words);
  });
  losses.say(sentence);
}

const left = element("div", { class: "points" });
circleView.render({ model: points, el: left });
points.on("change:angles", () => {
  const angles = points.get("angles");
  if (ROLES.some((role, i) => angles[i] !== circle[role])) {
    change(Object.fromEntries(ROLES.map((role, i) => [role, angles[i]])));
  }
});
document.getElementById("figure").append(
  element("p", { class: "help" }, "Drag a point along the circle, or Tab to it and use the arrow keys."),
  element("div", { class: "beside" }, left, readings), losses.el, forces.el,
  element("div", { class: "controls" }, ...Object.values(controls).map((c) => c.el), again),
);
refresh();
window.figure = { change, values: () => circleValues(circle), strip: (over) => positiveStrip(circle, over) };
