/** What the function takes from its environment. */
export interface Config {
  supabaseUrl: string;
  databaseUrl: string;
  /** The keys that open the function, by name: every secret key of the project, or, where it has none, the legacy service_role key. */
  acceptedKeys: Record<string, string>;
  /** The key with which the function calls the Auth server. */
  adminKey: string;
}

/**
 * Reads the environment that the platform gives every function.
 * Throws one error that names every variable that is missing or cannot be read, and no value.
 */
export function readConfig(environment: Record<string, string | undefined>): Config {
  const problems: string[] = [];
  const required = (name: string) => {
    const value = environment[name];
    if (!value) problems.push(`${name} is not set`);
    return value ?? "";
  };

  const supabaseUrl = required("SUPABASE_URL");
  const databaseUrl = required("SUPABASE_DB_URL");
  const secretKeys = readKeys(environment["SUPABASE_SECRET_KEYS"]);
  if (!secretKeys) problems.push("SUPABASE_SECRET_KEYS is not a JSON object of names and keys");
  const legacyKey = environment["SUPABASE_SERVICE_ROLE_KEY"];
  const acceptedKeys: Record<string, string> = { ...secretKeys };
  // It may have been disabled on the platform, which still gives it to every function.
  if (legacyKey && Object.keys(acceptedKeys).length === 0) acceptedKeys["service_role"] = legacyKey;
  const adminKey = acceptedKeys["default"] ?? Object.values(acceptedKeys)[0] ?? "";
  if (secretKeys && !adminKey) problems.push("neither SUPABASE_SECRET_KEYS nor SUPABASE_SERVICE_ROLE_KEY has a key");

  if (problems.length > 0) throw new Error(`Cannot start: ${problems.join("; ")}`);
  return { supabaseUrl, databaseUrl, acceptedKeys, adminKey };
}

/** The non-empty keys of a JSON object; none if the variable is not set; undefined if it is not such an object. */
function readKeys(json: string | undefined): Record<string, string> | undefined {
  if (!json) return {};
  let keys: unknown;
  try {
    keys = JSON.parse(json);
  } catch {
    return undefined;
  }
  if (typeof keys !== "object" || keys === null || Array.isArray(keys)) return undefined;
  const entries = Object.entries(keys as Record<string, unknown>);
  if (entries.some(([, key]) => typeof key !== "string")) return undefined;
  return Object.fromEntries(entries.filter(([, key]) => key !== "")) as Record<string, string>;
}
