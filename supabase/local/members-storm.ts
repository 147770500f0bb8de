/**
 * A storm over memberships: people sign up, switch, are invited, removed and given other roles, refresh their tokens and are
 * placed by an operator, while two runs of the edge function go on. Half of the people act one thing after the other, so that it
 * is known where each has to be in the end; everything may happen to the others at once.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { decodeJwt } from "jose";
import postgres, { type ISql, type PostgresError, type Sql } from "postgres";
import { organizationIds } from "./mapping.ts";
import type { Services } from "./stack.ts";

const functionName = "update-user-org-metadata";
const organizations = organizationIds(20);
const password = "correct horse";
/** People who do things at the same moment. */
const lanes = 6;

interface Person {
  id: string;
  email: string;
  refreshToken?: string;
  /** Known of those who act one thing after the other; of the others only the database knows. */
  known?: { members: Set<string>; active: string | null };
}

export interface Storm {
  /** How often each thing was done. */
  counts: Record<string, number>;
  users: number;
  /** Users whose app_metadata was not what user_orgs says when the storm was over, which one more run puts right. */
  staleBefore: number;
  /** What is wrong after that run: users in a wrong organization or none, memberships that differ, failures. */
  wrong: string[];
}

interface StormOptions {
  /** A connection string of postgres. */
  url: string;
  services: Services;
  seconds: number;
  withHook: boolean;
  /** A whole number from 0 up to, not including, the limit. */
  below(limit: number): number;
  /** Told how far it is. */
  report?: (counts: Record<string, number>) => void;
}

const preparation = `
  insert into public.organizations (id, name)
  select id, 'Company ' || id from unnest('{${organizations.join(",")}}'::uuid[]) as id;
  insert into tenancy.user_orgs (user_id, org_id) values (gen_random_uuid(), '${organizations[0]}');
  create table public.company_members (user_id uuid, company_id uuid, position text, primary key (user_id, company_id));
  create function public.join_company() returns trigger language plpgsql security definer set search_path = '' as $$
  begin
    insert into public.company_members values (new.id, (new.raw_user_meta_data ->> 'company')::uuid, 'member');
    return null;
  end $$;
  create trigger join_company after insert on auth.users for each row execute function public.join_company();
  select tenancy.enable_new_users('application');
  select tenancy.enable_memberships('public.company_members', 'user_id', 'company_id', 'position');
`;

/** Runs a storm on a database that has been migrated and has nobody in it. */
export async function runStorm(options: StormOptions): Promise<Storm> {
  const { url, services, seconds, withHook, below, report } = options;
  const sql = postgres(url, { max: lanes + 2, onnotice: () => {} });
  const counts: Record<string, number> = {};
  const wrong: string[] = [];
  const everyone: Person[] = [];
  const pick = <T>(items: readonly T[]): T => items[below(items.length)] as T;
  try {
    await sql.unsafe(preparation).simple();
    if (withHook) await sql`select tenancy.enable_token_hook()`;
    const ends = Date.now() + seconds * 1000;
    const context: Context = { sql, services, counts, wrong, everyone, pick, below, withHook };
    const run = async () => {
      while (Date.now() < ends) {
        await callFunction(context, "a run");
        await sleep(100);
      }
    };
    const act = async () => {
      const own: Person[] = [];
      while (Date.now() < ends) await actOnce(context, own);
    };
    const timer = setInterval(() => report?.(counts), 10_000);
    try {
      await Promise.all([run(), run(), ...Array.from({ length: lanes }, act)]);
    } finally {
      clearInterval(timer);
    }
    const staleBefore = (await findStale(sql)).length;
    while (!await callFunction(context, "the last run"));
    wrong.push(...await findWrong(context));
    return { counts, users: everyone.length, staleBefore, wrong };
  } finally {
    await sql.end({ timeout: 5 });
  }
}

interface Context {
  sql: Sql;
  services: Services;
  counts: Record<string, number>;
  wrong: string[];
  everyone: Person[];
  pick<T>(items: readonly T[]): T;
  below(limit: number): number;
  withHook: boolean;
}

type Act = (context: Context, person: Person) => Promise<string | undefined>;

