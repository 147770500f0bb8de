import { randomBytes } from "node:crypto";
import { SignJWT } from "jose";

/** The keys of one stack. They are new at each start, so that no file has to hold them. */
export interface ApiKeys {
  jwtSecret: string;
  secretKey: string;
  publishableKey: string;
  /** The legacy keys: JWTs of the roles service_role and anon. */
  serviceRoleKey: string;
  anonKey: string;
  /** The JWT by which the gateway replaces each API key. */
  tokens: Map<string, string>;
}

export async function createKeys(): Promise<ApiKeys> {
  const jwtSecret = randomBytes(32).toString("base64url");
  const sign = async (role: string) =>
    await new SignJWT({ role })
      .setProtectedHeader({ alg: "HS256", typ: "JWT" })
      .setIssuer("org-id-migration")
      .setIssuedAt()
      .setExpirationTime("1y")
      .sign(new TextEncoder().encode(jwtSecret));
  const secretKey = `sb_secret_${randomBytes(18).toString("base64url")}`;
  const publishableKey = `sb_publishable_${randomBytes(18).toString("base64url")}`;
  const serviceRoleKey = await sign("service_role");
  const anonKey = await sign("anon");
  return {
    jwtSecret,
    secretKey,
    publishableKey,
    serviceRoleKey,
    anonKey,
    tokens: new Map([
      [secretKey, serviceRoleKey],
      [serviceRoleKey, serviceRoleKey],
      [publishableKey, anonKey],
      [anonKey, anonKey],
    ]),
  };
}
