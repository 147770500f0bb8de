import { createServer } from "node:http";
import { exportJWK, generateKeyPair, SignJWT } from "jose";

/** An OpenID provider that gives id tokens to whoever asks. */
export interface Issuer {
  url: string;
  /** An id token for the client "contract", of the person whom the provider knows by this subject. */
  issue(subject: string, email: string): Promise<string>;
  close(): Promise<void>;
}

/** Starts a provider at this address, which is on 127.0.0.1, with new keys. */
export async function startIssuer(url: string): Promise<Issuer> {
  const { privateKey, publicKey } = await generateKeyPair("RS256");
  const answers: Record<string, unknown> = {
    "/.well-known/openid-configuration": {
      issuer: url,
      jwks_uri: `${url}/keys`,
      authorization_endpoint: `${url}/authorize`,
      token_endpoint: `${url}/token`,
      id_token_signing_alg_values_supported: ["RS256"],
    },
    "/keys": { keys: [{ ...await exportJWK(publicKey), kid: "contract", alg: "RS256", use: "sig" }] },
  };
  const server = createServer((request, response) => {
    const answer = answers[request.url ?? ""];
    response.writeHead(answer ? 200 : 404, { "content-type": "application/json" }).end(JSON.stringify(answer ?? {}));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(Number(new URL(url).port), "127.0.0.1", resolve);
  });
  return {
    url,
    issue: async (subject, email) =>
      await new SignJWT({ email, email_verified: true })
        .setProtectedHeader({ alg: "RS256", kid: "contract" })
        .setIssuer(url)
        .setAudience("contract")
        .setSubject(subject)
        .setIssuedAt()
        .setExpirationTime("5m")
        .sign(privateKey),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
