// What a loss does to every pair of a batch, as `apse_nb.widgets.playground` finds out in Python. A `batch` has `G`
// (B x B dot products of unit vectors), `labels` (B), `confidences` (B x K) and `parent` (coarse class of each class).
import { betaOf, interpolationWeight, interTerm, intraTerm } from "./pair_terms.js";
import { add, input, mul, result, slope, value } from "./slopes.js";

export const LOSSES = [
  "N-pair", "EP, inter only", "EP, intra only", "EP", "GEP", "GEP, λ₀ constant", "contrastive", "triplet, semi-hard",
];
export const WITHOUT_SCALE = ["contrastive", "triplet, semi-hard"];

// All tuples: row t of both tables holds one image of each class (chapter 07); the classes have equally many images.
export function tuplesOf(labels) {
  const images = [...new Set(labels)].sort((a, b) => a - b).map((c) =>
    labels.flatMap((label, i) => (label === c ? [i] : [])));
  const K = images[0].length, found = [];
  for (let a = 0; a < K; a++) {
    for (let r = 1; r < K; r++) {
      found.push({ anchors: images.map((own) => own[a]), positives: images.map((own) => own[(a + r) % K]) });
    }
  }
  return found;
}

// The similarity of an anchor to its generated negative: f.f- = (1 - lambda_0) f.f + lambda_0 f.f+  (Eq. 8 to 12)
function generated(batch, a, positives, S, own, through) {
  const apart = (s, p) => {
    const d = Math.sqrt(Math.max(batch.G[a][a] + batch.G[p][p] - 2 * value(s), 1e-300));
    return result(d, [s, -1 / d]);
  };
  const dPos = apart(S[own], positives[own]);
  return S.map((s, j) => {
    const p = positives[j], beta = betaOf(batch.confidences[a][batch.labels[p]], batch.confidences[p][batch.labels[a]]);
    const weight = interpolationWeight(dPos, apart(s, p), beta), share = through ? weight : value(weight);
    return add(mul(batch.G[a][a], add(1, mul(-1, share))), mul(share, s));
  });
}

// The loss of one anchor, whose similarities to the positive slots of all classes are S.
function anchorTerm(name, scale, batch, a, positives, S, own) {
  const side = (p) => batch.parent[batch.labels[p]], mine = side(a);
  const others = (row, keep) => row.filter((_, j) => j !== own && keep(positives[j]));
  const same = (p) => side(p) === mine, opposite = (p) => side(p) !== mine;
  if (name === "N-pair") return intraTerm(others(S, () => true), S[own], scale);
  const made = name.startsWith("GEP") ? generated(batch, a, positives, S, own, name === "GEP") : S;
  const inter = interTerm(others(made, opposite), others(S, same), scale);
  const intra = intraTerm(others(made, same), S[own], scale);
  return name.endsWith("inter only") ? inter : name.endsWith("intra only") ? intra : add(inter, intra);
}

const table = (n) => Array.from({ length: n }, () => new Array(n).fill(0));

function tupleLoss(name, scale, batch) {
  const gradient = table(batch.labels.length), tuples = tuplesOf(batch.labels);
  let loss = 0;
  for (const { anchors, positives } of tuples) {
    anchors.forEach((a, own) => {
      const S = positives.map((p, j) => input(batch.G[a][p], j, positives.length));
      const term = anchorTerm(name, scale, batch, a, positives, S, own), share = 1 / (tuples.length * anchors.length);
      loss += value(term) * share;
      positives.forEach((p, j) => { gradient[a][p] += slope(term, j) * share; });
    });
  }
  return { loss, gradient };
}

// A mean over those of the listed amounts that are not 0; `parts` are the pairs that an amount rises or falls with.
function meanOfActive(items, gradient) {
  const active = items.filter(({ amount }) => amount > 0);
  for (const { parts } of active) for (const [i, j, sign] of parts) gradient[i][j] += sign / active.length;
  return active.reduce((sum, { amount }) => sum + amount, 0) / (active.length || 1);
}

function contrastiveLoss({ G, labels }) {
  const gradient = table(labels.length), near = [], far = [];
  G.forEach((row, i) => row.forEach((s, j) => {
    if (i === j) return;
    if (labels[i] === labels[j]) near.push({ amount: 1 - s, parts: [[i, j, -1]] });
    else far.push({ amount: s - 0.5, parts: [[i, j, 1]] });
  }));
  return { loss: meanOfActive(near, gradient) + meanOfActive(far, gradient), gradient };
}

function tripletLoss({ G, labels }, margin = 0.1) {                  // semi-hard triplets only
  const gradient = table(labels.length), triplets = [];
  G.forEach((row, a) => row.forEach((near, p) => row.forEach((far, n) => {
    if (a === p || labels[a] !== labels[p] || labels[a] === labels[n]) return;
    if (near - far > 0 && near - far <= margin) {
      triplets.push({ amount: margin - (near - far), parts: [[a, p, -1], [a, n, 1]] });
    }
  })));
  return { loss: meanOfActive(triplets, gradient), gradient };
}

// The loss, its gradient to every similarity (anchor: row), and the length of the force on every image along the sphere.
export function lossOnBatch(name, scale, batch) {
  const found = { contrastive: contrastiveLoss, "triplet, semi-hard": tripletLoss }[name];
  const { loss, gradient } = found ? found(batch) : tupleLoss(name, scale, batch);
  const force = gradient.map((row, i) => {
    const c = row.map((g, j) => (i === j ? 0 : g + gradient[j][i]));     // minus the force, in terms of the others
    const along = c.reduce((sum, x, j) => sum + x * batch.G[i][j], 0);
    const square = c.reduce((sum, x, j) => sum + x * c.reduce((s, y, k) => s + y * batch.G[j][k], 0), 0);
    return Math.sqrt(Math.max(square - along ** 2, 0));
  });
  return { loss, gradient, force };
}

export const KINDS = ["same emotion", "same polarity", "opposite polarity"];

// How many ordered pairs of each kind a loss touches
export function pairCounts({ gradient }, { labels, parent }) {
  const counts = KINDS.map((kind) => ({ kind, pairs: 0, touched: 0, pulled: 0, pushed: 0 }));
  gradient.forEach((row, i) => row.forEach((g, j) => {
    if (i === j) return;
    const count = counts[labels[i] === labels[j] ? 0 : parent[labels[i]] === parent[labels[j]] ? 1 : 2];
    count.pairs += 1;
    count.touched += g !== 0;
    count.pulled += g < 0;
    count.pushed += g > 0;
  }));
  return counts;
}

export function lossSentence(name, scale, batch, found) {
  const counts = pairCounts(found, batch), sum = (key) => counts.reduce((total, c) => total + c[key], 0);
  const how = WITHOUT_SCALE.includes(name) ? "which has no scale" : `at scale ${scale}`;
  const words = counts.map((c) =>
    `${c.kind}: ${c.touched} of ${c.pairs} (${c.pulled} pulled, ${c.pushed} pushed)`).join("; ");
  return `${name}, ${how}, is ${found.loss.toFixed(4)} on ${batch.title} and touches ${sum("touched")} of `
    + `${sum("pairs")} ordered pairs. ${words}.`;
}
