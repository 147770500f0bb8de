import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { become, claimsOf, refusal, refusalOf, rehearse } from "../attempts.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { giveUsersTheirOrganization, north, south } from "../organizations.ts";
import { listCrossing, quoted, readReferences, type Reference, uncross } from "../references.ts";
import { callForAllTables, freeKeys, insert, newRow, readAllTables } from "../rows.ts";
import { describeSchema } from "../schema.ts";
import { advance, bind, indexLines, repeat } from "../steps.ts";

/** Foreign keys of every kind that can be bound and that the application has none of. */
export const moreReferences = `
  create schema harbour;
  grant usage on schema harbour to authenticated;
  create table harbour.ports (
    id integer primary key, code text not null unique, country text not null, number integer not null, unique (country, number)
  );
  create table harbour.ships (
    id integer primary key,
    port_code text default 'P1' references harbour.ports (code) on update cascade on delete set default,
    built_at integer references harbour.ports (id) on update restrict on delete restrict,
    flagship_id integer references harbour.ships (id) on delete cascade deferrable initially deferred,
    country text,
    number integer,
    tug_id integer references harbour.ships (id) on delete set null deferrable,
    constraint home foreign key (country, number) references harbour.ports (country, number) on delete set null (number)
  );
  comment on constraint home on harbour.ships is 'where it belongs';
  create index on harbour.ships (port_code);
  select tenancy.onboard('harbour.ports');
  select tenancy.onboard('harbour.ships');
  insert into harbour.ports (id, code, country, number, org_id)
  select n, 'P' || n, 'C' || n, n, case n % 2 when 1 then '${north}'::uuid else '${south}' end from generate_series(1, 10) as n;
  insert into harbour.ships (id, port_code, built_at, flagship_id, country, number, tug_id, org_id)
  select n, 'P' || n, n, greatest(n - 2, 2 - n % 2), 'C' || n, n, greatest(n - 4, 2 - n % 2), case n % 2 when 1 then '${north}'::uuid else '${south}' end
  from generate_series(1, 10) as n;
`;

