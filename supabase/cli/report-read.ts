import { placeOf } from "./database-url.ts";
import type { Ask } from "./report-database.ts";
import type { ReportDocument } from "./report-document.ts";
import { readBefore } from "./report-read-before.ts";
import { readTenancy } from "./report-read-tenancy.ts";

export interface Reading {
  url: string;
  /** The text of the preflight, for a database that has nothing of these migrations. */
  preflight(): string;
  skipRows: boolean;
}

/** What is read of every database alike. */
export type Common = Pick<
  ReportDocument,
  "database" | "host" | "version" | "takenAt" | "organizations" | "users" | "state"
>;

/** Reads all that the report says. */
export async function readReport(ask: Ask, { url, preflight, skipRows }: Reading): Promise<ReportDocument> {
  const [found] = await ask<Omit<Common, "host" | "organizations"> & { hasOrganizations: boolean }>(`
    select
      current_database() as database,
      current_setting('server_version') as version,
      clock_timestamp() as "takenAt",
      (select count(*) from auth.users where deleted_at is null) as users,
      to_regclass('public.organizations') is not null as "hasOrganizations",
      case when to_regclass('tenancy.plan') is null then 'not pushed' else 'not begun' end as state
  `);
  if (!found) throw new Error("Cannot read the database: it gave no answer");
  const { hasOrganizations, ...rest } = found;
  const common: Common = { ...rest, host: placeOf(url).host, organizations: undefined };
  if (hasOrganizations) {
    const [organizations] = await ask<{ count: number }>("select count(*) as count from public.organizations");
    common.organizations = organizations?.count;
  }
  return common.state === "not pushed"
    ? await readBefore(ask, common, preflight())
    : await readTenancy(ask, common, skipRows);
}
