// The arithmetic of the circle of generated negatives, as `apse_nb.widgets.circle` has it in Python: a `circle` has the
// fields of `Circle` there. A browser test holds both against each other.
import { betaOf, interpolationWeight, interTerm, intraTerm } from "./pair_terms.js";
import { add, cos, input, mul, sin, slope, sqrt, sub, value } from "./slopes.js";

export const ROLES = ["anchor", "positive", "same", "opposite"];
const radians = (degrees) => degrees * (Math.PI / 180);
export const rolesOf = (circle) => ROLES.slice(0, 2 + circle.negatives);
const keyed = (names, values) => Object.fromEntries(names.map((name, i) => [name, values[i]]));

// One sentence if the settings do not go together, else nothing.
export function problemOf({ anchor_confidences: [one, other] }) {
  return one + other > 1 + 1e-9
    ? "The anchor's confidences in two classes cannot add up to more than 1: lower one of them first." : "";
}

export function betas(circle) {
  if (circle.beta !== null) return [circle.beta, circle.beta];
  return circle.anchor_confidences.map((mine, i) => betaOf(mine, circle.negative_confidences[i]));
}

const dot = ([x, y], [u, v]) => add(mul(x, u), mul(y, v));
const between = (p, q, share) => p.map((x, i) => add(x, mul(share, sub(q[i], x))));
const distance = (p, q) => {
  const apart = p.map((x, i) => sub(x, q[i]));
  return sqrt(dot(apart, apart));
};

// Inter and intra term on the original negatives (`before`) and on the generated ones (`after`), with lambda_0 and the
// generated negatives; `angles` in radians, in the order of ROLES.
function terms(angles, circle, { beta = betas(circle), lambda0 = circle.lambda_0 } = {}) {
  const [anchor, positive, ...negatives] = angles.map((angle) => [cos(angle), sin(angle)]);
  const dPos = distance(anchor, positive), similarity = (points) => points.map((p) => dot(anchor, p));
  const found = negatives.map((negative, i) => {
    const dNeg = distance(anchor, negative), weight = lambda0 ?? interpolationWeight(dPos, dNeg, beta[i]);
    const constant = value(dNeg) > 0 ? value(weight) : 1;
    const share = lambda0 === null && circle.through_lambda ? weight : constant;
    return { weight: value(weight), point: between(anchor, negative, share) };
  });
  const S = similarity(negatives), made = similarity(found.map((f) => f.point)), nearness = dot(anchor, positive);
  const both = (far, near) => [
    interTerm(far.slice(1), S.slice(0, 1), circle.scale),
    intraTerm(near.slice(0, 1), nearness, circle.scale),
  ];
  const seen = (term) => (circle.generate_in.includes(term) ? made : S);
  return { found, before: both(S, S), after: both(seen("inter"), seen("intra")) };
}

export function circleValues(circle) {
  const roles = rolesOf(circle), n = roles.length, negatives = roles.slice(2);
  const { found, before, after } = terms(roles.map((role, i) => input(radians(circle[role]), i, n)), circle);
  const pair = (i) => [before, after].map((parts) => value(parts[i]));
  const [inter, intra] = [pair(0), pair(1)];
  const forces = roles.map((_, k) => [before, after].map((parts) => -slope(add(...parts), k)));
  const pulls = roles.map((role, k) => {
    const towards = Math.sign(Math.sin(radians(circle.anchor) - radians(circle[role])));
    return forces[k].map((force) => force * towards);
  });
  return {
    beta: keyed(negatives, betas(circle)),
    lambda_0: keyed(negatives, found.map((f) => f.weight)),
    generated: keyed(negatives, found.map((f) => f.point.map(value))),
    losses: { inter, intra, sum: inter.map((x, i) => x + intra[i]) },
    force: keyed(roles, forces),
    pull: keyed(roles.slice(1), pulls.slice(1)),
  };
}

// Pull on the positive while the angle between it and its anchor ('angle'), 'beta' or 'lambda_0' varies.
export function positiveStrip(circle, over = "angle", steps = 360) {
  const roles = rolesOf(circle), side = Math.sin(radians(circle.positive - circle.anchor)) >= 0 ? 1 : -1;
  const [low, high] = over === "angle" ? [0.25, 179.75] : [0, 1];
  const x = Array.from({ length: steps }, (_, i) => low + (i * (high - low)) / (steps - 1));
  const curves = x.map((number) => {
    const angles = roles.map((role) => radians(circle[role]));
    if (over === "angle") angles[1] = angles[0] + side * radians(number);
    angles[1] = input(angles[1], 0, 1);
    const replaced = { beta: { beta: [number, number] }, lambda_0: { lambda0: number } }[over];
    const { before, after } = terms(angles, circle, replaced);
    return [before, after].map((parts) => side * slope(add(...parts), 0));
  });
  const after = curves.map((pair) => pair[1]), there = x.map((_, i) => i).filter((i) => Math.abs(after[i]) > 1e-12);
  const turns = there.slice(1).flatMap((right, k) => {
    const left = there[k];
    const share = after[left] / (after[left] - after[right]);    // on the straight line between the two
    return Math.sign(after[left]) === Math.sign(after[right]) ? [] : [x[left] + (x[right] - x[left]) * share];
  });
  return { over, x, before: curves.map((pair) => pair[0]), after, turns, now: placeOn(circle, over) };
}

