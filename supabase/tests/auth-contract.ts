/**
 * What this project relies on of an Auth server, each as a check that runs over HTTP alone. The stand-in passes them in
 * npm test; any live server can be held against them. They create users of their own and delete them again.
 */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { decodeJwt } from "jose";

export interface AuthTarget {
  /** The address in front of /admin and /token: https://<ref>.supabase.co/auth/v1, or a bare server's own. */
  url: string;
  /** A secret key, the service_role key, or on a bare server a JWT of the role service_role. */
  key: string;
}

export interface ContractCheck {
  name: string;
  run(target: AuthTarget): Promise<void>;
}

export interface Reply {
  status: number;
  headers: Headers;
  // deno-lint-ignore no-explicit-any
  body: any;
}

export const password = `a password of 32 letters ${randomUUID()}`;

/** Asks the server, with the target's key unless another token, or none, is given. */
export async function send(
  target: AuthTarget,
  method: string,
  path: string,
  options: { body?: unknown; token?: string | null; headers?: Record<string, string> } = {},
): Promise<Reply> {
  const token = options.token === undefined ? target.key : options.token;
  const response = await fetch(`${target.url}${path}`, {
    method,
    headers: {
      "content-type": "application/json",
      ...(token === target.key ? { apikey: target.key } : {}),
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      ...options.headers,
    },
    ...(options.body === undefined
      ? {}
      : { body: typeof options.body === "string" ? options.body : JSON.stringify(options.body) }),
  });
  const text = await response.text();
  let body: unknown = text;
  try {
    body = JSON.parse(text);
  } catch {
    // Not every answer is JSON: a router's own 404 is text.
  }
  return { status: response.status, headers: response.headers, body };
}

/** Sends what has to succeed, and returns the body. */
export async function post(
  target: AuthTarget,
  path: string,
  body: unknown,
  token?: string,
  method = "POST",
): Promise<Reply["body"]> {
  const reply = await send(target, method, path, { body, ...(token === undefined ? {} : { token }) });
  assert.equal(reply.status, 200, `${method} ${path}: ${JSON.stringify(reply.body)}`);
  return reply.body;
}

/** Creates a user for one check and deletes it afterwards, whatever happens. */
export async function withUser(
  target: AuthTarget,
  attributes: Record<string, unknown>,
  check: (id: string, email: string) => Promise<void>,
): Promise<void> {
  const email = `contract-${randomUUID()}@example.com`;
  const created = await send(target, "POST", "/admin/users", {
    body: { email, password, email_confirm: true, ...attributes },
  });
  assert.equal(created.status, 200, JSON.stringify(created.body));
  try {
    await check(created.body.id, email);
  } finally {
    await send(target, "DELETE", `/admin/users/${created.body.id}`);
  }
}

const unknownId = "00000000-0000-4000-8000-00000000dead";
/** What clients of the second API version send. */
export const dated = { "x-supabase-api-version": "2024-01-01" };

