/** What the application does while it is being migrated, step by step. */
import type { ISql, JSONValue } from "postgres";
import type { Random } from "./random.ts";

/** Each is counted apart. */
export const kinds = [
  "insert",
  "upsert of a new row",
  "upsert of an old row",
  "function",
  "webhook",
  "webhook's function",
  "sign-up",
  "update",
  "delete",
  "select",
] as const;
export type Kind = (typeof kinds)[number];

/** Those that cannot do without an organization. */
export const writing: Kind[] = kinds.slice(0, 7);

/** The tables that the writers write, and that are on record. */
export const tables = ["calls", "leads", "call_logs", "call_tracking", "imports", "agents"] as const;
export type Table = (typeof tables)[number];

/** The ids of a user's rows. Only those of removable have nothing hanging from them that another user changes. */
export type RowsOfUser = Record<Table, { all: string[]; removable: string[] }>;

export const noRows = (): RowsOfUser =>
  Object.fromEntries(tables.map((table) => [table, { all: [], removable: [] }])) as unknown as RowsOfUser;

/** What a step takes: its request, and the user whose rows it is about. */
interface Scene {
  sql: ISql;
  random: Random;
  user: string;
  rows: RowsOfUser;
  /** What is sent as org_id, if anything. */
  orgId: string | undefined;
}

export interface Step {
  kind: Kind;
  run(scene: Scene): Promise<void>;
}

/** What people write themselves, through their policies. */
const ofUsers = ["calls", "leads", "call_logs", "call_tracking"] as const;

/** What the application changes in a row of each table; it never changes an owner or a parent to another user's. */
const changes: Record<Table, string> = {
  calls: "status = 'completed', duration_seconds = coalesce(duration_seconds, 0) + 1",
  leads: "status = 'contacted', tags = tags || 'seen'::text",
  call_logs: "outcome = 'answered', notes = coalesce(notes, '') || 'x'",
  call_tracking: "payload = payload || '{\"seen\": true}'",
  imports: "row_count = row_count + 1",
  agents: "is_active = not is_active",
};

/** A row as the application sends it. */
async function draft(scene: Scene, table: Table, id: string): Promise<Record<string, string>> {
  const { user, orgId } = scene;
  const sent: Record<string, string> = { id, ...(orgId ? { org_id: orgId } : {}) };
  switch (table) {
    case "leads":
      return { ...sent, user_id: user, full_name: "Lead", phone_number: "+1555" };
    case "call_logs":
      return { ...sent, user_id: user, phone_number: "+1555" };
    case "call_tracking":
      return { ...sent, call_id: await someCall(scene), event: "ring" };
    case "imports":
      return { ...sent, user_id: user, file_name: "leads.csv" };
    case "agents":
      return { ...sent, user_id: user, name: "An agent" };
    case "calls":
      return { ...sent, user_id: user };
  }
}

/** A call of the user's. The first one is made here. */
async function someCall(scene: Scene): Promise<string> {
  const { random, rows } = scene;
  return rows.calls.all.length > 0 ? random.pick(rows.calls.all) : await insert(scene, "calls");
}

function note({ rows }: Scene, table: Table, id: string): void {
  rows[table].all.push(id);
  if (table !== "calls" && table !== "agents") rows[table].removable.push(id);
}

async function insert(scene: Scene, table: Table): Promise<string> {
  const id = scene.random.uuid();
  const row = await draft(scene, table, id);
  await scene.sql`insert into ${scene.sql(`public.${table}`)} ${scene.sql(row)}`;
  note(scene, table, id);
  return id;
}

/** As an API does: all columns that were sent count for a row that is there. */
async function upsert(scene: Scene, table: Table, id: string): Promise<void> {
  const { sql } = scene;
  const row = await draft(scene, table, id);
  const columns = Object.keys(row).filter((column) => column !== "org_id");
  await sql`
    insert into ${sql(`public.${table}`)} ${sql(row)}
    on conflict (id) do update set ${sql.unsafe(columns.map((column) => `${column} = excluded.${column}`).join(", "))}
  `;
}

async function upsertNew(scene: Scene, table: Table): Promise<void> {
  const id = scene.random.uuid();
  await upsert(scene, table, id);
  note(scene, table, id);
}

async function upsertOld(scene: Scene, table: Table): Promise<void> {
  if (scene.rows[table].all.length === 0) await insert(scene, table);
  await upsert(scene, table, scene.random.pick(scene.rows[table].all));
}

/** A function of the application that a user calls. */
async function callFunction(scene: Scene): Promise<void> {
  const id = scene.random.uuid();
  await scene.sql`select public.log_my_call(${id}, '+1555')`;
  note(scene, "call_logs", id);
}

/** A function that answers a webhook with success or not, and fails in no other way. */
async function callWebhookFunction(scene: Scene): Promise<void> {
  const { sql, random } = scene;
  const id = random.uuid();
  const event = { id, call_id: await someCall(scene), event: "ended" };
  const [answer] = await sql`select public.receive_call_event(${sql.json(event)}) as reply`;
  const reply = answer?.["reply"] as Record<string, JSONValue>;
  if (reply["success"] !== true) throw Object.assign(new Error(String(reply["message"])), { code: reply["code"] });
  note(scene, "call_tracking", id);
}

async function update({ sql, random, rows }: Scene, table: Table): Promise<void> {
  if (rows[table].all.length === 0) return;
  await sql.unsafe(`update public.${table} set ${changes[table]} where id = '${random.pick(rows[table].all)}'`);
}

async function remove({ sql, random, rows }: Scene, table: Table): Promise<void> {
  if (rows[table].removable.length === 0) return;
  const id = random.pick(rows[table].removable);
  await sql`delete from ${sql(`public.${table}`)} where id = ${id}`;
  const others = (ids: string[]) => ids.filter((other) => other !== id);
  rows[table] = { all: others(rows[table].all), removable: others(rows[table].removable) };
}

async function read({ sql, rows }: Scene, table: Table): Promise<void> {
  const { all } = rows[table];
  const [found] = await sql`select count(*)::integer as rows from ${
    sql(`public.${table}`)
  } where id = any(${all}::uuid[])`;
  if (found?.["rows"] !== all.length) throw new Error(`${table}: ${found?.["rows"]} of ${all.length} rows to be seen`);
}

const onTables =
  (run: (scene: Scene, table: Table) => Promise<unknown>, from: readonly Table[]) => async (scene: Scene) =>
    void await run(scene, scene.random.pick(from));

export const stepsOfUsers: Step[] = [
  { kind: "insert", run: onTables(insert, ofUsers) },
  { kind: "upsert of a new row", run: onTables(upsertNew, ofUsers) },
  { kind: "upsert of an old row", run: onTables(upsertOld, ofUsers) },
  { kind: "function", run: callFunction },
  { kind: "update", run: onTables(update, ofUsers) },
  { kind: "delete", run: onTables(remove, ofUsers) },
  { kind: "select", run: onTables(read, ofUsers) },
];

/** The backend, as service_role: its requests concern all tables. */
export const stepsOfBackend: Step[] = [
  { kind: "webhook", run: onTables(insert, tables) },
  { kind: "webhook", run: onTables(upsertNew, tables) },
  { kind: "webhook", run: onTables(upsertOld, tables) },
  { kind: "webhook's function", run: callWebhookFunction },
  { kind: "update", run: onTables(update, tables) },
  { kind: "delete", run: onTables(remove, tables) },
];