// Where the circle stands on its own strip; null if that number differs between the negatives.
function placeOn(circle, over) {
  if (over === "angle") return Math.abs(((((circle.positive - circle.anchor + 180) % 360) + 360) % 360) - 180);
  const different = new Set(Object.values(circleValues(circle)[over]).map((v) => v.toFixed(6)));
  return different.size === 1 ? Number([...different][0]) : null;
}

export const numberText = (x, over) => (over === "angle" ? `${x.toFixed(0)}°` : x.toFixed(2));
const signed = (x) => (x < 0 ? "-" : "+") + Math.abs(x).toFixed(2);
export const AXIS = { angle: "angle between anchor and positive", beta: "β", lambda_0: "λ₀" };
const effect = (pull) => (pull > 0 ? "pulled nearer" : pull < 0 ? "pushed away" : "left alone");

export function stripSentence(circle, strip, pull) {         // pull on the positive under GEP
  const how = Math.abs(pull) <= 1e-9 ? effect(0) : `${effect(pull)} (${signed(pull)})`;
  const now = `At ${numberText(placeOn(circle, "angle"), "angle")} from its anchor the positive is ${how}`;
  const name = `when ${strip.over === "angle" ? "the " : ""}${AXIS[strip.over]} varies`;
  const text = (x) => numberText(x, strip.over);
  if (!strip.turns.length) {
    const middle = [...strip.after].sort((a, b) => a - b)[strip.after.length / 2];
    const always = effect(Math.abs(middle) < 5e-10 ? 0 : middle);
    return `${now}; ${name}, the force never turns round: it is ${always} throughout.`;
  }
  const edges = [strip.x[0], ...strip.turns, strip.x.at(-1)];
  const parts = edges.slice(1).map((high, i) => {
    const inside = strip.after.filter((_, k) => strip.x[k] >= edges[i] && strip.x[k] <= high);
    return `${effect(inside.reduce((sum, v) => sum + v, 0))} from ${text(edges[i])} to ${text(high)}`;
  });
  return `${now}; ${name}, the force turns round at ${strip.turns.map(text).join(" and ")}: ${parts.join(", ")}.`;
}

export function lossesSentence(values, looks) {
  const { inter, intra, sum } = values.losses, arrow = (pair) => pair.map((v) => v.toFixed(3));
  const parts = `inter ${arrow(inter).join(" → ")}, intra ${arrow(intra).join(" → ")}`;
  const moved = Object.keys(values.beta).map((role) =>
    `${looks[role].lines[1]}: β = ${values.beta[role].toFixed(3)}, λ₀ = ${values.lambda_0[role].toFixed(3)}`);
  return `EP ${arrow(sum)[0]} → GEP ${arrow(sum)[1]} (${parts}); ${moved.join("; ")}.`;
}

// Of each point: its angle, and what GEP does to it
export function pointTexts(circle, values) {
  return ROLES.map((role) => {
    const angle = `${circle[role].toFixed(0)}°`, force = values.force[role]?.[1], pull = values.pull[role]?.[1];
    if (force === undefined) return `${angle}, left out`;
    if (role === "anchor") {
      return `${angle}, pushed ${force > 0 ? "anticlockwise" : "clockwise"} (${Math.abs(force).toFixed(2)})`;
    }
    if (Math.abs(pull) <= 1e-9) return `${angle}, left alone (0.00)`;
    return `${angle}, ${pull > 0 ? "pulled nearer to" : "pushed away from"} the anchor (${signed(pull)})`;
  });
}

// Everything on the circle but the points, for circle.js: rings, lines, diamonds and arrows
export function marksOf(circle, values, looks, { ep, pull: near, push: away }) {
  const at = (role, r = 1) => [r * Math.cos(radians(circle[role])), r * Math.sin(radians(circle[role]))];
  const [x, y] = at("anchor"), [px, py] = at("positive"), roles = rolesOf(circle);
  const marks = [{ kind: "ring", x, y, r: Math.hypot(px - x, py - y) }];
  for (const role of roles.slice(2)) {
    const [x2, y2] = at(role), [gx, gy] = values.generated[role];
    marks.push({ kind: "line", x1: x, y1: y, x2, y2 }, { kind: "diamond", x: gx, y: gy, colour: looks[role].colour });
  }
  for (const role of roles) {
    values.force[role].forEach((force, generated) => {
      const length = Math.min(Math.max(force / circle.scale, -1.2), 1.2), real = !generated;
      if (Math.abs(length) < 0.004) return;                     // no force, no arrow
      const [x1, y1] = at(role, real ? 1.1 : 1), towards = values.pull[role]?.[1] > 0 ? near : away;
      const colour = role === "anchor" ? (real ? ep : "#000000") : real ? ep : towards;
      marks.push({ kind: "arrow", x1, y1, x2: x1 - length * y1, y2: y1 + length * x1, colour, real });
    });
  }
  return marks;
}
