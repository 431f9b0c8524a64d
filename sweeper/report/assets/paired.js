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

  const score = (cells, difference, added) => {
    const [first, second, n] = cells;
    const gap = first - second - n * difference;
    const variance = n * (2 * constrainedShare(cells, difference) + difference * (1 - difference)) + n * n * added;
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

  /** Tango 1998: the score interval of a difference of rates; `cells` are first, second and n; runs add variance. */
  const tango = (cells, z, added = 0) => {
    const keeps = (difference) => Math.abs(score(cells, difference, added)) <= z;
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

  /** ln Gamma for x > 0: Stirling's series above 10, the recurrence below. */
  const logGamma = (x) => {
    if (x < 10) return logGamma(x + 1) - Math.log(x);
    const y = 1 / (x * x);
    const series = 1 / 12 - y * (1 / 360 - y * (1 / 1260 - y * (1 / 1680 - y * (1 / 1188 - (y * 691) / 360360))));
    return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series / x;
  };

  /** The regularised incomplete beta function, by Lentz's continued fraction (DLMF 8.17.22). */
  const incompleteBeta = (a, b, x) => {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(b, a, 1 - x);
    let c = 1;
    let d = 1 / (1 - ((a + b) * x) / (a + 1));
    let value = d;
    for (let m = 1; m < 10000; m += 1) {
      let factor = 1;
      for (const term of [
        (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)),
        (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1)),
      ]) {
        c = 1 + term / c;
        d = 1 / (1 + term * d);
        factor = c * d;
        value *= factor;
      }
      if (Math.abs(factor - 1) < 1e-15) break;
    }
    const front = logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x);
    return (Math.exp(front) * value) / a;
  };

  /** The two-sided p of Student's t; with infinite degrees of freedom as good as the normal's. */
  const studentP = (t, df) => {
    const degrees = Math.min(df, 1e7);
    return incompleteBeta(degrees / 2, 0.5, degrees / (degrees + t * t));
  };

  const studentQuantile = (confidence, df, z) => {
    if (df === Infinity) return z;
    let [low, high] = [0, z];
    while (studentP(high, df) > 1 - confidence) [low, high] = [high, 2 * high];
    for (let i = 0; i < 60; i += 1) {
      const middle = (low + high) / 2;
      if (studentP(middle, df) > 1 - confidence) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  };

  const mean = (values) => sum(values) / values.length;

  const variance = (values) => {
    const centre = mean(values);
    return sum(values.map((value) => (value - centre) ** 2)) / (values.length - 1);
  };

  const added = ([whole, single]) => Math.max(0, whole - single);

  /** Satterthwaite's degrees of freedom of a variance over prompts plus runs. */
  const twoWayDf = (prompts, df, runs) => {
    const below = prompts ** 2 / df + runs[0] ** 2 / runs[2];
    return below ? (prompts + added(runs)) ** 2 / below : df;
  };

  const twoWayP = (difference, prompts, df, runs) => {
    const whole = prompts + added(runs);
    if (!whole) return difference === 0 ? 1 : 0;
    return studentP(difference / Math.sqrt(whole), twoWayDf(prompts, df, runs));
  };

  const table = (metric) => metric.samples.map((text) => bits(text, metric.n));

  const rows = (metric) => {
    if (!metric.verdicts) return Array.from(new Float64Array(bytes(metric.samples[0]).buffer));
    const each = table(metric);
    return each[0].map((_, i) => sum(each.map((verdicts) => verdicts[i])) / each.length);
  };

  /** What runs add, from differences seed by seed: [variance, the part of single prompts, degrees of freedom]. */
  const withinRuns = (one, other) => {
    const paired = one.verdicts && other.verdicts && one.n === other.n;
    const seeds = one.each.length;
    if (!paired) return [variance(one.each.map((value, s) => value - other.each[s])) / seeds, 0, seeds - 1];
    const its = table(other);
    const apart = table(one).map((line, s) => line.map((verdict, i) => verdict - its[s][i]));
    const means = apart.map(mean);
    const prompts = apart[0].map((_, i) => mean(apart.map((line) => line[i])));
    const all = mean(means);
    const rest = sum(apart.map((line, s) => sum(line.map((v, i) => (v - means[s] - prompts[i] + all) ** 2))));
    return [variance(means) / seeds, rest / ((one.n - 1) * (seeds - 1)) / one.n / seeds, seeds - 1];
  };

  const joint = (one, other) => {
    const whole = one[0] + other[0];
    const below = one[0] ** 2 / one[2] + other[0] ** 2 / other[2];
    return [whole, one[1] + other[1], below ? whole ** 2 / below : one[2] + other[2]];
  };

  /** What training runs add to the variance of a difference; null where it is one of these weights only. */
  const runsOf = (block, first, second, name) => {
    const [one, other] = [block.of[first], block.of[second]];
    const trained = [one, other].filter((item) => item.trained);
    const fewest = Math.min(...trained.map((item) => item.runs.length));
    if (!trained.length || fewest < 2) return null;
    const [mine, its] = [one.metrics[name], other.metrics[name]];
    if (one.trained && one.runs.join() === other.runs.join()) return withinRuns(mine, its);
    if (fewest >= block.enough_seeds || trained.some((item) => !item.metrics[name].pooled)) return joint(mine.own, its.own);
    return [mine.pooled[0] + its.pooled[0], 0, trained[0].metrics[name].pooled[2]];
  };

  const ofMean = (block, difference, apart, runs) => {
    const prompts = variance(apart) / apart.length;
    const df = twoWayDf(prompts, apart.length - 1, runs);
    const half = studentQuantile(block.confidence, df, block.z) * Math.sqrt(prompts + added(runs));
    return [difference - half, difference + half];
  };

  const ofVerdicts = (block, apart, runs) => {
    const sizes = sum(apart.map(Math.abs));
    const scale = sizes ? sum(apart.map((value) => value * value)) / sizes : 1;
    const parts = [sum(apart.filter((v) => v > 0)), -sum(apart.filter((v) => v < 0)), apart.length];
    const cells = parts.map((value) => value / scale);
    const prompts = (cells[0] + cells[1]) / cells[2] ** 2;
    const z = studentQuantile(block.confidence, twoWayDf(prompts, Infinity, runs), block.z);
    return {
      interval: tango(cells, z, added(runs)),
      p: twoWayP((cells[0] - cells[1]) / cells[2], prompts, Infinity, runs),
    };
  };

  const unpaired = (block, one, other, runs) => {
    const difference = one.value - other.value;
    const [low, high] = newcombe(one, other, block.z);
    if (!runs[0]) return [low, high];
    const more = studentQuantile(block.confidence, runs[2], block.z) * Math.sqrt(runs[0]);
    return [difference - Math.hypot(difference - low, more), difference + Math.hypot(high - difference, more)];
  };

  const exactP = (one, other) => {
    if (one.samples.length > 1 || other.samples.length > 1) return null;
    const [mine, its] = [bits(one.samples[0], one.n), bits(other.samples[0], other.n)];
    return mcnemar(
      sum(mine.map((verdict, i) => verdict & (1 - its[i]))),
      sum(mine.map((verdict, i) => its[i] & (1 - verdict))),
    );
  };

  return {
    tango,
    mcnemar,
    studentP,
    studentQuantile,
    /**
     * The first minus the second in a metric; null where one was not measured. `interval` and `p`
     * are null where they are not known; `claim` says what varies, `test` in words what was done.
     */
    difference(block, first, second, name) {
      const [one, other] = [block.of[first].metrics[name], block.of[second].metrics[name]];
      if (one === undefined || other === undefined) return null;
      const difference = one.value - other.value;
      const again = runsOf(block, first, second, name);
      const [claim, over] = again ? ["trained again", ", over prompts and runs"] : ["these weights", ""];
      const runs = again ?? [0, 0, Infinity];
      if (!one.samples || !other.samples || one.n !== other.n) {
        const known = one.sampled && other.sampled;
        const interval = known ? unpaired(block, one, other, runs) : null;
        const test = known ? `unpaired, as no samples were stored: Newcombe's interval${over}` : "no test: only values are known";
        return { difference, interval, claim, p: null, n: Math.min(one.n, other.n), test };
      }
      const [mine, its] = [rows(one), rows(other)];
      const apart = mine.map((value, i) => value - its[i]);
      if (!one.verdicts || !other.verdicts) {
        const interval = ofMean(block, difference, apart, runs);
        return { difference, interval, claim, p: null, n: one.n, test: `paired row by row: Student's t${over}` };
      }
      const found = ofVerdicts(block, apart, runs);
      return {
        difference,
        interval: found.interval,
        claim,
        p: again ? found.p : exactP(one, other),
        n: one.n,
        test: `paired prompt by prompt: Tango's interval, ${again ? `Student's t${over}` : "exact McNemar test"}`,
      };
    },
  };
})();
