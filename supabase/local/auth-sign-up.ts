/**
 * Signing up: by email, which a link confirms, by phone, which is confirmed at once, anonymously, and by invitation. No mail goes
 * out: the link's token is in auth.users, as the Auth server keeps it.
 */
import { randomBytes } from "node:crypto";
import { AuthError, authorize, type AuthReply, type Call, readBody, readObject, reply } from "./auth-call.ts";
import { identitiesOf, loadUser, nilId, userJson } from "./auth-rows.ts";
import { startSession } from "./auth-tokens.ts";
import { confirmEmail, insertIdentity, insertUser, leaveAnonymity, reload, updateProviders } from "./auth-writes.ts";

const newLinkToken = () => randomBytes(28).toString("hex");
const readText = (value: unknown) => typeof value === "string" ? value.toLowerCase() : "";

export async function signUp(call: Call): Promise<AuthReply> {
  const body = readBody(call);
  const email = readText(body["email"]);
  const phone = readText(body["phone"]);
  const data = readObject(body, "data");
  if (email === "" && phone === "") return await signUpAnonymously(call, data);
  const { password } = body;
  if (typeof password !== "string" || password === "") {
    throw new AuthError(400, "validation_failed", "Signup requires a valid password");
  }
  const { sql } = call;
  const [existing] = email === ""
    ? await sql`select confirmed_at from auth.users where phone = ${phone}`
    : await sql`select confirmed_at from auth.users where email = ${email} and not is_sso_user`;
  if (existing) throw new AuthError(422, "user_already_exists", "User already registered");
  if (email === "") {
    const user = await sql.begin(async (transaction) => {
      const inserted = await insertUser(transaction, { phone, password, provider: "phone", data });
      await insertIdentity(transaction, inserted, "phone", { sub: inserted.id });
      await transaction`update auth.users set phone_confirmed_at = now() where id = ${inserted.id}`;
      return inserted;
    });
    return await sql.begin(async (transaction) => await startSession(call, transaction, user.id, "password"));
  }
  const user = await sql.begin(async (transaction) => {
    const inserted = await insertUser(transaction, { email, password, provider: "email", data });
    await insertIdentity(transaction, inserted, "email", { sub: inserted.id, email });
    await transaction`
      update auth.users
      set confirmation_token = ${newLinkToken()}, confirmation_sent_at = now()
      where id = ${inserted.id}
    `;
    return inserted;
  });
  return reply(userJson(user, await identitiesOf(sql, user)));
}

async function signUpAnonymously(call: Call, data: ReturnType<typeof readObject>): Promise<AuthReply> {
  try {
    return await call.sql.begin(async (transaction) => {
      const user = await insertUser(transaction, { data });
      return await startSession(call, transaction, user.id, "anonymous");
    });
  } catch (error) {
    throw new AuthError(500, "unexpected_failure", "Database error creating anonymous user", error);
  }
}

export async function invite(call: Call): Promise<AuthReply> {
  await authorize(call, true);
  const body = readBody(call);
  const email = readText(body["email"]);
  const { sql } = call;
  const [existing] = await sql`select from auth.users where email = ${email} and not is_sso_user`;
  if (existing) {
    throw new AuthError(422, "email_exists", "A user with this email address has already been registered");
  }
  const user = await sql.begin(async (transaction) => {
    const inserted = await insertUser(transaction, { email, provider: "email", data: readObject(body, "data") });
    await insertIdentity(transaction, inserted, "email", { sub: inserted.id, email });
    await transaction`
      update auth.users
      set confirmation_token = ${newLinkToken()}, confirmation_sent_at = now(), invited_at = now()
      where id = ${inserted.id}
    `;
    return inserted;
  });
  return reply(userJson(user, await identitiesOf(sql, user)));
}

/** What a link in a mail does: it confirms the address, and signs the user in. */
export async function openLink(call: Call): Promise<AuthReply> {
  const { type, token_hash: hash } = readBody(call);
  if (typeof hash !== "string" || hash === "") {
    throw new AuthError(400, "validation_failed", "Verify requires either a token or a token hash");
  }
  if (type !== "signup" && type !== "invite" && type !== "email_change") {
    throw new AuthError(400, "validation_failed", "Invalid email verification type");
  }
  return await call.sql.begin(async (transaction) => {
    const [row] = type === "email_change"
      ? await transaction`select * from auth.users where email_change_token_new = ${hash}`
      : await transaction`select * from auth.users where confirmation_token = ${hash}`;
    if (!row) throw new AuthError(403, "otp_expired", "Email link is invalid or has expired");
    const user = await loadUser(transaction, row, "Database error finding user from email link");
    if (type === "email_change") {
      const email = row["email_change"] as string;
      await insertIdentity(transaction, user, "email", { sub: user.id, email, email_verified: true });
      await leaveAnonymity(transaction, user);
      await transaction`
        update auth.users set email = ${email}, email_change = '', email_change_token_new = '' where id = ${user.id}
      `;
    }
    await confirmEmail(transaction, user);
    await updateProviders(transaction, user);
    return await startSession(call, transaction, user.id, "otp");
  });
}

/**
 * Adds an email address to an anonymous user, for a link to confirm, or a phone number, confirmed at once. The stand-in changes
 * nothing else of one's own user.
 */
export async function updateOwnUser(call: Call): Promise<AuthReply> {
  const claims = await authorize(call, false);
  const body = readBody(call);
  const email = readText(body["email"]);
  const phone = readText(body["phone"]);
  const { sql } = call;
  const [row] = await sql`select * from auth.users where id = ${String(claims["sub"] ?? nilId)}`;
  if (!row) throw new AuthError(403, "user_not_found", "User from sub claim in JWT does not exist");
  const user = await loadUser(sql, row, "Database error loading user");
  if (!user.is_anonymous || (email === "") === (phone === "")) {
    throw new AuthError(501, "not_implemented", "Not in the stand-in");
  }
  if (email !== "") {
    await sql`
      update auth.users
      set email_change = ${email}, email_change_token_new = ${newLinkToken()}, email_change_sent_at = now()
      where id = ${user.id}
    `;
  } else {
    await sql.begin(async (transaction) => {
      await insertIdentity(transaction, user, "phone", { sub: user.id, phone, phone_verified: true });
      await transaction`update auth.users set phone = ${phone}, phone_confirmed_at = now() where id = ${user.id}`;
      await leaveAnonymity(transaction, user);
    });
  }
  return reply(userJson(await reload(sql, user.id), await identitiesOf(sql, user)));
}