/** What happens to a person, each so many times of a hundred. */
const acts: [name: string, share: number, act: Act][] = [
  ["switches", 35, switchOrganization],
  ["invitations", 20, invite],
  ["removals", 15, remove],
  ["renewed memberships", 5, renew],
  ["other roles", 5, changeRole],
  ["tokens", 15, refreshToken],
  ["placed by an operator", 5, place],
];

/** Lets one thing happen to somebody: to one of the lane's own people, or to one to whom other lanes do something as well. */
async function actOnce(context: Context, own: Person[]): Promise<void> {
  const { counts, wrong, everyone, below, pick } = context;
  const count = (name: string) => counts[name] = (counts[name] ?? 0) + 1;
  try {
    if (own.length === 0 || below(100) < 10) {
      const person = await signUp(context, below(2) === 0);
      everyone.push(person);
      if (person.known) own.push(person);
      count("sign-ups");
      return;
    }
    const shared = everyone.filter(({ known }) => !known).slice(-20);
    const person = shared.length > 0 && below(2) === 0 ? pick(shared) : pick(own);
    let left = below(100);
    const [name = "", , act] = acts.find(([, share]) => (left -= share) < 0) ?? [];
    const problem = await act?.(context, person);
    count(name);
    if (problem) wrong.push(`${person.id}: ${problem}`);
  } catch (error) {
    wrong.push(`failed: ${(error as Error).message}`);
  }
}

async function post({ services: { api, keys } }: Context, path: string, body: unknown): Promise<Response> {
  return await fetch(`${api.url}${path}`, {
    method: "POST",
    headers: { apikey: keys.secretKey },
    body: JSON.stringify(body),
  });
}

async function signUp(context: Context, isKnown: boolean): Promise<Person> {
  const email = `${randomUUID()}@example.com`;
  const company = context.pick(organizations);
  const body = { email, password, email_confirm: true, user_metadata: { company } };
  const response = await post(context, "/auth/v1/admin/users", body);
  const reply = await response.json() as Record<string, string>;
  if (!response.ok) throw new Error(`a sign-up: ${JSON.stringify(reply)}`);
  const person = { id: reply["id"] as string, email };
  return isKnown ? { ...person, known: { members: new Set([company]), active: company } } : person;
}

async function switchOrganization({ sql, pick, below }: Context, { id, known }: Person): Promise<string | undefined> {
  const to = known && known.members.size > 0 && below(4) > 0 ? pick([...known.members]) : pick(organizations);
  const claims = JSON.stringify({ sub: id, role: "authenticated" });
  const error = await sql.begin(async (transaction) => {
    await transaction`select set_config('request.jwt.claims', ${claims}, true)`;
    await transaction`set local role authenticated`;
    await transaction`select public.switch_organization(${to})`;
  }).then(() => undefined, (thrown: PostgresError) => thrown);
  if (error && error.code !== "42501") throw error;
  if (!known) return undefined;
  if (!error) known.active = to;
  return known.members.has(to) === !error ? undefined : `a switch to ${to} was ${error ? "refused" : "not refused"}`;
}

async function invite({ sql, pick }: Context, { id, known }: Person): Promise<undefined> {
  const company = pick(organizations);
  await sql`
    insert into public.company_members values (${id}, ${company}, 'guest') on conflict do nothing
  `;
  known?.members.add(company);
}

async function remove({ sql, pick }: Context, { id, known }: Person): Promise<undefined> {
  const company = known && known.members.size > 0 ? pick([...known.members]) : pick(organizations);
  await sql`delete from public.company_members where (user_id, company_id) = (${id}, ${company})`;
  known?.members.delete(company);
  if (known?.active === company) known.active = null;
}

/** What an application does that writes everything anew. */
async function renew({ sql }: Context, { id }: Person): Promise<undefined> {
  await sql.begin(async (transaction) => {
    const removed = await transaction`delete from public.company_members where user_id = ${id} returning *`;
    if (removed.length > 0) await transaction`insert into public.company_members ${transaction(removed)}`;
  });
}

async function changeRole({ sql, pick }: Context, { id }: Person): Promise<undefined> {
  await sql`update public.company_members set position = ${pick(["guest", "member", "admin"])} where user_id = ${id}`;
}

