import type { Sql } from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { runAsSuperuser } from "../databases.ts";
import { findIntruders } from "../intruder-identities.ts";
import { type Hit, intrude } from "../intruder.ts";
import {
  type Isolated,
  type IsolatedApplication,
  isolateApplication,
  isolatedApplications,
  isUnnamed,
  openToEveryoneSignedIn,
} from "../isolated-applications.ts";

/** The intruder needs a superuser to set the scene. What it tries it does as the roles of the API. */
const connectAsSuperuser = (database: string) =>
  connect(databaseUrl(inject("databasePort"), { database, role: "supabase_admin" }));

/** Who used what, in which ways, to reach what: a line each. */
function summarize(hits: Hit[]): string[] {
  const ways = new Map<string, Set<string>>();
  for (const { role, through, way, reached } of hits) {
    for (const table of reached.length > 0 ? reached : [through]) {
      const line = `${role} through ${through}${table === through ? "" : ` in ${table}`}`;
      ways.set(line, (ways.get(line) ?? new Set()).add(way));
    }
  }
  return [...ways].map(([line, names]) => `${line}: ${[...names].sort().join(", ")}`).sort();
}
