// Numbers that know their slopes (forward-mode differentiation). A number that depends on n inputs is {v, d}: its value
// and its slope to each input; a plain number depends on nothing.
export const value = (x) => (typeof x === "number" ? x : x.v);
export const slope = (x, k) => x.d?.[k] ?? 0;
export const input = (v, k, n) => ({ v, d: Array.from({ length: n }, (_, i) => (i === k ? 1 : 0)) });

// A result with its own value; `parts` are pairs: what it depends on, and its slope to that.
export function result(v, ...parts) {
  const moving = parts.filter(([x]) => x.d);
  if (!moving.length) return v;
  const d = moving[0][0].d.map((_, k) => moving.reduce((sum, [x, factor]) => sum + factor * x.d[k], 0));
  return { v, d };
}
export const add = (...xs) => result(xs.reduce((sum, x) => sum + value(x), 0), ...xs.map((x) => [x, 1]));
export const sub = (x, y) => result(value(x) - value(y), [x, 1], [y, -1]);
export const mul = (x, y) => result(value(x) * value(y), [x, value(y)], [y, value(x)]);
export const div = (x, y) => result(value(x) / value(y), [x, 1 / value(y)], [y, -value(x) / value(y) ** 2]);
export const sin = (x) => result(Math.sin(value(x)), [x, Math.cos(value(x))]);
export const cos = (x) => result(Math.cos(value(x)), [x, -Math.sin(value(x))]);
export const sqrt = (x) => {
  const root = Math.sqrt(value(x));
  return result(root, [x, root > 0 ? 0.5 / root : 0]);      // as torch does for the length of a zero vector
};
