/* Tables as CSV files (RFC 4180: CRLF, quotes doubled). It shares nothing with the views but its name. */
const csv = (() => {
  /* A spreadsheet runs a text that begins like this as a formula. A leading apostrophe keeps it text. */
  const FORMULA = /^[=+\-@\t\r]/;

  const field = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
    const safe = FORMULA.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
  };

  return {
    /** A head and rows of numbers (written at full precision), texts and nulls. */
    text: (head, rows) => [head, ...rows].map((row) => `${row.map(field).join(",")}\r\n`).join(""),
    /** Offer a text as a file. */
    save(name, text) {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    },
  };
})();
