/** Signing in, signing up and linking by the id token of an OpenID provider. */
import { createRemoteJWKSet, type JWTPayload, jwtVerify } from "jose";
import type { ISql } from "postgres";
import { AuthError, authorize, type AuthReply, type Call, readBody } from "./auth-call.ts";
import { loadUser, type UserRow } from "./auth-rows.ts";
import { startSession } from "./auth-tokens.ts";
import { confirmEmail, insertIdentity, insertUser, leaveAnonymity, reload, updateProviders } from "./auth-writes.ts";

/** What an id token says of a person. */
interface Person {
  sub: string;
  email: string;
  email_verified: boolean;
}

export async function signInByIdToken(call: Call): Promise<AuthReply> {
  const { id_token: idToken, issuer, client_id: audience, link_identity: link } = readBody(call);
  if (typeof issuer !== "string" || !call.idTokenIssuers.includes(issuer)) {
    throw new AuthError(400, "validation_failed", 'Custom OIDC provider "" not allowed');
  }
  const target = link === true ? String((await authorize(call, false))["sub"]) : undefined;
  const person = await readIdToken(String(idToken), issuer, String(audience));
  return await call.sql.begin(async (transaction) => {
    const user = target === undefined
      ? await findOrCreate(transaction, issuer, person)
      : await linkTo(transaction, target, issuer, person);
    return await startSession(call, transaction, user.id, "oauth");
  });
}

async function readIdToken(token: string, issuer: string, audience: string): Promise<Person> {
  try {
    const response = await fetch(`${issuer}/.well-known/openid-configuration`);
    const { jwks_uri: keys } = await response.json() as { jwks_uri: string };
    const { payload } = await jwtVerify<JWTPayload & Person>(token, createRemoteJWKSet(new URL(keys)), {
      issuer,
      audience,
    });
    return { sub: payload.sub, email: payload.email.toLowerCase(), email_verified: payload.email_verified };
  } catch (error) {
    throw new AuthError(400, "invalid request", `Bad ID token: ${(error as Error).message}`);
  }
}

async function findOrCreate(sql: ISql, issuer: string, person: Person): Promise<UserRow> {
  const [known] = await sql`
    select users.*
    from auth.identities
    join auth.users on users.id = identities.user_id
    where identities.provider = ${issuer} and identities.provider_id = ${person.sub}
  `;
  if (known) {
    const user = await loadUser(sql, known, "Database error loading user");
    await updateProviders(sql, user);
    return user;
  }
  const [sameAddress] = await sql`
    select * from auth.users where email = ${person.email} and email_confirmed_at is not null and not is_sso_user
  `;
  if (sameAddress && person.email_verified) {
    const user = await loadUser(sql, sameAddress, "Database error loading user");
    await insertIdentity(sql, user, issuer, { ...person });
    await updateProviders(sql, user);
    return user;
  }
  const user = await insertUser(sql, { email: person.email, provider: issuer, data: { ...person } });
  await insertIdentity(sql, user, issuer, { ...person });
  if (!person.email_verified) {
    throw new AuthError(422, "provider_email_needs_verification", `Unverified email with ${issuer}`);
  }
  await confirmEmail(sql, user);
  return user;
}

async function linkTo(sql: ISql, userId: string, issuer: string, person: Person): Promise<UserRow> {
  const [taken] = await sql`
    select from auth.identities where provider = ${issuer} and provider_id = ${person.sub}
  `;
  if (taken) throw new AuthError(422, "identity_already_exists", "Identity is already linked");
  const user = await reload(sql, userId);
  await insertIdentity(sql, user, issuer, { ...person });
  if (user.email === null) {
    await sql`update auth.users set email = ${person.email} where id = ${userId}`;
    await confirmEmail(sql, user);
    await leaveAnonymity(sql, user);
  }
  await updateProviders(sql, user);
  return user;
}
