import { inject } from "vitest";
import { fillApplication, pushApplicationBefore, pushTarget } from "../local/application.ts";
import { connect, createDatabase } from "../local/databases.ts";
import { mapUsers } from "../local/mapping.ts";
import { databaseUrl } from "../local/postgres.ts";
import { copyProject } from "../local/project-copy.ts";
import { root } from "../local/project.ts";
import { supabase } from "../local/supabase-cli.ts";
import { applyMigrations } from "./apply-migrations.ts";
import { giveUsersTheirOrganization, north, south } from "./organizations.ts";

export type TemplateName = "before" | "migrated" | "migrated_with_data" | "two_organizations";

interface Template {
  /** The database that it is made from; postgres is as the platform leaves it. */
  from: TemplateName | "postgres";
  make(url: string): Promise<void>;
}

/** Databases that tests clone. Each is made once a run, when the first test asks for it. */
const templates: Record<TemplateName, Template> = {
  /** The application with data, before anyone thought of organizations. */
  before: {
    from: "postgres",
    make: async (url) => {
      await pushApplicationBefore(url, inject("folder"));
      await fillApplication(url, { users: 60, rows: 60 });
    },
  },
  /** The empty application after all migrations, as `supabase test db` finds it. */
  migrated: {
    from: "postgres",
    make: async (url) => void await supabase(["db", "push", ...pushTarget(url)]),
  },
  /** The application with data after all migrations, its users updated, as `npm start -- --keep` leaves it. */
  migrated_with_data: {
    from: "before",
    make: async (url) => {
      await applyMigrations(root, url);
      await withConnection(url, giveUsersTheirOrganization);
    },
  },
  /** The application with data after all migrations, its users in two organizations, not updated yet. */
  two_organizations: {
    from: "before",
    make: async (url) => {
      const copy = copyProject(`${inject("folder")}/two_organizations`);
      copy.append("_EDIT_list_of_tables.sql", mapUsers([north, south]));
      await applyMigrations(copy.folder, url);
    },
  },
};

/** Makes the template unless it is there; whoever else asks for it meanwhile waits. */
export async function makeTemplate(name: TemplateName): Promise<void> {
  const port = inject("databasePort");
  const { from, make } = templates[name];
  const admin = connect(databaseUrl(port, { database: "template1", role: "supabase_admin" }));
  try {
    await admin`set statement_timeout = 0`;
    await admin`select pg_advisory_lock(hashtext(${name}))`;
    if ((await admin`select from pg_database where datname = ${name}`).length > 0) return;
    if (from !== "postgres") await makeTemplate(from);
    const unfinished = `${name}_unfinished`;
    await make(await createDatabase(port, unfinished, from));
    await admin`alter database ${admin(unfinished)} rename to ${admin(name)}`;
  } finally {
    await admin.end();
  }
}

export const isTemplate = (name: string): name is TemplateName => Object.hasOwn(templates, name);

async function withConnection(url: string, use: (sql: ReturnType<typeof connect>) => Promise<unknown>): Promise<void> {
  const sql = connect(url);
  try {
    await use(sql);
  } finally {
    await sql.end();
  }
}
