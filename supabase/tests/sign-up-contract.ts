/**
 * Which organization new users end in, by each way of signing up: the one that settings.new_users says, also after the Auth
 * server has written app_metadata as it remembers it. The checks need the database behind the server, with nobody in it.
 */
import assert from "node:assert/strict";
import { randomInt, randomUUID } from "node:crypto";
import { decodeJwt } from "jose";
import type { Sql } from "postgres";
import { type AuthTarget, type ContractCheck, dated, password, post, send } from "./auth-contract.ts";
import type { Issuer } from "./id-tokens.ts";

export interface SignUpTarget extends AuthTarget {
  /** A connection as postgres to the database behind the server. */
  sql: Sql;
  /** Whose id tokens the server accepts; null: it accepts those of nobody. */
  issuer: Issuer | null;
}

/** Somebody who signed up, with each token that they were given on the way. */
interface SignedUp {
  id: string;
  tokens: string[];
  providers: string[];
}

export interface SignUpCheck extends Pick<ContractCheck, "name"> {
  run(target: SignUpTarget): Promise<void>;
}

interface Session {
  access_token: string;
  refresh_token: string;
  user: { id: string };
}

interface Linked {
  session: Session;
  providers: string[];
}

interface Way {
  name: string;
  signUp(target: SignUpTarget): Promise<SignedUp>;
}

export const newEmail = () => `contract-${randomUUID()}@example.com`;
export const newPhone = () => `1555${String(randomInt(10_000_000)).padStart(7, "0")}`;

/** Opens the link that the server has mailed, by what it keeps of it. Returns the session that this gives. */
export async function openLink(
  target: SignUpTarget,
  id: string,
  type: "signup" | "invite" | "email_change",
): Promise<Session> {
  const [row] = await target.sql`
    select case when ${type} = 'email_change' then email_change_token_new else confirmation_token end as hash
    from auth.users
    where id = ${id}
  `;
  return await post(target, "/verify", { type, token_hash: row?.["hash"] });
}

async function signIn(target: SignUpTarget, email: string): Promise<string> {
  return (await post(target, "/token?grant_type=password", { email, password })).access_token;
}

async function signInByIdToken(
  target: SignUpTarget,
  subject: string,
  email: string,
  linkTo?: string,
): Promise<Session> {
  assert.ok(target.issuer);
  return await post(target, "/token?grant_type=id_token", {
    id_token: await target.issuer.issue(subject, email),
    issuer: target.issuer.url,
    client_id: "contract",
    ...(linkTo === undefined ? {} : { link_identity: true }),
  }, linkTo);
}

async function signUpByEmail(target: SignUpTarget, email: string): Promise<SignedUp> {
  const body = await post(target, "/signup", { email, password });
  // Where the project does not ask for a confirmation, there is a session at once.
  const id = body.user?.id ?? body.id;
  const first = body.access_token ? body : await openLink(target, id, "signup");
  return { id, tokens: [first.access_token, await signIn(target, email)], providers: ["email"] };
}

async function createUser(target: SignUpTarget, metadata?: Record<string, string>): Promise<SignedUp> {
  const email = newEmail();
  const attributes = { email, password, email_confirm: true, ...metadata ? { app_metadata: metadata } : {} };
  const { id } = await post(target, "/admin/users", attributes);
  return { id, tokens: [await signIn(target, email)], providers: ["email"] };
}

const signUps: Way[] = [
  { name: "a sign-up by email", signUp: async (target) => await signUpByEmail(target, newEmail()) },
  {
    name: "a sign-up by phone",
    signUp: async (target) => {
      const body = await post(target, "/signup", { phone: newPhone(), password });
      assert.ok(body.access_token, "the project has to confirm phone numbers by itself: GOTRUE_SMS_AUTOCONFIRM");
      return { id: body.user.id, tokens: [body.access_token], providers: ["phone"] };
    },
  },
  {
    name: "an invitation",
    signUp: async (target) => {
      const { id } = await post(target, "/invite", { email: newEmail() });
      return { id, tokens: [(await openLink(target, id, "invite")).access_token], providers: ["email"] };
    },
  },
  ...[undefined, {}, { plan: "pro" }].map((metadata): Way => ({
    name: `a user whom an administrator creates with ${metadata ? JSON.stringify(metadata) : "no"} app_metadata`,
    signUp: async (target) => await createUser(target, metadata),
  })),
];

