import { describe, expect, test } from "vitest";
import {
  addIndexLines,
  type IndexLine,
  readIndexed,
  removeIndexLines,
  writeIndexLines,
} from "../../cli/adopt-indexes.ts";
import { readMigrations } from "../../cli/adopt-migrations.ts";

const shipped = readMigrations().find(({ name }) => name === "EDIT_index_org_id.sql")?.text ?? "";

const line = (relation: string, name: string): IndexLine => ({
  relation,
  line: `create index concurrently if not exists ${name} on ${relation} (org_id);`,
  about: "9 MB",
});
const orders = line("public.orders", "idx_orders_org_id");
const stages = line('sales."Deal Stages on hold"', '"idx_Deal Stages on hold_org_id"');

describe("index lines", () => {
  test("stand where those of the shipped application were, and without any the file is whole", () => {
    const text = writeIndexLines(shipped, [orders, stages]);
    expect(readIndexed(text)).toEqual(["public.orders", 'sales."Deal Stages on hold"']);
    expect(text).toContain(
      `set lock_timeout = 0;\n${orders.line} -- 9 MB\n${stages.line} -- 9 MB\n\nselect tenancy.assert`,
    );
    expect(readIndexed(writeIndexLines(shipped, []))).toEqual([]);
    expect(writeIndexLines(shipped, []).split("\n").length).toBe(shipped.split("\n").length - 45);
  });

  test("are added for tables that have none, whatever their index is called", () => {
    const own = writeIndexLines(shipped, [line("public.orders", "orders_of_organization")]);
    expect(addIndexLines(own, [orders])).toBe(own);
    expect(readIndexed(addIndexLines(own, [orders, stages]))).toEqual(['sales."Deal Stages on hold"', "public.orders"]);
  });

  test("are taken out for these tables, and no others", () => {
    const text = writeIndexLines(shipped, [orders, stages]);
    expect(removeIndexLines(text, ["public.orders", "orders"])).toBe(writeIndexLines(shipped, [stages]));
    expect(removeIndexLines(text, [])).toBe(text);
  });
});
