import type { Sql } from "postgres";
import type { Row } from "./rows.ts";

/** A foreign key between two org-scoped tables, by the catalog alone. */
export interface Reference {
  name: string;
  child: string;
  columns: string[];
  parent: string;
  parentColumns: string[];
  definition: string;
}
export const readReferences = async (sql: Sql) => [
  ...(await sql<Reference[]>`
    with org_scoped as (
      select format('%I.%I', schema_name, table_name)::regclass as relation from tenancy.registry where scope = 'org'
    )
    select
      conname as name,
      conrelid::regclass::text as child,
      array(
        select attname::text from unnest(conkey) with ordinality as key (attnum, position)
        join pg_attribute on attrelid = conrelid and pg_attribute.attnum = key.attnum
        order by position
      ) as columns,
      confrelid::regclass::text as parent,
      array(
        select attname::text from unnest(confkey) with ordinality as key (attnum, position)
        join pg_attribute on attrelid = confrelid and pg_attribute.attnum = key.attnum
        order by position
      ) as "parentColumns",
      pg_get_constraintdef(pg_constraint.oid) as definition
    from pg_constraint
    join org_scoped as child on child.relation = conrelid
    join org_scoped as parent on parent.relation = confrelid
    where contype = 'f'
    order by conrelid::regclass::text, conname
  `),
];
export const quoted = (names: string[]) => names.map((name) => `"${name}"`).join(", ");
export const joinOn = ({ columns, parentColumns }: Reference) =>
  columns.map((column, index) => `child."${column}" = parent."${parentColumns[index]}"`).join(" and ");

/** Every row that references one of another organization, found without the migration's code. */
export async function findCrossing(sql: Sql): Promise<string[]> {
  const found: string[] = [];
  for (const reference of await readReferences(sql)) {
    const rows = await sql.unsafe<{ key: Row; org_id: string; parent_org_id: string }[]>(`
      select
        (
          select jsonb_object_agg(attname, to_jsonb(child) -> attname)
          from pg_attribute
          where attrelid = '${reference.child}'::regclass
            and (attnum = any (indkey) or indkey is null and attnum > 0 and not attisdropped)
        ) as key,
        child.org_id,
        parent.org_id as parent_org_id
      from ${reference.child} as child
      join ${reference.parent} as parent on ${joinOn(reference)}
      left join pg_index on indrelid = '${reference.child}'::regclass and indisprimary
      where child.org_id <> parent.org_id
    `);
    for (const { key, org_id, parent_org_id } of rows) {
      found.push(describeCrossing(reference.child, key, org_id, reference.name, reference.parent, parent_org_id));
    }
  }
  return found.sort();
}
export const describeCrossing = (
  child: string,
  key: Row,
  orgId: string,
  name: string,
  parent: string,
  parentOrgId: string,
) => `${child} ${JSON.stringify(Object.entries(key).sort())} of ${orgId} by ${name} to ${parent} of ${parentOrgId}`;
/** The same as tenancy.cross_org_references() lists them. */
export async function listCrossing(sql: Sql): Promise<string[]> {
  const rows = await sql`select *, relation::text, parent::text from tenancy.cross_org_references()`;
  return rows.map((row) =>
    describeCrossing(
      row["relation"],
      row["row_key"],
      row["org_id"],
      row["constraint_name"],
      row["parent"],
      row["parent_org_id"],
    )
  ).sort();
}

/** Gives every reference a parent of the row's own organization, in turn; rows that find none are deleted. */
export async function uncross(sql: Sql): Promise<void> {
  // Its key is two references: changing them could make a pair that is there already, so pairs are made anew below.
  await sql`delete from public.campaign_phone_numbers`;
  for (const reference of await readReferences(sql)) {
    const { child, columns: [column], parent, parentColumns: [parentColumn] } = reference;
    await sql.unsafe(`
      update ${child} as child
      set ${column} = parents.keys[1 + numbered.place % cardinality(parents.keys)]
      from (select ctid, org_id, row_number() over (partition by org_id order by ctid) as place from ${child}) as numbered
      join (select org_id, array_agg(${parentColumn} order by ${parentColumn}) as keys from ${parent} group by 1) as parents
        using (org_id)
      where numbered.ctid = child.ctid and child.${column} is not null
    `);
    await sql.unsafe(`
      delete from ${child} as child using ${parent} as parent where ${
      joinOn(reference)
    } and child.org_id <> parent.org_id
    `);
  }
  await sql`
    insert into public.campaign_phone_numbers (campaign_id, user_phone_number_id, user_id, org_id)
    select campaign.id, number.id, number.user_id, org_id
    from (select *, row_number() over (partition by org_id order by id) as place from public.campaigns) as campaign
    join (select *, row_number() over (partition by org_id order by id) as place from public.user_phone_numbers) as number
      using (org_id, place)
    where place <= 5
  `;
}
