// How good one ranked list is: the nine measures of chapter 09 (`rank_weights` and `average_precision` there).
const ranks = (n) => Array.from({ length: n }, (_, i) => i + 1);
const total = (xs) => xs.reduce((sum, x) => sum + x, 0);

// What each measure but the two mAP pays for a relevant image at each rank: NG relevant images among N.
export function rankWeights(NG, N, { mostRelevant = NG, f1At = 20, ndcgAt = N } = {}) {
  const gain = ranks(N).map((rank) => 1 / Math.log2(Math.max(rank, 2)));
  let sum = 0;
  const ideal = gain.map((g, i) => (sum += i < NG ? g : 0));                    // the best possible DCG[k]
  const K = Math.min(4 * NG, 2 * mostRelevant), perfect = (1 + NG) / 2;
  const f1Cut = Math.min(f1At, N), ndcgCut = Math.min(ndcgAt, N);
  const later = new Array(N + 1).fill(0);                                       // sum of 1/ideal from a rank on
  for (let i = N - 1; i >= 0; i--) later[i] = later[i + 1] + 1 / ideal[i];
  return {
    nn: ranks(N).map((rank) => Number(rank === 1)),
    ft: ranks(N).map((rank) => (rank <= NG) / NG),
    st: ranks(N).map((rank) => (rank <= 2 * NG) / NG),
    dcg: gain.map((g, i) => (g * later[i]) / N),
    ndcg: gain.map((g, i) => (i < ndcgCut ? g / ideal[ndcgCut - 1] : 0)),
    anmrr: ranks(N).map((rank) => ((rank <= K ? rank : 1.25 * K) - perfect) / (1.25 * K - perfect) / NG),
    f1: ranks(N).map((rank) => (2 * (rank <= f1Cut)) / (f1Cut + NG)),
  };
}

export function averagePrecision(relevance) {                                   // zeros and ones in rank order
  let hits = 0;
  return total(relevance.map((relevant, i) => (relevant ? ++hits / (i + 1) : 0))) / total(relevance);
}

// All nine measures of one list: `fine` and `coarse` say, in rank order, who shares the query's class and coarse class.
export function listMeasures(fine, coarse, options) {
  const weights = rankWeights(total(fine), fine.length, options);
  const summed = Object.entries(weights).map(([name, w]) => [name, total(w.map((x, i) => x * fine[i]))]);
  return { map8: averagePrecision(fine), map2: averagePrecision(coarse), ...Object.fromEntries(summed) };
}

// What a list in random order scores on average.
export function randomFloor(fine, coarse, options) {
  const N = fine.length, NG = total(fine), weights = rankWeights(NG, N, options);
  const random = (relevant) => total(ranks(N).map((rank) =>
    (1 + ((rank - 1) * (relevant - 1)) / Math.max(N - 1, 1)) / rank)) / N;
  const means = Object.entries(weights).map(([name, w]) => [name, (total(w) * NG) / N]);
  return { map8: random(NG), map2: random(total(coarse)), ...Object.fromEntries(means) };
}
