/** The admin API over users: list, create, read, update, delete. */
import { randomUUID } from "node:crypto";
import { AuthError, authorize, type AuthReply, type Call, readBody, readObject, reply } from "./auth-call.ts";
import { asUser, identitiesOf, loadUser, nilId, userJson, type UserRow } from "./auth-rows.ts";
import { audit, confirmEmail, insertIdentity, insertUser, mergeMetadata, updateAppMetadata } from "./auth-writes.ts";

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export async function listUsers(call: Call): Promise<AuthReply> {
  await authorize(call, true);
  const parameters = call.request.url.searchParams;
  const read = (name: string, fallback: number) => {
    const text = parameters.get(name) ?? "";
    if (text === "") return fallback;
    if (!/^\d+$/.test(text)) {
      throw new AuthError(
        400,
        "validation_failed",
        `Bad Pagination Parameters: strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`,
      );
    }
    return Number(text);
  };
  const page = Math.max(read("page", 1), 1);
  const perPage = read("per_page", 50);
  if (perPage === 0) throw new AuthError(500, "unexpected_failure", "Internal Server Error");
  const rows = await call.sql`
    select * from auth.users
    where instance_id = ${nilId} and aud = 'authenticated'
    order by created_at desc
    limit ${perPage} offset ${(page - 1) * perPage}
  `;
  const [counted] = await call.sql<{ total: number }[]>`
    select count(*)::integer as total from auth.users where instance_id = ${nilId} and aud = 'authenticated'
  `;
  const total = counted?.total ?? 0;
  const lastPage = Math.max(Math.ceil(total / perPage), 1);
  const link = (target: number, relation: string) => {
    const url = new URL(call.request.url);
    url.searchParams.set("page", String(target));
    return `<${url.pathname}${url.search}>; rel="${relation}"`;
  };
  return reply(
    { users: rows.map((row) => userJson(asUser(row, "Database error finding users"), null)), aud: "authenticated" },
    {
      link: [...(page < lastPage ? [link(page + 1, "next")] : []), link(lastPage, "last")].join(", "),
      "x-total-count": String(total),
    },
  );
}

export async function createUser(call: Call): Promise<AuthReply> {
  await authorize(call, true);
  const body = readBody(call);
  const email = typeof body["email"] === "string" ? body["email"].toLowerCase() : "";
  if (email === "") {
    throw new AuthError(400, "validation_failed", "Cannot create a user without either an email or phone");
  }
  const password = typeof body["password"] === "string" && body["password"] !== "" ? body["password"] : randomUUID();
  const appMetadata = readObject(body, "app_metadata");
  const data = readObject(body, "user_metadata");
  const { sql } = call;
  const user = await sql.begin(async (transaction) => {
    const [existing] = await transaction`select from auth.users where email = ${email} and not is_sso_user`;
    if (existing) {
      throw new AuthError(422, "email_exists", "A user with this email address has already been registered");
    }
    const created = await insertUser(transaction, { email, password, provider: "email", data });
    // It does not read the user again here, so it does not know what a trigger has added.
    created.raw_app_meta_data = { provider: "email", providers: ["email"] };
    await insertIdentity(transaction, created, "email", { sub: created.id, email });
    await audit(transaction, "user_signedup", created);
    if (appMetadata) await updateAppMetadata(transaction, created, appMetadata);
    if (body["email_confirm"] === true) await confirmEmail(transaction, created);
    return created;
  });
  return reply(userJson(user, await identitiesOf(sql, user)));
}

export async function readUser(call: Call): Promise<AuthReply> {
  const user = await findUser(call);
  return reply(userJson(user, await identitiesOf(call.sql, user)));
}

export async function updateUser(call: Call): Promise<AuthReply> {
  const { sql, skipWrite } = call;
  const user = await findUser(call);
  const body = readBody(call);
  const appChanges = readObject(body, "app_metadata");
  const userChanges = readObject(body, "user_metadata");
  if (appChanges) user.raw_app_meta_data = mergeMetadata(user.raw_app_meta_data ?? {}, appChanges);
  if (userChanges) user.raw_user_meta_data = mergeMetadata(user.raw_user_meta_data ?? {}, userChanges);
  user.updated_at = new Date();
  await call.beforeWrite(user.id);
  if (!skipWrite) {
    await sql.begin(async (transaction) => {
      if (appChanges) {
        await transaction`
          update auth.users
          set raw_app_meta_data = ${sql.json(user.raw_app_meta_data)}, updated_at = ${user.updated_at}
          where id = ${user.id}
        `;
      }
      if (userChanges) {
        await transaction`
          update auth.users
          set raw_user_meta_data = ${sql.json(user.raw_user_meta_data)}, updated_at = ${user.updated_at}
          where id = ${user.id}
        `;
      }
      await audit(transaction, "user_modified", user);
    });
  }
  return reply(userJson(user, await identitiesOf(sql, user)));
}

export async function deleteUser(call: Call): Promise<AuthReply> {
  const user = await findUser(call);
  const soft = call.request.body !== "" && readBody(call)["should_soft_delete"] === true;
  await call.sql.begin(async (transaction) => {
    await audit(transaction, "user_deleted", user);
    if (soft) {
      await transaction`
        update auth.users
        set
          email = encode(extensions.digest(email, 'sha256'), 'base64'),
          encrypted_password = '',
          raw_app_meta_data = '{}',
          raw_user_meta_data = '{}',
          deleted_at = coalesce(deleted_at, now()),
          updated_at = now()
        where id = ${user.id}
      `;
      await transaction`delete from auth.sessions where user_id = ${user.id}`;
    } else {
      await transaction`delete from auth.users where id = ${user.id}`;
    }
  });
  return reply({});
}

async function findUser(call: Call): Promise<UserRow> {
  await authorize(call, true);
  if (!uuid.test(call.id)) throw new AuthError(404, "validation_failed", "user_id must be an UUID");
  const [row] = await call.sql`select * from auth.users where id = ${call.id} and instance_id = ${nilId}`;
  if (!row) throw new AuthError(404, "user_not_found", "User not found");
  return await loadUser(call.sql, row, "Database error loading user");
}
