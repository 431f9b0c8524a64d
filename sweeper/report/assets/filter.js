/* What a filter line means: words and comparisons, all of which must hold. */
const filters = (() => {
  const PART = /([^\s<>=!"]+)\s*(<=|>=|!=|=|<|>)\s*("[^"]*"|[^\s"]+)|"([^"]*)"|(\S+)/g;
  const TESTS = {
    "<": (a, b) => a < b,
    "<=": (a, b) => a <= b,
    ">": (a, b) => a > b,
    ">=": (a, b) => a >= b,
    "=": (a, b) => a === b,
    "!=": (a, b) => a !== b,
  };

  const number = (text) => {
    const [, digits, percent] = /^(.*?)(%?)$/.exec(text);
    const value = digits.trim() === "" ? NaN : Number(digits);
    return percent ? value / 100 : value;
  };

  return {
    /**
     * The tests in a line: functions of `(cell of a column by its index, whole text)`.
     * An unknown column, or an order of texts, is an `error` in words.
     */
    parse(line, columns) {
      const tests = [];
      for (const [part, name, sign, raw, quoted, word] of line.matchAll(PART)) {
        if (name === undefined) {
          const wanted = (quoted ?? word).toLowerCase();
          tests.push((cell, text) => text().includes(wanted));
          continue;
        }
        const index = columns.findIndex((column) => column.name.toLowerCase() === name.toLowerCase());
        if (index < 0) return { tests: [], error: `There is no column ${name}; quote "${part}" to look for the words.` };
        const given = raw.replaceAll('"', "");
        const value = number(given);
        const order = sign.startsWith("<") || sign.startsWith(">");
        if (order && (!columns[index].numeric || Number.isNaN(value)))
          return { tests: [], error: `${part} compares text as a number; = and != compare words.` };
        tests.push((cell) => {
          const [text, sort] = cell(index);
          if (columns[index].numeric && !Number.isNaN(value))
            return typeof sort === "number" ? TESTS[sign](sort, value) : sign === "!=";
          return TESTS[sign](text.toLowerCase(), given.toLowerCase());
        });
      }
      return { tests, error: null };
    },
  };
})();
