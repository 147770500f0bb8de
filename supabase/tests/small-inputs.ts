import { inject } from "vitest";
import { copyProject, type ProjectCopy } from "../local/project-copy.ts";
import type { CliResult } from "../local/supabase-cli.ts";
import { applyMigrations, tryMigrations } from "./apply-migrations.ts";
import { cloneDatabase, type Database } from "./databases.ts";
import { askPreflight, type Pasted } from "./preflight.ts";

export const [acme, globex] = ["a", "b"].map((letter) => `c0000000-0000-4000-8000-00000000000${letter}`) as [
  string,
  string,
];
/** Ann belongs to Acme and Bob to Globex. */
export const [ann, bob] = ["1", "2"].map((number) => `c0000000-0000-4000-8000-00000000001${number}`) as [
  string,
  string,
];

const organizations = `
  insert into public.organizations (id, name) values ('${acme}', 'Acme'), ('${globex}', 'Globex') on conflict (id) do nothing;
`;

/** The part of the list that says who belongs where, as the documentation has it. */
export const mapTo = (members: Record<string, string>): string => `
  ${organizations}
  insert into tenancy.user_orgs (user_id, org_id)
  values ${Object.entries(members).map(([user, org]) => `('${user}', '${org}')`).join(", ")}
  on conflict (user_id) do update set org_id = excluded.org_id;
`;

export const mapping = mapTo({ [ann]: acme, [bob]: globex });

/** A row of the list: org, with what decides it if that is said, or excluded. */
export const org = (table: string, orgFrom = "null"): string =>
  `('public', '${table}', 'org', 'secondary', null, ${orgFrom})`;
export const excluded = (table: string): string => `('public', '${table}', 'excluded', null, 'shared', null)`;

/** A small application with Ann and Bob, its list and its mapping. */
export interface SmallInput {
  name: string;
  application: string;
  list: string[];
  mapping: string;
}

/** Of the migrations from the list on. */
const endings = [
  ..."_EDIT_list_of_tables _add_org_id_to_existing_tables _backfill_org_id_from_user_id _EDIT_index_org_id".split(" "),
  ..."_add_org_id_foreign_keys _add_org_id_not_null_constraints _create_org_id_immutability_triggers".split(" "),
  "_verify_org_id_migration",
].map((ending) => `${ending}.sql`);

const users = `
  insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data, created_at)
  select '00000000-0000-0000-0000-000000000000', id::uuid, 'authenticated', 'authenticated', id || '@example.com', '{}', now() - interval '1 day'
  from unnest(array['${ann}', '${bob}']) as id;
`;

/** A small application on a database of its own, and the project that takes it to its organizations. */
export interface SmallApplication {
  database: Database;
  /** Writes the list and the mapping once more, and pushes, as after migration repair if that was done before. */
  push(input: Pick<SmallInput, "list" | "mapping">): Promise<CliResult>;
  /** The codes with which the preflight refuses, and what it says. */
  ask(input: Pick<SmallInput, "list" | "mapping">): Promise<string[]>;
}

/** A database with the library and nothing else, for the applications that have no organizations of their own. */
async function createLibrary(): Promise<Database> {
  const library = await cloneDatabase("small_library", "postgres");
  const copy = copyProject(`${inject("folder")}/small_library`);
  for (const ending of [...endings, "_user_based_application.sql"]) copy.remove(ending);
  await applyMigrations(copy.folder, library.url);
  await library.sql.end();
  return library;
}

let library: Promise<Database> | undefined;

export async function createSmallApplication({ name, application }: SmallInput): Promise<SmallApplication> {
  const create = async (prefix: string, template: "postgres" | Database) => {
    const database = await cloneDatabase(`${prefix}_${name}`, template);
    await database.sql.unsafe(`${users} ${application}`).simple();
    return database;
  };
  const template = application.includes("table public.organizations")
    ? "postgres"
    : await (library ??= createLibrary());
  const database = await create("small", template);
  return {
    database,
    push: async (input) => {
      await forgetVersions(database);
      return await tryMigrations(write(`small_${name}`, input).folder, database.url);
    },
    ask: async ({ list, mapping: said }) => {
      const [, values] =
        /insert into tenancy\.user_orgs \(user_id, org_id\)\s+values ([^;]*?)\s+on conflict/.exec(said) ?? [];
      const pasted: Pasted = { list: list.join(",\n") };
      if (values) {
        pasted.mapping = `select user_id::uuid, org_id::uuid from (values ${values}) as said (user_id, org_id)`;
      }
      const before = await create("small_before", "postgres");
      const rows = await askPreflight(before.sql, pasted);
      await before.drop();
      return rows.filter(({ topic }) => topic === "refused").map(({ code, object }) => `${object} ${code}`);
    },
  };
}

/** What migration repair does: the list and what comes after it are to be pushed again. */
async function forgetVersions({ sql }: Database): Promise<void> {
  const [{ is_there } = {}] =
    await sql`select to_regclass('supabase_migrations.schema_migrations') is not null as is_there`;
  if (is_there) await sql`delete from supabase_migrations.schema_migrations where version >= '20250110020000'`;
}

function write(name: string, input: Pick<SmallInput, "list" | "mapping">): ProjectCopy {
  const copy = copyProject(`${inject("folder")}/${name}`);
  copy.remove("_user_based_application.sql");
  copy.rewrite(
    "_EDIT_list_of_tables.sql",
    (text) => text.replace(/^( {4}\('.*\),?\n)+/m, () => `    ${input.list.join(",\n    ")}\n`),
  );
  copy.rewrite("_EDIT_index_org_id.sql", (text) => text.replaceAll(/^create index concurrently .*\n/gm, ""));
  copy.append("_EDIT_list_of_tables.sql", input.mapping);
  return copy;
}
