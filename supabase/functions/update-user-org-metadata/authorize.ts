import { verifyCredentials } from "@supabase/server/core";
import type { Config } from "./config.ts";
import { RequestError } from "./errors.ts";

/** Lets a request pass whose `apikey` header is one of the accepted keys. Throws otherwise. */
export async function authorize(
  request: Request,
  config: Pick<Config, "supabaseUrl" | "acceptedKeys">,
): Promise<void> {
  const { error } = await verifyCredentials(
    { token: null, apikey: request.headers.get("apikey") },
    {
      auth: "secret:*",
      env: { url: config.supabaseUrl, publishableKeys: {}, secretKeys: config.acceptedKeys, jwks: null },
    },
  );
  if (error) {
    throw new RequestError(401, "unauthorized", "Cannot run without a secret key of this project in the apikey header");
  }
}