describe("foreign keys that are bound to the organization", () => {
  let bound: Database;
  let unbound: Database;
  let references: Reference[];
  let schemaBefore: string[];
  const lines: string[] = [];

  beforeAll(async () => {
    const base = await cloneDatabase("binding_base", "two_organizations");
    const { sql } = base;
    await giveUsersTheirOrganization(sql);
    await uncross(sql);
    await sql.unsafe(moreReferences).simple();
    // Nothing but the foreign keys is to stand between a user and another organization's row.
    const opened = await sql`select relation::text as relation from tenancy.org_scoped_tables`;
    for (const { relation } of opened) {
      await sql.unsafe(`
        alter table ${relation} enable row level security;
        create policy everything on ${relation} to authenticated using (true) with check (true);
        grant all on ${relation} to authenticated;
      `).simple();
    }
    await sql`update public.campaigns set cloned_from_id = (select min(id::text)::uuid from public.campaigns as own where own.org_id = campaigns.org_id)`;
    await sql`update public.contacts set merged_into_id = (select min(id::text)::uuid from public.contacts as own where own.org_id = contacts.org_id)`;
    references = await readReferences(sql);
    await sql.end();
    bound = await cloneDatabase("bound", base);
    unbound = await cloneDatabase("unbound", base);
    await base.drop();
  });

  afterAll(async () => {
    await bound?.drop();
    await unbound?.drop();
  });

  test("are those that there are, and reference nothing of another organization", async () => {
    expect(references.filter(({ child }) => !child.startsWith("harbour")).length).toBeGreaterThan(30);
    expect(references.filter(({ child }) => child.startsWith("harbour"))).toHaveLength(5);
    expect(await listCrossing(bound.sql)).toEqual([]);
  });

  test("need indexes, which are to be built first, by the lines of the refusal", async () => {
    const { sql } = bound;
    schemaBefore = await describeSchema(sql);
    const error = await refusal(sql`select tenancy.enable_binding('public.hallucination_flags')`);
    expect(error).toMatchObject({ code: "55000" });
    expect(indexLines(error)).toEqual(expect.arrayContaining([
      "create unique index concurrently if not exists idx_call_tracking_org_id_id_key on public.call_tracking (org_id, id);",
      "create index concurrently if not exists idx_hallucination_flags_org_id_call_tracking_id on public.hallucination_flags (org_id, call_tracking_id);",
    ]));
    expect(await describeSchema(sql)).toEqual(schemaBefore);
    lines.push(...(await bind(sql, "public.hallucination_flags")));
    expect(lines, "of all tables at once").toEqual(indexLines(error));
  });

  test("keep their names, actions, deferral and comments, with org_id on both sides", async () => {
    const { sql } = bound;
    for (const child of new Set(references.map(({ child }) => child))) {
      expect(await bind(sql, child), child).toEqual([]);
    }
    const expected = references.map((reference) => ({
      ...reference,
      columns: ["org_id", ...reference.columns],
      parentColumns: ["org_id", ...reference.parentColumns],
      definition: reference.definition
        .replace("FOREIGN KEY (", "FOREIGN KEY (org_id, ")
        .replace(/(REFERENCES [\w.]+\()/, "$1org_id, ")
        .replace(/SET (NULL|DEFAULT)(?! \()/, `SET $1 (${reference.columns.join(", ")})`),
    }));
    expect(await readReferences(sql)).toEqual(expected);
    const [described] = await sql`
      select obj_description(oid, 'pg_constraint') as comment, convalidated from pg_constraint where conname = 'home'
    `;
    expect(described).toEqual({ comment: "where it belongs", convalidated: true });
    expect(await sql`select from pg_constraint where not convalidated`).toHaveLength(0);
    expect(await sql`select from tenancy.verify_schema() where not passed`).toHaveLength(0);
    for (const { child } of references) {
      expect(await sql`select tenancy.enable_binding(${child}::regclass) as worked`).toEqual([{ worked: false }]);
    }
  });

  describe.each(["postgres", "authenticated"])("as %s,", (role) => {
    test("an update cannot make a row reference another organization's, and can one of its own", async () => {
      const { sql } = bound;
      const outcomes = new Map<string, unknown>();
      for (const reference of references) {
        const { name, child, columns, parent, parentColumns } = reference;
        const pointTo = (orgId: string) => `
          update ${child} as child set (${quoted(columns)}) = (
            select ${parentColumns.map((column) => `parent."${column}"`).join(", ")} from ${parent} as parent
            where parent.org_id = '${orgId}' order by ${quoted(parentColumns)} desc limit 1
          )
          where ctid = (select ctid from ${child} where org_id = '${north}' order by ctid limit 1)
        `;
        await rehearse(sql, async () => {
          await sql`set constraints all immediate`;
          // Where the reference is part of a key, no other row is to have it.
          if (freeKeys[child]) {
            await sql.unsafe(
              `delete from ${child} where org_id <> '${north}' or ctid <> (select min(ctid) from ${child} where org_id = '${north}')`,
            );
          }
          await become(sql, role, claimsOf(north));
          const error = await refusalOf(sql, async () => await sql.unsafe(pointTo(south)));
          outcomes.set(`${child} ${name}`, {
            code: error?.code,
            constraint: error?.constraint_name,
            own: (await sql.unsafe(pointTo(north))).count,
          });
        });
      }
      expect(outcomes).toEqual(
        new Map(references.map(({ child, name }) => [`${child} ${name}`, { code: "23503", constraint: name, own: 1 }])),
      );
    });

    test("an insert cannot either", async () => {
      const { sql } = bound;
      const tables = new Map((await readAllTables(sql)).map((table) => [table.relation, table]));
      const outcomes = new Map<string, unknown>();
      const publicReferences = references.filter(({ child }) => !child.startsWith("harbour"));
      for (
        const { name, child, columns: [column = ""], parent, parentColumns: [parentColumn = ""] } of publicReferences
      ) {
        const table = tables.get(child);
        if (!table) throw new Error(`${child} is not registered`);
        const row = await newRow(sql, table, north);
        const [foreign] = await sql.unsafe(
          `select ${parentColumn} as key from ${parent} where org_id = '${south}' limit 1`,
        );
        await rehearse(sql, async () => {
          await become(sql, role, claimsOf(north));
          const error = await refusalOf(sql, () => insert(sql, child, { ...row, [column]: foreign?.["key"] }));
          outcomes.set(`${child} ${name}`, {
            code: error?.code,
            constraint: error?.constraint_name,
            own: await insert(sql, child, row),
          });
        });
      }
      expect(outcomes).toEqual(
        new Map(
          publicReferences.map(({ child, name }) => [`${child} ${name}`, { code: "23503", constraint: name, own: 1 }]),
        ),
      );
    });

    test("without them it could", async () => {
      const { sql } = unbound;
      await rehearse(sql, async () => {
        await become(sql, role, claimsOf(north));
        const moved = await sql.unsafe(`
          update public.calls set lead_id = (select id from public.leads where org_id = '${south}' limit 1)
          where ctid = (select ctid from public.calls where org_id = '${north}' limit 1)
        `);
        expect(moved.count).toBe(1);
      });
    });
  });

  /** What a statement does to all tables, apart from the times and from the keys of a log's rows. */
  const consequences = async (sql: Sql, statement: string) =>
    await rehearse(sql, async () => {
      const error = await refusalOf(sql, async () => {
        await sql.unsafe(statement);
        await sql`set constraints all immediate`;
      });
      const tables = await sql<
        { relation: string }[]
      >`select relation::text as relation from tenancy.org_scoped_tables order by 1`;
      const digests = await sql.unsafe(
        tables.map(({ relation }) => `
          select '${relation}' as relation, count(*)::integer as rows, sum(hashtextextended(
            (to_jsonb(row) - 'updated_at'${
          relation === "compliance_audit_logs" ? " - 'id' - 'occurred_at'" : ""
        })::text, 0
          ))::text as digest
          from ${relation} as row
        `).join(" union all ") + " order by 1",
      );
      return { code: error?.code, digests: [...digests] };
    });

  test("do on a delete what they did before", async () => {
    const outcomes: [string, unknown][] = [];
    const expected: [string, unknown][] = [];
    const untouched = (await consequences(unbound.sql, "select 1")).digests;
    const codes = new Set<string | undefined>();
    for (const reference of references) {
      const { name, child, columns, parent, parentColumns } = reference;
      const statement = `
        delete from ${parent} where (${quoted(parentColumns)}) = (
          select ${quoted(columns)} from ${child} where ${
        columns.map((column) => `"${column}" is not null`).join(" and ")
      }
          order by ${quoted(columns)} limit 1
        )
      `;
      const before = await consequences(unbound.sql, statement);
      codes.add(before.code);
      if (!before.code) expect(before.digests, `${name} is put to use`).not.toEqual(untouched);
      expected.push([`${child} ${name}`, before]);
      outcomes.push([`${child} ${name}`, await consequences(bound.sql, statement)]);
    }
    expect(codes, "deletes that go through and deletes that are refused").toEqual(new Set([undefined, "23503"]));
    expect(outcomes).toEqual(expected);
  });

  test("do on an update of the key what they did before", async () => {
    for (const { child, name, columns, parent, parentColumns } of references) {
      const [column = ""] = parentColumns;
      const [type] = await unbound
        .sql`select atttypid::regtype::text as name from pg_attribute where attrelid = ${parent}::regclass and attname = ${column}`;
      const value =
        { uuid: `'d0000000-0000-4000-8000-000000000001'`, integer: "1000", text: "'new'" }[type?.["name"] as string];
      const statement = `
        update ${parent} set "${column}" = ${value} where (${quoted(parentColumns)}) = (
          select ${quoted(columns)} from ${child} where ${columns.map((part) => `"${part}" is not null`).join(" and ")}
          order by ${quoted(columns)} limit 1
        )
      `;
      expect(await consequences(bound.sql, statement), `${child} ${name}`).toEqual(
        await consequences(unbound.sql, statement),
      );
    }
  });

  test("set to NULL the reference and nothing else", async () => {
    const { sql } = bound;
    await rehearse(sql, async () => {
      const [row] =
        await sql`select id, lead_id, org_id from public.calls where lead_id is not null and org_id = ${north} limit 1`;
      await sql`delete from public.leads where id = ${row?.["lead_id"]}`;
      expect(await sql`select id, lead_id, org_id from public.calls where id = ${row?.["id"]}`).toEqual([{
        ...row,
        lead_id: null,
      }]);
      await sql`delete from harbour.ports where id = 3 and not exists (select from harbour.ships where built_at = 3)`;
      await sql`update harbour.ships set built_at = null`;
      await sql`delete from harbour.ports where id = 3`;
      expect(await sql`select port_code, country, number, org_id from harbour.ships where id = 3`).toEqual([
        { port_code: "P1", country: "C3", number: null, org_id: north },
      ]);
    });
  });

  test.each([
    ["enable_binding", async (sql: Sql) => await repeat(sql, "tenancy.enable_binding('public.calls')")],
    ["advance('binding', 'binding_valid')", async (sql: Sql) => await advance(sql, "binding binding_valid")],
  ])("are remembered: verify() finds one that was made simple again, and %s binds it again", async (_name, make) => {
    const { sql } = bound;
    const simple = references.find(({ name }) => name === "calls_lead_id_fkey");
    if (!simple) throw new Error("calls_lead_id_fkey is not a foreign key");
    const failures = async () => [
      ...(await sql`select table_name, check_name from tenancy.verify_schema() where not passed order by 2`),
    ];
    const whole = await describeSchema(sql);
    await rehearse(sql, async () => {
      await sql.unsafe(`
        alter table public.calls drop constraint ${simple.name}, add constraint ${simple.name} ${simple.definition}
      `);
      expect(await failures()).toEqual([
        { table_name: "public.calls", check_name: "binding" },
        { table_name: "public.calls", check_name: "binding_valid" },
      ]);
      await make(sql);
      expect(await failures()).toEqual([]);
      expect(await describeSchema(sql)).toEqual(whole);
    });
  });

  test("are put back by disable_binding: the schema is what it was, and the indexes that were built by hand", async () => {
    const { sql } = bound;
    await callForAllTables(sql, "tenancy.disable_binding");
    expect(await readReferences(sql)).toEqual(references);
    const after = await describeSchema(sql);
    expect(schemaBefore.filter((line) => !after.includes(line))).toEqual([]);
    const added = after.filter((line) => !schemaBefore.includes(line));
    expect(added.filter((line) => !line.startsWith("index CREATE "))).toEqual([]);
    expect(added).toHaveLength(lines.length);
  });
});