export const authContract: ContractCheck[] = [
  {
    name: "POST /admin/users answers 200 with the user, app_metadata and provider together",
    run: (target) =>
      withUser(target, { app_metadata: { plan: "pro" } }, async (id, email) => {
        const { status, body } = await send(target, "GET", `/admin/users/${id}`);
        assert.equal(status, 200);
        assert.equal(body.email, email);
        assert.equal(body.aud, "authenticated");
        assert.deepEqual(body.app_metadata, { plan: "pro", provider: "email", providers: ["email"] });
      }),
  },
  {
    name: "POST /admin/users refuses an email twice with 422 email_exists",
    run: (target) =>
      withUser(target, {}, async (_id, email) => {
        const { status, body } = await send(target, "POST", "/admin/users", { body: { email } });
        assert.deepEqual([status, body.error_code], [422, "email_exists"]);
      }),
  },
  {
    name: "PUT merges app_metadata by top-level key: given keys replace, null deletes, others stay",
    run: (target) =>
      withUser(target, { app_metadata: { plan: "pro", nested: { a: 1, b: 2 } } }, async (id) => {
        const first = await send(target, "PUT", `/admin/users/${id}`, {
          body: { app_metadata: { org_id: "x", plan: null, nested: { c: 3 } } },
        });
        assert.equal(first.status, 200);
        const expected = { provider: "email", providers: ["email"], org_id: "x", nested: { c: 3 } };
        assert.deepEqual(first.body.app_metadata, expected);
        assert.deepEqual((await send(target, "GET", `/admin/users/${id}`)).body.app_metadata, expected);
      }),
  },
  {
    name: "PUT without app_metadata, or with null, leaves it as it is",
    run: (target) =>
      withUser(target, { app_metadata: { plan: "pro" } }, async (id) => {
        for (const body of [{}, { app_metadata: null }, "null"]) {
          const reply = await send(target, "PUT", `/admin/users/${id}`, { body });
          assert.equal(reply.status, 200);
          assert.equal(reply.body.app_metadata.plan, "pro");
        }
      }),
  },
  {
    name: "PUT does not touch user_metadata",
    run: (target) =>
      withUser(target, { user_metadata: { color: "red" } }, async (id) => {
        const { body } = await send(target, "PUT", `/admin/users/${id}`, { body: { app_metadata: { org_id: "x" } } });
        assert.equal(body.user_metadata.color, "red");
      }),
  },
  {
    name: "PUT moves updated_at, also when the value is the same",
    run: (target) =>
      withUser(target, { app_metadata: { org_id: "x" } }, async (id) => {
        const before = await send(target, "GET", `/admin/users/${id}`);
        const after = await send(target, "PUT", `/admin/users/${id}`, { body: { app_metadata: { org_id: "x" } } });
        assert.notEqual(after.body.updated_at, before.body.updated_at);
      }),
  },
  {
    name: "an unknown user is 404 user_not_found, for GET, PUT and DELETE",
    run: async (target) => {
      for (const method of ["GET", "PUT", "DELETE"]) {
        const { status, body } = await send(target, method, `/admin/users/${unknownId}`, {
          ...(method === "PUT" ? { body: {} } : {}),
        });
        assert.deepEqual([method, status, body.error_code, body.msg], [
          method,
          404,
          "user_not_found",
          "User not found",
        ]);
      }
    },
  },
  {
    name: "an id that is no UUID is 404 validation_failed",
    run: async (target) => {
      const { status, body } = await send(target, "PUT", "/admin/users/nobody", { body: {} });
      assert.deepEqual([status, body.error_code, body.msg], [404, "validation_failed", "user_id must be an UUID"]);
    },
  },
  {
    name: "errors have code and message where the client sends API version 2024-01-01",
    run: async (target) => {
      const { status, body } = await send(target, "PUT", `/admin/users/${unknownId}`, { body: {}, headers: dated });
      assert.deepEqual([status, body], [404, { code: "user_not_found", message: "User not found" }]);
    },
  },
  {
    name: "a body that is no JSON, no object, or has app_metadata that is none, is 400 bad_json",
    run: (target) =>
      withUser(target, {}, async (id) => {
        for (const body of ["{", "[]", { app_metadata: "x" }, { app_metadata: [] }]) {
          const reply = await send(target, "PUT", `/admin/users/${id}`, { body });
          assert.deepEqual([reply.status, reply.body.error_code], [400, "bad_json"], JSON.stringify(body));
        }
      }),
  },
  {
    name: "the admin API is 401 without a token, 403 with a broken one, 403 not_admin with a user's",
    run: (target) =>
      withUser(target, {}, async (id, email) => {
        const none = await send(target, "GET", `/admin/users/${id}`, { token: null });
        assert.equal(none.status, 401);
        const broken = await send(target, "GET", `/admin/users/${id}`, { token: "broken" });
        assert.ok([401, 403].includes(broken.status), String(broken.status));
        const session = await send(target, "POST", "/token?grant_type=password", { body: { email, password } });
        const user = await send(target, "GET", `/admin/users/${id}`, { token: session.body.access_token });
        assert.deepEqual([user.status, user.body.error_code], [403, "not_admin"]);
      }),
  },
  {
    name: "GET /admin/users lists the newest first, by page and per_page, with the total in a header",
    run: (target) =>
      withUser(target, {}, (first) =>
        withUser(target, {}, async (second) => {
          const one = await send(target, "GET", "/admin/users?page=1&per_page=1");
          assert.equal(one.status, 200);
          assert.deepEqual(one.body.users.map((user: { id: string }) => user.id), [second]);
          const two = await send(target, "GET", "/admin/users?page=2&per_page=1");
          assert.deepEqual(two.body.users.map((user: { id: string }) => user.id), [first]);
          assert.ok(Number(one.headers.get("x-total-count")) >= 2);
          assert.match(one.headers.get("link") ?? "", /page=2.*rel="next".*rel="last"/);
        })),
  },
  {
    name: "a page past the end is empty, and a page that is no number is 400",
    run: async (target) => {
      const past = await send(target, "GET", "/admin/users?page=1000000&per_page=1000");
      assert.deepEqual([past.status, past.body.users], [200, []]);
      const bad = await send(target, "GET", "/admin/users?page=x");
      assert.deepEqual([bad.status, bad.body.error_code], [400, "validation_failed"]);
    },
  },
  {
    name: "sign-in gives a JWT with app_metadata, and a refresh reads it again from the user",
    run: (target) =>
      withUser(target, {}, async (id, email) => {
        const session = await send(target, "POST", "/token?grant_type=password", { body: { email, password } });
        assert.equal(session.status, 200, JSON.stringify(session.body));
        assert.equal(session.body.token_type, "bearer");
        const before = decodeJwt(session.body.access_token);
        assert.equal(before.sub, id);
        assert.equal(before["role"], "authenticated");
        assert.equal((before["app_metadata"] as Record<string, unknown>)["org_id"], undefined);

        await send(target, "PUT", `/admin/users/${id}`, { body: { app_metadata: { org_id: "x" } } });
        const refreshed = await send(target, "POST", "/token?grant_type=refresh_token", {
          body: { refresh_token: session.body.refresh_token },
        });
        assert.equal(refreshed.status, 200, JSON.stringify(refreshed.body));
        const after = decodeJwt(refreshed.body.access_token);
        assert.equal((after["app_metadata"] as Record<string, unknown>)["org_id"], "x");
        assert.equal(after["session_id"], before["session_id"]);
        assert.notEqual(refreshed.body.refresh_token, session.body.refresh_token);
      }),
  },
  {
    name: "GET /user shows the row as it is, before the token has it",
    run: (target) =>
      withUser(target, {}, async (id, email) => {
        const session = await send(target, "POST", "/token?grant_type=password", { body: { email, password } });
        await send(target, "PUT", `/admin/users/${id}`, { body: { app_metadata: { org_id: "x" } } });
        const { status, body } = await send(target, "GET", "/user", { token: session.body.access_token });
        assert.equal(status, 200);
        assert.equal(body.app_metadata.org_id, "x");
      }),
  },
  {
    name: "sign-in refuses a wrong password, an unknown email and an unknown grant with 400",
    run: (target) =>
      withUser(target, {}, async (_id, email) => {
        const wrong = await send(target, "POST", "/token?grant_type=password", { body: { email, password: "wrong" } });
        assert.deepEqual([wrong.status, wrong.body.error_code], [400, "invalid_credentials"]);
        const unknown = await send(target, "POST", "/token?grant_type=password", {
          body: { email: `nobody-${randomUUID()}@example.com`, password },
        });
        assert.deepEqual([unknown.status, unknown.body.error_code], [400, "invalid_credentials"]);
        const grant = await send(target, "POST", "/token?grant_type=magic", { body: {} });
        assert.deepEqual([grant.status, grant.body.error_code], [400, "invalid_credentials"]);
      }),
  },
  {
    name: "a refresh token that is none is 400",
    run: async (target) => {
      const malformed = await send(target, "POST", "/token?grant_type=refresh_token", {
        body: { refresh_token: "nope" },
      });
      assert.deepEqual([malformed.status, malformed.body.error_code], [400, "validation_failed"]);
      const unknown = await send(target, "POST", "/token?grant_type=refresh_token", {
        body: { refresh_token: "abcdefghijkl" },
      });
      assert.deepEqual([unknown.status, unknown.body.error_code], [400, "refresh_token_not_found"]);
    },
  },
  {
    name: "DELETE answers 200 with {} and the user is gone",
    run: (target) =>
      withUser(target, {}, async (id) => {
        const gone = await send(target, "DELETE", `/admin/users/${id}`);
        assert.deepEqual([gone.status, gone.body], [200, {}]);
        assert.equal((await send(target, "GET", `/admin/users/${id}`)).status, 404);
      }),
  },
  {
    name: "a soft delete keeps the user, empties app_metadata, and ends sign-in",
    run: (target) =>
      withUser(target, { app_metadata: { org_id: "x" } }, async (id, email) => {
        await send(target, "DELETE", `/admin/users/${id}`, { body: { should_soft_delete: true } });
        const { status, body } = await send(target, "GET", `/admin/users/${id}`);
        assert.equal(status, 200);
        assert.deepEqual(body.app_metadata, {});
        assert.ok(body.deleted_at);
        const session = await send(target, "POST", "/token?grant_type=password", { body: { email, password } });
        assert.equal(session.status, 400);
        const updated = await send(target, "PUT", `/admin/users/${id}`, { body: { app_metadata: { org_id: "y" } } });
        assert.deepEqual([updated.status, updated.body.app_metadata], [200, { org_id: "y" }]);
      }),
  },
  {
    name: "POST to a user's own address is 405",
    run: (target) =>
      withUser(target, {}, async (id) => {
        assert.equal((await send(target, "POST", `/admin/users/${id}`, { body: {} })).status, 405);
      }),
  },
];
