import { UsageError } from "./command-line.ts";

/** Reads the connection string of a database: the option, else the environment. No error repeats it: it has a password. */
export function readDatabaseUrl(given: string | undefined, environment: Record<string, string | undefined>): string {
  const name = given === undefined ? "SUPABASE_DB_URL" : "--db-url";
  const text = (given ?? environment["SUPABASE_DB_URL"] ?? "").trim();
  if (text === "") {
    throw new UsageError("Cannot connect to a database: give --db-url, or set SUPABASE_DB_URL");
  }
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^postgres(ql)?:$/.test(url.protocol) || url.hostname === "") {
    throw new UsageError(
      `Cannot use ${name}: it is no connection string such as postgresql://postgres:<password>@db.<ref>.supabase.co:5432/postgres` +
        " (a password with special characters is to be percent-encoded)",
    );
  }
  return text;
}

/** The passwords in a connection string, as they are written and as they are meant: what no output may hold. */
export function secretsOf(url: string): string[] {
  const { password, searchParams } = new URL(url);
  const written = [password, searchParams.get("password") ?? ""].filter((secret) => secret !== "");
  return [...new Set([...written, ...written.map(decode)])];
}

/** Where the database is: host, port and name, and nothing else of the connection string. */
export function placeOf(url: string): { host: string; database: string } {
  const { host, pathname } = new URL(url);
  return { host, database: decode(pathname.slice(1)) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
