/**
 * What an Auth server does with the custom access token hook, and what it does when the hook fails. The checks need a server that
 * has tenancy.add_org_id_to_token switched on, and the database behind it.
 */
import assert from "node:assert/strict";
import type { Sql } from "postgres";
import { password, post, type Reply, send, withUser } from "./auth-contract.ts";
import { newEmail, newPhone, openLink, orgOfToken, type SignUpCheck, type SignUpTarget } from "./sign-up-contract.ts";

interface Member {
  id: string;
  email: string;
  refreshToken: string;
  /** Somebody who has signed up, and not yet opened the link in the mail. */
  unconfirmedId: string;
}

const [first, second] = ["c0000000-0000-4000-8000-000000000001", "c0000000-0000-4000-8000-000000000002"];

const signIn = async (target: SignUpTarget, email: string) =>
  await send(target, "POST", "/token?grant_type=password", { body: { email, password } });
const refresh = async (target: SignUpTarget, token: string) =>
  await send(target, "POST", "/token?grant_type=refresh_token", { body: { refresh_token: token } });

async function moveTo(sql: Sql, id: string, organization: string | null): Promise<void> {
  await sql`
    insert into tenancy.user_orgs (user_id, org_id)
    values (${id}, ${organization})
    on conflict (user_id) do update set org_id = excluded.org_id
  `;
}

/** Tries something with a user who is in the first of two organizations, and has no organization in app_metadata. */
async function withMember(target: SignUpTarget, attempt: (member: Member) => Promise<void>): Promise<void> {
  const { sql } = target;
  await sql`insert into public.organizations (id, name) values (${first}, 'contract 1'), (${second}, 'contract 2')`;
  try {
    await withUser(target, {}, async (id, email) => {
      await moveTo(sql, id, first);
      const { id: unconfirmedId } = await post(target, "/invite", { email: newEmail() });
      try {
        const session = await post(target, "/token?grant_type=password", { email, password });
        await attempt({ id, email, refreshToken: session.refresh_token, unconfirmedId });
      } finally {
        await send(target, "DELETE", `/admin/users/${unconfirmedId}`);
        await sql`delete from tenancy.user_orgs where user_id = ${id}`;
      }
    });
  } finally {
    await sql`delete from public.organizations where id in (${first}, ${second})`;
  }
}

/** What makes the hook fail, and what ends that. */
const failures = [
  {
    name: "may not be called",
    begin: "revoke execute on function tenancy.add_org_id_to_token(jsonb) from supabase_auth_admin",
    end: "grant execute on function tenancy.add_org_id_to_token(jsonb) to supabase_auth_admin",
  },
  {
    name: "is in a schema that may not be used",
    begin: "revoke usage on schema tenancy from supabase_auth_admin",
    end: "grant usage on schema tenancy to supabase_auth_admin",
  },
  {
    name: "is gone, or has another name",
    begin: "alter function tenancy.add_org_id_to_token(jsonb) rename to contract_renamed",
    end: "alter function tenancy.contract_renamed(jsonb) rename to add_org_id_to_token",
  },
];

const assertHookFailed = ({ status, body }: Reply) =>
  assert.deepEqual([status, body.error_code, body.msg], [
    500,
    "unexpected_failure",
    "Error running hook URI: pg-functions://postgres/tenancy/add_org_id_to_token",
  ]);

async function countUsers(sql: Sql): Promise<number> {
  const [row] = await sql`select count(*)::integer as count from auth.users`;
  return row?.["count"] as number;
}

async function assertNobodySignsIn(target: SignUpTarget, member: Member): Promise<void> {
  assertHookFailed(await signIn(target, member.email));
  assertHookFailed(await refresh(target, member.refreshToken));
  await assert.rejects(openLink(target, member.unconfirmedId, "invite"), /Error running hook URI/);
  const before = await countUsers(target.sql);
  assert.equal((await send(target, "POST", "/signup", { body: {} })).status, 500);
  assert.equal(await countUsers(target.sql), before, "an anonymous sign-up leaves nobody");
  const phone = newPhone();
  assertHookFailed(await send(target, "POST", "/signup", { body: { phone, password } }));
  const [left] = await target.sql`delete from auth.users where phone = ${phone} returning id`;
  assert.ok(left, "a sign-up by phone leaves the user, without a session");
}

/** Goes on while another transaction holds this table against everybody. */
async function whileLocked(sql: Sql, table: string, attempt: () => Promise<void>): Promise<void> {
  const other = await sql.reserve();
  try {
    await other`begin`;
    await other.unsafe(`lock table ${table} in access exclusive mode`);
    await attempt();
  } finally {
    await other`rollback`;
    other.release();
  }
}

export const hookContract: SignUpCheck[] = [
  {
    name: "the hook gives the first token and each refreshed one the organization of then, and the user's row none",
    run: async (target) =>
      await withMember(target, async ({ id, email, refreshToken }) => {
        const session = await signIn(target, email);
        assert.equal(orgOfToken(session.body.access_token), first);
        await moveTo(target.sql, id, second);
        const { body } = await refresh(target, refreshToken);
        assert.equal(orgOfToken(body.access_token), second);
        await moveTo(target.sql, id, null);
        assert.equal(orgOfToken((await refresh(target, body.refresh_token)).body.access_token), null);
        const user = await send(target, "GET", "/user", { token: session.body.access_token });
        assert.deepEqual(user.body.app_metadata, { provider: "email", providers: ["email"] });
      }),
  },
  ...failures.map(({ name, begin, end }): SignUpCheck => ({
    name: `while the hook ${name}, nobody signs in, signs up or refreshes; afterwards sessions and links go on`,
    run: async (target) =>
      await withMember(target, async (member) => {
        await target.sql.unsafe(begin);
        try {
          await assertNobodySignsIn(target, member);
        } finally {
          await target.sql.unsafe(end);
        }
        const { status, body } = await refresh(target, member.refreshToken);
        assert.deepEqual([status, orgOfToken(body.access_token)], [200, first]);
        await openLink(target, member.unconfirmedId, "invite");
      }),
  })),
  ...["tenancy.user_orgs", "tenancy.memberships", "tenancy.settings"].map((table): SignUpCheck => ({
    name: `while ${table} is locked, tokens have no organization, and nobody waits`,
    run: async (target) =>
      await withMember(target, async ({ email, refreshToken }) => {
        await whileLocked(target.sql, table, async () => {
          for (const { status, body } of [await signIn(target, email), await refresh(target, refreshToken)]) {
            assert.deepEqual([status, orgOfToken(body.access_token)], [200, null]);
          }
        });
        assert.equal(orgOfToken((await signIn(target, email)).body.access_token), first);
      }),
  })),
];