const idTokenSignUps: Way[] = [
  {
    name: "a sign-up by id token",
    signUp: async (target) => {
      const [subject, email] = [randomUUID(), newEmail()];
      const first = await signInByIdToken(target, subject, email);
      const second = await signInByIdToken(target, subject, email);
      return {
        id: first.user.id,
        tokens: [first.access_token, second.access_token],
        providers: [target.issuer?.url ?? ""],
      };
    },
  },
  {
    name: "a sign-up by email, then an id token of the same address",
    signUp: async (target) => {
      const email = newEmail();
      const { id, tokens } = await signUpByEmail(target, email);
      const session = await signInByIdToken(target, randomUUID(), email);
      return { id, tokens: [...tokens, session.access_token], providers: ["email", target.issuer?.url ?? ""] };
    },
  },
];

/** How an anonymous user gets an identity. Returns the providers, and the session that this gives. */
const links: { name: string; link(target: SignUpTarget, anonymous: Session): Promise<Linked> }[] = [
  {
    name: "an email address",
    link: async (target, { access_token: token, user }) => {
      await post(target, "/user", { email: newEmail() }, token, "PUT");
      return { session: await openLink(target, user.id, "email_change"), providers: ["email"] };
    },
  },
  {
    name: "a phone number",
    link: async (target, session) => {
      await post(target, "/user", { phone: newPhone() }, session.access_token, "PUT");
      // The Auth server adds the identity, and does not write down its provider.
      return { session, providers: [] };
    },
  },
];

const idTokenLinks: typeof links = [
  {
    name: "an id token",
    link: async (target, { access_token: token }) => ({
      session: await signInByIdToken(target, randomUUID(), newEmail(), token),
      providers: [target.issuer?.url ?? ""],
    }),
  },
];

/** What settings.new_users says. */
const choices = ["default", "personal", "application"] as const;
type NewUsers = typeof choices[number];

/** The organization that the application gives its new users, where that is left to it. */
const ours = "c0000000-0000-4000-8000-00000000c0de";

/**
 * Tries something while settings.new_users says this, beside an application that writes down the organization of each new user as
 * it sees it, and that places them where that is left to it. Puts everything back.
 */
async function whileNewUsersAre(
  sql: Sql,
  mode: NewUsers,
  anonymous: boolean,
  attempt: () => Promise<void>,
): Promise<void> {
  const [before = {}] = await sql`select new_users, new_users_anonymous from tenancy.settings`;
  await sql.unsafe(`
    create table public.contract_organizations as select id from public.organizations;
    insert into public.organizations (id, name) values ('${ours}', 'contract');
    create table public.contract_sign_ups (user_id uuid, org_id text);
    create function public.contract_place() returns trigger language plpgsql as $$ begin
        new.raw_app_meta_data := new.raw_app_meta_data || '{"org_id": "${ours}"}';
        return new;
    end $$;
    create function public.contract_write() returns trigger language plpgsql security definer set search_path = '' as $$ begin
        insert into public.contract_sign_ups values (new.id, new.raw_app_meta_data ->> 'org_id');
        return new;
    end $$;
    create trigger contract_write before insert on auth.users for each row execute function public.contract_write();
  `).simple();
  try {
    if (mode === "application") {
      await sql`
        create trigger contract_place before insert on auth.users for each row execute function public.contract_place()
      `;
    }
    await sql`select tenancy.enable_new_users(${mode}, ${anonymous})`;
    await attempt();
  } finally {
    await sql`delete from auth.users where id in (select user_id from public.contract_sign_ups)`;
    await sql.unsafe(`
      delete from tenancy.user_orgs where user_id in (select user_id from public.contract_sign_ups);
      delete from public.organizations where id not in (select id from public.contract_organizations);
      drop function public.contract_place(), public.contract_write() cascade;
      drop table public.contract_sign_ups, public.contract_organizations;
    `).simple();
    await sql`update tenancy.settings set ${sql(before)}`;
  }
}

interface Outcome {
  /** What the application saw when the user was inserted. */
  seen: string | null;
  stored: string | null;
  /** What tenancy goes by. */
  placed: string | null;
  tokens: (string | null)[];
  providers: string[];
}

async function outcomeOf(sql: Sql, { id, tokens }: SignedUp): Promise<Outcome> {
  const [row] = await sql<(Omit<Outcome, "tokens">)[]>`
    select
      (select org_id from public.contract_sign_ups where user_id = users.id) as seen,
      raw_app_meta_data ->> 'org_id' as stored,
      tenancy.org_of(id) as placed,
      coalesce(raw_app_meta_data -> 'providers', '[]') as providers
    from auth.users
    where id = ${id}
  `;
  assert.ok(row);
  return { ...row, tokens: tokens.map(orgOfToken) };
}

export function orgOfToken(token: string): string | null {
  const metadata = decodeJwt(token)["app_metadata"] as Record<string, string> | undefined;
  return metadata?.["org_id"] ?? null;
}