/** What an operator does in the database, of which the next run tells the Auth server. */
async function place({ sql, pick }: Context, { id, known }: Person): Promise<undefined> {
  const to = known ? pick([...known.members, null]) : pick(organizations);
  await sql.begin(async (transaction) => {
    const [membership] = await transaction`
      select from tenancy.memberships where (user_id, org_id) = (${id}, ${to}) for key share
    `;
    if (membership) await transaction`update tenancy.user_orgs set org_id = ${to} where user_id = ${id}`;
  });
  if (known && to !== null) known.active = to;
}

async function refreshToken(context: Context, person: Person): Promise<string | undefined> {
  const { known } = person;
  const body = known && person.refreshToken
    ? { refresh_token: person.refreshToken }
    : { email: person.email, password };
  const grant = "refresh_token" in body ? "refresh_token" : "password";
  const response = await post(context, `/auth/v1/token?grant_type=${grant}`, body);
  const reply = await response.json() as Record<string, string>;
  if (!response.ok) throw new Error(`a token: ${JSON.stringify(reply)}`);
  person.refreshToken = reply["refresh_token"] ?? "";
  if (!known || !context.withHook) return undefined;
  const { app_metadata: metadata } = decodeJwt<{ app_metadata: { org_id?: string } }>(reply["access_token"] ?? "");
  const given = metadata.org_id ?? null;
  return given === known.active ? undefined : `a token for ${given} instead of ${known.active}`;
}

/** One call of the function; true if it says that it is done. While another one is at work it refuses. */
async function callFunction(context: Context, name: string): Promise<boolean> {
  const { counts, wrong } = context;
  const response = await post(context, `/functions/v1/${functionName}`, { on_conflict: "overwrite", page_size: 25 });
  const reply = await response.json() as Record<string, unknown>;
  if (response.status === 409) return false;
  counts["calls of the function"] = (counts["calls of the function"] ?? 0) + 1;
  if (!response.ok) wrong.push(`${name}: ${JSON.stringify(reply)}`);
  return reply["done"] === true;
}

/** Users whose app_metadata is not what user_orgs says. */
const findStale = async (sql: ISql) =>
  await sql<{ id: string; active: string | null; claim: string | null }[]>`
    select users.id, user_orgs.org_id as active, users.raw_app_meta_data ->> 'org_id' as claim
    from auth.users
    left join tenancy.user_orgs on user_orgs.user_id = users.id
    where users.raw_app_meta_data ->> 'org_id' is distinct from user_orgs.org_id::text
  `;

async function findWrong({ sql, everyone, withHook }: Context): Promise<string[]> {
  const found = await sql<{ id: string; active: string | null; isMember: boolean; token: string | null }[]>`
    select
      users.id, user_orgs.org_id as active,
      exists (
        select from public.company_members as own
        where (own.user_id, own.company_id) = (users.id, user_orgs.org_id)
      ) as "isMember",
      tenancy.add_org_id_to_token(
        jsonb_build_object('user_id', users.id, 'claims', jsonb_build_object('app_metadata', users.raw_app_meta_data))
      ) #>> '{claims,app_metadata,org_id}' as token
    from auth.users
    left join tenancy.user_orgs on user_orgs.user_id = users.id
  `;
  const known = new Map(everyone.flatMap(({ id, known }) => known ? [[id, known.active]] : []));
  const stale = withHook ? [] : await findStale(sql);
  const differing = await sql`
    (select user_id, company_id, position from public.company_members except select user_id, org_id, role from tenancy.memberships)
    union all
    (select user_id, org_id, role from tenancy.memberships except select user_id, company_id, position from public.company_members)
  `;
  return [
    ...found.flatMap(({ id, active, isMember, token }) => [
      ...(active !== null && !isMember ? [`${id}: is in ${active} without being a member`] : []),
      ...(token !== active ? [`${id}: has a token for ${token} and is in ${active}`] : []),
      ...(known.has(id) && known.get(id) !== active ? [`${id}: is in ${active} instead of ${known.get(id)}`] : []),
    ]),
    ...stale.map(({ id, active, claim }) => `${id}: app_metadata has ${claim}, and the user is in ${active}`),
    ...differing.map((row) => `${row["user_id"]}: the membership of ${row["company_id"] ?? row["org_id"]} differs`),
    ...(found.length === everyone.length ? [] : [`${everyone.length} signed up, and ${found.length} are there`]),
  ];
}
