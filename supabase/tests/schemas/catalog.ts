import type { Sql } from "postgres";
import type { OrgTable } from "../oracle.ts";
import { literal } from "./names.ts";
import { qualify } from "./draft.ts";

const gapsOf = (roots: string): string => `
  with roots (root) as (values ${roots}),
  members as (
    select coalesce(tree.relid, root) as relation
    from roots
    left join lateral pg_partition_tree(root) as tree on true
  )
  select format('%s %s', members.relation, checks.gap) as gap
  from members
  join pg_class as class on class.oid = members.relation
  left join pg_attribute as org_id
    on org_id.attrelid = class.oid and org_id.attname = 'org_id' and not org_id.attisdropped
  left join pg_attrdef as org_default on org_default.adrelid = class.oid and org_default.adnum = org_id.attnum
  cross join lateral (
    values
      (org_id.atttypid = 'uuid'::regtype and org_id.attgenerated = '', 'has no org_id of type uuid'),
      (org_id.attnotnull, 'has an org_id that can be NULL'),
      (pg_get_expr(org_default.adbin, org_default.adrelid) = 'public.auth_org_id()', 'has an org_id without its default'),
      (
        exists (
          select from pg_constraint
          where conrelid = class.oid and contype = 'f' and conkey = array[org_id.attnum] and convalidated
            and confrelid = 'public.organizations'::regclass and confdeltype = 'c'
            and confkey = (
              select array[attnum] from pg_attribute where attrelid = confrelid and attname = 'id' and not attisdropped
            )
        ),
        'has no valid foreign key to organizations'
      ),
      (
        exists (
          select from pg_index
          where indrelid = class.oid and indkey[0] = org_id.attnum and indpred is null and indisvalid and indisready
        ),
        'has no valid index that leads with org_id'
      ),
      (
        -- A table made by LIKE could not be attached to a partitioned table that has one.
        class.relkind = 'p' or exists (
          select from pg_constraint
          where conrelid = class.oid and contype = 'c' and convalidated
            and pg_get_constraintdef(oid) = 'CHECK ((org_id IS NOT NULL))'
        ),
        'has no valid check that org_id is not null'
      ),
      (
        exists (
          select from pg_trigger
          where tgrelid = class.oid and tgenabled = 'A' and not tgisinternal and tgname like 'org\\_id\\_immutable\\_%'
            and pg_get_triggerdef(oid) like '% AFTER UPDATE ON % FOR EACH ROW WHEN ((old.org_id IS DISTINCT FROM new.org_id))%'
        ),
        'has no guard that is enabled always'
      ),
      (
        exists (
          select from pg_trigger
          where tgrelid = class.oid and tgenabled = 'O' and not tgisinternal and tgname like 'zzz\\_fill\\_org\\_id\\_%'
            and pg_get_triggerdef(oid) ~ ' BEFORE INSERT ON .* FOR EACH ROW( WHEN \\(\\(new\\.org_id IS NULL\\)\\))? EXECUTE FUNCTION '
        ),
        'has no filler'
      ),
      (
        class.relkind <> 'p' or exists (
          select from pg_trigger
          where tgrelid = class.oid and tgenabled = 'A' and tgname like 'org\\_id\\_immutable\\_rows\\_%'
            and pg_get_triggerdef(oid) like '% AFTER UPDATE ON % REFERENCING % FOR EACH STATEMENT %'
        ),
        'has no guard against rows that move'
      ),
      (
        class.relkind <> 'p' or exists (
          select from pg_trigger
          where tgrelid = class.oid and tgenabled = 'A' and not tgisinternal and tgname like 'zzz\\_org\\_id\\_immutable\\_%'
            and pg_get_triggerdef(oid) like '% BEFORE UPDATE ON % FOR EACH ROW WHEN ((old.org_id <> new.org_id))%'
        ),
        'has no guard against rows that MERGE moves'
      )
  ) as checks (holds, gap)
  where checks.holds is not true
  order by 1
`;

/**
 * Says what a migrated table, or one of its partitions, lacks of all that it should have, read from the catalog without any
 * function or view of the migration. Returns one line for each.
 */
export async function findGaps(sql: Sql, tables: OrgTable[]): Promise<string[]> {
  const roots = tables.map((table) => `(${literal(qualify(table))}::regclass)`).join(", ");
  const rows = await sql.begin(async (transaction) => {
    // So that expressions come with their schemas.
    await transaction`set local search_path = ''`;
    return await transaction.unsafe<{ gap: string }[]>(gapsOf(roots));
  });
  return rows.map(({ gap }) => gap);
}

/** The names, as the server writes them, of the tables and of all their partitions. */
export async function listMembers(sql: Sql, tables: OrgTable[]): Promise<string[]> {
  const roots = tables.map((table) => `(${literal(qualify(table))}::regclass)`).join(", ");
  const members = await sql.unsafe<{ name: string }[]>(`
    select coalesce(tree.relid, root)::text as name
    from (values ${roots}) as roots (root)
    left join lateral pg_partition_tree(root) as tree on true
  `);
  return members.map(({ name }) => name);
}

/** Of these tables those where a row can be given another organization. Each attempt is undone. */
export async function findMutable(sql: Sql, tables: string[]): Promise<string[]> {
  const mutable: string[] = [];
  for (const target of tables) {
    const change = sql.begin(async (transaction) => {
      // As a replica, so that of all triggers the guards alone speak, the foreign key's not before them.
      await transaction`set local session_replication_role = replica`;
      const changed = await transaction.unsafe(`
        update ${target} set org_id = gen_random_uuid() where (tableoid, ctid) = (select tableoid, ctid from ${target} limit 1)
      `);
      throw new Error(changed.count > 0 ? "changed" : "empty");
    });
    const message: string = await change.then(() => "", (error: Error) => error.message);
    const isRefused = / is immutable: |^empty$/.test(message);
    if (!isRefused) mutable.push(`${target}: ${message}`);
  }
  return mutable;
}

/** Every foreign key of the application that is marked valid and that some row breaks, which no backfill may cause. */
export async function findBrokenReferences(sql: Sql): Promise<string[]> {
  const references = await sql<{ name: string; query: string }[]>`
    select
      format('%s of %s', conname, conrelid::regclass) as name,
      format(
        'select 1 from %s as child where %s and not exists (select from %s as parent where %s) limit 1',
        conrelid::regclass, key.present, confrelid::regclass, key.equal
      ) as query
    from pg_constraint
    cross join lateral (
      select
        string_agg(format('child.%I is not null', referencing.attname), ' and ') as present,
        string_agg(format('parent.%I = child.%I', referenced.attname, referencing.attname), ' and ') as equal
      from unnest(conkey, confkey) as pair (referencing, referenced)
      join pg_attribute as referencing on referencing.attrelid = conrelid and referencing.attnum = pair.referencing
      join pg_attribute as referenced on referenced.attrelid = confrelid and referenced.attnum = pair.referenced
    ) as key
    where contype = 'f' and convalidated and conparentid = 0 and conrelid in (
      select pg_class.oid from pg_class join pg_namespace on pg_namespace.oid = relnamespace
      where nspname not in ('auth', 'tenancy', 'org_migration')
    )
  `;
  const broken: string[] = [];
  for (const { name, query } of references) {
    if ((await sql.unsafe(query)).length > 0) broken.push(name);
  }
  return broken;
}