/** The organization that a user is to end in. */
async function organizationFor(sql: Sql, mode: NewUsers, id: string): Promise<string> {
  if (mode === "application") return ours;
  const [row] = mode === "default" ? await sql`select default_org_id as id from tenancy.settings` : await sql`
      select user_orgs.org_id as id
      from tenancy.user_orgs
      join public.organizations on organizations.id = user_orgs.org_id
      where user_id = ${id} and org_id <> (select default_org_id from tenancy.settings)
    `;
  assert.ok(row, "has no organization of their own");
  return row["id"] as string;
}

/** The checks of ways to sign up; those by id token only where there is an issuer. */
export function signUpContract(withIdTokens: boolean): SignUpCheck[] {
  const ways = [...signUps, ...(withIdTokens ? idTokenSignUps : [])];
  const linking = [...links, ...(withIdTokens ? idTokenLinks : [])];
  return [
    ...choices.flatMap((mode) => [
      ...ways.map((way) => signUpCheck(mode, way)),
      namedOrganizationCheck(mode),
      ...linking.flatMap((way) => [linkCheck(mode, true, way), linkCheck(mode, false, way)]),
    ]),
    refusalCheck,
  ];
}

const refusalCheck: SignUpCheck = {
  name:
    "whom a trigger of the application refuses is not there, and only clients of the first API version are told why",
  run: async (target) =>
    await whileNewUsersAre(target.sql, "personal", false, async () => {
      await target.sql.unsafe(`
        create function public.contract_refuse() returns trigger language plpgsql as $$ begin
            raise exception 'not you' using hint = 'nor anyone';
        end $$;
        create trigger contract_refuse before insert on auth.users for each row execute function public.contract_refuse();
      `).simple();
      try {
        const sign = async (headers: Record<string, string>) =>
          await send(target, "POST", "/signup", { body: { email: newEmail(), password }, headers });
        const first = await sign({});
        assert.deepEqual([first.status, first.body], [500, { code: "P0001", message: "not you", hint: "nor anyone" }]);
        const { status, body } = await sign(dated);
        assert.deepEqual([status, body], [500, {
          code: "unexpected_failure",
          message: "Database error saving new user",
        }]);
      } finally {
        await target.sql`drop function public.contract_refuse() cascade`;
      }
      assert.deepEqual([...await target.sql`select id from public.organizations where name like 'contract-%'`], []);
    }),
};

function signUpCheck(mode: NewUsers, { name, signUp }: Way): SignUpCheck {
  return {
    name: `${name} ends in the organization of new_users = '${mode}'`,
    run: async (target) =>
      await whileNewUsersAre(target.sql, mode, false, async () => {
        const user = await signUp(target);
        const org = await organizationFor(target.sql, mode, user.id);
        assert.deepEqual(await outcomeOf(target.sql, user), {
          seen: org,
          stored: org,
          placed: org,
          tokens: user.tokens.map(() => org),
          providers: user.providers,
        });
      }),
  };
}

function namedOrganizationCheck(mode: NewUsers): SignUpCheck {
  return {
    name: `a user whom an administrator creates with an organization keeps that, whatever new_users = '${mode}' says`,
    run: async (target) =>
      await whileNewUsersAre(target.sql, mode, false, async () => {
        const { stored, placed, tokens } = await outcomeOf(target.sql, await createUser(target, { org_id: ours }));
        assert.deepEqual({ stored, placed, tokens }, { stored: ours, placed: ours, tokens: [ours] });
      }),
  };
}

function linkCheck(mode: NewUsers, anonymous: boolean, { name, link }: typeof links[number]): SignUpCheck {
  return {
    name:
      `an anonymous user, ${anonymous ? "for whom it counts" : "in no organization"}, who adds ${name} ends in the` +
      ` organization of new_users = '${mode}'`,
    run: async (target) =>
      await whileNewUsersAre(target.sql, mode, anonymous, async () => {
        const anonymousSession: Session = await post(target, "/signup", {});
        const { access_token: token, user: { id } } = anonymousSession;
        const { session, providers } = await link(target, anonymousSession);
        const refreshed = await post(target, "/token?grant_type=refresh_token", {
          refresh_token: session.refresh_token,
        });
        const org = await organizationFor(target.sql, mode, id);
        // The application of these checks places anonymous users like all others.
        const first = anonymous || mode === "application" ? org : null;
        assert.deepEqual(await outcomeOf(target.sql, { id, tokens: [token, refreshed.access_token], providers }), {
          seen: first,
          stored: org,
          placed: org,
          tokens: [first, org],
          providers,
        });
      }),
  };
}
