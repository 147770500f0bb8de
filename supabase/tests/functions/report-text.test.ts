import { describe, expect, test } from "vitest";
import {
  count,
  formatBytes,
  formatDuration,
  formatKey,
  hideContacts,
  hideValues,
  hideValuesOfHolders,
  spellOut,
} from "../../cli/report-text.ts";

describe("spellOut", () => {
  test.each([
    ["orders\u202egnp.exe", "orders[U+202E]gnp.exe"],
    ["a\u200bb", "a[U+200B]b"],
    ["\u2066isolated\u2069", "[U+2066]isolated[U+2069]"],
    ["bell\u0007", "bell[U+0007]"],
    ["soft\u00adhyphen", "soft[U+00AD]hyphen"],
    ["next\u2028line", "next[U+2028]line"],
  ])("makes visible what nobody can see in %j", (text, spelled) => {
    expect(spellOut(text)).toBe(spelled);
  });

  test.each(["public.calls", 'public."טבלה"', "línea é 表 😀", "two\nlines\tand a tab"])(
    "leaves %j as it is",
    (text) => {
      expect(spellOut(text)).toBe(text);
    },
  );
});

describe("hideValues", () => {
  test.each([
    ["update users set email = 'a@b.c' where id = 7", "update users set email = '…' where id = …"],
    ["insert into t values ('it''s', 1.5), ('cut o", "insert into t values ('…', …), ('…'"],
    ["select $$secret$$, $tag$more", "select …, …"],
    ["select e'\\x41', '{\"ssn\": 1}'", "select e'…', '…'"],
  ])("leaves the values out of %j", (query, hidden) => {
    expect(hideValues(query)).toBe(hidden);
  });

  test.each(['select * from table2 where "column 3" = $1', "vacuum public.orders_2026"])(
    "leaves the names in %j",
    (query) => {
      expect(hideValues(query)).toBe(query);
    },
  );

  test("keeps who holds a lock and for how long, line by line", () => {
    expect(
      hideValuesOfHolders(
        "pid 123, idle in transaction for 9.5 s: select 'x', 42\na prepared transaction (pg_prepared_xacts)",
      ),
    )
      .toBe("pid 123, idle in transaction for 9.5 s: select '…', …\na prepared transaction (pg_prepared_xacts)");
  });
});

describe("hideContacts", () => {
  test.each([
    ["A user with the email ann@example.com exists", "A user with the email … exists"],
    ["duplicate (ann+x@example.co.uk), phone +43 660 1234567", "duplicate (…), phone …"],
    ["500: Database error", "500: Database error"],
    ["has b0000000-0000-4000-8000-000000000001, +1 555 0100 200", "has b0000000-0000-4000-8000-000000000001, …"],
    ["Request rate limit reached (429) after 12 tries", "Request rate limit reached (429) after 12 tries"],
  ])("%j becomes %j", (reason, hidden) => {
    expect(hideContacts(reason)).toBe(hidden);
  });
});

describe("formatKey", () => {
  test("shows numbers and uuids, and of any other key only its columns", () => {
    const id = "b0000000-0000-4000-8000-000000000001";
    expect(formatKey({ id: 7, org: id })).toBe(`id 7, org ${id}`);
    expect(formatKey({ email: "ann@example.com", id: null })).toBe("email …, id …");
    expect(formatKey({ document: { name: "Ann" } })).toBe("document …");
    expect(formatKey({})).toBe("no primary key");
  });
});

test.each([
  [0, "under 0.001 s"],
  [0.0123, "0.012 s"],
  [9.9996, "10 s"],
  [59.96, "60 s"],
  [60, "1 min"],
  [3600 + 61, "1 h 1 min"],
  [86_400 * 2 + 1, "2 d"],
  [3590.4, "59 min 50 s"],
])("%d seconds are %s", (seconds, text) => {
  expect(formatDuration(seconds)).toBe(text);
});

test.each([[0, "0 B"], [1023, "1,023 B"], [1536, "1.5 kB"], [8192 * 128, "1 MB"], [5e14, "455 TB"], [
  5e15,
  "4,547 TB",
]])(
  "%d bytes are %s",
  (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  },
);

test("counts things in English", () => {
  expect([0, 1, 1200].map((number) => count(number, "table"))).toEqual(["0 tables", "1 table", "1,200 tables"]);
});
