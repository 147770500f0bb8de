import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { readRows } from "../../cli/adopt-list.ts";
import { pushTarget } from "../../local/application.ts";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { readList } from "../../local/project-copy.ts";
import { supabase } from "../../local/supabase-cli.ts";
import { readLibrary } from "../../scripts/migration-sources.ts";
import { addMigrations, copyApplication, findMigration, listEnding } from "../applications.ts";
import { cloneDatabase, type Database } from "../databases.ts";
import { askPreflight } from "../preflight.ts";

/** The rows that the CRM's owner writes. */
const ofTheCrm = `
  ('public', 'contacts', 'org', 'critical', null, null), ('sales', 'DealStages', 'org', 'secondary', null, null),
  ('sales', 'deals', 'org', 'critical', null, null), ('sales', 'deal_items', 'org', 'secondary', null, null),
  ('sales', 'price_changes', 'org', 'secondary', null, null), ('public', 'activities', 'org', 'secondary', null, null),
  ('public', 'audit_log', 'org', 'secondary', null, null), ('public', 'profiles', 'excluded', null, 'of users', null),
  ('public', 'companies', 'excluded', null, 'each is an organization', null),
  ('public', 'company_members', 'excluded', null, 'who belongs to which', null),
  ('public', 'currencies', 'excluded', null, 'the same for all', null),
`;

/** Without a list of its own: the one that its owner has after npm run adopt. */
const expected: { name: string; list?: string; findings: string[] }[] = [
  {
    name: "call-centre",
    list: readList(),
    findings: [
      'own_rows_policy | "own rows" | public.agents',
      'own_rows_policy | "own rows" | public.call_logs',
      "index_by_owner | call_logs_user_id_created_at_idx | public.call_logs",
      'own_rows_policy | "tracking of own calls" | public.call_tracking',
      'own_rows_policy | "own rows" | public.calls',
      "index_by_owner | calls_user_id_created_at_idx | public.calls",
      'own_rows_policy | "own rows" | public.campaigns',
      "insert_by_position | public.log_lead_change() | public.compliance_audit_logs",
      'own_rows_policy | "own rows" | public.contacts',
      "unique_per_owner | daily_lead_uploads_pkey | public.daily_lead_uploads",
      'own_rows_policy | "own rows" | public.integrations',
      'own_rows_policy | "own rows" | public.knowledge_base',
      'own_rows_policy | "own rows" | public.leads',
      "index_by_owner | leads_user_id_status_idx | public.leads",
      'own_rows_policy | "own rows" | public.outreach_templates',
      'own_rows_policy | "own rows" | public.phone_blacklist',
      "unique_per_owner | phone_blacklist_user_id_phone_number_key | public.phone_blacklist",
      "other_membership | public.profiles | public.profiles",
      "index_by_owner | usage_events_user_id_occurred_at_idx | public.usage_events",
      "unique_per_owner | usage_records_user_id_period_start_key | public.usage_records",
      "unique_global | user_phone_numbers_phone_number_key | public.user_phone_numbers",
      "unique_global | user_twilio_subaccounts_account_sid_key | public.user_twilio_subaccounts",
      "unique_per_owner | user_twilio_subaccounts_user_id_key | public.user_twilio_subaccounts",
      "api_privileges | public |",
    ],
  },
  {
    name: "crm",
    list: ofTheCrm,
    findings: [
      'own_rows_policy | "Users manage own activities" | public.activities',
      'own_rows_policy | "Users see what they did" | public.audit_log',
      "trigger_stops_organization_delete | public.audit_deal() | public.audit_log",
      "trigger_without_org_id | public.audit_deal() | public.audit_log",
      "other_membership | public.company_members | public.company_members",
      'own_rows_policy | "Users manage own contacts" | public.contacts',
      "unique_per_owner | contacts_email_per_owner | public.contacts",
      "realtime_table | supabase_realtime | public.contacts",
      'policy_open | "Stages are visible to everyone signed in" | sales."DealStages"',
      'own_rows_policy | "Users manage items of own deals" | sales.deal_items',
      'own_rows_policy | "Users manage own deals" | sales.deals',
      "realtime_table | supabase_realtime | sales.deals",
      "trigger_without_org_id | sales.log_price_change() | sales.price_changes",
      "api_privileges | public |",
      "api_privileges | sales |",
    ],
  },
  {
    name: "marketplace",
    findings: [
      'own_rows_policy | "Users manage own favourites." | public.favourites',
      'policy_open | "Listings are visible to everyone." | public.listings',
      'policy_without_to | "Listings are visible to everyone." | public.listings',
      'own_rows_policy | "Users see own messages." | public.messages',
      "trigger_without_org_id | public.log_order_event() | public.order_events",
      'own_rows_policy | "Buyer and seller see the order." | public.orders',
      'own_rows_policy | "Sellers see own payouts." | public.payouts',
      'policy_open | "Profiles are visible to everyone." | public.profiles',
      'policy_without_to | "Profiles are visible to everyone." | public.profiles',
      "unique_global | profiles_username_key | public.profiles",
      "trigger_without_org_id | public.handle_new_user() | public.profiles",
      'policy_open | "Reviews are visible to everyone." | public.reviews',
      'policy_without_to | "Reviews are visible to everyone." | public.reviews',
      'own_rows_policy | "Users manage own suppliers." | public.suppliers',
      "api_privileges | public |",
    ],
  },
  {
    name: "team-chat",
    findings: [
      'own_rows_policy | "Users manage own attachments" | public.attachments',
      "unique_global | attachments_path_key | public.attachments",
      'own_rows_policy | "Users see what they did" | public.audit_log',
      "trigger_without_org_id | public.before_user() | public.audit_log",
      "security_definer_function | public.is_member(bigint) | public.channel_members",
      "trigger_without_org_id | public.welcome_user() | public.channel_members",
      'policy_open | "Authors and moderators delete" | public.messages',
      'own_rows_policy | "Users manage own reactions" | public.reactions',
      'own_rows_policy | "Users see own roles" | public.user_roles',
      "security_definer_function | public.authorize(text) | public.user_roles",
      "trigger_without_org_id | public.welcome_user() | public.user_roles",
      "unique_per_owner | user_roles_user_id_role_key | public.user_roles",
      'policy_open | "Workspaces are readable" | public.workspaces',
      "api_privileges | public |",
    ],
  },
  {
    name: "half-migrated",
    findings: [
      "own_rows_policy | own | public.comments",
      "own_rows_policy | own | public.deals",
      "unique_global | invoices_number_key | public.invoices",
      "own_rows_policy | own | public.leads",
      "other_membership | public.memberships | public.memberships",
      "own_rows_policy | own | public.notifications",
      "trigger_without_org_id | public.join_organization() | public.notifications",
      "api_privileges | public |",
    ],
  },
];

