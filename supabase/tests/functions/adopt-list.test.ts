import { describe, expect, test } from "vitest";
import { addRows, hasRow, readRows, type Suggestion, writeRows } from "../../cli/adopt-list.ts";
import { readMigrations } from "../../cli/adopt-migrations.ts";

const shipped = readMigrations().find(({ name }) => name === "EDIT_list_of_tables.sql")?.text ?? "";

const orders: Suggestion = {
  table: "public.orders",
  row: "('public', 'orders', 'org', 'secondary', null, '{buyer_id,seller_id}'),",
  about: "decide: the order of org_from; it references public.profiles",
  isDecision: true,
};
const tasks: Suggestion = {
  table: "public.tasks",
  row:
    "-- ('public', 'tasks', 'org', 'secondary', null, null), or ('public', 'tasks', 'excluded', null, '<why not>', null),",
  about: "decide: org or excluded; it has lead_id",
  isDecision: true,
};
const notes: Suggestion = {
  table: "public.notes",
  row: "('public', 'notes', 'org', 'secondary', null, '{user_id}'),",
  about: "has the column user_id",
  isDecision: false,
};

const write = (suggestions: Suggestion[]) => readRows("the list", writeRows(shipped, suggestions)).split("\n");

describe("a fresh list", () => {
  test("has what is to be decided first, each row with what speaks for it, and no comma at the end", () => {
    expect(write([notes, orders])).toEqual([
      expect.stringMatching(/^ {4}-- To decide/),
      `    ${orders.row} -- ${orders.about}`,
      expect.stringMatching(/^ {4}-- As the keys say/),
      `    ${notes.row.slice(0, -1)} -- ${notes.about}`,
    ]);
  });

  test("has nothing of the shipped application, and all else of the file", () => {
    const text = writeRows(shipped, [notes]);
    expect(text).not.toContain("call_logs");
    expect(text.replace(readRows("", text), "")).toBe(shipped.replace(readRows("", shipped), ""));
  });

  test("leaves open what is open, as a comment, and the comma away before it", () => {
    expect(write([orders, tasks]).slice(1)).toEqual([
      `    ${orders.row.slice(0, -1)} -- ${orders.about}`,
      `    ${tasks.row} -- ${tasks.about}`,
    ]);
    expect(hasRow(write([tasks]).join("\n"))).toBe(false);
  });

  test("keeps a comment on its line, whatever a table is called", () => {
    const odd = { ...notes, about: 'references public."two\n lines"' };
    expect(write([odd]).at(-1)).toMatch(/ -- references public\."two lines"$/);
  });
});

describe("a list that was edited", () => {
  const edited = writeRows(shipped, [orders]).replace("'{buyer_id,seller_id}'", "'{seller_id}'");

  test("keeps its rows as they are, after those that are new", () => {
    const rows = readRows("the list", addRows(edited, [notes])).split("\n");
    expect(rows[1]).toBe(`    ${notes.row} -- ${notes.about}`);
    expect(rows.slice(2).join("\n")).toBe(readRows("the list", edited));
  });

  test("stays as it is when nothing is new", () => {
    expect(addRows(edited, [])).toBe(edited);
  });

  test("gets rows without a comma at the end where all of its own were taken out", () => {
    const emptied = edited.replace(readRows("", edited), "    -- nothing yet");
    expect(readRows("the list", addRows(emptied, [notes]))).toContain("'{user_id}') -- has");
    expect(readRows("the list", addRows(edited, [notes]))).toContain("'{user_id}'), -- has");
  });

  test("is refused by its name where the rows cannot be found", () => {
    expect(() => readRows("x_EDIT_list_of_tables.sql", "select 1;")).toThrow(
      'Cannot read x_EDIT_list_of_tables.sql: it has no line "values"',
    );
  });

  test("is read with the line ends of Windows, too", () => {
    expect(readRows("", edited.replaceAll("\n", "\r\n")).replaceAll("\r\n", "\n")).toBe(readRows("", edited));
  });
});
