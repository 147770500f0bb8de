import { connect } from "../../local/databases.ts";
import { databaseUrl } from "../../local/postgres.ts";
import { testKilledPushes } from "./push.ts";

testKilledPushes("a push whose session is terminated, with those of two that help", async ({ server, database }) => {
  const admin = connect(databaseUrl(server.port, { database: "template1", role: "supabase_admin" }));
  await admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${database}`;
  await admin.end();
}, { keepsStatistics: true, workers: 2 });