describe.each(expected)("of $name the review", ({ name, list: own, findings }) => {
  let database: Database;
  let list: string;

  beforeAll(async () => {
    let adopted = "";
    const clone = `review_${name.replaceAll("-", "_")}`;
    database = await cloneDatabase(clone, name === "call-centre" ? "before" : "postgres");
    if (name === "crm") await database.sql`create publication supabase_realtime`;
    if (name !== "call-centre") {
      const project = copyApplication(name, "reviewed");
      await supabase(["db", "push", "--workdir", project, ...pushTarget(database.url)]);
      if (own === undefined) {
        await addMigrations(name, project, database.url);
        const file = findMigration(project, listEnding);
        adopted = readRows(file, readFileSync(file, "utf8"));
      }
    }
    list = own ?? adopted;
  });

  afterAll(async () => await database?.drop());

  test("names exactly what is there, and the preflight the same before anything is pushed", async () => {
    const { sql } = database;
    const before = await askPreflight(sql, { list });
    const topics: Record<string, string> = { breaks: "breaks", leaks: "leaks", "to decide": "decide" };
    const asked = before.flatMap(({ topic, code, object, finding }) =>
      topics[topic] ? [`${topics[topic]} ${code} ${object} ${finding}`] : []
    );
    for (const { text } of readLibrary()) await sql.unsafe(text).simple();
    await sql.unsafe(`
      insert into tenancy.registry (schema_name, table_name, scope, priority, reason, org_from)
      values ${list.trimEnd().replace(/,$/, "")}
    `);
    const found = await sql`
      select severity, code, object, table_name, problem from tenancy.review order by table_name, object, code
    `;
    expect(found.map(({ code, object, table_name }) => [code, object, table_name].join(" | ").trim())).toEqual(
      findings,
    );
    expect(found.map(({ severity, code, object, problem }) => `${severity} ${code} ${object} ${problem}`).toSorted())
      .toEqual(asked.toSorted());
  });
});

test("after the push a publication is found while a slot waits for a subscriber that has stopped", async () => {
  const database = await cloneDatabase("review_published", "migrated");
  const { sql } = database;
  const published = async () =>
    (await sql`select severity, object, problem from tenancy.review_breaks where code = 'published'`)
      .map(({ severity, object, problem }) => `${severity} ${object} ${problem}`);
  await sql`create publication warehouse for table public.leads`;
  const without = await published();
  await sql`select pg_create_logical_replication_slot('review_published', 'pgoutput')`;
  const stopped = await published();
  await sql`select pg_drop_replication_slot('review_published')`;
  await database.drop();
  expect(without).toEqual([]);
  expect(stopped).toEqual([
    expect.stringMatching(/^breaks warehouse publishes public\.leads, and nobody reads the slot review_published: /),
  ]);
});

test("authenticated itself may pass every policy", async () => {
  const database = await cloneDatabase("review_bypass", "migrated");
  const superuser = connect(databaseUrl(inject("databasePort"), { database: database.name, role: "supabase_admin" }));
  const find = () => superuser`select severity, object, remedy from tenancy.review where code = 'role_passes_policies'`;
  try {
    expect(await find()).toEqual([]);
    // Roles are the whole server's: the other databases must not see it.
    await superuser`begin`;
    await superuser`alter role authenticated bypassrls`;
    expect([...await find()]).toEqual([
      { severity: "leaks", object: "authenticated", remedy: "alter role authenticated nobypassrls" },
    ]);
    await superuser`rollback`;
  } finally {
    await superuser.end();
    await database.drop();
  }
});
