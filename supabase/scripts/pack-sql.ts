const width = 200;

/** The words of SQL: quoted text, dollar-quoted text and comments are one word each. */
const words = /--[^\n]*|\$(\w*)\$[^]*?\$\1\$|[eE]?'(?:[^'\\]|\\.|'')*'|"(?:[^"]|"")*"|\s+|[^\s'"$-]+|./g;

/**
 * SQL on as few lines as it takes, without its comments: for generated text that is run rather than read. What is quoted
 * stays as it is.
 */
export function pack(sql: string): string {
  const lines: string[] = [];
  let line = "";
  let word = "";
  const flush = () => {
    if (word === "") return;
    // Literals are one only where a line ends between them.
    const continues = word.startsWith("'") && line.endsWith("'");
    if (line !== "" && (continues || line.length + 1 + word.length > width)) {
      lines.push(line);
      line = "";
    }
    line = line === "" ? word : `${line} ${word}`;
    word = "";
  };
  for (const [token] of sql.matchAll(words)) {
    if (token.startsWith("--") || /^\s+$/.test(token)) flush();
    else word += token;
  }
  flush();
  if (line !== "") lines.push(line);
  return lines.map((packed) => `    ${packed}`).join("\n");
}
