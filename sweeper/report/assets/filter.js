/* What a filter line means: terms joined by `and` (or nothing) and `or`, where `and` binds tighter. A term is a word,
   or a comparison of a column with a value. */
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
  const ALIASES = {
    lr: "learning_rate", batch: "batch_size", bs: "batch_size", steps: "max_steps", epochs: "num_epochs", avg: "average",
    unsafe: "unsafe_rate", refusal: "over_refusal_rate", loss: "heldout_loss", rouge: "rouge_l", id: "configuration",
    r: "lora_r", alpha: "lora_alpha", mark: "marks",
  };

  const number = (text) => {
    const [, digits, percent] = /^(.*?)(%?)$/.exec(text);
    const value = digits.trim() === "" ? NaN : Number(digits);
    return percent ? value / 100 : value;
  };

  /** The column of a name or alias, else the only one whose name begins so; -1 where there is none. */
  const columnOf = (name, columns) => {
    const names = columns.map((column) => column.name.toLowerCase());
    const wanted = name.toLowerCase();
    for (const each of [wanted, ALIASES[wanted]]) if (names.includes(each)) return names.indexOf(each);
    const begins = names.flatMap((each, index) => (each.startsWith(wanted) ? [index] : []));
    return begins.length === 1 ? begins[0] : -1;
  };

  const comparison = ([part, name, sign, raw], columns) => {
    if (/^(and|or)$/i.test(name)) return { error: `“${part}” is no condition: a column is missing.` };
    const index = columnOf(name, columns);
    if (index < 0) return { error: `There is no column ${name}; quote "${part}" to look for the words.` };
    const given = raw.replaceAll('"', "");
    const value = number(given);
    const order = sign.startsWith("<") || sign.startsWith(">");
    if (order && (!columns[index].numeric || Number.isNaN(value)))
      return { error: `${part} compares text as a number; = and != compare words.` };
    return {
      text: `${columns[index].name} ${sign} ${given}`,
      test: (cell) => {
        const [text, sort] = cell(index);
        if (columns[index].numeric && !Number.isNaN(value))
          return typeof sort === "number" ? TESTS[sign](sort, value) : sign === "!=";
        return TESTS[sign](text.toLowerCase(), given.toLowerCase());
      },
    };
  };

  const wordTerm = (word) => ({ text: `“${word}”`, test: (cell, text) => text().includes(word.toLowerCase()) });

  return {
    columnOf,
    aliases: ALIASES,
    /**
     * The alternatives of a line, each a list of terms that must all hold: `{ part, text, test }`, where `part` is
     * what was typed and `test` a function of `(cell of a column by its index, whole text)`. What cannot be read is
     * an `error` in words.
     */
    parse(line, columns) {
      const groups = [[]];
      let joined = false;
      const fail = (error) => ({ groups: [], error });
      for (const found of line.matchAll(PART)) {
        const [part, name, , , quoted, word] = found;
        const joint = word?.toLowerCase();
        if (joint === "and" || joint === "or") {
          if (groups.at(-1).length === 0 || joined) return fail(`“${part}” stands between two conditions.`);
          if (joint === "or") groups.push([]);
          joined = true;
          continue;
        }
        if (word !== undefined && /[<>=!]/.test(word)) return fail(`“${part}” is no condition: write it like max_steps>=80.`);
        const term = name === undefined ? wordTerm(quoted ?? word) : comparison(found, columns);
        if (term.error) return fail(term.error);
        groups.at(-1).push({ part, ...term });
        joined = false;
      }
      if (joined) return fail("A condition is missing at the end.");
      return { groups, error: null };
    },
  };
})();
