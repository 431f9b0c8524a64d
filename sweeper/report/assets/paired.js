/* Two configurations on the same prompts or rows: the same tests as the package's `paired_difference`. */
const paired = (() => {
  const BISECTIONS = 50;

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  /** Verdicts of n prompts: eight in a byte, the first in its highest bit. */
  const bits = (text, n) => {
    const packed = bytes(text);
    return Array.from({ length: n }, (_, i) => (packed[i >> 3] >> (7 - (i & 7))) & 1);
  };

  const sum = (values) => values.reduce((total, value) => total + value, 0);

  /** Tango's likeliest share of `second` where the shares differ by `difference`. */
  const constrainedShare = ([b, c, n], difference) => {
    const linear = -b - c + (2 * n - b + c) * difference;
    const constant = -c * difference * (1 - difference);
    const root = Math.sqrt(Math.max(0, linear * linear - 8 * n * constant));
    const share = linear <= 0 ? (root - linear) / (4 * n) : (-2 * constant) / (root + linear);
    return Math.min(Math.max(share, 0, -difference), (1 - difference) / 2);
  };

  const score = (cells, difference) => {
    const [first, second, n] = cells;
    const gap = first - second - n * difference;
    const variance = n * (2 * constrainedShare(cells, difference) + difference * (1 - difference));
    if (variance > 0) return gap / Math.sqrt(variance);
    return gap === 0 ? 0 : Math.sign(gap) * Infinity;
  };

  const keptEnd = (from, outermost, keeps) => {
    if (keeps(outermost)) return outermost;
    let [inside, outside] = [from, outermost];
    for (let i = 0; i < BISECTIONS; i += 1) {
      const middle = (inside + outside) / 2;
      if (keeps(middle)) inside = middle;
      else outside = middle;
    }
    return inside;
  };

  /** Tango 1998: the score interval of a difference of rates; `cells` are first, second and n. */
  const tango = (cells, z) => {
    const keeps = (difference) => Math.abs(score(cells, difference)) <= z;
    const difference = (cells[0] - cells[1]) / cells[2];
    return [keptEnd(difference, -1, keeps), keptEnd(difference, 1, keeps)];
  };

  /** The exact two-sided McNemar test of discordant counts. */
  const mcnemar = (first, second) => {
    const total = first + second;
    let choose = 0;
    let tail = 0;
    for (let i = 0; i <= Math.min(first, second); i += 1) {
      tail += Math.exp(choose - total * Math.LN2);
      choose += Math.log((total - i) / (i + 1));
    }
    return Math.min(1, 2 * tail);
  };

  const wilson = (value, n, z) => {
    const centre = (value + (z * z) / (2 * n)) / (1 + (z * z) / n);
    const half = (z / (1 + (z * z) / n)) * Math.sqrt((value * (1 - value)) / n + (z * z) / (4 * n * n));
    return [value === 0 ? 0 : Math.max(0, centre - half), value === 1 ? 1 : Math.min(1, centre + half)];
  };

  /** Newcombe 1998, method 10: two means of [0, 1] scores as if of independent samples. */
  const newcombe = (one, other, z) => {
    const [low1, high1] = wilson(one.value, one.n, z);
    const [low2, high2] = wilson(other.value, other.n, z);
    const difference = one.value - other.value;
    return [
      difference - Math.hypot(one.value - low1, high2 - other.value),
      difference + Math.hypot(high1 - one.value, other.value - low2),
    ];
  };

  const rows = (metric) => {
    if (!metric.verdicts) return Array.from(new Float64Array(bytes(metric.samples[0]).buffer));
    const each = metric.samples.map((text) => bits(text, metric.n));
    return each[0].map((_, i) => sum(each.map((verdicts) => verdicts[i])) / each.length);
  };

  const ofMean = (difference, apart, t) => {
    const mean = sum(apart) / apart.length;
    const spread = Math.sqrt(sum(apart.map((value) => (value - mean) ** 2)) / (apart.length - 1));
    const half = (t * spread) / Math.sqrt(apart.length);
    return [difference - half, difference + half];
  };

  const largestP = (one, other) =>
    Math.max(
      ...one.samples.map((text, seed) => {
        const [mine, its] = [bits(text, one.n), bits(other.samples[seed], other.n)];
        return mcnemar(
          sum(mine.map((verdict, i) => verdict & (1 - its[i]))),
          sum(mine.map((verdict, i) => its[i] & (1 - verdict))),
        );
      }),
    );

  return {
    tango,
    mcnemar,
    /**
     * The first minus the second in a metric; null where one was not measured. `interval` and `p`
     * are null where they are not known; `test` says in words what was done.
     */
    difference(block, first, second, name) {
      const [one, other] = [block.of[first].metrics[name], block.of[second].metrics[name]];
      if (one === undefined || other === undefined) return null;
      const difference = one.value - other.value;
      if (!one.samples || !other.samples || one.n !== other.n) {
        const known = one.sampled && other.sampled;
        const interval = known ? newcombe(one, other, block.z) : null;
        const test = known ? "unpaired, as no samples were stored: Newcombe's interval" : "no test: only values are known";
        return { difference, interval, p: null, n: Math.min(one.n, other.n), test };
      }
      const [mine, its] = [rows(one), rows(other)];
      const apart = mine.map((value, i) => value - its[i]);
      if (!one.verdicts || !other.verdicts) {
        const interval = ofMean(difference, apart, block.t[one.n]);
        return { difference, interval, p: null, n: one.n, test: "paired row by row: Student's t" };
      }
      const cells = [sum(apart.filter((v) => v > 0)), -sum(apart.filter((v) => v < 0)), one.n];
      const seeds = [block.of[first].seeds, block.of[second].seeds];
      const same = seeds[0].join() === seeds[1].join();
      return {
        difference,
        interval: tango(cells, block.z),
        p: same ? largestP(one, other) : null,
        n: one.n,
        test: "paired prompt by prompt: Tango's interval, exact McNemar test" +
          (seeds[0].length > 1 ? " (the largest p over seeds)" : ""),
      };
    },
  };
})();
