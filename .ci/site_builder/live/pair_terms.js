// The terms of the pair losses for one anchor, chapters 07 and 08, on numbers that know their slopes.
import { add, div, mul, result, sub, value } from "./slopes.js";

// log(1 + sum of exp(x)), without overflow
export function log1pSumExp(xs) {
  const top = Math.max(0, ...xs.map(value)), parts = xs.map((x) => Math.exp(value(x) - top));
  const total = parts.reduce((sum, part) => sum + part, Math.exp(-top));
  return result(top + Math.log(total), ...xs.map((x, i) => [x, parts[i] / total]));
}

// Eq. 9: how far along the way from anchor to negative the generated negative lies
export const interpolationWeight = (dPos, dNeg, beta) =>
  value(dNeg) > value(dPos) ? add(beta, mul(1 - beta, div(dPos, dNeg))) : 1;

// Eq. 11 and what Eq. 9 makes of it: beta for the two class probabilities of a pair
export const betaOf = (mine, theirs) => Math.exp(-Math.exp(mine + theirs));

const mean = (xs) => mul(add(...xs), 1 / xs.length);

// Eq. 5: similarities to the classes of the opposite and of the anchor's own polarity; 0 where one side is empty
export const interTerm = (opposite, same, scale) =>
  opposite.length && same.length ? log1pSumExp([mul(scale, sub(mean(opposite), mean(same)))]) : 0;

// Eq. 6, and Eq. 4 where the negatives are those of all other classes
export const intraTerm = (negatives, positive, scale) =>
  log1pSumExp(negatives.map((s) => mul(scale, sub(s, positive))));
